"""Neurons and corrections for few time steps, against literal loops; calibration of biases."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import reference_conversion as reference
import torch
from torch import nn

from spikewvat import Gaussian, adapter_for
from spikewvat.conversion import (
    BiasTargets,
    Dynamics,
    OffsetSpikes,
    SilentResiduals,
    bias_targets,
    calibrate_biases,
    convert,
    finetune,
    sweep_time,
)
from spikewvat.spiking.stdb import neurons
from spikewvat.weights import replaced


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 3)
    ).double()


X = torch.rand(24, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("burst", [1, 2, 5])
def test_several_spikes_are_those_of_the_loop(signed, burst):
    currents = torch.randn(15, 40, dtype=torch.float64) * 1.5 + 0.3
    level = torch.rand(40, dtype=torch.float64) + 0.3
    dynamics = Dynamics(signed=signed, burst=burst)
    spikes, _ = neurons(currents, level, dynamics)
    for i in range(40):
        expected = reference.several_spikes(
            currents[:, i].tolist(), level[i].item(), signed=signed, burst=burst
        )
        assert spikes[:, i].tolist() == expected
    assert float(spikes.max()) == burst
    assert float(spikes.min()) == -signed
    first, state = neurons(currents[:6], level, dynamics)
    second, _ = neurons(currents[6:], level, dynamics, state=state)
    assert torch.equal(torch.cat([first, second]), spikes)


def test_several_spikes_with_a_leak():
    spikes, state = neurons(
        torch.tensor([[1.0], [-2.0], [0.0]]),
        torch.tensor(0.5),
        Dynamics(signed=True, burst=3, initial=0.0),
        leak=torch.tensor(0.5),
    )
    assert spikes.flatten().tolist() == [2.0, -1.0, -1.0]
    assert state.v.item() == pytest.approx(0.5 * (-1.5) + 0.5)


@pytest.mark.parametrize("correction", [OffsetSpikes(), SilentResiduals(3)], ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_corrected_networks_are_the_literal_loop(correction, steps):
    snn = convert(network(), [X], time_steps=steps, correction=correction)
    first, second = (float(level.mean()) for level in snn.thresholds().values())
    snn.set_thresholds(
        {"1": torch.tensor(first).double(), "3": torch.tensor(second * 0.6).double()}
    )
    levels = [*(n.threshold.item() for n in snn.neurons().values()), None]
    linear = [m for m in snn.layers.children() if isinstance(m, nn.Linear)]
    layers = [
        (m.weight.tolist(), m.bias.tolist(), level) for m, level in zip(linear, levels, strict=True)
    ]
    before = correction.steps if isinstance(correction, SilentResiduals) else 0
    found = snn(X)
    for i, x in enumerate(X.tolist()):
        expected = reference.corrected_network(layers, x, steps, before=before, offsets=before == 0)
        assert found[i].tolist() == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(torch.cat(list(snn.outputs(X))).mean(0), found)
    torch.testing.assert_close(snn.run(snn.encode(X)), found)
    if steps > 1:
        snn.correction = None
        assert not torch.allclose(snn(X), found)


@pytest.mark.parametrize(
    "options",
    [
        {"dynamics": Dynamics(signed=True)},
        {"dynamics": Dynamics(signed=True, burst=2)},
        {"correction": OffsetSpikes()},
    ],
    ids=str,
)
def test_each_brings_few_steps_closer_to_the_ann(options):
    """Over networks of three hidden layers, where plain neurons fire too early."""
    gains = []
    for seed in range(5):
        torch.manual_seed(seed)
        layers = [layer for _ in range(4) for layer in (nn.Linear(16, 16), nn.ReLU())]
        ann, x = nn.Sequential(*layers[:-1]), torch.rand(200, 16)
        for layer in ann[::2]:
            nn.init.normal_(layer.weight, std=0.5)
        errors = [
            float((convert(ann, [x], time_steps=4, **given)(x) - ann(x)).detach().square().mean())
            for given in ({}, options)
        ]
        gains.append(errors[1] / errors[0])
    assert sum(gains) / 5 < 0.97


def test_what_bursts_and_first_runs_cost():
    labels = torch.zeros(24, dtype=torch.long)
    snn = convert(network(), [X], time_steps=4, dynamics=Dynamics(burst=2))
    sweep = sweep_time(snn, [(X, labels)], [4])
    fired = {}

    def count(node, inputs, output):
        if node.path in ("1", "3"):
            fired[node.path] = float(
                (output.detach() / snn.neurons()[node.name].amplitude).abs().sum()
            )

    list(snn.outputs(X, observe=count))
    assert sweep.spikes[0] == pytest.approx(sum(fired.values()) / 24)
    assert sweep.operations[0] == pytest.approx((fired["1"] * 12 + fired["3"] * 3) / 24)

    plain = convert(network(), [X], time_steps=4)
    alone = sweep_time(plain, [(X, labels)], [3, 4])
    plain.correction = SilentResiduals(3)
    both = sweep_time(plain, [(X, labels)], [4])
    assert alone.spikes[0] < both.spikes[0] < alone.spikes[0] + alone.spikes[1]


def test_thresholds_know_the_burst():
    """Two spikes a step tell values up to twice the threshold."""
    one = convert(network(), [X], time_steps=2).thresholds()
    two = convert(network(), [X], time_steps=2, dynamics=Dynamics(burst=2)).thresholds()
    assert float((two["1"] / one["1"]).mean()) < 0.75


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: Dynamics(burst=0), "burst must be a whole number of spikes.*got 0"),
        (lambda: Dynamics(signed=True, delayed=True), "need a decision after the step's current"),
        (lambda: Dynamics(burst=2, hard_reset=True), "reset by subtraction"),
        (lambda: SilentResiduals(0), "steps must be a whole number of at least 1, got 0"),
        (
            lambda: convert(network(), [X], time_steps=2, leak=0.9, correction=OffsetSpikes()),
            "OffsetSpikes needs neurons without leak.*'1'",
        ),
        (
            lambda: convert(
                network(), [X], time_steps=2, dynamics=Dynamics(burst=2),
                correction=SilentResiduals(),
            ),
            "SilentResiduals needs",
        ),
        (
            lambda: finetune(
                convert(network(), [X], time_steps=2, dynamics=Dynamics(signed=True)),
                [(X, torch.zeros(24, dtype=torch.long))],
                epochs=1,
            ),
            "no surrogate gradient",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def chip_of(snn, sigma=0.1, seed=0):
    live = adapter_for(snn).synaptic_weights(snn)
    clean = {name: weight.detach() for name, weight in live.items()}
    draw = torch.Generator().manual_seed(seed)
    return replaced(live, Gaussian(sigma).program(clean, generator=draw))


def test_calibrated_biases_are_the_literal_differences():
    """Layer by layer, those below calibrated, one image of four left out."""
    ann, snn = network(), convert(network(), [X], time_steps=4)
    targets = bias_targets(snn, [X[:10], X[10:]])
    used = X[torch.arange(24) % 4 != 0]
    with torch.no_grad():
        ideal = [ann[:2](used).mean(0), ann[:4](used).mean(0)]
    for mean, found in zip(ideal, targets.activations.values(), strict=True):
        torch.testing.assert_close(found, mean)
    with chip_of(snn, 0.3, seed=1):
        expected, biases = copy.deepcopy(snn), []
        for name, mean in zip(("1", "3"), ideal, strict=True):
            spikes = []
            expected.observe(
                used, lambda node, i, out, n=name, s=spikes: s.append(out) if node.name == n else 0,
                until={"1": "2", "3": "4"}[name],
            )  # fmt: skip
            biases.append(mean - torch.cat(spikes).detach().mean((0, 1)))
            expected.neurons()[name].bias = biases[-1]
        assert calibrate_biases(snn, [X[:10], X[10:]], targets)
    for neurons_, bias in zip(snn.neurons().values(), biases, strict=True):
        torch.testing.assert_close(neurons_.bias, bias)


def test_calibration_brings_chips_closer_and_is_taken_back_where_it_does_not():
    x = torch.rand(200, 6, dtype=torch.float64)
    ann, gains = network(), []
    for seed in range(6):
        snn = convert(ann, [x], time_steps=8)
        targets = bias_targets(snn, [x])
        with chip_of(snn, 0.15, seed), torch.no_grad():
            before = (snn(x) - ann(x)).square().mean()
            kept = calibrate_biases(snn, [x], targets)
            gains.append(float((snn(x) - ann(x)).square().mean() / before))
            assert kept or gains[-1] == 1
    assert sum(gains) / 6 < 0.8
    wrong = dataclasses.replace(
        targets, activations={name: mean + 5 for name, mean in targets.activations.items()}
    )
    fresh = convert(ann, [x], time_steps=8)
    assert not calibrate_biases(fresh, [x], wrong)
    assert all(float(n.bias) == 0 for n in fresh.neurons().values())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda snn, good: bias_targets(snn, []), "at least 4 calibration images"),
        (
            lambda snn, good: calibrate_biases(snn, [X], BiasTargets({}, good.probabilities)),
            "targets are for",
        ),
        (lambda snn, good: calibrate_biases(snn, [X[:12]], good), "Pass the same images"),
    ],
)
def test_wrong_targets(call, match):
    snn = convert(network(), [X], time_steps=4)
    with pytest.raises(ValueError, match=match):
        call(snn, bias_targets(snn, [X]))
