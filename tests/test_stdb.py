"""Integrate-and-fire neurons and their surrogates against literal loops."""

from __future__ import annotations

import math

import pytest
import reference_conversion as reference
import torch

from spikewvat.spiking.stdb import Dynamics, SpikeTime, State, Triangle, neurons

EXAMPLE = 0.6 * torch.tensor([1, 1, 0, 1, 1, 0, 0, 0], dtype=torch.float64)
HYBRID = Dynamics(delayed=True, initial=0.0)
ONE, LEAK = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64)


def hybrid(surrogate):
    return Dynamics(delayed=True, initial=0.0, surrogate=surrogate)


def test_worked_example():
    """Section 16.4: potentials, spikes and both surrogates."""
    potentials, state = [], None
    for t in range(8):
        spikes, state = neurons(EXAMPLE[t : t + 1], ONE, HYBRID, leak=LEAK, state=state)
        assert spikes.item() == (t in (2, 5))
        potentials.append(round(state.v.item(), 6))
    assert potentials == [0.6, 1.14, 0.026, 0.6234, 1.16106, 0.044954, 0.040459, 0.036413]

    def slopes(surrogate):
        """The slope at t is how input t - 1 moves the sum of spikes from t on, leak taken out."""
        found = []
        for t in range(8):
            x = EXAMPLE.clone().requires_grad_()
            neurons(x, ONE, hybrid(surrogate), leak=LEAK)[0][t].backward()
            found.append(x.grad[t - 1].item() if t else 0.0)
        return [round(value, 6) for value in found]

    assert slopes(SpikeTime())[3:6] == [0.297015, 0.294060, 0.291134]
    assert slopes(Triangle())[1:6] == [0.18, 0.258, 0.0078, 0.18702, 0.251682]


@pytest.mark.parametrize("leak", [1.0, 0.9])
@pytest.mark.parametrize("threshold", [1.0, 0.7])
@pytest.mark.parametrize(
    ("surrogate", "slope"),
    [
        (SpikeTime(), lambda z, waited: reference.stdb_slope(waited)),
        (
            SpikeTime(silent=False),
            lambda z, waited: reference.stdb_slope(waited) if waited < 999 else 0.0,
        ),
        (Triangle(), lambda z, waited: reference.linear_slope(z)),
    ],
    ids=["stdb", "stdb-silent-zero", "linear"],
)
def test_hybrid_neurons_are_the_literal_loop(leak, threshold, surrogate, slope):
    x = torch.randn(30, 5, dtype=torch.float64).mul_(0.8).add_(0.3).requires_grad_()
    of_spikes = torch.randn(30, 5, dtype=torch.float64)
    level = torch.tensor(threshold, dtype=torch.float64)
    decay = None if leak == 1 else torch.tensor(leak, dtype=torch.float64)
    spikes, state = neurons(x, level, hybrid(surrogate), leak=decay)
    (spikes * of_spikes).sum().backward()
    assert spikes.sum() > 10
    for i in range(5):
        inputs = x[:, i].tolist()
        expected, potentials, _ = reference.hybrid_neuron(inputs, threshold, leak)
        assert spikes[:, i].tolist() == expected
        assert state.v[i].item() == pytest.approx(potentials[-1], abs=1e-12)
        gradient = reference.hybrid_gradient(
            inputs, of_spikes[:, i].tolist(), slope, threshold, leak
        )
        assert x.grad[:, i].tolist() == pytest.approx(gradient, abs=1e-12)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("leak", [1.0, 0.8])
@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_conventional_neurons_are_the_literal_loop(hard, leak, initial):
    x = torch.rand(40, 6, dtype=torch.float64)
    decay = torch.tensor(leak, dtype=torch.float64)
    dynamics = Dynamics(hard_reset=hard, initial=initial)
    spikes, _ = neurons(x, ONE * 1.3, dynamics, leak=decay)
    for i in range(6):
        expected = reference.conventional_neuron(x[:, i].tolist(), 1.3, leak, initial, hard)
        assert spikes[:, i].tolist() == expected


def surrogate_network(x, threshold, leak, dynamics):
    """The same neurons by autograd: a spike is its value, its slope is the surrogate's."""
    u = torch.full_like(x[0], dynamics.initial * threshold.item())
    since, spikes = torch.full_like(x[0], 999.0), []
    for current in x:
        v = u if dynamics.delayed else leak * u + current
        z = v / threshold - 1
        hard = (z > 0 if dynamics.delayed else z >= 0).to(v)
        slope = dynamics.surrogate.slope(z.detach(), since)
        spikes.append(hard + slope * (z - z.detach()))
        if dynamics.delayed:
            kept = v * (1 - hard) if dynamics.hard_reset else v
            u = leak * kept + current
            u = u if dynamics.hard_reset else u - threshold * hard
        else:
            u = v * (1 - hard) if dynamics.hard_reset else v - threshold * hard
        since = torch.where(hard > 0, torch.ones_like(since), since + 1)
    return torch.stack(spikes), u


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("surrogate", [SpikeTime(), Triangle()], ids=repr)
def test_gradients_of_everything_are_those_of_autograd(delayed, hard, surrogate):
    dynamics = Dynamics(delayed=delayed, hard_reset=hard, initial=0.25, surrogate=surrogate)
    weights = torch.randn(25, 4, 3, dtype=torch.float64)
    end = torch.randn(4, 3, dtype=torch.float64)
    results = []
    for run in (neurons, None):
        torch.manual_seed(1)
        x = torch.randn(25, 4, 3, dtype=torch.float64).add_(0.3).requires_grad_()
        threshold = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
        leak = torch.tensor(0.85, dtype=torch.float64, requires_grad=True)
        if run is None:
            spikes, v = surrogate_network(x, threshold, leak, dynamics)
        else:
            spikes, state = run(x, threshold, dynamics, leak=leak)
            v = state.v
        ((spikes * weights).sum() + (v * end).sum()).backward()
        results.append((spikes.detach(), v.detach(), x.grad, threshold.grad, leak.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_thresholds_of_channels_learn():
    x = torch.rand(6, 2, 3, 4, 4, dtype=torch.float64)
    threshold = torch.tensor([0.5, 0.7, 0.9], dtype=torch.float64).view(3, 1, 1).requires_grad_()
    neurons(x, threshold, Dynamics(initial=0.0))[0].sum().backward()
    assert threshold.grad.shape == (3, 1, 1)
    assert (threshold.grad < 0).all()


@pytest.mark.parametrize("surrogate", [SpikeTime(), Triangle()], ids=repr)
@pytest.mark.parametrize("delayed", [False, True])
def test_chunks_of_steps_are_one_run(surrogate, delayed):
    """Spikes and gradients do not depend on where time is cut."""
    dynamics = Dynamics(delayed=delayed, surrogate=surrogate)
    results = []
    for cuts in ((12,), (5, 4, 3)):
        torch.manual_seed(2)
        x = torch.rand(12, 4, dtype=torch.float64).requires_grad_()
        state, parts = None, []
        for part in x.split(list(cuts)):
            spikes, state = neurons(part, ONE, dynamics, leak=LEAK, state=state)
            parts.append(spikes)
        spikes = torch.cat(parts)
        (spikes * torch.randn(12, 4, dtype=torch.float64)).sum().backward()
        results.append((spikes.detach(), x.grad))
    torch.testing.assert_close(results[0], results[1], atol=1e-12, rtol=0)


def test_state_is_float32_at_least():
    spikes, state = neurons(torch.rand(5, 3).bfloat16(), torch.tensor(1.0))
    assert spikes.dtype == torch.bfloat16
    assert state.v.dtype == torch.float32
    assert isinstance(state, State)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SpikeTime(a=0), "a must be finite and above 0, got 0"),
        (lambda: SpikeTime(b=-1), "b must be finite and at least 0, got -1"),
        (lambda: Triangle(a=math.inf), "a must be finite and above 0, got inf"),
        (lambda: Dynamics(initial=1.0), r"initial must lie in \[0, 1\), got 1.0"),
    ],
)
def test_constants_out_of_range(make, match):
    with pytest.raises(ValueError, match=match):
        make()
