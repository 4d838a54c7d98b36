"""Resistive memory: published statistical models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from spikewvat.devices.aging import AgingCells, flicker, polynomial
from spikewvat.devices.conductance import DifferentialPair, SingleCell

_DAY = 86400.0


@dataclass(frozen=True)
class WanReRAM(AgingCells):
    r"""Cells of 40 microsiemens that relax after programming and do not drift.

    The standard deviation is a polynomial of x = g / 40 µS after 1 s, 1 day and 2 days; between
    these it is linear in the logarithm of time, and before the first second that of 1 s.

    Args:
        time: Time since the end of programming, in seconds, from 0 to 2 days.

    Raises:
        ValueError: If ``time`` is out of range.

    References:
        Wan et al., Nature 2022, https://doi.org/10.1038/s41586-022-04992-8, extended data figure
        3, with the fourth-order fits of aihwkit 1.1's ``ReRamWan2022NoiseModel``. These are for 40
        µS; that class sets ``prog_coeff_g_max_reference`` but divides by
        ``coeff_g_max_reference``, so its noise is 1.6 times as large with its default of 25 µS,
        and equal to this model's with ``g_max=40``. The cubic fit of CrossSim's ``RRAMWan`` to
        the same figure is up to three times as large at the ends.
    """

    LATEST = 2 * _DAY
    G_MAX: ClassVar[float] = 40.0
    FITS: ClassVar[dict[float, tuple[float, ...]]] = {
        1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
        _DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
        2 * _DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
    }

    def write_std(self, g: Tensor) -> Tensor:
        """Return the spread at ``time`` (see :meth:`AgingCells.write_std`)."""
        times, x = list(self.FITS), g / self.G_MAX
        time = max(self.time, times[0])
        later = next(t for t in times if t >= time)
        earlier = times[max(0, times.index(later) - 1)]
        std = polynomial(x, *self.FITS[later])
        if later != earlier:
            share = math.log(time / earlier) / math.log(later / earlier)
            std = polynomial(x, *self.FITS[earlier]).lerp(std, share)
        return std.clamp_(min=0)


@dataclass(frozen=True)
class CMOReRAM(AgingCells):
    r"""Cells of conductive metal oxide on hafnium oxide, from 9 to 88.2 microsiemens.

    In µS, with :math:`\ln t` from 1 s onwards: programming :math:`\sigma = 0.001069 g + 0.000811`
    if a cell is accepted within 0.2 % of its target, ten times that within 2 %; then every cell
    loses :math:`0.0890 \ln t` and spreads by :math:`0.4118 + 0.0420 \ln t`, whatever its level;
    a reading spreads by :math:`0.0277 \log_{10} g_t \sqrt{\ln((t + t_r) / 2 t_r)}`.

    Args:
        time: Time t since the end of programming, in seconds, at least 0, where nothing has
            relaxed yet.
        acceptance: Largest error at which programming stops, in per cent: 0.2 or 2.

    Raises:
        ValueError: If ``time`` is negative, or ``acceptance`` was not measured.

    References:
        Falcone et al., 2025, https://arxiv.org/abs/2502.04524, and Lombardo et al., DRC 2024,
        https://doi.org/10.1109/DRC61706.2024.10643760, with the coefficients of aihwkit 1.1's
        ``ReRamCMONoiseModel``. That class draws the relaxation anew at each time, and its default
        acceptance of 2 % (``2e-2``) is not among its keys, so that it takes 0.2 %.
    """

    acceptance: float = 0.2
    G_MIN: ClassVar[float] = 9.0
    G_MAX: ClassVar[float] = 88.2
    T_READ: ClassVar[float] = 1e-6
    WRITE: ClassVar[dict[float, tuple[float, float]]] = {
        0.2: (0.00081107, 0.00106879),
        2.0: (0.0112185391, 0.01129027418),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.acceptance not in self.WRITE:
            raise ValueError(
                f"acceptance must be 0.2 or 2 (per cent), which were measured, got "
                f"{self.acceptance!r}."
            )

    def write_std(self, g: Tensor) -> Tensor:
        """Return the error of programming (see :meth:`AgingCells.write_std`)."""
        return polynomial(g, *self.WRITE[self.acceptance])

    def aged(self, g: Tensor, written: Tensor, z: Tensor) -> Tensor:
        """Return the conductances at ``time`` (see :meth:`AgingCells.aged`)."""
        if self.time == 0:
            return written
        log = math.log(max(self.time, 1.0))
        relaxed = written - 0.08900206 * log + (0.41183342 + 0.04201137 * log) * z
        return relaxed.clamp_(self.G_MIN, self.G_MAX)

    def read_std(self, written: Tensor, aged: Tensor) -> Tensor | None:
        """Return the noise of a reading (see :meth:`AgingCells.read_std`)."""
        if self.time <= self.T_READ:
            return None
        return aged.clamp(min=1).log10() * (0.0277316483 * flicker(self.time, self.T_READ))


@dataclass(frozen=True)
class MiloReRAM(AgingCells):
    r"""Multilevel cells from 50 to 225 microsiemens right after programming.

    :math:`\sigma = 4.782321 - 0.009107 g` µS. Nothing is known of later times.

    Args:
        time: 0.

    Raises:
        ValueError: If ``time`` is not 0.

    References:
        Milo et al., IRPS 2021, https://doi.org/10.1109/IRPS46558.2021.9405119, figure 4
        (algorithm IGVVA-100), with the linear fit of CrossSim 3.2's ``RRAMMilo``.
    """

    LATEST = 0.0

    def write_std(self, g: Tensor) -> Tensor:
        """Return the error of programming (see :meth:`AgingCells.write_std`)."""
        return polynomial(g, 4.782321, -0.009107).clamp_(min=0)


def wan_reram(time: float = 0.0, *, g_min: float = 0.0) -> DifferentialPair:
    """Return differential pairs of :class:`WanReRAM` cells, up to 40 microsiemens.

    Args:
        time: Time since the end of programming, in seconds.
        g_min: Conductance of a cell at rest, in microsiemens.

    Raises:
        ValueError: If a number is out of range.
    """
    return DifferentialPair(WanReRAM(time), g_min, WanReRAM.G_MAX)


def cmo_reram(time: float = 0.0, *, acceptance: float = 0.2) -> SingleCell:
    """Return :class:`CMOReRAM` cells, one to a weight, from 9 to 88.2 microsiemens.

    Args:
        time: Time since the end of programming, in seconds.
        acceptance: Largest error at which programming stops, in per cent: 0.2 or 2.

    Raises:
        ValueError: If a number is out of range.
    """
    return SingleCell(CMOReRAM(time, acceptance), CMOReRAM.G_MIN, CMOReRAM.G_MAX)


def milo_reram(time: float = 0.0) -> DifferentialPair:
    """Return differential pairs of :class:`MiloReRAM` cells, from 50 to 225 microsiemens.

    Args:
        time: 0, since nothing is known of later times.

    Raises:
        ValueError: If ``time`` is not 0.
    """
    return DifferentialPair(MiloReRAM(time), 50.0, 225.0)
