"""Activations with levels and bounds: the layer, its gradients, its conversion."""

from __future__ import annotations

import math

import pytest
import torch
from conversion_networks import OfficialIF, OfficialUp
from torch import nn

from spikewvat import WVAT, Gaussian
from spikewvat.conversion import QCFS, Balancing, balance, convert
from spikewvat.errors import UnsupportedModelError


def literal(x, threshold, levels):
    """Return h(x), dh/dx and dh/dtheta of one number, as the paper writes them."""
    h = threshold * min(max(math.floor(x * levels / threshold + 0.5) / levels, 0.0), 1.0)
    u = threshold / (2 * levels)
    if x >= threshold - u:
        return h, 0.0, 1.0
    if x < -u:
        return h, 0.0, 0.0
    return h, float(x > -u), (h - x) / threshold


@pytest.mark.parametrize("levels", [1, 2, 4, 7])
@pytest.mark.parametrize("threshold", [0.3, 2.0])
def test_values_and_gradients_are_the_papers(levels, threshold):
    layer = QCFS(levels, threshold).double()
    x = (torch.rand(200, dtype=torch.float64) * 4 - 1.5).requires_grad_()
    weights = torch.randn(200, dtype=torch.float64)
    output = layer(x)
    (output * weights).sum().backward()
    expected = [literal(value, threshold, levels) for value in x.tolist()]
    values, of_x, of_threshold = (torch.tensor(e, dtype=torch.float64) for e in zip(*expected))
    torch.testing.assert_close(output, values)
    torch.testing.assert_close(x.grad, of_x * weights)
    torch.testing.assert_close(layer.threshold.grad, (of_threshold * weights).sum())
    with torch.no_grad():
        assert torch.equal(layer(x), output)


def network(activation, *, deep=False):
    torch.manual_seed(3)
    layers = [nn.Linear(6, 16), activation(), nn.Linear(16, 3)]
    if deep:
        layers[2:] = [nn.Linear(16, 12), activation(), nn.Linear(12, 3)]
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("make", [QCFS, OfficialIF, OfficialUp])
@pytest.mark.parametrize("levels", [1, 4, 8])
def test_one_layer_is_converted_exactly(make, levels):
    """Constant currents: the rates after L steps are the levels, by default of steps and start."""
    ann, x = network(lambda: make(levels, 0.9)), torch.rand(50, 6, dtype=torch.float64)
    snn = convert(ann, [x])
    assert snn.time_steps == levels
    (neurons,) = snn.neurons().values()
    assert (float(neurons.threshold), float(neurons.start)) == (pytest.approx(0.9), 0.5)
    torch.testing.assert_close(snn(x), ann(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(snn.analog(x), ann(x), atol=1e-12, rtol=0)


def test_deeper_networks_run_as_the_published_neuron_does():
    """Which starts at half its threshold, fires, subtracts, layer by layer over all steps."""
    ann = network(lambda: QCFS(4, 0.7), deep=True)
    x = torch.rand(20, 6, dtype=torch.float64)
    currents, level = ann[0](x).expand(4, 20, 16), ann[1].threshold
    for layer in (2, 4):
        v, spikes = level.expand_as(currents[0]) / 2, []
        for current in currents:
            v = v + current
            spikes.append((v >= level).double() * level)
            v = v - spikes[-1]
        currents = torch.stack([ann[layer](s) for s in spikes])
    torch.testing.assert_close(convert(ann, [x])(x), currents.mean(0), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("activation", "steps"), [(lambda: QCFS(6, 0.9), 6), (nn.ReLU, 16)])
def test_the_number_of_steps_follows_from_the_activations(activation, steps):
    ann, x = network(activation).float(), torch.rand(50, 6)
    assert convert(ann, [x]).time_steps == steps


def test_learned_thresholds_stay_unless_asked():
    ann, x = network(lambda: QCFS(4, 0.9)).float(), torch.rand(50, 6)
    snn = convert(ann, [x], time_steps=2)
    assert snn.fitted_steps is None
    assert balance(snn, [x])["1"] == pytest.approx(0.9)
    chosen = balance(snn, [x], Balancing(learned=True))["1"]
    assert chosen.shape == (16,)
    assert bool((chosen <= 0.9 + 1e-6).all())


def test_the_largest_activation_bounds_every_threshold():
    ann, x = network(lambda: nn.Hardtanh(0.0, 0.25)).float(), 3 * torch.rand(50, 6)
    for balancing in (Balancing(), Balancing(percentile=99.0), Balancing("steps", 100.0)):
        snn = convert(ann, [x], time_steps=64, balancing=balancing)
        assert float(snn.thresholds()["1"].max()) == pytest.approx(0.25, rel=0.01)


def test_training_under_variation_learns_weights_and_thresholds():
    ann = network(lambda: QCFS(4, 2.0), deep=True).float()
    x = torch.rand(200, 6)
    labels = x[:, :3].argmax(1)
    before = [p.detach().clone() for p in ann.parameters()]
    method = WVAT(ann, Gaussian(0.05))
    optimizer = torch.optim.Adam(ann.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = method.backward(lambda: nn.functional.cross_entropy(ann(x), labels))
        losses.append(float(loss))
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]
    assert not any(torch.equal(a, b) for a, b in zip(before, ann.parameters(), strict=True))
    snn = convert(ann.eval(), [x])
    accuracies = [(net(x).argmax(1) == labels).float().mean() for net in (ann, snn)]
    assert float(accuracies[0]) > 0.85
    assert float(accuracies[1]) > float(accuracies[0]) - 0.1


class Spiking(OfficialIF):
    """In its spiking mode, the published module computes something else."""

    def forward(self, x):
        return (x >= self.thresh).float() * self.thresh if self.L else x


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: network(lambda: Spiking(4, 0.9)), UnsupportedModelError, "cannot be"),
        (
            lambda: nn.Sequential(network(nn.ReLU), QCFS(8), nn.Linear(3, 3)).double(),
            ValueError,
            "time_steps=None needs.* they are 8, none. Pass time_steps",
        ),
        (
            lambda: nn.Sequential(network(lambda: QCFS(4)), QCFS(8), nn.Linear(3, 3)).double(),
            ValueError,
            "they are 4, 8. Pass time_steps",
        ),
        (lambda: QCFS(0), ValueError, "levels must be a whole number of at least 1, got 0"),
        (lambda: QCFS(4, 0.0), ValueError, "threshold must be finite and above 0, got 0.0"),
    ],
)
def test_what_is_no_such_layer(make, error, match):
    with pytest.raises(error, match=match):
        convert(make(), [torch.rand(8, 6, dtype=torch.float64)])


def test_the_size_of_a_threshold_counts():
    """Training may take it below zero, and is driven back from there as from above."""
    ann, x = network(lambda: QCFS(4, 0.9)), torch.rand(8, 6, dtype=torch.float64)
    expected, converted = ann(x), convert(ann, [x])(x)
    expected.sum().backward()
    gradient = ann[1].threshold.grad.clone()
    ann.zero_grad()
    with torch.no_grad():
        ann[1].threshold.neg_()
    found = ann(x)
    found.sum().backward()
    assert torch.equal(found, expected)
    assert torch.equal(ann[1].threshold.grad, -gradient)
    assert torch.equal(convert(ann, [x])(x), converted)


def test_a_threshold_that_training_lost_is_named():
    ann = network(lambda: QCFS(4, 0.9))
    with torch.no_grad():
        ann[1].threshold.zero_()
    with pytest.raises(UnsupportedModelError, match="activation '1' lets values from 0 to 0"):
        convert(ann, [torch.rand(8, 6, dtype=torch.float64)])
