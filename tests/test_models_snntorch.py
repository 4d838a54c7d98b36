"""The recurrent snnTorch network against plain loops."""

from __future__ import annotations

import torch

from spikewvat.adapters import adapter_for
from spikewvat.lab.models.snntorch import Recurrent


def literal(model, spikes, *, beta, threshold):
    """Leaky neurons with subtractive reset one step late; hidden spikes feed back a step later."""
    hidden, output = model.synapses.out_features, model.readout.out_features
    steps, batch = spikes.shape[:2]
    potential, fired = torch.zeros(batch, hidden), torch.zeros(batch, hidden)
    last = torch.zeros(batch, output)
    found = []
    for step in range(steps):
        current = model.synapses(spikes[step].flatten(1)) + model.hidden.recurrent(fired)
        potential = beta * potential + current - threshold * (potential > threshold).float()
        fired = (potential > threshold).float()
        last = beta * last + model.readout(fired) - threshold * (last > threshold).float()
        found.append((last > threshold).float())
    return torch.stack(found)


def test_the_recurrent_network_is_the_literal_one():
    torch.manual_seed(3)
    model = Recurrent(input_shape=(2, 4, 4), hidden=9, classes=3, beta=0.8, threshold=0.3).eval()
    spikes = (torch.rand(7, 5, 2, 4, 4) < 0.4).float()
    with torch.no_grad():
        found = model(spikes)
        expected = literal(model, spikes, beta=0.8, threshold=0.3)
    assert 0 < float(found.mean()) < 1
    assert torch.equal(found, expected)
    names = ["synapses.weight", "hidden.recurrent.weight", "readout.weight"]
    assert list(adapter_for(model).synaptic_weights(model)) == names
