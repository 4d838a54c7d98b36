"""What SpikingJelly's ann2snn converted is tested and fine-tuned by the same calls."""

from __future__ import annotations

import copy

import pytest
import torch
from spikingjelly.activation_based import ann2snn, neuron
from spikingjelly.activation_based.ann2snn.recipes import RateCodingRecipe
from torch import nn

from spikewvat import WVAT, Gaussian, adapter_for
from spikewvat.conversion import OverTime, convert, finetune
from spikewvat.robustness import simulate_chips


@pytest.fixture
def jelly():
    """A small network, converted by SpikingJelly."""
    ann = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))
    recipe = RateCodingRecipe([(torch.rand(32, 6),)])
    return OverTime(ann2snn.Converter(recipe).convert(copy.deepcopy(ann)), 8)


def test_weights_are_found_and_neurons_reset(jelly):
    adapter = adapter_for(jelly)
    assert set(adapter.synaptic_weights(jelly)) == {f"network.{i}.weight" for i in (0, 2, 4)}
    x = torch.rand(5, 6)
    adapter.reset_state(jelly)
    first = jelly(x)
    assert any(isinstance(m, neuron.IFNode) for m in jelly.modules())
    assert not torch.equal(jelly(x), first)  # potentials were carried over
    adapter.reset_state(jelly)
    assert torch.equal(jelly(x), first)


def test_chips_and_fine_tuning(jelly):
    x = torch.rand(48, 6)
    labels = x[:, :3].argmax(1)
    report = simulate_chips(jelly, [(x, labels)], Gaussian(0.1), chips=4)
    assert report.chips == 4
    adapter = adapter_for(jelly)
    before = {n: w.detach().clone() for n, w in adapter.synaptic_weights(jelly).items()}
    losses = finetune(
        jelly,
        [(x, labels)] * 5,
        epochs=5,
        optimizer=torch.optim.Adam(jelly.parameters(), 1e-2),
        method=WVAT(jelly, Gaussian(0.1)),
    )
    assert losses[-1] < losses[0]
    after = adapter.synaptic_weights(jelly)
    assert not any(torch.equal(after[name], weight) for name, weight in before.items())
    copy.deepcopy(jelly)  # no graph is left in the neurons


def test_both_converters_tend_to_the_same_network():
    torch.manual_seed(3)
    ann = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    x = torch.rand(32, 6)
    recipe = RateCodingRecipe([(x,)])
    theirs = OverTime(ann2snn.Converter(recipe).convert(copy.deepcopy(ann)), 400)
    ours = convert(ann, [x], time_steps=400)
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), ann(x), atol=0.02, rtol=0)
        torch.testing.assert_close(ours(x), ann(x), atol=0.02, rtol=0)


def test_time_steps():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        OverTime(nn.Linear(2, 2), 0)
