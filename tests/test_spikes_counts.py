"""Counts of synapses and spikes in layers that are not as simple as they look."""

from __future__ import annotations

import math
import warnings

import pytest
import reference_spikes as reference
import torch
from spikingjelly.activation_based import layer as jelly_layer
from spikingjelly.activation_based import neuron as jelly_neuron
from test_spikes_sweep import counted, reached_by, trains_of
from torch import nn
from torch.nn.utils import parametrizations, prune

from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness import Activity, Evaluator
from spikewvat.robustness.corruptions import Deletion, ThresholdMismatch
from spikewvat.spiking.fan_out import fan_out


def _pruned(module):
    mask = torch.zeros_like(module.weight)
    mask[0] = 1
    return prune.custom_from_mask(module, "weight", mask)


def _weight_normed(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old way of torch, which people's networks still use
        return nn.utils.weight_norm(module)


@pytest.mark.parametrize(
    "make",
    [
        lambda: jelly_layer.WSConv2d(2, 3, 3, padding=1, step_mode="m"),
        lambda: _weight_normed(jelly_layer.Conv2d(2, 3, 3, padding=1, step_mode="m")),
    ],
)
def test_layers_that_compute_their_weights_have_the_synapses_of_others(make):
    torch.manual_seed(0)
    neurons = jelly_neuron.IFNode(v_threshold=0.1, step_mode="m")
    head = jelly_layer.Linear(48, 2, step_mode="m")
    model = nn.Sequential(make(), neurons, jelly_layer.Flatten(step_mode="m"), head).eval()
    x = (torch.rand(3, 2, 2, 4, 4) < 0.5).float()
    trains = {key: train.flatten(2) for key, train in trains_of(model, x).items()}
    (first,) = trains.values()
    like = nn.Conv2d(2, 3, 3, padding=1)
    synapses = [(x.flatten(2), reached_by(like, (2, 4, 4))), (first, [2] * 48)]
    spikes, rates, operations = reference.activity(trains, synapses)
    assert operations > first.sum() > 0
    assert counted(model, x) == Activity(spikes, operations, pytest.approx(rates))


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_layers_have_the_synapses_of_others(norm):
    torch.manual_seed(0)
    x, layer = torch.zeros(1, 2, 4, 4), nn.Conv2d(2, 3, 3, stride=2, padding=1)
    expected = fan_out(layer, x)
    assert expected.unique().tolist() == [3, 6, 12]
    assert torch.equal(fan_out(norm(layer), x), expected)


def test_pruned_synapses_are_not_reached():
    """One of four outputs is left, and the layer's weights say nothing of how many there are."""
    layer = _pruned(nn.Linear(3, 4))
    assert fan_out(layer, torch.zeros(1, 3)).tolist() == [[1, 1, 1]]
    with torch.no_grad():
        layer.weight_orig.mul_(-7)
    assert fan_out(layer, torch.zeros(1, 3)).tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(
    "neurons",
    [
        lambda: jelly_neuron.PSN(T=5),
        lambda: jelly_neuron.MaskedPSN(T=5, k=2, step_mode="m"),
        lambda: jelly_neuron.SlidingPSN(k=2, step_mode="m"),
        lambda: jelly_neuron.KLIFNode(step_mode="m"),
    ],
)
def test_neurons_of_which_spikes_alone_are_known(neurons):
    torch.manual_seed(1)
    head = jelly_layer.Linear(6, 2, step_mode="m")
    model = nn.Sequential(jelly_layer.Linear(3, 6, step_mode="m"), neurons(), head).eval()
    with torch.no_grad():
        model[0].weight.mul_(20)
    x = (torch.rand(5, 4, 3) < 0.5).float()
    trains = trains_of(model, x)
    (first,) = trains.values()
    assert set(first.unique().tolist()) == {0, 1}
    spikes, rates, operations = reference.activity(trains, [(x, [6] * 3), (first, [2] * 6)])
    assert counted(model, x) == Activity(spikes, operations, pytest.approx(rates))
    test = Evaluator(model, [(x, torch.tensor([0, 1, 0, 1]))])
    lost = test.corrupt(Deletion, [1.0], chips=1).reports[0].activity
    assert lost.spikes == 0
    with pytest.raises(UnsupportedModelError, match="threshold"):
        test.corrupt(ThresholdMismatch, [0.1], chips=1)


class OwnMatrix(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 6))
        self.neurons = jelly_neuron.LIFNode(v_threshold=0.1, step_mode="m")

    def forward(self, x):
        return self.neurons(x @ self.matrix)


def activity_of(net, x):
    labels = torch.zeros(x.shape[1], dtype=torch.int64)
    return Evaluator(net, [(x, labels)]).corrupt(Deletion, [0.0], chips=1).activity


def test_operations_of_layers_that_compute_their_weights(through_a_file):
    x = (torch.rand(5, 4, 8) < 0.4).float()
    net = nn.Sequential(
        nn.Linear(8, 6), jelly_neuron.LIFNode(v_threshold=0.1, step_mode="m"), nn.Linear(6, 3)
    )
    plain = activity_of(net, x)
    assert plain.operations == float(x.sum() * 6 / 4) + plain.spikes * 3
    for index in (0, 2):
        parametrizations.weight_norm(net[index])
    assert activity_of(net, x) == plain
    own = activity_of(nn.Sequential(OwnMatrix(), nn.Linear(6, 3)), x)
    assert own.spikes > 0
    assert math.isnan(own.operations)  # rather than those of one layer alone
    assert "unknown synaptic operations" in str(own)
    assert math.isnan(through_a_file(own).operations)
