"""Gaussian variation, which a training step can add as it is looked up or drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from spikewvat.devices.noise import AdditiveNoise, FusedNoise
from spikewvat.devices.normal import normal_pieces, standard_normal
from spikewvat.devices.table import looked_up_normal, looked_up_pieces

_DRAWN = FusedNoise(standard_normal, normal_pieces)
_LOOKED_UP = FusedNoise(looked_up_normal, looked_up_pieces)


@dataclass(frozen=True)
class Gaussian(AdditiveNoise):
    r"""Gaussian variation, :math:`\xi \sim N(0, 1)`.

    The numbers of a chip are drawn independently. Training noise is cut out of a table of such
    numbers, from random places (:mod:`spikewvat.devices.table`), because drawing was most of what
    noise costs a step of dense layers; networks become as robust with it.

    Args:
        sigma: Standard deviation as a fraction of the range (dimensionless), from 0 to 1.
        range: Size R of each layer's range.
        drawn: Draw training noise independently, too.

    Raises:
        ValueError: If ``sigma`` is out of range.

    References:
        Weight-variation-aware training (WVAT), section 3.3; with ``range=AbsMax()`` the noise of
        Joshi et al., 2020, https://doi.org/10.1038/s41467-020-16108-9

    Example:
        >>> Gaussian(sigma=0.0).program({"fc": torch.ones(2)})["fc"].tolist()
        [1.0, 1.0]
    """

    drawn: bool = field(default=False, kw_only=True, repr=False)
    standard_noise: ClassVar[FusedNoise] = _DRAWN

    @property
    def _training_noise(self) -> Callable[..., Tensor]:
        # A subclass with numbers of its own is drawn.
        own = self.standard_noise
        return own if self.drawn or own is not _DRAWN else _LOOKED_UP
