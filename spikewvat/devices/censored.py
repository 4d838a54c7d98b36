"""Gaussian noise whose upper tail is cut: the training noise of TRICE."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from spikewvat.devices.noise import AdditiveNoise
from spikewvat.devices.normal import standard_normal
from spikewvat.weights import Weights


@dataclass(frozen=True)
class RightCensored(AdditiveNoise):
    r"""Right-censored Gaussian variation: what lies above a bound is moved onto it.

    .. math:: \xi = (\min(Z, c) - m) / s, \qquad Z \sim N(0, 1)

    .. math:: m = c \, (1 - \Phi(c)) - \varphi(c), \quad
              s^2 = \Phi(c) - c \, \varphi(c) + c^2 (1 - \Phi(c)) - m^2

    For c = 1 that is m = -0.08332 and s = 0.86665. With ``standardised=False`` the noise is
    :math:`\min(Z, c)` itself: its mean m is negative and its standard deviation s below 1.

    Args:
        sigma: Standard deviation as a fraction of the range (dimensionless), from 0 to 1; of the
            uncensored noise where it is not standardised.
        range: Size R of each layer's range.
        censor: Bound c, in standard deviations of the uncensored noise.
        standardised: Move and scale the noise to mean 0 and standard deviation 1, as all other
            additive noise of this package has.

    Raises:
        ValueError: If ``sigma`` is out of its range, or ``censor`` is not finite or below
            -3, where next to nothing varies.

    References:
        Improving Realistic Worst-Case Performance of NVCiM DNN Accelerators through Training
        with Right-Censored Gaussian Noise (Yan et al., 2023). The paper searches c
        automatically; the default is our choice, and that it leaves mean and width as censoring
        makes them (``standardised=False``) is our interpretation.
    """

    censor: float = 1.0
    standardised: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -3 <= self.censor < math.inf:
            raise ValueError(f"censor must be finite and at least -3, got {self.censor!r}.")

    @property
    def mean(self) -> float:
        """Mean m of the censored noise."""
        return self.censor * self._above - self._density

    @property
    def std(self) -> float:
        """Standard deviation s of the censored noise."""
        square = 1 - self._above - self.censor * self._density + self.censor**2 * self._above
        return math.sqrt(square - self.mean**2)

    def standard_noise(
        self, shape: torch.Size, *, dtype: torch.dtype, generator: Generator | None = None
    ) -> Tensor:
        """Draw (see :meth:`AdditiveNoise.standard_noise`)."""
        noise = standard_normal(shape, dtype=dtype, generator=generator).clamp_(max=self.censor)
        return noise.sub_(self.mean).div_(self.std) if self.standardised else noise

    def expected_norms(self, weights: Weights) -> dict[str, Tensor]:
        """Return the norms in closed form (see :meth:`DeviceModel.expected_norms`)."""
        factor = 1.0 if self.standardised else math.hypot(self.mean, self.std)
        norms = super().expected_norms(weights)
        return {name: norm.mul_(factor) for name, norm in norms.items()}

    def moments(self, weights: Weights) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the moments in closed form (see :meth:`DeviceModel.moments`)."""
        moments = super().moments(weights)
        if self.standardised:
            return moments
        return {
            name: (mean + self.mean * variance.sqrt(), self.std**2 * variance)
            for name, (mean, variance) in moments.items()
        }

    @property
    def _density(self) -> float:
        return math.exp(-(self.censor**2) / 2) / math.sqrt(2 * math.pi)

    @property
    def _above(self) -> float:
        return math.erfc(self.censor / math.sqrt(2)) / 2
