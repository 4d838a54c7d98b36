"""The crossbar: a literal version of it, a circuit, every kind of network, training inside."""

from __future__ import annotations

import copy
import math
import re
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from model_cases import ADAPTERS
from reference_crossbar import patches, product, wire_losses
from spread import spread
from test_calibration import loader, net, seeded
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from spikewvat import WVAT, BiasTrim, Chip, Crossbar, Evaluator, Gaussian
from spikewvat.adapters import adapter_for
from spikewvat.devices import Ideal, ReadNoise
from spikewvat.errors import RecipeError, UnsupportedModelError
from spikewvat.lab.recipes.crossbars import read_crossbar
from spikewvat.robustness.corruptions import ReadNoise as ReadCorruption
from spikewvat.robustness.corruptions import corrupt
from spikewvat.robustness.crossbar.tiles import Product, dropped
from spikewvat.robustness.draws import Draws
from spikewvat.spiking.events import EventLinear
from spikewvat.spiking.pooled import PooledConv2d
from spikewvat.weights import perturbed, replaced

SETTINGS = [
    Crossbar(rows=7, columns=16, adc_bits=5, adc_range=3.0),
    Crossbar(rows=7, columns=3, adc_bits=5, adc_range=3.0, offset=True),
    Crossbar(rows=5, columns=8, adc_bits=6, adc_range=3.1, slices=3, cell_bits=2),
    Crossbar(rows=7, columns=8, adc_bits=6, adc_range=6.3, slices=2, cell_bits=2, offset=True),
    Crossbar(rows=9, adc_bits=7, adc_range=4.0, ir_drop=0.01),
    Crossbar(rows=7, adc_bits=6, adc_range=3.0, ir_drop=0.03, slices=5, cell_bits=1, offset=True),
    Crossbar(rows=7, adc_bits=6, adc_range=3.0, dac_bits=4),
    Crossbar(rows=4, adc_bits=None, adc_range=0.8),
]
IDEAL = Crossbar(rows=3, adc_bits=None, adc_range=math.inf)


def spikes(*shape, seed=3, share=0.5):
    return (torch.rand(shape, generator=seeded(seed)) < share).double()


def made(layer):
    """Return a layer with weights and biases that depend on nothing else."""
    for number, parameter in enumerate(layer.parameters()):
        nn.init.normal_(parameter, generator=seeded(number))
    return layer.double()


def literal(weight, bias, crossbar, vectors):
    """Return outputs [vectors, out], vector by vector."""
    rows = weight.flatten(1).tolist()
    found = [product(rows, v, crossbar, float(crossbar.adc_range)) for v in vectors]
    return torch.tensor(found, dtype=torch.float64) + bias.detach()


@spread("crossbar, analog", SETTINGS, [False, True], each=2)
def test_a_matrix_product_is_that_of_every_tile_slice_and_column(crossbar, analog):
    layer, x = made(nn.Linear(17, 5)), spikes(2, 4, 17) * 0.7
    x[0, 1] = 0  # no spike at all
    if analog:
        x = x * torch.rand(x.shape, generator=seeded(1)).double()
    with torch.no_grad(), crossbar.around(layer):
        found = layer(x)
    expected = literal(layer.weight, layer.bias, crossbar, x.flatten(0, 1).tolist())
    torch.testing.assert_close(found.flatten(0, 1), expected)


@pytest.mark.parametrize("crossbar", SETTINGS, ids=range(len(SETTINGS)))
def test_a_convolution_is_a_matrix_product_of_patches(crossbar):
    layer, images = made(nn.Conv2d(3, 4, 3, stride=2, padding=1)), spikes(2, 3, 7, 5)
    images[:, :, ::2, ::2] = 1  # in every patch: the height of a vector is that of the image
    with torch.no_grad(), crossbar.around(layer):
        found = layer(images)
    vectors = [patch for image in images.tolist() for patch in patches(image, 3, 2, 1)]
    expected = literal(layer.weight, layer.bias, crossbar, vectors)
    torch.testing.assert_close(found.movedim(1, -1).flatten(0, 2), expected)


@pytest.mark.parametrize("crossbar", SETTINGS[:4], ids=range(4))
def test_groups_of_channels_have_tiles_of_their_own(crossbar):
    layer, images = made(nn.Conv2d(4, 6, 3, groups=2)), spikes(2, 4, 5, 5)
    with torch.no_grad(), crossbar.around(layer):
        found = layer(images)
    for group in range(2):
        part, own = images[:, 2 * group : 2 * group + 2], slice(3 * group, 3 * group + 3)
        alone = nn.Conv2d(2, 3, 3).double()
        alone.load_state_dict({"weight": layer.weight[own], "bias": layer.bias[own]})
        unit = {"weight": float(layer.weight.detach().abs().max())}
        with torch.no_grad(), crossbar.around(alone, largest=unit):
            torch.testing.assert_close(found[:, own], alone(part))


def test_by_hand():
    """One tile of two rows, one of one; converters with steps of 0.5 from -1.5 to 1.5."""
    layer = nn.Linear(3, 2, bias=False)
    layer.weight.data = torch.tensor([[2.0, 0.6, -1.0], [0.4, -2.0, 1.4]])  # units of 2
    x = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    with torch.no_grad(), Crossbar(rows=2, adc_bits=3, adc_range=1.5).around(layer):
        # Sums 1.3, -0.5; 0.2 - 1 = -0.8, 0.7: 1.5 - 0.5 and -1 + 0.5. Then 0.3, 0; -1, 0.
        assert layer(x).tolist() == [[2.0, -1.0], [1.0, -2.0]]
    sliced = Crossbar(rows=3, adc_bits=None, adc_range=math.inf, slices=2, cell_bits=1)
    with torch.no_grad(), sliced.around(layer):
        # Numbers of two bits, 3 for the largest: 3, 1, -2 (1.5 to even); 1, -3, 2.
        expected = torch.tensor([[2.0, 0.0], [1.0, -3.0]]) * 2 / 3
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("wire", [1e-5, 1e-4])
def test_the_drop_is_that_of_a_circuit(wire):
    """A column of 64 cells between rows at 1 V and a converter at 0 V, solved by Kirchhoff."""
    cells = torch.rand(1, 64, generator=seeded(1)).double()
    for share in (1.0, 0.5):
        x = spikes(1, 64, share=share)
        ideal = float((cells * x).sum())
        lost = ideal - wire_losses(cells[0].tolist(), x[0].tolist(), wire)
        found = float(dropped(Product(functional.linear), x, cells, 0, 64, wire))
        assert found == pytest.approx(lost, rel=0.1)
        assert lost > 0.0004 * ideal
    alone = torch.eye(64).double()[-1:]  # not evenly: all current from the far end
    lost = float(cells[0, -1]) - wire_losses(cells[0].tolist(), alone[0].tolist(), wire)
    found = float(dropped(Product(functional.linear), alone, cells, 0, 64, wire))
    assert found == pytest.approx(lost / 2, rel=0.05)


def test_more_spikes_lose_more():
    layer, drop = nn.Linear(100, 1, bias=False), Crossbar(adc_bits=None, ir_drop=1e-4)
    nn.init.ones_(layer.weight)
    x = torch.ones(100, 100).tril()
    with torch.no_grad(), Crossbar.around(drop, layer):
        lost = 1 - torch.div(layer(x.flip(1))[:12, 0], x.sum(1)[:12])
    assert bool((lost.diff() > 0).all())


@pytest.mark.parametrize("offset", [False, True])
def test_exact_bits_are_just_enough(offset):
    made_of = {"slices": 2, "cell_bits": 2, "offset": offset, "rows": 20}
    bits = Crossbar(**made_of).exact_bits()
    layer = nn.Linear(20, 1, bias=False).double()
    nn.init.ones_(layer.weight)
    x = torch.ones(1, 20).double()
    for number, exact in ((bits, True), (bits - 1, False)):
        levels = 2**number - 1 if offset else 2 ** (number - 1) - 1
        crossbar = Crossbar(adc_bits=number, adc_range=levels / 3, **made_of)
        with torch.no_grad(), crossbar.around(layer):
            assert (abs(float(layer(x)) - 20) < 1e-9) == exact
    assert Crossbar().exact_bits() is None


def test_spikes_of_any_height_need_no_converter():
    layer, x = made(nn.Linear(9, 4)), spikes(5, 9)
    plain, coarse = Crossbar(adc_bits=6), Crossbar(adc_bits=6, dac_bits=2)
    outputs = []
    for crossbar, height in ((plain, 1.0), (coarse, 1.0), (coarse, 0.3)):
        with torch.no_grad(), crossbar.around(layer) as array:
            outputs.append((layer(x * height) - layer.bias) / height)
        assert "spikes" in str(array)
        assert "DAC" not in str(array)
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(outputs[0], outputs[2])
    with torch.no_grad(), coarse.around(layer) as array:
        layer(x * torch.rand(x.shape, generator=seeded(1)).double())
    assert "no spikes: needs a DAC" in str(array)


def test_noise_has_the_size_it_says_and_comes_from_the_seed():
    layer = made(nn.Linear(6, 2, bias=False))
    x, unit = torch.ones(20_000, 6).double(), float(layer.weight.detach().abs().max())
    before = torch.get_rng_state()

    def deviations(seed=0, **kw):
        with torch.no_grad(), Crossbar(adc_bits=None, **kw).around(layer, generator=seeded(seed)):
            return layer(x) - functional.linear(x, layer.weight)

    out = deviations(output_noise=0.2, rows=4)  # two tiles
    torch.testing.assert_close(
        out.std(0), torch.full((2,), 0.2 * unit * 2**0.5).double(), rtol=0.03, atol=0
    )
    assert torch.equal(out, deviations(output_noise=0.2, rows=4))
    assert not torch.equal(out, deviations(1, output_noise=0.2, rows=4))
    rows = deviations(input_noise=0.1)
    torch.testing.assert_close(rows.std(0), 0.1 * layer.weight.norm(dim=1), rtol=0.03, atol=0)
    shared = torch.corrcoef(rows.T)[0, 1]  # one voltage for all columns
    expected = functional.cosine_similarity(*layer.weight.detach(), dim=0)
    assert float(shared) == pytest.approx(float(expected), abs=0.03)
    offset = deviations(output_noise=0.2, offset=True, columns=3)  # a reference for both
    assert float(torch.corrcoef(offset.T)[0, 1]) == pytest.approx(0.5, abs=0.03)
    apart = deviations(output_noise=0.2, offset=True, columns=2)  # a tile for each
    assert float(torch.corrcoef(apart.T)[0, 1]) == pytest.approx(0.0, abs=0.03)
    assert torch.equal(before, torch.get_rng_state())


def test_noise_of_the_rows_of_a_grouped_convolution():
    layer, images = made(nn.Conv1d(4, 2, 3, groups=2, bias=False)), torch.ones(5000, 4, 3).double()
    with torch.no_grad(), Crossbar(adc_bits=None, input_noise=0.1, rows=4).around(layer):
        found = layer(images).std(0).flatten()
    torch.testing.assert_close(found, 0.1 * layer.weight.flatten(1).norm(dim=1), rtol=0.04, atol=0)


REFUSED = {
    "torch-lstm": "layers.0.weight_hh_l0",
    "snntorch-one-to-one": "layers.1.V",
    "snntorch-vector-v": "layers.1.V",
}


@pytest.mark.parametrize("case", ADAPTERS, ids=lambda case: case.name)
def test_every_network_goes_through_whole_or_is_refused_by_name(case):
    model, x = case.make().eval(), case.input()
    adapter = adapter_for(model)
    before = copy.deepcopy(model.state_dict())

    def run():
        adapter.reset_state(model)
        output = case.run(model, x)
        adapter.reset_state(model)
        return output

    plain = run()
    if case.name in REFUSED:
        named = re.escape(repr(REFUSED[case.name]))
        with pytest.raises(UnsupportedModelError, match=named), IDEAL.around(model):
            run()
    else:
        with IDEAL.around(model) as array:
            torch.testing.assert_close(run(), plain, rtol=1e-4, atol=1e-5)
        assert [line.split()[0] for line in str(array).splitlines()[1:]] == list(case.synaptic)
        assert "not used yet" not in str(array)
        torch.manual_seed(0)
        with torch.no_grad(), Crossbar(adc_bits=None, output_noise=9.0).around(model):
            assert not torch.equal(run(), plain)
    adapter.reset_state(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(run(), plain)


def learnt(samples=60):
    """Return a network, and samples with the labels that it gives them."""
    model, data = net(), loader(samples=samples, seed=7)
    with torch.no_grad():
        return model, [(x, model(x).sum(0).argmax(1)) for x, _ in data]


class Borrows(nn.Module):
    """Uses the weight of a layer without calling it."""

    def __init__(self, use):
        super().__init__()
        self.fc, self.use = nn.Linear(4, 4), use

    def forward(self, x):
        return self.use(x, self.fc.weight)


def test_a_weight_that_is_used_outside_of_its_layer_is_found():
    model, x = Borrows(functional.linear), torch.ones(1, 4)
    with torch.no_grad(), Crossbar(adc_bits=2, adc_range=1e-3).around(model) as array:
        assert float(model(x).abs().max()) < 1e-2
    assert "fc.weight  4 x 4  1 tile  spikes" in str(array)


@pytest.mark.parametrize(
    ("use", "how"),
    [
        (lambda x, w: x @ w.T, "matmul"),
        (lambda x, w: torch.einsum("bi,oi->bo", x, w), "einsum"),
        (lambda x, w: functional.linear(x, w * 2), "mul"),
        (lambda x, w: functional.linear(w, x), "is the input"),
        (lambda x, w: functional.embedding(x.long(), w), "embedding"),
    ],
)
def test_another_use_of_a_weight_is_refused_by_name(use, how):
    model = Borrows(use)
    with (
        pytest.raises(UnsupportedModelError, match=rf"'fc.weight' .*{how}"),
        torch.no_grad(),
        Crossbar().around(model),
    ):
        model(torch.ones(1, 4))
    assert vars(model).get("forward") is None
    with torch.no_grad(), Crossbar().around(model, weights={}):
        model(torch.ones(1, 4))


@pytest.mark.parametrize(
    "layer", [nn.ConvTranspose2d(2, 2, 3), nn.LSTM(2, 2), nn.MultiheadAttention(4, 2)]
)
def test_layers_of_other_kinds_are_refused_by_name(layer):
    x = {nn.ConvTranspose2d: (1, 2, 4, 4), nn.LSTM: (3, 1, 2)}.get(type(layer), (2, 1, 4))
    model, inputs = nn.Sequential(layer), torch.ones(x)
    named = "|".join(name for name, _ in model.named_parameters())
    with pytest.raises(UnsupportedModelError, match=named), Crossbar().around(model):
        layer(*[inputs] * (3 if isinstance(layer, nn.MultiheadAttention) else 1))


def pruned(layer):
    return prune.l1_unstructured(layer, "weight", 0.5)


@pytest.mark.parametrize(
    "change", [pruned, parametrizations.weight_norm, parametrizations.orthogonal]
)
@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv1d(6, 4, 1)], ids=["fc", "conv"])
def test_weights_that_a_layer_computes_go_through(change, layer):
    model = nn.Sequential(change(copy.deepcopy(layer)))
    x = torch.ones(2, 6) if isinstance(layer, nn.Linear) else torch.ones(2, 6, 1)
    with torch.no_grad(), IDEAL.around(model) as array:
        torch.testing.assert_close(model(x), model[0](x))
    assert "0.weight  6 x 4  2 tiles  spikes" in str(array)
    with torch.no_grad(), Crossbar(adc_bits=2, adc_range=1e-3).around(model):
        assert float((model(x).squeeze() - model[0].bias).abs().max()) < 1e-2


def test_layers_called_one_by_one_and_events_go_through():
    fc, x = EventLinear(4, 3), spikes(5, 2, 4).float()
    conv = PooledConv2d(2, 3, 3, pool=2, padding=1)
    images = spikes(4, 2, 2, 6, 6).float()
    model = nn.ModuleList([fc, conv])
    plain = fc(x), conv(images)
    with torch.no_grad(), IDEAL.around(model):
        torch.testing.assert_close(fc(x), plain[0])
        torch.testing.assert_close(conv(images), plain[1])
        torch.testing.assert_close(conv(images.to_sparse()), plain[1])
    assert torch.equal(conv(images), plain[1])


def test_gradients_pass_straight_through():
    layer, x = made(nn.Conv2d(2, 3, 3)), spikes(1, 2, 6, 6).requires_grad_()
    grads = []
    for crossbar in (None, Crossbar(adc_bits=2, adc_range=0.5, output_noise=1.0, rows=5)):
        layer.zero_grad()
        x.grad = None
        if crossbar is None:
            (layer(x) * 3).sum().backward()
        else:
            with crossbar.around(layer):
                (layer(x) * 3).sum().backward()
        grads.append([x.grad.clone(), *(p.grad.clone() for p in layer.parameters())])
    for plain, through in zip(*grads, strict=True):
        torch.testing.assert_close(plain, through)


def test_wvat_trains_inside_and_weights_come_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    x = spikes(64, 8, seed=1).float()
    y = (x[:, 0] > x[:, 1]).long()
    crossbar = Crossbar(rows=4, adc_bits=4, adc_range=4.0, output_noise=0.2)
    wvat = WVAT(model, Gaussian(0.1), generator=seeded(0))
    optimizer, losses = torch.optim.Adam(model.parameters(), 0.01), []
    with crossbar.around(model):
        for _ in range(60):
            optimizer.zero_grad()
            loss = wvat.backward(lambda: functional.cross_entropy(model(x), y))
            before = copy.deepcopy(model.state_dict())
            losses.append(float(loss))
            with pytest.raises(KeyError):
                wvat.backward(lambda: model(x)[{}["raised inside"]])
            assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
            optimizer.step()
        other = copy.deepcopy(model)
        other(x)
    assert losses[-1] < 0.6 * losses[0]
    assert all("forward" not in vars(module) for module in model.modules())


def test_it_follows_the_weights_that_a_network_holds():
    model = net()
    live = adapter_for(model).synaptic_weights(model)
    double = {name: 2 * weight.detach() for name, weight in live.items()}
    layer, x = model.readout, torch.eye(live["readout.weight"].shape[1])[None]
    plain = layer(x)
    with torch.no_grad(), IDEAL.around(model):
        with replaced(live, double):
            torch.testing.assert_close(layer(x) - layer(0 * x), 2 * (plain - layer(0 * x)))
        with perturbed(live, double):
            torch.testing.assert_close(layer(x) - layer(0 * x), 3 * (plain - layer(0 * x)))


def test_one_crossbar_only():
    model = net()
    refused = pytest.raises(ValueError, match="inside of a crossbar already")
    with Crossbar().around(model), refused, Crossbar().around(model):
        pass
    with Crossbar().around(model):
        pass


@pytest.mark.parametrize("device", [Gaussian(0.05), Gaussian(0.05) >> ReadNoise(0.1)])
def test_chips_in_a_crossbar(device):
    """The same accuracies as weights of the seed in a crossbar of the seed."""
    crossbar = Crossbar(rows=4, adc_bits=3, adc_range=1.5, output_noise=0.3)
    model, data = learnt()
    chips = Evaluator(model, data).chips(Chip(device, crossbar=crossbar), chips=3)
    live = adapter_for(model).synaptic_weights(model)
    largest = {name: float(weight.detach().abs().max()) for name, weight in live.items()}
    plain = Evaluator(model, data).chips(device, chips=3)
    assert chips.device == repr(Chip(device, crossbar=crossbar))
    for seed, accuracy in zip(chips.seeds, chips.accuracies.tolist(), strict=True):
        weights = Gaussian(0.05).program(live, generator=seeded(seed))
        reads = device != Gaussian(0.05)
        with (
            torch.no_grad(),
            replaced(live, weights),
            crossbar.around(model, largest=largest),
            corrupt(model, ReadCorruption(0.1), seed=seed) if reads else nullcontext(),
            Draws().forked([]),
        ):
            right = 0
            for number, (x, y) in enumerate(data):
                with Draws().of(seed, number, []):
                    right += int((model(x).sum(0).argmax(1) == y).sum())
        assert accuracy == right / 60
    assert chips.mean < plain.mean
    assert torch.equal(plain.accuracies, Evaluator(model, data).chips(device, chips=3).accuracies)


def test_a_chip_that_has_shrunk_meets_coarse_converters():
    """The unit of the sums is the largest weight that was aimed at, not that which is left."""
    layer, x = nn.Linear(4, 1, bias=False), torch.ones(1, 4)
    nn.init.constant_(layer.weight, 0.1)
    for largest, expected in ((None, 0.4), ({"weight": 1.0}, 0.0)):
        crossbar = Crossbar(adc_bits=3, adc_range=4.0)
        with torch.no_grad(), crossbar.around(layer, largest=largest):
            assert float(layer(x)) == pytest.approx(expected)


def test_equal_chips_are_tested_once_and_calibration_sees_the_crossbar(monkeypatch):
    test, calls = Evaluator(*learnt()), []
    own = Crossbar.around
    monkeypatch.setattr(Crossbar, "around", lambda *a, **k: calls.append(1) or own(*a, **k))
    crossbar = Crossbar(adc_bits=3, adc_range=1.0)
    alone = test.chips(Chip(crossbar=crossbar), chips=4)
    assert (alone.std, len(calls)) == (0, 1)
    trimmed = test.chips(
        Chip(Ideal(), crossbar=crossbar),
        chips=1,
        calibrate=[BiasTrim(samples=30)],
        calibration=loader(samples=60),
    )
    assert torch.equal(trimmed.calibrated.before, alone.accuracies[:1])
    assert test.accuracy == test.chips(Ideal(), chips=1).mean


def test_ranges_are_chosen_where_sums_lose_least():
    model, data = net(), loader(samples=60)
    crossbar = Crossbar(adc_bits=4, rows=5)
    state = copy.deepcopy(model.state_dict())
    found = crossbar.calibrated(model, data)
    assert found == crossbar.calibrated(model, data)
    assert found.rows == 5
    assert set(found.adc_range) == set(adapter_for(model).synaptic_weights(model))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())

    spiking = model.spikes[0](model.first(data[0][0])).detach()

    def error(factor):
        bound = factor * found.adc_range["second.weight"]
        with torch.no_grad(), replace(crossbar, adc_range=bound).around(model.second):
            return float((model.second(spiking) - plain).norm())

    plain = model.second(spiking).detach()
    assert error(1.0) < min(error(0.5), error(2.0))
    refused = pytest.raises(ValueError, match="no entry for weight 'weight'")
    other = nn.Linear(2, 2)
    with refused, found.around(other) as array:
        assert "not used yet" in str(array)
        other(torch.ones(1, 2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rows": 0}, "rows must be a whole number of at least 1, got 0"),
        ({"rows": 2.5}, "rows must be a whole number"),
        ({"columns": 1}, "columns is 1, too few for one weight of 1 slices in pairs"),
        ({"adc_bits": 1}, "adc_bits must be a whole number from 2 to 16, got 1"),
        ({"dac_bits": 40}, "dac_bits must be a whole number from 2 to 16"),
        ({"adc_range": 0.0}, "adc_range must be above 0"),
        ({"adc_range": math.nan}, "adc_range must be above 0"),
        ({"adc_range": math.inf}, "finite with adc_bits"),
        ({"ir_drop": -1.0}, "ir_drop must be"),
        ({"output_noise": math.nan}, "output_noise must be"),
        ({"slices": 4}, "Pass cell_bits=2"),
        ({"slices": 9, "cell_bits": 2}, "slices x cell_bits must be a whole number from 2 to 16"),
    ],
)
def test_impossible_crossbars_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Crossbar(**wrong)


def test_what_a_crossbar_cannot_do_is_said():
    layer = nn.Linear(2, 2)
    refused = pytest.raises(ValueError, match="an input is negative")
    with refused, torch.no_grad(), Crossbar(offset=True).around(layer):
        layer(-torch.ones(1, 2))
    with pytest.raises(ValueError, match="no converter whose range"):
        Crossbar(adc_bits=None).calibrated(layer, [])
    with pytest.raises(ValueError, match="batches has none"):
        Crossbar().calibrated(layer, [])
    with pytest.raises(TypeError, match="crossbar must be one such as"):
        Chip(crossbar="rows=128")


def test_crossbars_by_text():
    found = read_crossbar("rows=128,adc_bits=6,offset=true", "--crossbar")
    assert found.crossbar == Crossbar(rows=128, adc_bits=6, offset=True)
    assert found.on(net(), []) is found.crossbar
    ranged = read_crossbar({"adc_range": "calibrated"}, "evaluation.crossbar")
    assert ranged.on(net(), loader()).adc_range.keys() >= {"readout.weight"}
    for text, message in (
        ("rowz=3", "Did you mean 'rows'"),
        ("rows=many", "crossbar.rows|--crossbar.rows"),
        ("rows=0", "rows must be a whole number"),
    ):
        with pytest.raises(RecipeError, match=message):
            read_crossbar(text, "--crossbar")
    with pytest.raises(RecipeError, match="has to be a number"):
        read_crossbar("adc_range=calibrated", "training.crossbar", fixed=True)
