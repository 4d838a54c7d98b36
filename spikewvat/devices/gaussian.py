"""Gaussian variation, which a training step can add as it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from spikewvat.devices.noise import AdditiveNoise, FusedNoise
from spikewvat.devices.normal import normal_pieces, standard_normal


@dataclass(frozen=True)
class Gaussian(AdditiveNoise):
    r"""Gaussian variation, :math:`\xi \sim N(0, 1)`.

    Args:
        sigma: Standard deviation as a fraction of the range (dimensionless), from 0 to 1.
        range: Size R of each layer's range.

    Raises:
        ValueError: If ``sigma`` is out of range.

    References:
        Weight-variation-aware training (WVAT), section 3.3; with ``range=AbsMax()`` the noise of
        Joshi et al., 2020, https://doi.org/10.1038/s41467-020-16108-9

    Example:
        >>> Gaussian(sigma=0.0).program({"fc": torch.ones(2)})["fc"].tolist()
        [1.0, 1.0]
    """

    standard_noise: ClassVar[FusedNoise] = FusedNoise(standard_normal, normal_pieces)
