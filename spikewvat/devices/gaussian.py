"""Gaussian variation, which a training step can add as it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import draw_dtype, generator_device, is_plain
from spikewvat.devices.noise import AdditiveNoise
from spikewvat.devices.normal import add_normal_, standard_normal
from spikewvat.devices.ranges import size_of, sizes_kept
from spikewvat.weights import Displace, Weights


@dataclass(frozen=True)
class Gaussian(AdditiveNoise):
    r"""Gaussian variation, :math:`\xi \sim N(0, 1)`.

    Args:
        sigma: Standard deviation as a fraction of the range (dimensionless), at least 0.
        range: Size R of each layer's range.

    Raises:
        ValueError: If ``sigma`` is negative or not finite.

    References:
        Weight-variation-aware training (WVAT), section 3.3; with ``range=AbsMax()`` the noise of
        Joshi et al., 2020, https://doi.org/10.1038/s41467-020-16108-9

    Example:
        >>> Gaussian(sigma=0.0).program({"fc": torch.ones(2)})["fc"].tolist()
        [1.0, 1.0]
    """

    _numbers = staticmethod(standard_normal)  # where standard normal numbers come from
    _add_numbers_ = staticmethod(add_normal_)

    def plan(
        self, weights: Weights, *, scale: float = 1.0, generator: Generator | None = None
    ) -> Displace:
        """Return what adds noise as it is drawn (see :meth:`DeviceModel.plan`).

        The numbers are those of :meth:`displacement`. A GPU, which would have to wait for the
        ranges, holds the noise instead, as do weights that are no plain blocks of float32.
        """
        on_cpu = generator_device(generator).type == "cpu"
        with sizes_kept():
            if on_cpu and all(map(is_plain, weights.values())):
                sizes = {name: size_of(self.range, weight) for name, weight in weights.items()}
                if all(size.numel() == 1 for size in sizes.values()):
                    factors = {n: scale * self.sigma * float(size) for n, size in sizes.items()}
                    return partial(self._add, factors, generator)
            return super().plan(weights, scale=scale, generator=generator)

    def _add(
        self,
        factors: Mapping[str, float],
        generator: Generator | None,
        displaced: Mapping[str, Tensor],
    ) -> None:
        for name, weight in displaced.items():
            self._add_numbers_(weight, factors[name], generator=generator)

    def standard_noise(
        self, shape: torch.Size, *, dtype: torch.dtype, generator: Generator | None = None
    ) -> Tensor:
        """Draw (see :meth:`AdditiveNoise.standard_noise` and :func:`standard_normal`)."""
        return self._numbers(shape, dtype=dtype, generator=generator)

    def _noise(self, weight: Tensor, generator: Generator | None) -> Tensor:
        scale = size_of(self.range, weight) * self.sigma
        if scale.numel() != 1:
            return super()._noise(weight, generator)
        dtype = draw_dtype(weight)
        noise = self._numbers(weight.shape, dtype=dtype, generator=generator, scale=scale)
        return noise.to(weight.device, weight.dtype)
