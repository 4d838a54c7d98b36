"""Corruptions inside a network: of neurons, of transmission between layers, and of synapses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from spikewvat import devices
from spikewvat.adapters.neurons import Part
from spikewvat.devices.base import generator_device
from spikewvat.devices.ranges import RangeRule, SixSigma, check_range
from spikewvat.robustness.corruptions.base import (
    NeuronCorruption,
    SynapseCorruption,
    check_share,
    check_size,
)
from spikewvat.robustness.corruptions.events import lost, uniform


@dataclass(frozen=True)
class DeadNeurons(NeuronCorruption):
    """Each neuron is dead with probability p: it never fires. Drawn once for a chip.

    Args:
        severity: p, a share of the neurons of each layer.

    Raises:
        ValueError: If ``severity`` is not a probability.
    """

    UNIT: ClassVar[str] = "share of neurons dead"
    LEVELS: ClassVar[tuple[float, ...]] = (0.01, 0.02, 0.05, 0.1, 0.2)

    def __post_init__(self) -> None:
        check_share(self.severity)

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the spikes of the other neurons: one draw for each neuron."""
        dead = uniform(spikes.shape[2:], generator) < self.severity
        return spikes.masked_fill(dead.to(spikes.device), 0)


@dataclass(frozen=True)
class StuckNeurons(NeuronCorruption):
    """Each neuron is stuck with probability p: it fires in every step. Drawn once for a chip.

    Args:
        severity: p, a share of the neurons of each layer.

    Raises:
        ValueError: If ``severity`` is not a probability.
    """

    UNIT: ClassVar[str] = "share of neurons stuck"
    LEVELS: ClassVar[tuple[float, ...]] = (0.001, 0.003, 0.01, 0.03, 0.1)

    def __post_init__(self) -> None:
        check_share(self.severity)

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the spikes, stuck neurons always firing: one draw for each neuron."""
        stuck = uniform(spikes.shape[2:], generator) < self.severity
        return spikes.masked_fill(stuck.to(spikes.device), 1)


@dataclass(frozen=True)
class TransmissionLoss(NeuronCorruption):
    """Each spike that a neuron sends is lost with probability p, drawn for each spike.

    A lost spike reaches no synapse: neither in the next layer nor in recurrent connections; a spike
    of an output neuron is not counted. Input events are not affected;
    :class:`~spikewvat.robustness.corruptions.Deletion` loses those.

    Args:
        severity: p, a share of the spikes of each layer.

    Raises:
        ValueError: If ``severity`` is not a probability.
    """

    UNIT: ClassVar[str] = "share of spikes lost"
    LEVELS: ClassVar[tuple[float, ...]] = (0.02, 0.05, 0.1, 0.2, 0.4)
    STATIC: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_share(self.severity)

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the spikes that arrive: one draw for each spike, in the order of ``nonzero``."""
        return lost(spikes, self.severity, generator)


@dataclass(frozen=True)
class ThresholdMismatch(NeuronCorruption):
    r"""Thresholds differ from neuron to neuron. Drawn once for a chip.

    .. math:: \theta_i = \theta\, e^{\sigma \epsilon_i}, \qquad \epsilon_i \sim N(0, 1)

    Args:
        severity: :math:`\sigma`; for small values the relative standard deviation.

    Raises:
        ValueError: If ``severity`` is negative or not finite.
    """

    UNIT: ClassVar[str] = "relative standard deviation of thresholds"
    LEVELS: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.2, 0.3, 0.5)
    PART: ClassVar[Part] = "v_threshold"

    def __post_init__(self) -> None:
        check_size(self.severity)

    def factors(self, shape: torch.Size, *, generator: Generator | None = None) -> Tensor:
        """Return the factor of each neuron's threshold."""
        return _lognormal(shape, self.severity, generator)


@dataclass(frozen=True)
class LeakMismatch(NeuronCorruption):
    r"""Membrane time constants differ from neuron to neuron. Drawn once for a chip.

    .. math::
        \tau_i = \tau_{mem}\, e^{\sigma \epsilon_i}, \qquad \epsilon_i \sim N(0, 1), \qquad
        \beta_i = e^{-dt/\tau_i} = \beta^{\,\tau_{mem}/\tau_i}

    :math:`\beta` is the share of the potential left after a step; frameworks call it by different
    names (``beta``, ``1 - 1/tau``, ``leak``). It does not apply to neurons without leak, nor to
    SLAYER's, which share a kernel.

    Args:
        severity: :math:`\sigma`; for small values the relative standard deviation.

    Raises:
        ValueError: If ``severity`` is negative or not finite.
    """

    UNIT: ClassVar[str] = "relative standard deviation of time constants"
    LEVELS: ClassVar[tuple[float, ...]] = (0.1, 0.2, 0.4, 0.7, 1.0)
    PART: ClassVar[Part] = "tau_mem"

    def __post_init__(self) -> None:
        check_size(self.severity)

    def factors(self, shape: torch.Size, *, generator: Generator | None = None) -> Tensor:
        """Return the factor of each neuron's time constant."""
        return _lognormal(shape, self.severity, generator)


@dataclass(frozen=True)
class ReadNoise(SynapseCorruption):
    r"""Weights are read with normal noise, drawn anew in every time step.

    .. math:: w' = w + \sigma R\, \epsilon, \qquad \epsilon \sim N(0, 1)

    A sweep over :class:`spikewvat.devices.ReadNoise`, which composes with other devices. A layer
    that is applied once for several steps (to a constant input) is read once.

    Args:
        severity: :math:`\sigma`, a fraction of the range.
        range: Rule for R.

    Raises:
        ValueError: If ``severity`` is negative or not finite.
    """

    UNIT: ClassVar[str] = "standard deviation over range"
    LEVELS: ClassVar[tuple[float, ...]] = (0.01, 0.02, 0.05, 0.1, 0.2)
    range: RangeRule = SixSigma()  # noqa: RUF009 -- frozen

    def __post_init__(self) -> None:
        check_size(self.severity)
        check_range(self.range)

    def read(self, weight: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the weights with fresh noise."""
        return devices.ReadNoise(self.severity, self.range).read(weight, generator=generator)


def _lognormal(shape: torch.Size, sigma: float, generator: Generator | None) -> Tensor:
    device = generator_device(generator)
    epsilon = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    return (sigma * epsilon).exp()
