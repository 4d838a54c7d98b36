"""The library's neurons over time as one compiled loop: the same spikes in a third of the time.

For benchmarks that run many chips. It needs numba, which tonic brings along.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikewvat.conversion import Dynamics, layers
from spikewvat.spiking import stdb
from spikewvat.spiking.stdb import State

_here = sys.path.pop(0)  # numba looks for the package coverage, not for a benchmark of this name
import numba  # noqa: E402

sys.path.insert(0, _here)


@numba.njit
def _plain(currents: Any, u: Any, level: Any, spikes: Any) -> None:
    one, zero, constant = np.float32(1), np.float32(0), len(currents) == 1
    for b in range(len(u)):
        for t in range(len(spikes)):
            current, out, v = currents[0 if constant else t, b], spikes[t, b], u[b]
            for n in range(len(v)):
                potential = v[n] + current[n]
                fires = potential >= level[n]
                v[n] = potential - (level[n] if fires else zero)
                out[n] = one if fires else zero


@numba.njit
def _several(
    currents: Any, u: Any, level: Any, spikes: Any, net: Any, signed: bool, burst: int
) -> None:
    zero, most, constant = np.float32(0), np.float32(burst), len(currents) == 1
    for b in range(len(u)):
        for t in range(len(spikes)):
            current, out, v, sent = currents[0 if constant else t, b], spikes[t, b], u[b], net[b]
            for n in range(len(v)):
                potential = v[n] + current[n]
                least = np.float32(-1) if signed and sent[n] > zero else zero
                o = max(min(np.floor(potential / level[n]), most), least)
                v[n] = potential - o * level[n]
                sent[n] += o
                out[n] = o


def neurons(
    currents: Tensor,
    threshold: Tensor,
    dynamics: Dynamics = Dynamics(),  # noqa: B008 -- frozen
    *,
    leak: Tensor | None = None,
    state: State | None = None,
) -> tuple[Tensor, State]:
    """Return what :func:`spikewvat.spiking.stdb.neurons` returns, without gradients."""
    other = dynamics.delayed or dynamics.hard_reset or leak is not None
    if other or state is None or currents.dtype != torch.float32:
        return stdb.neurons(currents, threshold, dynamics, leak=leak, state=state)
    steps, batch, shape = len(currents), currents.shape[1], currents.shape[1:]
    few = currents[:1] if currents.stride(0) == 0 else currents
    u = state.v.detach().clone(memory_format=torch.contiguous_format)
    level = threshold.detach().expand(shape[1:]).reshape(-1).numpy()
    spikes = torch.empty(steps, *shape)
    given = few.detach().reshape(len(few), batch, -1).numpy()
    flat, out = u.view(batch, -1).numpy(), spikes.view(steps, batch, -1).numpy()
    if not dynamics.several:
        _plain(given, flat, level, out)
        return spikes, State(u, state.since)
    net = torch.zeros_like(u) if state.net is None else state.net.clone()
    sent = net.view(batch, -1).numpy()
    _several(given, flat, level, out, sent, dynamics.signed, dynamics.burst)
    return spikes, State(u, state.since, net)


@contextmanager
def quick() -> Iterator[None]:
    """Let converted networks use the compiled loop within a block, after a check."""
    for dynamics in (Dynamics(), Dynamics(signed=True), Dynamics(signed=True, burst=2)):
        _check(dynamics)
    before, layers.neurons = layers.neurons, neurons
    try:
        yield
    finally:
        layers.neurons = before


def _check(dynamics: Dynamics) -> None:
    draw = torch.Generator().manual_seed(0)
    threshold = torch.rand(6, 1, 1, generator=draw) + 0.5
    state = stdb.initial_state(torch.empty(4, 6, 5, 5), threshold, 0.5)
    for currents in (torch.randn(8, 4, 6, 5, 5, generator=draw), torch.ones(1, 4, 6, 5, 5)):
        over = currents.expand(8, *currents.shape[1:])
        found, end = neurons(over, threshold, dynamics, state=state)
        expected, known = stdb.neurons(over, threshold, dynamics, state=state)
        if not (torch.equal(found, expected) and torch.allclose(end.v, known.v, atol=1e-5)):
            raise AssertionError(f"the compiled loop differs from the library's for {dynamics}.")
