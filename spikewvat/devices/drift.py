"""Drift of programmed weights over time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import (
    EachWeight,
    check_above_zero,
    check_at_least_zero,
    draw_dtype,
    norm_of,
    normal,
)
from spikewvat.weights import Weights


@dataclass(frozen=True)
class Drift(EachWeight):
    r"""Power-law drift towards zero, each device with its own exponent.

    .. math:: w'(t) = w \, (t / t_0)^{-\nu}, \qquad \nu = \max(0, N(\nu_0, s^2))

    The exponents are part of the chip: the same seed at another ``time`` is the same chip, older.

    Args:
        nu: Mean exponent (dimensionless), at least 0.
        time: Time t since programming, in seconds, at least ``t0``.
        nu_std: Spread s of the exponent over devices (dimensionless), at least 0.
        t0: Time of the first read, at which the weights are as programmed, in seconds, above 0.

    Raises:
        ValueError: If a number is out of bounds or not finite.

    References:
        The drift law of phase-change memory as in Joshi et al., 2020,
        https://doi.org/10.1038/s41467-020-16108-9

    Example:
        >>> chip = Drift(nu=0.5, time=100.0).program({"fc": torch.tensor([1.0])})
        >>> round(chip["fc"].item(), 4)
        0.1
    """

    nu: float
    time: float
    nu_std: float = 0.0
    t0: float = 1.0
    AGES: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_at_least_zero("nu", self.nu)
        check_at_least_zero("nu_std", self.nu_std)
        check_above_zero("t0", self.t0)
        check_above_zero("time", self.time)
        if self.time < self.t0:
            raise ValueError(f"time must be at least t0 = {self.t0!r} s, got {self.time!r}.")

    @property
    def log_age(self) -> float:
        """Natural logarithm of t / t0."""
        return math.log(self.time) - math.log(self.t0)

    def expected_norms(self, weights: Weights) -> dict[str, Tensor]:
        """Return the norms in closed form (see :meth:`DeviceModel.expected_norms`)."""
        once, twice = self._mean_factor(self.log_age), self._mean_factor(2 * self.log_age)
        share = math.sqrt(max(0.0, twice - 2 * once + 1))  # E[(factor - 1)^2]
        return {name: norm_of(weight) * share for name, weight in weights.items()}

    def _program(self, weight: Tensor, generator: Generator | None) -> Tensor:
        nu = normal(weight.shape, draw_dtype(weight), generator)
        factor = nu.mul_(self.nu_std).add_(self.nu).clamp_(min=0).mul_(-self.log_age).exp_()
        return factor.to(weight.device).mul_(weight.detach()).to(weight.dtype)

    def _mean_factor(self, a: float) -> float:
        """Return E[exp(-a nu)] of the clipped exponent."""
        m, s = self.nu, self.nu_std
        if s == 0:
            return math.exp(-a * m)
        clipped = math.erfc(m / s / math.sqrt(2)) / 2
        # exp(a^2 s^2 / 2 - a m) erfc(z), which overflows when its factors are taken apart
        z = (a * s - m / s) / math.sqrt(2)
        if z > 5:
            scaled = torch.special.erfcx(torch.tensor(z, dtype=torch.float64))
            tail = math.exp(-((m / s) ** 2) / 2) * float(scaled)
        else:
            tail = math.exp((a * s) ** 2 / 2 - a * m) * math.erfc(z)
        return clipped + tail / 2
