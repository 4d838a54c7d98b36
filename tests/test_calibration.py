"""What is done to a chip after programming: literal references, costs, and nothing left behind."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import pytest
import reference_calibration as literal
import torch
from model_cases import ADAPTERS
from spread import spread
from torch import nn

from spikewvat import BiasTrim, Distillation, Scale, calibrated, programming_plan
from spikewvat.adapters import adapter_for
from spikewvat.adapters.currents import layers_of
from spikewvat.devices import Gaussian, pcm
from spikewvat.devices.base import DeviceModel
from spikewvat.errors import DataError, UnsupportedModelError
from spikewvat.robustness import Evaluator
from spikewvat.robustness.calibration import (
    BatchNorm,
    GainTrim,
    Learning,
    NetworkMeasure,
    ThresholdTrim,
)
from spikewvat.robustness.cost import Cost
from spikewvat.robustness.results import ChipReport
from spikewvat.serialisation import plain, restored
from spikewvat.spiking.events import EventLinear
from spikewvat.spiking.layers import Linear as TimedLinear
from spikewvat.spiking.lif import LIF, Neurons

SAMPLES = 12


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class Net(nn.Module):
    """Two layers of leaky neurons without feedback, over time, and a linear read-out."""

    def __init__(self):
        super().__init__()
        self.first, self.second = TimedLinear(5, 7, bias=True), TimedLinear(7, 6)
        self.spikes = nn.ModuleList(Neurons(LIF(v_threshold=0.5)) for _ in range(2))
        self.readout = TimedLinear(6, 3)

    def forward(self, x):
        for layer, spikes in zip((self.first, self.second), self.spikes, strict=True):
            x = spikes(layer(x))
        return self.readout(x)


class Conv(nn.Module):
    """A convolution with batch norm, for images."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.readout = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(36, 3)

    def forward(self, x):
        return self.readout(self.norm(self.conv(x)).relu().flatten(1))


def net(kind=Net):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = kind()
        for weight in adapter_for(made).synaptic_weights(made).values():
            weight.data.mul_(2).abs_().mul_(torch.randn(weight.shape).sign() + 0.4)
    return made.eval()


def loader(kind=Net, samples=SAMPLES, seed=2):
    shape = (9, samples, 5) if kind is Net else (samples, 2, 5, 5)
    inputs = (torch.rand(shape, generator=seeded(seed)) < 0.5).float()
    labels = torch.randint(3, (samples,), generator=seeded(seed + 1))
    axis = 1 if kind is Net else 0
    return list(zip(inputs.split(5, axis), labels.split(5), strict=True))


def chip_of(model, device=Gaussian(0.1), seed=3):  # noqa: B008 -- frozen
    return device.program(adapter_for(model).synaptic_weights(model), generator=seeded(seed))


def as_chip(model, weights):
    other = copy.deepcopy(model)
    other.load_state_dict({**other.state_dict(), **weights})
    return other


def pairs(model, other, names):
    return [(model.get_submodule(name), other.get_submodule(name)) for name in names]


LAYERS = {Net: ["first", "second", "readout"], Conv: ["conv", "readout"]}


@pytest.mark.parametrize("kind", [Net, Conv])
@pytest.mark.parametrize("gains", [False, True])
def test_trims_are_the_literal_ones(kind, gains):
    model, batches = net(kind), loader(kind)
    weights = chip_of(model)
    chip = as_chip(model, weights)
    measures = [GainTrim(SAMPLES), BiasTrim(SAMPLES)] if gains else [BiasTrim(SAMPLES)]
    found = calibrated(model, weights, batches, measures)
    expected = literal.trimmed(model, chip, batches, pairs(model, chip, LAYERS[kind]), gains=gains)
    for name in LAYERS[kind]:
        gain, offset = expected[chip.get_submodule(name)]
        assert found.numbers[f"{name}.offset"].tolist() == pytest.approx(offset, rel=1e-4, abs=1e-5)
        if gains:
            assert found.numbers[f"{name}.gain"].tolist() == pytest.approx(gain, rel=1e-4)
    inputs = batches[0][0]
    with found.applied():
        trimmed = model(inputs)
    handles = [
        module.register_forward_hook(_changing(module, *numbers))
        for module, numbers in expected.items()
    ]
    torch.testing.assert_close(trimmed, chip(inputs), rtol=1e-4, atol=1e-4)
    assert len(handles) == len(LAYERS[kind])


def _changing(module, gain, offset):
    axis = 1 if isinstance(module, nn.Conv2d) else -1

    def hook(_, args, output):
        shape = [1] * output.dim()
        shape[axis] = -1
        gains, offsets = (torch.tensor(n, dtype=output.dtype).view(shape) for n in (gain, offset))
        return output * gains + offsets

    return hook


def test_a_scale_is_the_literal_one_and_exact_for_pure_drift():
    model, batches = net(), loader()
    weights = chip_of(model)
    found = calibrated(model, weights, batches, [Scale()])
    for name, weight in adapter_for(model).synaptic_weights(model).items():
        expected = literal.scale(weight.flatten().tolist(), weights[name].flatten().tolist())
        assert float(found.numbers[f"{name}.scale"]) == pytest.approx(expected, rel=1e-9)
    live = adapter_for(model).synaptic_weights(model)
    drifted = {name: 0.25 * weight.detach() for name, weight in live.items()}
    for scale in (Scale(), Scale(samples=SAMPLES)):
        exact = calibrated(model, drifted, batches, [scale])
        assert [float(n) for n in exact.numbers.values()] == pytest.approx([4.0] * 3)
        with exact.applied():
            again = model(batches[0][0])
        torch.testing.assert_close(again, model(batches[0][0]))


def test_a_scale_is_not_biased_by_random_errors():
    model = nn.Sequential(nn.Linear(300, 200))
    weights = chip_of(model, Gaussian(0.15))
    found = calibrated(model, weights, [(torch.rand(4, 300), torch.zeros(4).long())], [Scale()])
    assert float(found.numbers["0.weight.scale"]) == pytest.approx(1.0, abs=0.02)


def test_thresholds_do_what_gains_do_where_spikes_subtract_them():
    model, batches = net(), loader()
    weights = chip_of(model)
    by_gain = calibrated(model, weights, batches, [GainTrim(SAMPLES), BiasTrim(SAMPLES)])
    by_threshold = calibrated(model, weights, batches, [ThresholdTrim(SAMPLES), BiasTrim(SAMPLES)])
    for spikes, name in (("spikes.0", "first"), ("spikes.1", "second")):
        torch.testing.assert_close(
            by_threshold.numbers[f"{spikes}.threshold"],
            1 / by_gain.numbers[f"{name}.gain"],
            rtol=1e-4,
            atol=1e-4,
        )
    outputs = []
    for found in (by_gain, by_threshold):
        with found.applied():
            model.readout.register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
            model(batches[0][0])
    assert torch.equal(outputs[0], outputs[-1])


def test_rates_are_matched_where_currents_cannot_be_read():
    model, batches = net(), loader(samples=60)
    weights = chip_of(model, Gaussian(0.08))
    trim = BiasTrim(60, by="rates")
    found = calibrated(model, weights, batches, [trim])

    seen: list[tuple[int, torch.Tensor]] = []
    for index, neurons in enumerate(model.spikes):
        neurons.register_forward_hook(
            lambda _, args, output, index=index: seen.append((index, output.detach().mean((0, 1))))
        )
    whole = torch.cat([inputs for inputs, _ in batches], 1)
    model(whole)
    with found.applied():
        model(whole)
    for index in range(2):
        ideal, chip = (rate for i, rate in seen if i == index)
        assert float((ideal - chip).abs().max()) < 0.03
    assert found.cost.passes == 2 * 10 + 1 + 2


def test_offsets_of_few_bits_lie_on_a_grid():
    model, batches = net(), loader()
    found = calibrated(model, chip_of(model), batches, [BiasTrim(SAMPLES, bits=4)])
    for offset in found.numbers.values():
        steps = offset / (offset.abs().max() / 7)
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)


def test_readings_are_as_noisy_as_they_say_and_repeat_with_the_seed():
    model, batches = net(), loader()
    weights = chip_of(model)
    exact = calibrated(model, weights, batches, [BiasTrim(SAMPLES)])
    noisy = [
        calibrated(model, weights, batches, [BiasTrim(SAMPLES, noise=0.5)], seed=seed)
        for seed in (1, 1, *range(2, 18))
    ]
    first = "first.offset"
    assert torch.equal(noisy[0].numbers[first], noisy[1].numbers[first])
    errors = torch.stack([n.numbers[first] - exact.numbers[first] for n in noisy[1:]])
    chip = as_chip(model, weights)
    now = literal.currents(chip, batches, chip.first, {})
    for channel, values in enumerate(now):
        expected = 0.5 * literal.std(values) / SAMPLES**0.5
        assert float(errors[:, channel].std()) == pytest.approx(expected, rel=0.6)


def test_batch_norm_is_estimated_anew():
    model, batches = net(Conv), loader(Conv)
    weights = chip_of(model)
    found = calibrated(model, weights, batches, [BatchNorm(10)])
    chip = as_chip(model, weights)
    currents = [chip.conv(inputs).detach() for inputs, _ in batches[:2]]
    mean = torch.stack([c.mean((0, 2, 3)) for c in currents]).mean(0)
    var = torch.stack([c.var((0, 2, 3)) for c in currents]).mean(0)
    torch.testing.assert_close(found.numbers["norm.running_mean"], mean)
    torch.testing.assert_close(found.numbers["norm.running_var"], var)
    assert found.cost == Cost(samples=10, passes=1, numbers=8)
    expected = chip.readout(
        (
            (chip.conv(batches[0][0]) - mean.view(-1, 1, 1))
            / (var.view(-1, 1, 1) + chip.norm.eps).sqrt()
        )
        .relu()
        .flatten(1)
    )
    with found.applied():
        torch.testing.assert_close(model(batches[0][0]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("rank", [0, 2])
def test_learning_on_the_chip_is_adam_on_offsets_and_side_paths(labels, rank):
    """The same steps, written out for the convolutional network."""
    model, batches = net(Conv), loader(Conv)
    weights = chip_of(model)
    measure = (Learning if labels else Distillation)(10, steps=5, lr=0.05, rank=rank)
    found = calibrated(model, weights, batches, [measure])
    chip = as_chip(model, weights).requires_grad_(False)
    layers = {"conv": chip.conv, "readout": chip.readout}
    shape = {"conv": (4, 1, 1), "readout": (3,)}
    generator, numbers, frozen, stds = seeded(0), {}, {}, {}
    for name, layer in layers.items():
        ideal = literal.currents(model, batches[:2], model.get_submodule(name), {})
        stds[name] = torch.tensor([literal.std(values) for values in ideal])
        numbers[f"{name}.offset"] = torch.zeros(len(layer.weight))
        if rank:
            inputs = layer.weight[0].numel()
            down = torch.randn(rank, inputs, generator=generator) / inputs**0.5
            frozen[name] = (
                down,
                torch.randn(len(layer.weight), rank, generator=generator) / rank**0.5,
            )
            numbers[f"{name}.b"] = torch.zeros(len(layer.weight))
            numbers[f"{name}.d"] = torch.full((rank,), 0.1)
    for number in numbers.values():
        number.requires_grad_()

    def run(name, x):
        weight = layers[name].weight
        if rank:
            down, up = frozen[name]
            left = torch.diag(numbers[f"{name}.b"] * stds[name]) @ up
            weight = weight + (left @ torch.diag(numbers[f"{name}.d"]) @ down).view_as(weight)
        function = torch.nn.functional.conv2d if name == "conv" else torch.nn.functional.linear
        y = function(x, weight, layers[name].bias)
        return y + (numbers[f"{name}.offset"] * stds[name]).view(shape[name])

    optimizer = torch.optim.Adam(list(numbers.values()), 0.05)
    for step in range(5):
        inputs, targets = batches[step % 2]
        scores = run("readout", chip.norm(run("conv", inputs)).relu().flatten(1))
        ideal = model(inputs).detach()
        distance = ((scores - ideal) ** 2).mean() / ideal.var(correction=0)
        loss = torch.nn.functional.cross_entropy(scores, targets) if labels else distance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert found.numbers.keys() == numbers.keys()
    for name, number in numbers.items():
        torch.testing.assert_close(found.numbers[name], number.detach(), rtol=1e-3, atol=1e-4)
    assert found.cost.labels == (10 if labels else 0)
    assert found.cost.numbers == sum(number.numel() for number in numbers.values())
    assert all(p.grad is None for p in model.parameters())


MEASURES = [
    [Scale()],
    [Scale(samples=4), BiasTrim(4)],
    [Scale(), BiasTrim(4, by="rates")],
    [Scale(), GainTrim(4), BiasTrim(4, bits=4, noise=0.1)],
    [BatchNorm(4)],
    [Scale(), BiasTrim(4), Distillation(4, steps=2)],
]
CASES = [case for case in ADAPTERS if not case.name.startswith("torch-lstm")]


def case_loader(case):
    x = case.input()
    axis = int(x.dim() in (3, 5))
    x = torch.cat([x, 1 - x, x.flip(-1)], axis)
    return [(x, torch.arange(x.shape[axis]) % 3)]


class Interrupted(Exception):
    pass


class Breaks(NetworkMeasure):
    """Raises in the middle, while everything before it is applied."""

    samples = 4

    def fit(self, bench):
        raise Interrupted

    def cost(self, bench):
        return Cost()


@spread("case, measures", CASES, MEASURES)
def test_any_network_is_calibrated_and_left_as_it_was(case, measures):
    model, data = case.make().eval(), case_loader(case)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapter = adapter_for(model)
    weights = {n: 0.9 * w.detach() for n, w in adapter.synaptic_weights(model).items()}
    found = calibrated(model, weights, data, measures)
    assert found.numbers or measures == [BatchNorm(4)]
    with pytest.raises(Interrupted):
        calibrated(model, weights, data, [*measures, Breaks()])
    with found.applied(), torch.no_grad():
        adapter.reset_state(model)
        model(data[0][0])
    adapter.reset_state(model)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    for module in model.modules():
        assert not {"forward", "steps"} & vars(module).keys()
        assert not module._forward_hooks
        assert not module.training


class Halved(DeviceModel):
    """Every weight is half of what it should be."""

    def program(self, weights, *, generator=None):
        return {name: weight.detach() / 2 for name, weight in weights.items()}


def test_a_report_holds_the_same_chips_before_and_after():
    model, test = net(), Evaluator(net(), loader(samples=40, seed=7))
    plainly = test.chips(Gaussian(0.1), chips=4)
    report = test.chips(
        Gaussian(0.1), chips=4, target=0.5, calibrate=[Scale(), BiasTrim(12)], calibration=loader()
    )
    assert torch.equal(report.calibrated.before, plainly.accuracies)
    assert report.seeds == plainly.seeds
    assert report.calibrated.measures == (repr(Scale()), repr(BiasTrim(12)))
    cost = report.calibrated.cost
    assert (cost.samples, cost.labels, cost.passes, cost.numbers) == (12, 0, 3 + 2, 3 + 16)
    assert cost.reads == sum(w.numel() for w in adapter_for(model).synaptic_weights(model).values())
    assert "% before Scale(samples=0) + BiasTrim(" in str(report)
    again = restored({"kind": "ChipReport 1", **plain(report)}, ChipReport, source="the test")
    assert again.calibrated.cost == cost
    assert torch.equal(again.calibrated.before, plainly.accuracies)
    back = test.chips(Halved(), chips=1, calibrate=[Scale()], calibration=loader())
    assert back.mean == test.accuracy
    curve = test.sweep(
        Gaussian, [0, 0.1], chips=4, calibrate=[Scale(), BiasTrim(12)], calibration=loader()
    )
    assert torch.equal(curve[1].accuracies, report.accuracies)


def test_chips_need_not_be_tested_before():
    test = Evaluator(net(), loader(samples=40, seed=7))
    options = {"chips": 3, "calibrate": [Scale(), BiasTrim(12)], "calibration": loader()}
    whole = test.chips(Gaussian(0.1), **options)
    half = test.chips(Gaussian(0.1), **options, before=False)
    assert torch.equal(half.accuracies, whole.accuracies)
    assert half.calibrated.before is None
    assert half.calibrated.cost == whole.calibrated.cost
    assert "before" not in str(half)
    again = restored({"kind": "ChipReport 1", **plain(half)}, ChipReport, source="the test")
    assert again.calibrated.before is None
    (curve,) = test.sweep(Gaussian, [0.1], **options, before=False)
    assert torch.equal(curve.accuracies, whole.accuracies)
    assert curve.calibrated.before is None


def test_sparse_samples_calibrate_as_dense_ones_do():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.spikes = EventLinear(5, 7), Neurons(LIF(v_threshold=0.5))
            self.readout = TimedLinear(7, 3)

        def forward(self, x):
            return self.readout(self.spikes(self.first(x)))

    model, dense = net(Flat), loader()
    sparse = [(inputs.to_sparse(), labels) for inputs, labels in dense]
    numbers = [
        calibrated(model, chip_of(model), samples, [BiasTrim(7)]).numbers
        for samples in (dense, sparse)
    ]
    for name, offset in numbers[0].items():
        torch.testing.assert_close(numbers[1][name], offset)
    plans = [
        programming_plan(model, samples, Gaussian(0.1), samples=7).importance
        for samples in (dense, sparse)
    ]
    for name, importance in plans[0].items():
        torch.testing.assert_close(plans[1][name], importance, rtol=1e-5, atol=1e-9)


def test_what_does_not_help_is_undone_and_counted():
    """A chip without errors is mended by nothing, least of all by readings that are pure noise."""
    model, batches = net(), loader()
    perfect, wild = chip_of(model, Gaussian(0.0)), BiasTrim(SAMPLES, noise=10.0)
    with torch.no_grad():
        expected = model(batches[0][0])
    for measures in ([wild], [GainTrim(SAMPLES), wild], [Scale(), wild]):
        found = calibrated(model, perfect, batches, measures)
        assert not found.kept
        assert {name.split(".")[-1] for name in found.numbers} <= {"scale"}
        with torch.no_grad(), found.applied():
            torch.testing.assert_close(model(batches[0][0]), expected)
    forced = calibrated(model, perfect, batches, [BiasTrim(SAMPLES, check=False, noise=10.0)])
    assert forced.kept
    assert set(forced.numbers) == {f"{name}.offset" for name in LAYERS[Net]}
    test = Evaluator(model, loader(samples=40, seed=7))
    options = {"chips": 3, "calibration": batches}
    report = test.chips(Gaussian(0.0), calibrate=[wild], **options)
    assert report.calibrated.undone == 3
    assert "undone on 3 chips" in str(report.calibrated)
    assert "undone on 1 chip)" in str(replace(report.calibrated, undone=1))
    assert torch.equal(report.calibrated.before, report.accuracies)
    assert (
        test.chips(Gaussian(0.0), calibrate=[BiasTrim(SAMPLES)], **options).calibrated.undone == 0
    )


def test_factors_of_undone_thresholds_are_forgotten():
    """What follows is matched to the ideal currents, not to those of thresholds that are gone."""
    model, batches = net(), loader()
    weights = chip_of(model, Gaussian(0.0))
    wild = [ThresholdTrim(SAMPLES), BiasTrim(SAMPLES, noise=10.0)]
    after = [Distillation(SAMPLES, steps=1), BiasTrim(SAMPLES, check=False)]
    undone = calibrated(model, weights, batches, [*wild, *after])
    never = calibrated(model, weights, batches, after)
    assert not undone.kept
    assert undone.numbers.keys() == never.numbers.keys()
    for name, number in never.numbers.items():
        torch.testing.assert_close(undone.numbers[name], number)


def test_a_trim_without_a_scale_warns_where_the_device_has_drifted():
    test = Evaluator(net(), loader(samples=20, seed=7))
    year = pcm(time=365 * 86400.0)
    with pytest.warns(UserWarning, match=r"are \d+ % of their size .* Put Scale\(\) first"):
        test.chips(year, chips=2, calibrate=[BiasTrim(5)], calibration=loader())
    with pytest.warns(UserWarning, match="comes before Scale.*Put the scale first"):
        test.chips(year, chips=2, calibrate=[BiasTrim(5), Scale()], calibration=loader())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        test.chips(year, chips=2, calibrate=[Scale(), BiasTrim(5)], calibration=loader())
        test.chips(Gaussian(0.1), chips=2, calibrate=[BiasTrim(5)], calibration=loader())


def test_samples_of_one_class_are_pointed_out():
    one = [(inputs, torch.zeros_like(labels)) for inputs, labels in loader(samples=40, seed=7)]
    with pytest.warns(UserWarning, match="samples are of 1 of 3 classes.* Pass a shuffled loader"):
        calibrated(net(), chip_of(net()), one, [BiasTrim(5)])


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"calibrate": [BiasTrim(5)]}, ValueError, "calibration is missing"),
        ({"calibration": loader()}, ValueError, "calibrate is missing"),
        ({"calibrate": [BiasTrim], "calibration": loader()}, TypeError, "measures such as"),
        (
            {"calibrate": [BiasTrim(50)], "calibration": loader()},
            DataError,
            "there are 12 calibration samples, expected at least 50",
        ),
    ],
)
def test_what_is_missing_is_named(options, kind, message):
    with pytest.raises(kind, match=message):
        Evaluator(net(), loader()).chips(Gaussian(0.1), chips=2, **options)


def test_a_network_that_a_measure_does_not_fit_is_refused_by_name():
    lstm = next(case for case in ADAPTERS if case.name == "torch-lstm")
    model, data = lstm.make(), case_loader(lstm)
    weights = {n: w.detach() for n, w in adapter_for(model).synaptic_weights(model).items()}
    with pytest.raises(UnsupportedModelError, match=r"layer 'layers\.0' \(LSTM\) does not say"):
        calibrated(model, weights, data, [BiasTrim(4)])
    recurrent = next(case for case in ADAPTERS if case.name == "snntorch-recurrent")
    model, data = recurrent.make(), case_loader(recurrent)
    weights = {n: w.detach() for n, w in adapter_for(model).synaptic_weights(model).items()}
    with pytest.raises(UnsupportedModelError, match=r"are fed by 'layers.* too.*GainTrim"):
        calibrated(model, weights, data, [ThresholdTrim(4)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BiasTrim(0), "samples must be a whole number of at least 1, got 0"),
        (lambda: BiasTrim(check=0), "check must be True or False, got 0"),
        (lambda: BiasTrim(by="hope"), "by must be 'currents' or 'rates', got 'hope'"),
        (lambda: BiasTrim(bits=1), "bits must be a whole number from 2 to 16"),
        (lambda: BiasTrim(noise=-1.0), "noise must be a finite number of at least 0"),
        (lambda: Distillation(steps=0), "steps must be a whole number of at least 1"),
        (lambda: Learning(lr=0.0), "lr must be a finite number above 0"),
    ],
)
def test_impossible_measures(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_weight_that_its_layer_computes_is_not_passed_over():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), nn.Linear(5, 3))
    with pytest.raises(UnsupportedModelError, match="'0' computes its weight by a parametrization"):
        layers_of(net, adapter_for(net).synaptic_weights(net))
