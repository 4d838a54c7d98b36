"""Training with trimmed chips in the loop: the literal trim, offsets without gradient."""

from __future__ import annotations

import copy

import pytest
import reference_calibration as literal
import torch
from test_calibration import Net, chip_of, loader, net
from test_calibration import _changing as changing
from torch import nn

from spikewvat import WVAT, Gaussian
from spikewvat.devices.base import DeviceModel
from spikewvat.errors import UnsupportedModelError
from spikewvat.perturbations import HSV
from spikewvat.training import PerturbedGradient

LAYERS = ["first", "second", "readout"]


class OverTime(nn.Module):
    """Layers that are called once for each step of a leaky hidden state."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 7), nn.Linear(7, 6, bias=False)
        self.readout = nn.Linear(6, 3)

    def forward(self, x):
        potential, outputs = 0.0, []
        for step in x:
            potential = 0.7 * potential + self.first(step)
            outputs.append(self.second(potential.tanh()))
        return self.readout(torch.stack(outputs).tanh())


class Given(DeviceModel):
    """Always the same chip."""

    def __init__(self, chip):
        self.chip = chip

    def program(self, weights, *, generator=None):
        return {name: self.chip[name].clone() for name in weights}


def loss_of(model, spikes, labels):
    return nn.functional.cross_entropy(model(spikes).mean(0), labels)


@pytest.mark.parametrize("kind", [Net, OverTime])
def test_the_gradient_is_that_of_a_chip_with_the_literal_offsets(kind):
    model, (spikes, labels) = net(kind), loader()[0]
    weights = chip_of(model)
    method = PerturbedGradient(model, HSV(Given(weights)), trim=True)
    before = copy.deepcopy(model.state_dict())
    loss = method.backward(lambda: loss_of(model, spikes, labels))
    chip = copy.deepcopy(model)
    chip.zero_grad()
    chip.load_state_dict({**before, **weights})
    names = [(model.get_submodule(name), chip.get_submodule(name)) for name in LAYERS]
    found = literal.trimmed(model, chip, [(spikes, labels)], names, gains=False)
    for layer, numbers in found.items():
        layer.register_forward_hook(changing(layer, *numbers))
    expected = loss_of(chip, spikes, labels)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, dict(chip.named_parameters())[name].grad)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    untrimmed = PerturbedGradient(net(kind), HSV(Given(weights)))
    assert untrimmed.backward(lambda: loss_of(untrimmed.model, spikes, labels)) != loss


def test_looking_at_currents_leaves_gradients_and_running_statistics_alone():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    model[0].weight.grad = torch.ones(3, 4)
    inputs, labels = torch.rand(8, 4), torch.randint(2, (8,))
    method = WVAT(model, Gaussian(0.1), w_th=0.0, trim=True)
    calls = 0

    def closure():
        nonlocal calls
        calls += 1
        return nn.functional.cross_entropy(model(inputs), labels)

    method.backward(closure)
    checked = calls
    method.backward(closure)
    assert calls - checked == 2  # one look at the network as it is, one pass on the chip
    assert int(model[1].num_batches_tracked) == 2
    assert not model[3]._forward_hooks
    assert "forward" not in vars(model[3])
    assert float(model[0].weight.grad.mean()) != 0


def test_a_layer_that_was_replaced_is_found_again():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    method = WVAT(model, Gaussian(0.1), w_th=0.0, trim=True)
    model[2] = nn.Linear(3, 5)
    inputs, labels = torch.rand(8, 4), torch.randint(5, (8,))
    method.backward(lambda: nn.functional.cross_entropy(model(inputs), labels))
    assert model[2].weight.grad is not None


def test_a_layer_without_known_channels_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"layer '0' \(LSTM\) does not say which axis"):
        WVAT(nn.Sequential(nn.LSTM(3, 2)), Gaussian(0.1), trim=True)
