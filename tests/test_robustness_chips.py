"""Simulated chips against a literal loop, and what must hold whatever is raised."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import ADAPTERS
from reference_robustness import accuracies_over_chips, mean_and_std
from torch import nn

from spikewvat.adapters import adapter_for
from spikewvat.devices.base import DeviceModel
from spikewvat.robustness import (
    ChipReport,
    Degradation,
    Evaluator,
    simulate_chips,
)
from spikewvat.robustness.intervals import chip_interval, running_interval
from spikewvat.serialisation import plain

IMAGES, CLASSES = 24, 4


@dataclass(frozen=True)
class Noise(DeviceModel):
    """Adds normal noise; the smallest device there is."""

    sigma: float

    def program(self, weights, *, generator=None):
        """Draw one tensor after the other."""
        return {
            name: w + self.sigma * torch.randn(w.shape, generator=generator, dtype=w.dtype)
            for name, w in weights.items()
        }


class Rounded(DeviceModel):
    """Has no randomness, and no sigma."""

    def __repr__(self):
        return "Rounded()"

    def program(self, weights, *, generator=None):
        """Round to quarters."""
        return {name: (w * 4).round() / 4 for name, w in weights.items()}


class Integrator(nn.Module):
    """Spiking and stateful: a forgotten reset changes its answers."""

    def __init__(self, out="spikes"):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5))
        self.readout = nn.Linear(8, CLASSES, bias=False)
        self.out = out
        self.calls = 0
        self.v = None

    def reset(self):
        self.v = None

    def forward(self, spikes):
        self.calls += 1
        assert not torch.is_grad_enabled()
        outputs = []
        for step in spikes:
            current = self.readout(self.inner(step))
            self.v = current if self.v is None else 0.9 * self.v + current
            fired = (self.v > 0.2).to(spikes.dtype)
            self.v = self.v - fired
            outputs.append(fired + 1e-3 * self.v)
        record = torch.stack(outputs)
        if self.out == "scores":
            return record.sum(0)
        return (record, record * 0) if self.out == "tuple" else record


class StubAdapter:
    """What a framework's adapter offers."""

    resets = 0

    def synaptic_weights(self, model):
        return {"inner.0.weight": model.inner[0].weight, "readout.weight": model.readout.weight}

    def reset_state(self, model):
        self.resets += 1
        model.reset()


NAMES = ("inner.0.weight", "readout.weight")


def a_model(out="spikes"):
    torch.manual_seed(3)
    return Integrator(out)


def a_loader(batch=10):
    generator = torch.Generator().manual_seed(5)
    spikes = (torch.rand(7, IMAGES, 6, generator=generator) < 0.4).float()
    labels = torch.randint(CLASSES, (IMAGES,), generator=generator)
    starts = range(0, IMAGES, batch)
    return [(spikes[:, i : i + batch], labels[i : i + batch]) for i in starts]


def run(model=None, loader=None, device=None, **keywords):
    keywords.setdefault("seed", 1)
    keywords.setdefault("adapter", StubAdapter())
    return simulate_chips(
        model or a_model(), loader or a_loader(), device or Noise(0.3), **keywords
    )


def an_evaluator(model=None, loader=None, **options):
    options.setdefault("adapter", StubAdapter())
    return Evaluator(model or a_model(), loader or a_loader(), **options)


@pytest.mark.parametrize("out", ["spikes", "scores", "tuple"])
@pytest.mark.parametrize("cache_bytes", [0, 3000, 2**20])
def test_every_chip_is_that_of_the_literal_loop(out, cache_bytes):
    model = a_model(out)
    report = run(model, chips=8, cache_bytes=cache_bytes)
    expected = accuracies_over_chips(
        model, a_loader(), Noise(0.3), report.seeds, NAMES, reset=lambda m: m.reset()
    )
    assert report.accuracies.tolist() == expected
    assert len(set(expected)) > 2
    mean, std = mean_and_std(expected)
    assert report.mean == pytest.approx(mean)
    assert report.std == pytest.approx(std)
    assert report.worst == min(expected)
    assert report.images == IMAGES


@settings(max_examples=15, deadline=None)
@given(st.integers(1, IMAGES), st.integers(1, 6), st.integers(6, 9))
def test_a_chip_depends_on_neither_batches_nor_the_number_of_chips(batch, few, many):
    less = run(loader=a_loader(batch), chips=few)
    more = run(chips=many)
    assert more.seeds[:few] == less.seeds
    assert torch.equal(more.accuracies[:few], less.accuracies)


@pytest.mark.parametrize(
    "case", [c for c in ADAPTERS if c.name != "torch-conv-bn"], ids=lambda case: case.name
)
def test_every_adapter_with_its_own_frameworks(case):
    model = case.make()
    adapter = adapter_for(model)
    x = case.input()
    count = x.shape[1] if x.dim() in (3, 5) else x.shape[0]
    batches = [(x, torch.arange(count) % 3)] * 2
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    report = simulate_chips(model, batches, Noise(1.0), chips=3, cache_bytes=0)
    for seed, found in zip(report.seeds, report.accuracies.tolist(), strict=True):
        names = adapter.synaptic_weights(model)
        adapter.reset_state(model)
        chip = Noise(1.0).program(
            {name: w.detach() for name, w in names.items()},
            generator=torch.Generator().manual_seed(seed),
        )
        with torch.no_grad():
            for name, weight in names.items():
                weight.copy_(chip[name])
            out = model.eval()(x)
            for name, weight in names.items():
                weight.copy_(before[name])
        out = out.sum(0) if out.dim() == 3 else out
        assert found == pytest.approx(float((out.argmax(1) == batches[0][1]).double().mean()))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_batch_norm_keeps_its_running_statistics():
    model = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, CLASSES)).train()
    batches = [(torch.randn(8, 6), torch.zeros(8, dtype=torch.long))]
    before = model[0].running_mean.clone()
    simulate_chips(model, batches, Noise(0.1), chips=2)
    assert torch.equal(model[0].running_mean, before)
    assert model[0].training


def test_neurons_are_reset_before_every_pass_and_at_the_end():
    model, adapter = a_model(), StubAdapter()
    report = run(model, chips=3, adapter=adapter)
    assert model.calls == 3 * 3 + 2  # the first batch twice, to see that no state survives
    assert adapter.resets == model.calls + 2
    assert model.v is None
    assert report.chips == 3


def test_an_unknown_layer_is_reset_by_its_own_method_or_by_the_users():
    expected = run(chips=3).accuracies.tolist()
    assert run(adapter=None, chips=3).accuracies.tolist() == expected
    resets = []
    report = run(adapter=None, reset_state=lambda m: (resets.append(1), m.reset()), chips=3)
    assert report.accuracies.tolist() == expected
    assert len(resets) == 3 * 3 + 1 + 3


def test_weights_can_be_named():
    model = a_model()
    only = {"readout.weight": model.readout.weight}
    report = run(model, weights=only, chips=4)
    expected = accuracies_over_chips(
        model, a_loader(), Noise(0.3), report.seeds, list(only), reset=lambda m: m.reset()
    )
    assert report.accuracies.tolist() == expected
    with pytest.raises(ValueError, match="weights is empty"):
        run(weights={})


class Broken(nn.Module):
    """Counts down, then raises."""

    def __init__(self, error, passes):
        super().__init__()
        self.layer, self.frozen = nn.Linear(6, CLASSES), nn.BatchNorm1d(6)
        self.error, self.left = error, passes

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.layer(self.frozen(x[0]))[None]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
@pytest.mark.parametrize("passes", [0, 1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_and_modes_survive_an_exception_in_a_pass(error, passes, dtype):
    model = Broken(error, passes).to(dtype).train()
    model.frozen.eval()
    batches = [(x.to(dtype), y) for x, y in a_loader()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(type(error)):
        simulate_chips(model, batches, Noise(0.3), chips=3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert model.layer.training
    assert not model.frozen.training
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("raised_at", [0, 1])
def test_weights_survive_an_exception_in_the_loader_and_in_progress(raised_at):
    def loader():
        yield from a_loader()[:raised_at]
        raise OSError("disk")

    model = a_model()
    before = model.readout.weight.clone()
    with pytest.raises(OSError, match="disk"):
        run(model, loader())

    def interrupt(done, total, accuracy):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, progress=interrupt)
    assert torch.equal(model.readout.weight, before)
    assert model.training
    assert model.v is None


class Counted:
    """A list of batches that counts how often it is iterated."""

    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.batches)


def test_the_loader_is_iterated_once_where_its_images_fit():
    loader = Counted(a_loader())
    run(loader=loader, chips=4)
    assert loader.passes == 1
    # As bytes the images take 7 * 24 * 6, the labels 24 * 8.
    for cache_bytes, passes in [(1201, 1), (1100, 4), (0, 4)]:
        loader = Counted(a_loader())
        run(loader=loader, chips=4, cache_bytes=cache_bytes)
        assert loader.passes == passes


def test_images_that_are_no_whole_numbers_are_kept_as_they_are():
    torch.manual_seed(0)
    batches = [
        (torch.randn(7, 9, 6), torch.arange(9) % 4),
        (torch.rand(7, 5, 6), torch.ones(5).long()),
    ]
    kept = run(loader=batches, chips=5)
    assert torch.equal(kept.accuracies, run(loader=batches, chips=5, cache_bytes=0).accuracies)


class Fresh:
    """Makes its batches anew at every pass."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(2)
        yield torch.randn(30, 6, generator=generator), torch.arange(30) % CLASSES


def test_a_network_that_works_in_place_does_not_change_the_kept_images():
    model = nn.Sequential(nn.Linear(6, CLASSES))

    def spoil(module, args, output):
        args[0].neg_()

    model.register_forward_hook(spoil)
    expected = simulate_chips(model, Fresh(), Noise(0.5), chips=5, cache_bytes=0)
    kept = simulate_chips(model, Fresh(), Noise(0.5), chips=5)
    assert kept.accuracies.tolist() == expected.accuracies.tolist()


def test_a_generator_is_enough_when_it_is_kept_and_an_error_when_not():
    assert run(loader=iter(a_loader()), chips=3).chips == 3
    with pytest.raises(ValueError, match="24 images in the first pass and 0 in a later one"):
        run(loader=iter(a_loader()), chips=3, cache_bytes=0)


def test_stops_once_the_interval_is_narrow_enough():
    full = run(chips=60)
    width = 0.08
    report = run(chips=60, interval_width=width, min_chips=5)
    assert 5 <= report.chips < 60
    assert torch.equal(report.accuracies, full.accuracies[: report.chips])
    assert report.ci95.width < width
    for fewer in range(5, report.chips):
        assert chip_interval(full.accuracies[:fewer], cautious=True).width >= width
    assert run(chips=6, interval_width=1e-9).chips == 6
    assert run(chips=60, device=Noise(0.0), interval_width=width, min_chips=7).chips == 7


def test_an_interval_for_any_time_decides_and_is_printed(through_a_file):
    full, width = run(chips=60), 0.2
    report = run(chips=60, interval_width=width, min_chips=5, any_time=True)
    assert 5 < report.chips < 60
    for fewer in range(5, report.chips):
        assert running_interval(full.accuracies[:fewer], 60).width >= width
    assert report.ci95 == running_interval(report.accuracies, 60)
    assert report.ci95.width < width
    usual = run(chips=60, interval_width=width, min_chips=5)
    assert usual.chips < report.chips
    assert full.ci95.width < run(chips=60, any_time=True).ci95.width
    assert through_a_file(report).ci95 == report.ci95
    swept = an_evaluator().sweep(
        Noise, [0.3], chips=60, interval_width=width, min_chips=5, any_time=True, seed=1
    )
    assert swept[0].ci95 == report.ci95
    assert Degradation.pooled([swept, swept])[0].planned is None


def test_equal_chips_are_evaluated_once_and_all_count():
    model = a_model()
    report = run(model, device=Rounded(), chips=12, target=0.1)
    assert model.calls == 3 + 2
    assert report.chips == 12
    assert report.std == 0
    assert report.ci95 == (report.mean, report.mean)
    assert report.sigma is None
    assert report.device == "Rounded()"


def test_progress_counts_chips():
    seen = []
    report = run(chips=3, progress=lambda *args: seen.append(args))
    assert seen == [(i + 1, 3, a) for i, a in enumerate(report.accuracies.tolist())]


def test_losses_are_means_over_images():
    def loss(output, labels):
        return nn.functional.cross_entropy(output.sum(0), labels)

    small = run(chips=3, loss=loss, loader=a_loader(7))
    whole = run(chips=3, loss=loss, loader=a_loader(IMAGES))
    torch.testing.assert_close(small.losses, whole.losses)
    assert len(set(whole.losses.tolist())) == 3
    assert run(chips=3).losses is None


def test_scores_of_your_own():
    flipped = run(chips=4, scores=lambda output: -output.sum(0))
    assert not torch.equal(flipped.accuracies, run(chips=4).accuracies)


def test_a_chip_is_a_seed_and_0_by_default():
    model = a_model()
    state = torch.random.get_rng_state()
    first = simulate_chips(model, a_loader(), Noise(0.3), chips=3, adapter=StubAdapter())
    assert torch.equal(torch.random.get_rng_state(), state)
    generator = torch.Generator().manual_seed(0)
    drawn = [int(torch.randint(2**32, (), generator=generator)) for _ in range(3)]
    assert list(first.seeds) == drawn
    again = run(model, chips=3, seed=0)
    assert again.seeds == first.seeds
    assert torch.equal(again.accuracies, first.accuracies)
    assert run(model, chips=3, seed=2).seeds != first.seeds


def test_accuracy_is_that_of_the_weights_as_they_are():
    model = a_model()
    identity = accuracies_over_chips(
        model, a_loader(), Noise(0.0), [0], NAMES, reset=lambda m: m.reset()
    )
    assert an_evaluator(model).accuracy == identity[0]


def test_sweep_uses_the_same_chips_at_every_sigma():
    model = a_model()
    seen = []
    curve = an_evaluator(model).sweep(
        Noise,
        [0, 0.1, 0.3],
        chips=4,
        target=0.2,
        progress=lambda done, total, accuracy: seen.append((done, total)),
        seed=1,
    )
    assert curve.sigmas == (0.0, 0.1, 0.3)
    assert torch.equal(curve.at(0.3).accuracies, run(chips=4).accuracies)
    assert len({report.seeds for report in curve}) == 1
    assert seen == [(i + 1, 12) for i in range(12)]
    # One pass over the three batches for the ideal weights, which are those at sigma 0 too.
    assert model.calls == 3 * (1 + 4 + 4) + 2
    clean = an_evaluator(model).accuracy
    assert curve[0].accuracies.tolist() == [clean] * 4
    assert curve.drops == tuple(clean - mean for mean in curve.means)
    assert curve.drops[0] == 0
    assert len(curve) == 3
    with pytest.raises(KeyError, match=r"sigma 0.2 was not swept \(swept: 0, 0.1, 0.3\)"):
        curve.at(0.2)


def test_drops_are_counted_from_what_the_device_leaves_without_variation():
    """Weights trained to be quantised may be useless as floats."""
    quantised, noisy = (
        ChipReport("q", sigma, torch.tensor(values, dtype=torch.float64), (1, 2), images=9)
        for sigma, values in ((0.0, [0.8, 0.8]), (0.1, [0.7, 0.6]))
    )
    assert Degradation(0.1, (quantised, noisy)).drops == pytest.approx((0.0, 0.15))
    assert Degradation(0.9, (noisy,)).drops == pytest.approx((0.25,))


def test_sweep_without_randomness_at_zero_is_still_the_device():
    curve = an_evaluator().sweep(lambda s: Rounded() >> Noise(s), [0], chips=3)
    assert curve[0].accuracies.tolist() == run(device=Rounded(), chips=3).accuracies.tolist()
    assert curve[0].sigma == 0


def a_report(values, target=None, sigma=0.1):
    accuracies = torch.tensor(values, dtype=torch.float64)
    return ChipReport("Noise", sigma, accuracies, tuple(range(len(values))), 1000, None, target)


def test_report_reads_like_a_sentence():
    values = [0.941] * 3 + [0.963] * 50 + [0.9645] * 47
    assert str(a_report(values, target=0.95)) == (
        "96.3 % ± 0.4 (95 % CI 96.1 .. 96.4; for new images as well 94.9 .. 97.3), "
        "worst chip 94.1 % (up to 3 % of chips may be worse), "
        "yield at 95 %: 97 of 100 chips (95 % CI 91.5 .. 99.4 %)"
    )
    assert str(a_report([0.5])) == "50.0 % (1 chip)"
    curve = Degradation(0.97, (a_report([0.97], sigma=0.0), a_report([0.9, 0.8])))
    assert str(curve).splitlines()[:2] == [
        "no variation : 97.0 %",
        "sigma   0.0 %: 97.0 % (1 chip)",
    ]


def test_yield_counts_chips_that_reach_the_target():
    report = a_report([0.95, 19 / 20, 0.9499999, 0.99])
    at = report.yield_at(0.95)
    assert (at.working, at.chips, at.share) == (3, 4, 0.75)
    assert at.ci95.low < 0.75 < at.ci95.high
    assert report.yield_at(0.0).share == 1


def test_interval_is_cut_to_fractions():
    assert a_report([1.0, 1.0, 0.99]).ci95.high == 1.0
    assert a_report([0.0, 0.0, 0.01]).ci95.low == 0.0


def test_rows_survive_a_file(through_a_file):
    report = run(
        chips=4, target=0.3, loss=lambda out, y: nn.functional.cross_entropy(out.sum(0), y)
    )
    row = plain(report)
    assert row["device"] == "Noise(sigma=0.3)"
    assert row["sigma"] == 0.3
    assert "mean" not in row  # it follows from the accuracies
    for result in (report, a_report([0.5]), Degradation(0.9, (report,))):
        again = through_a_file(result)
        assert str(again) == str(result)
        assert plain(again) == plain(result)


def test_report_is_immutable():
    with pytest.raises(AttributeError):
        a_report([0.5]).images = 3


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"chips": 0}, "chips must be a whole number of at least 1, got 0"),
        ({"chips": 1, "any_time": True}, "chips must be a whole number of at least 2, got 1"),
        ({"min_chips": 1}, "min_chips must be a whole number of at least 2, got 1"),
        ({"target": 95}, r"target must be a fraction between 0 and 1, got 95. Write 0.95"),
        ({"interval_width": 0.0}, r"interval_width must be above 0, got 0.0"),
        ({"interval_width": math.nan}, "interval_width must be above 0, got nan"),
        ({"loader": iter([])}, "the loader yields no images"),
        ({"device": Noise(math.nan)}, r"chip with seed \d+ of Noise\(sigma=nan\) holds a weight"),
        ({"scores": lambda out: out[0, 0]}, r"class scores are a tensor of shape \(4,\), expected"),
        ({"scores": lambda out: out.sum(0)[1:]}, r"shape \(9, 4\), expected \[10, classes\]"),
        ({"scores": lambda out: "scores"}, "class scores are a str, expected"),
        ({"scores": lambda out: out.sum(0) / 0 * 0}, r"scores are NaN for 24 of 24 images on the"),
    ],
)
def test_impossible_values(keywords, message):
    with pytest.raises(ValueError, match=message):
        run(**keywords)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 4]), "labels range from 0 to 4, but the network has 4 classes"),
        (torch.tensor([-1, 0]), "labels range from -1 to 0"),
        (torch.tensor([0.0, 1.0]), r"labels are torch.float32 of shape \(2,\), expected class"),
        (torch.zeros(2, 4, dtype=torch.long), r"labels are torch.int64 of shape \(2, 4\)"),
    ],
)
def test_impossible_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        run(loader=[(torch.zeros(3, 2, 6), labels)])


def test_labels_may_be_a_list():
    assert run(loader=[(torch.zeros(3, 2, 6), [0, 1])], chips=2).images == 2


class AsDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        return {"logits": self.layer(x).sum(0)}


def test_unexpected_outputs_and_batches():
    class Four(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x):
            return self.layer(x)[None]

    with pytest.raises(ValueError, match=r"network output has shape \(1, 7, 10, 4\), expected"):
        run(Four(), adapter=None)
    with pytest.raises(TypeError, match="a batch of the loader is a tensor of shape"):
        run(loader=[torch.zeros(3, 2, 6)])
    with pytest.raises(TypeError, match=r"the loader is a tuple of 3 \(.*\), expected a pair"):
        run(loader=[(1, 2, 3)])
    broken = torch.zeros(3, 2, 6)
    broken[1, 1, 1] = math.nan
    with pytest.raises(ValueError, match="batch behind image 2 hold NaN or infinity"):
        run(loader=[(torch.zeros(3, 2, 6), torch.zeros(2).long()), (broken, torch.zeros(2).long())])
    with pytest.raises(ValueError, match="network output is a dict, expected output spikes"):
        run(AsDict(), adapter=None)
    with pytest.raises(TypeError, match=r"device must be a device model.*got 0\.1"):
        run(device=0.1)
    model = a_model()
    with torch.no_grad():
        model.readout.weight[0, 0] = math.nan
    with pytest.raises(ValueError, match="the model holds a weight that is not finite: 'readout"):
        run(model)


def test_impossible_sweeps():
    with pytest.raises(ValueError, match="no sigmas to sweep"):
        an_evaluator().sweep(Noise, [])
    with pytest.raises(ValueError, match=r"sigma must be a finite number of at least 0, got -0\.1"):
        an_evaluator().sweep(Noise, [0, -0.1])


def test_pooled_curves_hold_the_chips_of_all_trainings():
    from spikewvat.robustness import Degradation

    def curve(clean, sigmas, first):
        reports = tuple(
            ChipReport("d", s, torch.tensor([first, 0.5], dtype=torch.float64), (1, 2), 10)
            for s in sigmas
        )
        return Degradation(clean, reports)

    both = Degradation.pooled([curve(0.9, (0.0, 0.1), 0.7), curve(0.8, (0.0, 0.1), 0.6)])
    assert both.clean == pytest.approx(0.85)
    assert both.at(0.1).accuracies.tolist() == [0.7, 0.5, 0.6, 0.5]
    assert both.at(0.1).chips == 4
    with pytest.raises(ValueError, match="expected curves of the same sigmas"):
        Degradation.pooled([curve(0.9, (0.0,), 0.7), curve(0.9, (0.1,), 0.7)])
    with pytest.raises(ValueError, match="expected curves of the same sigmas"):
        Degradation.pooled([])
