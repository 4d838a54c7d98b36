"""The loss around weights against literal copies of the network and against parabolas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_landscape as reference
import torch
from model_cases import ADAPTERS
from reference_statistics import skewed_interval
from torch import nn

from spikewvat.adapters import adapter_for
from spikewvat.devices import AbsMax, Gaussian, Quantized
from spikewvat.devices.base import DeviceModel
from spikewvat.robustness import Evaluator
from spikewvat.robustness.landscape import (
    LossSurface,
    filter_normalised,
    plots,
    weight_histograms,
)
from spikewvat.serialisation import plain
from spikewvat.spiking.losses import rate_cross_entropy

MEASURES = {
    "lines": lambda around, **k: around.lines(Gaussian(0.2), lines=2, points=3, **k),
    "surface": lambda around, **k: around.surface(points=3, **k),
    "sharpness": lambda around, **k: around.sharpness(Gaussian(0.2), chips=2, ascent_points=2, **k),
}


def around(model, *batches, **options):
    return Evaluator(model, list(batches), **options).landscape


class Parabola(nn.Module):
    """Returns its weights: the loss is the sum of their squares, everything is known."""

    def __init__(self, weights):
        super().__init__()
        self.layer = nn.Linear(len(weights), 1, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([weights]))

    def forward(self, x):
        return self.layer(torch.eye(self.layer.in_features)).T.expand(len(x), -1)


def squares(output, labels):
    return output[0].square().sum()


class Shifted(DeviceModel):
    """Moves every weight by 1 in a direction that the seed chooses."""

    sigma = 1

    def program(self, weights, *, generator=None):
        """Draw one sign for each weight."""
        return {
            name: w + (torch.rand(w.shape, generator=generator) < 0.5).to(w) * 2 - 1
            for name, w in weights.items()
        }


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def a_case(name="snntorch-nested"):
    """Return a network, a batch, its adapter and its weights."""
    case = next(case for case in ADAPTERS if case.name == name)
    torch.manual_seed(0)
    model, x = case.make(), case.input()
    count = x.shape[1] if x.dim() in (3, 5) else x.shape[0]
    adapter = adapter_for(model)
    held = {k: w.detach().clone() for k, w in adapter.synaptic_weights(model).items()}
    return model, (x, torch.arange(count) % 3), adapter, held


@pytest.mark.parametrize("name", ["snntorch-nested", "slayer-fc", "torch-fc"])
def test_lines_are_those_of_copies(name):
    model, batch, adapter, held = a_case(name)
    device = Gaussian(0.3)
    found = around(model, batch).lines(device, lines=3, points=5, seed=1)
    assert found.positions == (-1, -0.5, 0, 0.5, 1)
    assert found.magnitudes == pytest.approx((-0.3, -0.15, 0, 0.15, 0.3))
    for i, seed in enumerate(found.seeds):
        direction = device.errors(held, generator=generator(seed))
        for j, t in enumerate(found.positions):
            there = reference.along(held, [(t, direction)])
            expected = reference.evaluated(
                model, batch, rate_cross_entropy, there, reset=adapter.reset_state
            )
            assert float(found.accuracies[i, j]) == expected[0]
            assert float(found.losses[i, j]) == pytest.approx(expected[1], rel=1e-5)
    assert found.losses[:, 2].tolist() == [found.clean_loss] * 3
    assert found.images == len(batch[1])
    assert len(found.losses.unique()) > 2  # not a network that nothing moves


def test_lines_lead_to_the_chips_of_the_same_generator():
    model, batch, _, _ = a_case("slayer-fc")
    device = Gaussian(0.3)
    test = Evaluator(model, [batch], loss=rate_cross_entropy)
    lines = test.landscape.lines(device, lines=4)
    chips = test.chips(device, chips=4)
    assert lines.seeds == chips.seeds
    assert lines.losses[:, -1].tolist() == chips.losses.tolist()
    assert lines.accuracies[:, -1].tolist() == chips.accuracies.tolist()


def test_half_the_way_is_half_the_variation():
    model, batch, _, _ = a_case()
    large = around(model, batch).lines(Gaussian(0.2), lines=2, points=5)
    small = around(model, batch).lines(Gaussian(0.1), lines=2, points=5)
    torch.testing.assert_close(large.losses[:, 3], small.losses[:, 4])
    torch.testing.assert_close(large.losses[:, 1], small.losses[:, 0])


def test_a_parabola_along_lines():
    model = Parabola([3.0, 4.0])
    batch = (torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    found = around(model, batch, loss=squares).lines(Shifted(), lines=6, points=4, seed=1)
    for seed, line in zip(found.seeds, found.losses):
        a, b = (Shifted().program({"w": torch.zeros(2)}, generator=generator(seed))["w"]).tolist()
        assert line.tolist() == pytest.approx(
            [(3 + t * a) ** 2 + (4 + t * b) ** 2 for t in (-1, -1 / 3, 1 / 3, 1)], rel=1e-5
        )
    # Both ends of a line together: the linear part drops out, two squares of 1 are left.
    assert found.increase == pytest.approx(2)
    assert found.clean_loss == 25
    assert "6 lines of" in str(found)
    assert "loss 25 without variation, +2 at the ends" in str(found)


def test_a_parabola_is_as_sharp_as_it_is():
    model = Parabola([3.0, 4.0])
    batch = (torch.zeros(1, 2), torch.zeros(1, dtype=torch.long))
    found = around(model, batch, loss=squares).sharpness(
        Shifted(), chips=8, ascent_points=2, seed=1
    )
    increases = [
        float((torch.tensor([3.0, 4.0]) + step).square().sum()) - 25
        for seed in found.report.seeds
        for step in [Shifted().program({"w": torch.zeros(2)}, generator=generator(seed))["w"]]
    ]
    assert found.increases.tolist() == pytest.approx(increases)
    assert found.expected == pytest.approx(sum(increases) / 8)
    assert tuple(found.ci95) == pytest.approx(skewed_interval(increases), rel=1e-5)
    assert found.worst == pytest.approx(max(increases)) == pytest.approx(16)
    # The gradient points outwards: from length 5 to 5 + sqrt(2).
    assert found.ascent_positions == (0.5, 1.0)
    lengths = [5 + math.sqrt(2) / 2, 5 + math.sqrt(2)]
    assert found.ascent_losses.tolist() == pytest.approx([length**2 for length in lengths])
    assert found.ascent == pytest.approx((5 + math.sqrt(2)) ** 2 - 25)
    assert "+16.1 along the steepest ascent" in str(found)


def test_the_ascent_is_that_of_a_copy():
    model, batch, adapter, held = a_case("slayer-fc")
    device = Gaussian(0.1, range=AbsMax())
    inputs, labels = batch
    # In two unequal batches, at every pass anew.
    loader = [(inputs[:, :1], labels[:1]), (inputs[:, 1:], labels[1:])]
    found = around(model, *loader, cache_bytes=0).sharpness(device, chips=1, ascent_points=3)
    live = adapter.synaptic_weights(model)
    adapter.reset_state(model)
    grads = torch.autograd.grad(rate_cross_entropy(model.eval()(inputs), labels), live.values())
    assert all(grad.any() for grad in grads)
    lengths = {k: 0.1 * w.abs().max() * math.sqrt(w.numel()) for k, w in held.items()}
    step = reference.steepest(held, dict(zip(held, grads)), lengths)
    for place, accuracy, loss in zip(
        found.ascent_positions, found.ascent_accuracies, found.ascent_losses
    ):
        there = reference.along(held, [(place, step)])
        expected = reference.evaluated(
            model, batch, rate_cross_entropy, there, reset=adapter.reset_state
        )
        assert (float(accuracy), float(loss)) == pytest.approx(expected, rel=1e-5)


def test_no_ascent_takes_no_gradient():
    model, batch, adapter, _ = a_case()
    for weight in adapter.synaptic_weights(model).values():
        weight.requires_grad_(False)
    found = around(model, batch).sharpness(Gaussian(0.1), chips=1, ascent_points=0)
    assert found.ascent is None
    assert "ascent" not in str(found)
    assert "worst" not in str(found)


def test_a_plane_is_that_of_copies():
    model, batch, adapter, held = a_case("snntorch-vector-v")
    found = around(model, batch).surface(points=3, reach=0.5, seed=1)
    assert found.positions == (-0.5, 0, 0.5)
    one, other = (reference.filter_normalised(held, seed) for seed in found.seeds)
    for i, a in enumerate(found.positions):
        for j, b in enumerate(found.positions):
            there = reference.along(held, [(a, one), (b, other)])
            expected = reference.evaluated(
                model, batch, rate_cross_entropy, there, reset=adapter.reset_state
            )
            assert float(found.accuracies[i, j]) == expected[0]
            assert float(found.losses[i, j]) == pytest.approx(expected[1], rel=1e-5)
    assert float(found.losses[1, 1]) == found.clean_loss
    assert "3 x 3 positions up to 0.5 filter norms away" in str(found)


def test_every_filter_keeps_its_length():
    weights = {
        "conv": torch.randn(4, 3, 2, 2) * torch.tensor([0.0, 1, 10, 100]).view(4, 1, 1, 1),
        "vector": torch.randn(5),
        "scalar": torch.tensor(-2.0),
        "half": torch.randn(2, 8).bfloat16(),
    }
    direction = filter_normalised(weights, generator=generator())
    norms = direction["conv"].flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, weights["conv"].flatten(1).norm(dim=1))
    assert direction["conv"][0].abs().max() == 0
    torch.testing.assert_close(direction["vector"].norm(), weights["vector"].norm())
    assert abs(float(direction["scalar"])) == 2
    assert direction["half"].dtype == torch.bfloat16
    again = filter_normalised(weights, generator=generator())
    assert all(torch.equal(direction[name], again[name]) for name in weights)


@pytest.mark.parametrize(
    "case", [c for c in ADAPTERS if c.name != "torch-conv-bn"], ids=lambda case: case.name
)
def test_everything_is_as_before(case):
    torch.manual_seed(0)
    model, x = case.make(), case.input()
    count = x.shape[1] if x.dim() in (3, 5) else x.shape[0]
    batches = [(x, torch.arange(count) % 3)] * 2
    next(iter(model.parameters())).grad = torch.ones_like(next(iter(model.parameters())))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    for measure in MEASURES.values():
        found = measure(around(model, *batches))
        assert math.isfinite(found.clean_loss)
    grads = [p.grad for p in model.parameters()]
    assert bool((grads[0] == 1).all())
    assert all(grad is None for grad in grads[1:])
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict()
    for name in adapter_for(model).synaptic_weights(model):
        assert torch.equal(after[name], state[name])


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
@pytest.mark.parametrize("calls", [1, 2, 4])
def test_weights_come_back_whatever_is_raised(measure, calls):
    model, batch, adapter, held = a_case()
    model.train()
    left = iter(range(calls))

    def failing(output, labels):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return rate_cross_entropy(output, labels)

    with pytest.raises(KeyboardInterrupt):
        measure(around(model, batch, loss=failing))
    assert model.training
    live = adapter.synaptic_weights(model)
    assert all(torch.equal(live[name], held[name]) for name in held)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_the_same_seed_is_the_same_landscape(measure):
    model, batch, _, _ = a_case()
    calls = []
    one = measure(around(model, batch), progress=lambda *c: calls.append(c))
    two = measure(around(model, batch), seed=0)
    assert plain(one) == plain(two)
    assert plain(one) != plain(measure(around(model, batch), seed=2))
    assert [done for done, _, _ in calls] == list(range(1, calls[0][1] + 1))


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_landscapes_survive_a_file(measure, through_a_file):
    model, batch, _, _ = a_case()
    found = measure(around(model, batch))
    again = through_a_file(found)
    assert plain(again) == plain(found)
    assert str(again) == str(found)


def test_a_loss_that_is_not_finite_is_null(through_a_file):
    model, batch, _, _ = a_case()
    found = around(model, batch, loss=lambda out, y: out.sum() + math.inf).surface(points=2)
    assert plain(found)["losses"] == [[None, None], [None, None]]
    again = through_a_file(found)
    assert again.losses.isnan().all()
    assert math.isnan(again.clean_loss)


def test_histograms_are_those_of_numpy(through_a_file):
    model, _, _, held = a_case("snntorch-cnn")
    found = weight_histograms(model, bins=7)
    assert [layer.name for layer in found] == list(held)
    for layer, weight in zip(found, held.values()):
        values = weight.double().numpy().ravel()
        counts, edges = np.histogram(values, 7)
        assert layer.counts == tuple(counts)
        assert layer.edges == pytest.approx(tuple(edges))
        assert (layer.mean, layer.std) == pytest.approx((values.mean(), values.std()))
        z = (values - values.mean()) / values.std()
        assert layer.kurtosis == pytest.approx((z**4).mean() - 3)
        assert np.sum(layer.density * np.diff(layer.edges)) == pytest.approx(1)
        assert through_a_file(layer) == layer
        assert str(layer).startswith(f"{layer.name}: {weight.numel()} weights")


def test_larger_layers_have_more_bins():
    weights = {"a": torch.randn(30), "b": torch.randn(1000), "c": torch.randn(2_000_000)}
    found = weight_histograms(nn.Identity(), weights=weights)
    assert [len(layer.counts) for layer in found] == [7, 20, 200]


def test_equal_weights_have_no_kurtosis(through_a_file):
    (layer,) = weight_histograms(nn.Identity(), weights={"w": torch.ones(3), "e": torch.ones(0)})
    assert math.isnan(layer.kurtosis)
    again = through_a_file(layer)
    assert math.isnan(again.kurtosis)
    assert str(again) == str(layer)


def test_impossible_values():
    model, batch, adapter, _ = a_case()
    test = around(model, batch)
    with pytest.raises(ValueError, match="lines must be at least 1, got 0"):
        test.lines(Gaussian(0.1), lines=0)
    with pytest.raises(ValueError, match="points must be at least 2, got 1"):
        test.lines(Gaussian(0.1), points=1)
    with pytest.raises(ValueError, match="points must be at least 2, got 0"):
        test.surface(points=0)
    with pytest.raises(ValueError, match="reach must be a finite number above 0, got -1"):
        test.surface(reach=-1)
    with pytest.raises(ValueError, match="chips must be a whole number of at least 1, got 0"):
        test.sharpness(Gaussian(0.1), chips=0)
    with pytest.raises(ValueError, match="ascent_points must be at least 0, got -1"):
        test.sharpness(Gaussian(0.1), ascent_points=-1)
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        weight_histograms(model, bins=0)
    for measure in (test.lines, test.sharpness):
        with pytest.raises(TypeError, match=r"device must be a device model .* got 0\.1"):
            measure(0.1)
    for measure in MEASURES.values():
        with pytest.raises(ValueError, match="the loader yields no images"):
            measure(around(model))
    with torch.no_grad():
        adapter.synaptic_weights(model)["layers.1.0.weight"].fill_(math.nan)
    with pytest.raises(ValueError, match="weight that is not finite: 'layers.1.0.weight'"):
        weight_histograms(model)
    with pytest.raises(ValueError, match="weight that is not finite: 'layers.1.0.weight'"):
        test.surface()


def test_no_gradient_to_ascend():
    model, batch, adapter, _ = a_case()
    with pytest.raises(ValueError, match="the loss has no gradient .* leave out the ascent"):
        test = around(model, batch, loss=lambda out, labels: out.sum().detach())
        test.sharpness(Gaussian(0.1), chips=1)
    adapter.synaptic_weights(model)["layers.1.0.weight"].requires_grad_(False)
    with pytest.raises(ValueError, match=r"weights 'layers\.1\.0\.weight' are frozen, expected"):
        around(model, batch).sharpness(Gaussian(0.1), chips=1)


def test_a_device_without_a_size():
    model, batch, _, _ = a_case()
    found = around(model, batch).lines(Quantized(bits=2), lines=1, points=3)
    assert found.sigma is None
    assert found.magnitudes == found.positions == (-1, 0, 1)
    (axes, _) = plots.draw_lines({"sgd": found}).axes
    assert axes.get_xlabel() == "place (1: chip)"


def test_pictures_of_lines():
    model, batch, _, _ = a_case()
    curves = {
        name: around(model, batch).lines(Gaussian(0.2), lines=3, points=5, seed=i)
        for i, name in enumerate(["sgd", "wvat"])
    }
    losses, accuracies = plots.draw_lines(curves, title="Digits").axes
    for name, line in zip(curves, losses.get_lines()):
        assert line.get_label() == name
        assert list(line.get_xdata()) == pytest.approx([-20, -10, 0, 10, 20])
        assert list(line.get_ydata()) == curves[name].losses.mean(0).tolist()
    band = losses.collections[0].get_paths()[0].vertices
    left = band[np.isclose(band[:, 0], -20), 1]
    extremes = curves["sgd"].losses[:, 0]
    assert (left.min(), left.max()) == (float(extremes.min()), float(extremes.max()))
    assert len(accuracies.get_lines()) == 2
    assert {text.get_text() for text in accuracies.texts} == {"sgd", "wvat"}
    more = plots.draw_lines(dict.fromkeys("abcd", curves["sgd"])).axes
    assert [len(axes.collections) for axes in more] == [3, 3, 1, 1]  # no more bands in a panel
    assert more[0].get_ylim() == more[2].get_ylim()
    with pytest.raises(ValueError, match="there are no curves to draw"):
        plots.draw_lines({})


def test_pictures_of_planes():
    def plane(scale):
        places = torch.linspace(-1, 1, 5).double()
        losses = scale * (places[:, None].square() + 0.1 * places[None, :].square())
        return LossSurface((1, 2), tuple(places.tolist()), losses, losses, 0.0, 0.0, 10)

    figure = plots.draw_surfaces(
        {"a": plane(1.0), "b": plane(2.0), "c": plane(3.0), "d": plane(4.0)}
    )
    *panels, bar = [axes for axes in figure.axes if axes.get_visible() and axes.axison]
    assert [axes.get_title() for axes in panels] == ["a", "b", "c", "d"]
    assert bar.get_ylim() == pytest.approx((0, 4.4))
    # Steeper along the first direction, which goes to the right.
    outer = panels[3].collections[0]
    assert outer.get_array().min() >= 0
    lowest = outer.get_paths()[0].vertices
    assert np.ptp(lowest[:, 0]) < np.ptp(lowest[:, 1])
    nothing = LossSurface(
        (1, 2), (0.0, 1.0), torch.full((2, 2), math.nan), torch.zeros(2, 2), 0, 0, 1
    )
    with pytest.raises(ValueError, match="there are no finite losses to draw"):
        plots.draw_surfaces({"a": nothing})


def test_pictures_of_weights():
    model, _, _, held = a_case("snntorch-cnn")
    layers = weight_histograms(model, bins=5)
    figure = plots.draw_histograms({"sgd": layers, "wvat": layers[:2]})
    *shown, empty = figure.axes
    assert [axes.get_title() for axes in shown] == list(held)
    assert [len(axes.patches) for axes in shown] == [2, 2, 1]
    assert not empty.axison
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["sgd", "wvat"]
    assert shown[0].get_xlabel().replace("\n", " ") == (
        f"weight (std {layers[0].std:.3g}, {layers[0].std:.3g})"
    )
    drawn = figure.axes[0].patches[0].get_data()
    assert tuple(drawn.values) == layers[0].density
    with pytest.raises(ValueError, match="there are no layers to draw"):
        plots.draw_histograms({"sgd": []})
