"""The neurons of a converted network, calibrated for each chip."""

from __future__ import annotations

import functools

import pytest
import torch
from test_conversion_few_steps import chip_of
from torch import nn

from spikewvat import BiasTrim, Distillation, Gaussian, Scale, adapter_for, calibrated
from spikewvat.conversion import (
    QCFS,
    balance,
    bias_targets,
    calibrate_biases,
    calibrate_starts,
    calibrate_thresholds,
    convert,
)
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness import Evaluator
from spikewvat.robustness.calibration import (
    BatchNorm,
    ConversionTrim,
    GainTrim,
    Learning,
    ThresholdTrim,
)
from spikewvat.robustness.cost import Cost

SAMPLES = 256
X = torch.rand(SAMPLES, 6, generator=torch.Generator().manual_seed(3))
Y = X[:, :3].argmax(1)
SIGMA, CHIP = 0.15, 2
USED = X[torch.arange(SAMPLES) % 4 != 0]
WHAT = ("biases", "starts", "thresholds")


@functools.cache
def trained(activation=nn.ReLU):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ann = nn.Sequential(
            *(nn.Linear(6, 20), activation(), nn.Linear(20, 12), activation(), nn.Linear(12, 3))
        )
        optimizer = torch.optim.Adam(ann.parameters(), 0.02)
        for _ in range(80):
            optimizer.zero_grad()
            nn.functional.cross_entropy(ann(X), Y).backward()
            optimizer.step()
    return ann.eval()


def quantised():
    return QCFS(4, 2.0)


def converted(activation=nn.ReLU, steps=4):
    return convert(trained(activation), [X], time_steps=steps)


def constants(snn):
    return [
        value.detach().clone()
        for n in snn.neurons().values()
        for value in (n.threshold, n.amplitude, n.start, n.bias)
    ]


def test_starts_take_the_charge_of_biases_before_the_first_step():
    snn, twin = converted(), converted()
    targets = bias_targets(snn, [X])
    for net, calibrate in ((snn, calibrate_starts), (twin, calibrate_biases)):
        with chip_of(net, SIGMA, seed=CHIP):
            assert calibrate(net, [X], targets)
    first, same = (next(iter(net.neurons().values())) for net in (snn, twin))
    assert bool((first.bias == 0).all())
    torch.testing.assert_close((first.start - 0.5) * first.threshold, 4 * same.bias)


def test_thresholds_are_those_of_the_chip():
    snn = converted()
    targets = bias_targets(snn, [X])
    with chip_of(snn, SIGMA, seed=CHIP):
        kept = calibrate_thresholds(snn, [X], targets)
        found = snn.thresholds()
        expected = balance(snn, [USED])
    assert kept
    torch.testing.assert_close(found, expected)


def test_measures_find_what_the_functions_do_and_leave_nothing_behind():
    snn = converted()
    before, live = constants(snn), adapter_for(snn).synaptic_weights(snn)
    clean = {name: weight.detach().clone() for name, weight in live.items()}
    chip = Gaussian(SIGMA).program(clean, generator=torch.Generator().manual_seed(CHIP))
    found = calibrated(snn, chip, [(X, Y)], [ConversionTrim("biases", SAMPLES)])
    assert found.cost == Cost(samples=SAMPLES, passes=4, numbers=32)
    for old, new in zip(before, constants(snn), strict=True):
        assert torch.equal(old, new)
    with found.applied():
        inside = snn(X)
    for name, weight in live.items():
        assert torch.equal(weight, clean[name])
    targets = bias_targets(snn, [X])
    with chip_of(snn, SIGMA, seed=CHIP):
        assert calibrate_biases(snn, [X], targets)
        torch.testing.assert_close(snn(X), inside)
    for name, neurons in snn.neurons().items():
        torch.testing.assert_close(found.numbers[f"{name}.bias"], neurons.bias)


def test_what_brings_nothing_closer_is_not_kept():
    """Without variation and with many steps, activations are those of the ANN already."""
    snn = converted(steps=512)
    live = {n: w.detach() for n, w in adapter_for(snn).synaptic_weights(snn).items()}
    trims = [ConversionTrim(what, SAMPLES) for what in WHAT]
    numbers = calibrated(snn, live, [(X, Y)], trims).numbers
    assert len(numbers) < 2 * len(WHAT)


MEASURES = [
    *(ConversionTrim(what, SAMPLES) for what in WHAT),
    *(Scale(), Scale(samples=8), BiasTrim(SAMPLES), BiasTrim(SAMPLES, by="rates")),
    *(GainTrim(SAMPLES), ThresholdTrim(SAMPLES), BatchNorm(8)),
    *(Distillation(8, steps=2, rank=1), Learning(8, steps=2)),
]


@functools.cache
def evaluator():
    snn = converted()
    return snn, Evaluator(snn, [(X, Y)])


@pytest.mark.parametrize("measure", MEASURES, ids=repr)
def test_every_measure_takes_a_converted_network(measure):
    snn, test = evaluator()
    before = constants(snn)
    report = test.chips(Gaussian(SIGMA), chips=3, calibrate=[measure], calibration=[(X, Y)])
    assert report.calibrated.measures == (repr(measure),)
    for old, new in zip(before, constants(snn), strict=True):
        assert torch.equal(old, new)
    if (
        isinstance(measure, ConversionTrim | BiasTrim)
        and getattr(measure, "what", "") != "thresholds"
    ):
        assert report.mean > sum(report.calibrated.before) / 3


def test_learned_thresholds_are_calibrated_too():
    test = Evaluator(converted(quantised), [(X, Y)])
    trims = [ConversionTrim("thresholds", SAMPLES), ConversionTrim("biases", SAMPLES)]
    report = test.chips(Gaussian(SIGMA), chips=3, calibrate=trims, calibration=[(X, Y)])
    assert report.mean > sum(report.calibrated.before) / 3


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match=r"what must be one of biases, starts.*got 'gains'"):
        ConversionTrim("gains")
    with pytest.raises(UnsupportedModelError, match="made by spikewvat.conversion.convert.*Linear"):
        Evaluator(nn.Linear(6, 3), [(X, Y)], time="network").chips(
            Gaussian(0.1), chips=2, calibrate=[ConversionTrim()], calibration=[(X, Y)]
        )
