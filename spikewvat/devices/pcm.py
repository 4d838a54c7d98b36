"""Phase-change memory: published statistical models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from spikewvat.devices.aging import AgingCells, flicker, polynomial
from spikewvat.devices.conductance import DifferentialPair

_SMALLEST = 1e-7  # relative conductance in front of a logarithm


@dataclass(frozen=True)
class PhaseChange(AgingCells):
    r"""Cells whose conductance falls by a power of time, with an exponent of their own.

    .. math:: g_t = g_0 \left(\frac{t + t_0}{t_0}\right)^{-\nu}, \quad
              \nu = |\mu_\nu(g) + \sigma_\nu(g) z_2|, \qquad
              \sigma_{read} = g_t \, Q(g_0) \sqrt{\ln \frac{t + t_0 + t_r}{2 t_r}}

    Args:
        time: Time t since the end of programming, in seconds, at least 0.

    Raises:
        ValueError: If ``time`` is negative.
    """

    G_MAX: ClassVar[float]
    """Conductance that the laws are relative to, in microsiemens."""
    T0: ClassVar[float]
    """Time of the first reading, in seconds."""
    T_READ: ClassVar[float]
    """Length of a reading pulse, in seconds."""

    @abstractmethod
    def exponent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the drift exponent at relative conductances."""

    @abstractmethod
    def read_share(self, x: Tensor) -> Tensor:
        """Return Q at relative conductances."""

    def aged(self, g: Tensor, written: Tensor, z: Tensor) -> Tensor:
        """Return the conductances at ``time`` (see :meth:`AgingCells.aged`)."""
        mean, std = self.exponent((g / self.G_MAX).clamp_(min=_SMALLEST))
        exponent = (mean + std * z).abs_()
        aged: Tensor = written * (1 + self.time / self.T0) ** exponent.neg_()
        return aged

    def read_std(self, written: Tensor, aged: Tensor) -> Tensor:
        """Return the noise of a reading (see :meth:`AgingCells.read_std`)."""
        share = self.read_share((written / self.G_MAX).clamp_(min=_SMALLEST))
        return share * aged * flicker(self.time + self.T0, self.T_READ)


@dataclass(frozen=True)
class PCM(PhaseChange):
    r"""A million phase-change cells of 25 microsiemens, programmed with iterations.

    With x = g / 25 µS: :math:`\sigma = 0.26348 + 1.9650 x - 1.1731 x^2` µS;
    :math:`\mu_\nu = -0.0155 \ln x + 0.0244` in [0.049, 0.1];
    :math:`\sigma_\nu = -0.0125 \ln x - 0.0059` in [0.008, 0.045];
    :math:`Q = 0.0088 / x^{0.65}`, at most 0.2.

    Args:
        time: Time since the end of programming, in seconds, at least 0.

    Raises:
        ValueError: If ``time`` is negative.

    References:
        Nandakumar et al., ICECS 2019, https://doi.org/10.1109/ICECS46596.2019.8964852, with the
        coefficients of aihwkit 1.1's ``PCMLikeNoiseModel``. The formulas in its documentation take
        Q at the target; its code, and this model, at the programmed conductance.
    """

    G_MAX = 25.0
    T0 = 20.0
    T_READ = 250e-9

    def write_std(self, g: Tensor) -> Tensor:
        """Return the error of programming (see :meth:`AgingCells.write_std`)."""
        return polynomial(g / self.G_MAX, 0.26348, 1.9650, -1.1731).clamp_(min=0)

    def exponent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and spread of the exponent (see :meth:`PhaseChange.exponent`)."""
        log = x.log()
        mean = (-0.0155 * log + 0.0244).clamp_(0.049, 0.1)
        return mean, (-0.0125 * log - 0.0059).clamp_(0.008, 0.045)

    def read_share(self, x: Tensor) -> Tensor:
        """Return Q (see :meth:`PhaseChange.read_share`)."""
        return (0.0088 / (x**0.65).clamp_(min=1e-3)).clamp_(max=0.2)


@dataclass(frozen=True)
class HermesPCM(PhaseChange):
    """The phase-change cells of the IBM HERMES Project Chip, two to a conductance.

    Polynomials of the relative conductance, and logarithms at low conductances; the exact numbers
    are in the code.

    Args:
        time: Time since the end of programming, in seconds, at least 0.

    Raises:
        ValueError: If ``time`` is negative.

    References:
        Le Gallo et al., Nature Electronics 2023, https://doi.org/10.1038/s41928-023-01010-1; the
        coefficients are those of aihwkit 1.1's ``HermesNoiseModel`` with two devices, and cannot
        be found in the article itself.
    """

    G_MAX = 20.7
    T0 = 300.0
    T_READ = 512e-9

    def write_std(self, g: Tensor) -> Tensor:
        """Return the error of programming (see :meth:`AgingCells.write_std`)."""
        x = g / self.G_MAX
        return polynomial(x, 0.16603222, 4.71806468, -8.48101252, 4.68961419).clamp_(min=0)

    def exponent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and spread of the exponent (see :meth:`PhaseChange.exponent`)."""
        log = x.log()
        mean = torch.where(
            x < 0.0945,
            (-0.0387 * log - 0.0182).clamp_(0.072, 0.13),
            polynomial(x, 0.0736, -0.0126, -0.0436),
        )
        std = torch.where(
            x < 0.3055,
            (-0.0117 * log - 0.0057).clamp_(0.0091, 0.04),
            polynomial(x, 0.0073, 0.0093, -0.0118),
        )
        return mean, std

    def read_share(self, x: Tensor) -> Tensor:
        """Return Q (see :meth:`PhaseChange.read_share`)."""
        low = (-0.0117 * x.log() - 0.0069).clamp_(0.015, 0.04)
        return torch.where(x < 0.16, low, polynomial(x, 0.0123, 0.0211, -0.0280, 0.0069))


def pcm(
    time: float = 0.0, *, g_min: float = 0.0, factors: Sequence[float] = (1.0,)
) -> DifferentialPair:
    """Return differential pairs of :class:`PCM` cells, up to 25 microsiemens.

    Args:
        time: Time since the end of programming, in seconds.
        g_min: Conductance of a cell at rest, in microsiemens.
        factors: How much each pair of a weight counts; one pair by default.

    Raises:
        ValueError: If a number is out of range.
    """
    return DifferentialPair(PCM(time), g_min, PCM.G_MAX, factors=tuple(factors))


def hermes(
    time: float = 0.0, *, g_min: float = 0.0, factors: Sequence[float] = (1.0,)
) -> DifferentialPair:
    """Return differential pairs of :class:`HermesPCM` cells, up to 20.7 microsiemens.

    Args:
        time: Time since the end of programming, in seconds.
        g_min: Conductance of a cell at rest, in microsiemens.
        factors: How much each pair of a weight counts; one pair by default.

    Raises:
        ValueError: If a number is out of range.
    """
    return DifferentialPair(HermesPCM(time), g_min, HermesPCM.G_MAX, factors=tuple(factors))
