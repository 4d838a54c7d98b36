"""Gaussian noise that is looked up instead of drawn, for cheap training steps."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import generator_device
from spikewvat.devices.gaussian import Gaussian
from spikewvat.devices.noise import FusedNoise
from spikewvat.devices.normal import standard_normal
from spikewvat.pieces import slices

_ENTRIES = 2**22
_PIECE = 2**20
_SEED = 0


def looked_up_normal(
    shape: torch.Size,
    *,
    dtype: torch.dtype,
    generator: Generator | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Look up standard normal numbers, times a factor if there is one.

    Args:
        shape: Shape of the result.
        dtype: float32 or float64.
        generator: Source of the places; ``None`` uses torch's global one.
        scale: A single number of ``dtype``.

    Returns:
        A new contiguous tensor on the generator's device.
    """
    noise = torch.empty(shape, dtype=dtype, device=generator_device(generator))
    entries = noise.view(-1)
    factor = None if scale is None else scale.to(noise.device).view(())
    for part, found in _windows(len(entries), noise.device, generator):
        if factor is None:
            entries[part].copy_(found)
        else:
            torch.mul(found.to(dtype), factor, out=entries[part])
    return noise


def looked_up_pieces(
    count: int, *, generator: Generator | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield what :func:`looked_up_normal` finds piece by piece, straight from the table.

    Args:
        count: How many numbers.
        generator: Source of the places, on the CPU; ``None`` uses torch's global one.

    Yields:
        Places and float32 numbers, not to be written to.
    """
    for window, found in _windows(count, torch.device("cpu"), generator):
        for piece in slices(len(found)):
            yield slice(window.start + piece.start, window.start + piece.stop), found[piece]


def _windows(
    count: int, device: torch.device, generator: Generator | None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield parts of the table for so many numbers."""
    table = _table(device)
    for first in range(0, count, _PIECE):
        size = min(_PIECE, count - first)
        start = torch.randint(_ENTRIES - size + 1, (), device=device, generator=generator)
        if device.type == "cpu":
            found = table[int(start) :][:size]
        else:  # a GPU need not wait for the place
            found = table[start + torch.arange(size, device=device)]
        yield slice(first, first + size), found


@dataclass(frozen=True)
class GaussianTable(Gaussian):
    r"""Gaussian variation out of a table, from a place that is drawn for each tensor.

    The table holds :math:`2^{22}` standard normal numbers (16 MiB) that are always the same. A draw
    costs one random number for each million weights instead of one for each weight, and little
    more than its copy. Draws share numbers, at other weights: that is good enough to train
    with. Simulate chips with :class:`Gaussian`, whose draws are independent.

    Args:
        sigma: Standard deviation as a fraction of the range (dimensionless), from 0 to 1.
        range: Size R of each layer's range.

    Raises:
        ValueError: If ``sigma`` is out of range.

    References:
        The shared noise table of Evolution Strategies as a Scalable Alternative to Reinforcement
        Learning (Salimans et al., 2017), https://arxiv.org/abs/1703.03864

    Example:
        >>> from spikewvat import WVAT
        >>> method = WVAT(torch.nn.Linear(3, 2), GaussianTable(sigma=0.1))
    """

    standard_noise: ClassVar[FusedNoise] = FusedNoise(looked_up_normal, looked_up_pieces)


@functools.cache
def _table(device: torch.device) -> Tensor:
    """Return the table, the same on every device."""
    generator = Generator().manual_seed(_SEED)
    numbers = standard_normal(torch.Size([_ENTRIES]), dtype=torch.float32, generator=generator)
    return numbers.to(device)
