"""Corrections of single images' spikes, for few time steps: what a first run gets wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from spikewvat.conversion.layers import Neurons
from spikewvat.spiking.stdb import State

_MARGIN = 1e-3  # of the threshold


@dataclass(frozen=True)
class OffsetSpikes:
    r"""Calibrate offset spikes: run each layer twice, and start the second run elsewhere.

    After T steps, a neuron with a potential below 0 has fired a spike too many, and one at its
    threshold or above a spike too few. The second run of the layer, with the same input, starts

    .. math:: \max\big(\theta, \min_{t:\,o_t = 1} v_t - \theta + \epsilon\big)
        \quad\text{lower, or}\quad
        \max\big(\theta, \theta + \epsilon - \max_{t:\,o_t = 0} v_t\big) \quad\text{higher,}

    with v the potential at the time of the decision. The next layer sees the second run only.
    Layers take turns: a pass lasts 2T steps for each layer, and synapses work twice; the spikes
    that are sent stay about as many. A chip must hold a layer's input for T steps.

    References:
        Bridging the Gap between ANNs and SNNs by Calibrating Offset Spikes (Hao et al., 2023),
        section 4, https://arxiv.org/abs/2302.10685
    """

    def state(self, neurons: Neurons, x: Tensor, time_steps: int) -> State:
        """Return where a layer's second run starts.

        Args:
            neurons: The layer, without leak.
            x: Its currents in all steps, ``[T, B, ...]`` or ``[1, B, ...]``.
            time_steps: T.
        """
        with torch.no_grad():
            x = neurons.shifted(x)
            begin = neurons.begin(x)
            spikes, end = neurons.fire(x.expand(time_steps, *x.shape[1:]), begin)
            level = neurons.level(x)
            counts = spikes.cumsum(0)
            # Without leak, potentials follow from what has come in and gone out.
            decided = begin.v + x.expand_as(spikes).cumsum(0) - level * (counts - spikes)
            fired = spikes > 0
            least = decided.masked_fill(~fired, torch.inf).amin(0)
            most = decided.masked_fill(fired, -torch.inf).amax(0)
            margin = _MARGIN * level
            lower = torch.maximum(least - level + margin, level)
            higher = torch.maximum(level + margin - most, level)
            full = counts[-1] >= time_steps
            v = torch.where((end.v < 0) & (counts[-1] > 0), begin.v - lower, begin.v)
            v = torch.where((end.v >= level) & ~full, begin.v + higher, v)
            return begin._replace(v=v)


@dataclass(frozen=True)
class SilentResiduals:
    r"""Silence neurons that should not have fired, by the potential that a first run leaves.

    The network runs for some steps, then starts anew for T more. Neurons whose potential after the
    first run is not above 0 got a total input that is not, so that the ANN's activation is 0: they
    send nothing in the second run. This costs the first run's steps, spikes and synaptic
    operations in every pass, and one bit of memory for each neuron.

    Args:
        steps: Number of steps of the first run, at least 1.

    Raises:
        ValueError: If ``steps`` is below 1.

    References:
        Reducing ANN-SNN Conversion Error through Residual Membrane Potential (Hao et al., 2023),
        https://arxiv.org/abs/2302.02091
    """

    steps: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {self.steps!r}.")

    def speaks(self, neurons: Neurons, end: State) -> Tensor:
        """Return 1 for neurons that may send spikes in the second run, 0 for the others."""
        v = end.v
        return (v > _MARGIN * neurons.level(v[None])).to(v.dtype)


Correction: TypeAlias = OffsetSpikes | SilentResiduals
"""A correction of each image's spikes."""
