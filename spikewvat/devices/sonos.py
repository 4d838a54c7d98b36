"""Charge-trapping flash (SONOS): a published statistical model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spikewvat.devices.aging import AgingCells, polynomial
from spikewvat.devices.conductance import DifferentialPair

_DAY = 86400.0

# By day: A and B of the spread A (1 - exp(-I / B)), then the mean drift as a polynomial of the
# current; all currents in nanoamperes.
_SPREADS = (
    (19.88665, 176.3115),
    (25.59102, 186.85544),
    (28.72753, 193.56834),
    (31.04318, 198.90332),
    (33.76214, 204.77023),
    (34.57909, 207.34309),
)
_DRIFTS: tuple[tuple[float, ...], ...] = (
    (0.0,) * 11,
    (
        *(1.72684e-01, 5.72552e-02, -6.85715e-04, 3.50271e-06, -9.37682e-09, 1.40575e-11),
        *(-1.19803e-14, 5.41293e-18, -8.85448e-22, -1.66869e-25, 5.95180e-29),
    ),
    (
        *(2.50712e-01, 6.62195e-02, -6.83218e-04, 2.99442e-06, -6.78255e-09, 7.70482e-12),
        *(-3.04983e-15, -2.15919e-18, 2.94617e-21, -1.23359e-24, 1.85329e-28),
    ),
    (
        *(-1.75300e-02, 9.76883e-02, -9.63791e-04, 4.55551e-06, -1.22391e-08, 1.93786e-11),
        *(-1.85899e-14, 1.07659e-17, -3.58211e-21, 5.96785e-25, -3.30410e-29),
    ),
    (
        *(4.03338e-02, 1.03111e-01, -1.04740e-03, 4.83961e-06, -1.28132e-08, 1.99484e-11),
        *(-1.85139e-14, 1.00008e-17, -2.84944e-21, 3.01008e-25, 1.18747e-29),
    ),
    (
        *(3.19927e-01, 1.06596e-01, -1.04054e-03, 4.50290e-06, -1.10352e-08, 1.56477e-11),
        *(-1.27592e-14, 5.45513e-18, -7.26841e-22, -2.43893e-25, 7.14608e-29),
    ),
)


@dataclass(frozen=True)
class SONOS(AgingCells):
    r"""Cells of 40 nm SONOS flash in subthreshold, up to 1600 nanoamperes, for five days.

    The mean current moves by a polynomial of the current, and cells spread around it by
    :math:`A (1 - e^{-I / B})`, both fitted after 0 to 5 days and linear in time between; a reading
    spreads by :math:`12.58 (1 - e^{-I / 215.4})` nA at any time.

    Args:
        time: Time since the end of programming, in seconds, from 0 to 5 days.

    Raises:
        ValueError: If ``time`` is out of range.

    References:
        Agrawal et al., IEDM 2022, https://doi.org/10.1109/IEDM45625.2022.10019564, figures 10 and
        11, with the fits of CrossSim 3.2's ``SONOS``.
    """

    LATEST = 5 * _DAY

    def write_std(self, g: Tensor) -> Tensor:
        """Return the spread of currents at ``time`` (see :meth:`AgingCells.write_std`)."""
        a, b = self._at_time(_SPREADS)
        return _saturating(g + self._moved(g), a, b)

    def aged(self, g: Tensor, written: Tensor, z: Tensor) -> Tensor:
        """Return the currents at ``time`` (see :meth:`AgingCells.aged`)."""
        return written + self._moved(g)

    def read_std(self, written: Tensor, aged: Tensor) -> Tensor:
        """Return the noise of a reading (see :meth:`AgingCells.read_std`)."""
        return _saturating(aged, 12.58037, 215.36557)

    def _moved(self, g: Tensor) -> Tensor:
        # Powers of 1600 up to the tenth, times numbers that nearly cancel: float32 is too short.
        moved = polynomial(g.double(), *self._at_time(_DRIFTS)).to(g.dtype)
        return torch.zeros_like(g) if self.time == 0 else moved

    def _at_time(self, table: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
        day = self.time / _DAY
        first = min(int(day), len(table) - 2)
        share = day - first
        pairs = zip(table[first], table[first + 1], strict=True)
        return tuple(one + share * (other - one) for one, other in pairs)


def sonos(time: float = 0.0) -> DifferentialPair:
    """Return differential pairs of :class:`SONOS` cells, up to 1600 nanoamperes.

    Args:
        time: Time since the end of programming, in seconds.

    Raises:
        ValueError: If ``time`` is out of range.
    """
    return DifferentialPair(SONOS(time), 0.0, 1600.0)


def _saturating(g: Tensor, a: float, b: float) -> Tensor:
    return (a * (1 - (-g / b).exp_())).clamp_(min=0)
