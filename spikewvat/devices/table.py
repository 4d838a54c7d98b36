"""Gaussian noise that is looked up instead of drawn, for cheap training steps."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import draw_dtype, generator_device
from spikewvat.devices.noise import AdditiveNoise
from spikewvat.devices.normal import standard_normal

_ENTRIES = 2**22
_PIECE = 2**20
_SEED = 0


@dataclass(frozen=True)
class GaussianTable(AdditiveNoise):
    r"""Gaussian variation out of a table, from a place that is drawn for each tensor.

    The table holds :math:`2^{22}` standard normal numbers (16 MiB) that are always the same. A draw
    costs one random number for each million weights instead of one for each weight, and little
    more than its copy. Displacements share numbers, at other weights: that is good enough to train
    with. Simulate chips with :class:`Gaussian`, whose draws are independent.

    Args:
        sigma: Standard deviation as a fraction of the range (dimensionless), at least 0.
        range: Size R of each layer's range.

    Raises:
        ValueError: If ``sigma`` is negative or not finite.

    References:
        The shared noise table of Evolution Strategies as a Scalable Alternative to Reinforcement
        Learning (Salimans et al., 2017), https://arxiv.org/abs/1703.03864

    Example:
        >>> from spikewvat import WVAT
        >>> method = WVAT(torch.nn.Linear(3, 2), GaussianTable(sigma=0.1))
    """

    def standard_noise(
        self, shape: torch.Size, *, dtype: torch.dtype, generator: Generator | None = None
    ) -> Tensor:
        """Look up (see :meth:`AdditiveNoise.standard_noise`)."""
        noise = torch.empty(shape, dtype=dtype, device=generator_device(generator))
        for part, found in _lookups(noise, generator):
            part.copy_(found)
        return noise

    def _noise(self, weight: Tensor, generator: Generator | None) -> Tensor:
        scale = self.range.size(weight) * self.sigma
        if scale.numel() != 1:
            return super()._noise(weight, generator)
        device = generator_device(generator)
        noise = torch.empty(weight.shape, dtype=draw_dtype(weight), device=device)
        scale = scale.to(device).view(())
        for part, found in _lookups(noise, generator):
            torch.mul(found, scale, out=part)
        return noise.to(weight.device, weight.dtype)


def _lookups(noise: Tensor, generator: Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each piece of an empty tensor with the numbers that belong there, in its dtype."""
    table, entries = _table(noise.device), noise.view(-1)
    for first in range(0, len(entries), _PIECE):
        part = entries[first : first + _PIECE]
        places = _ENTRIES - len(part) + 1
        start = torch.randint(places, (), device=noise.device, generator=generator)
        if noise.device.type == "cpu":
            found = table[int(start) :][: len(part)]
        else:  # a GPU need not wait for the place
            found = table[start + torch.arange(len(part), device=noise.device)]
        yield part, found.to(noise.dtype)


@functools.cache
def _table(device: torch.device) -> Tensor:
    """Return the table, the same on every device."""
    generator = Generator().manual_seed(_SEED)
    numbers = standard_normal(torch.Size([_ENTRIES]), dtype=torch.float32, generator=generator)
    return numbers.to(device)
