"""Standard normal numbers, fast enough to be drawn for every weight in every training step."""

from __future__ import annotations

import functools

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import generator_device

_LEVELS = 2**15
_PIECE = 2**16
_PER_WORD = 4  # numbers of 16 bits in one random word of 64


def standard_normal(
    shape: torch.Size, *, dtype: torch.dtype, generator: Generator | None = None
) -> Tensor:
    """Draw independent standard normal numbers.

    In float32 a number is one of 32768 equally likely ones, the midpoints (in probability) of as
    many slices of the normal distribution, scaled to a variance of exactly 1; the largest is
    4.2. That is finer than a device can be programmed or read, and takes half of the time of
    ``torch.randn``, which was most of the cost of variation-aware steps of a small network.
    Float64 numbers come from ``torch.randn``.

    Args:
        shape: Shape of the result.
        dtype: float32 or float64.
        generator: Source of randomness; ``None`` uses torch's global one.

    Returns:
        A new contiguous tensor on the generator's device.
    """
    device = generator_device(generator)
    if dtype != torch.float32:
        return torch.randn(shape, dtype=dtype, device=device, generator=generator)
    count = shape.numel()
    table = _table(device)
    numbers = torch.empty(count, dtype=dtype, device=device)
    # In pieces that stay in the processor's cache; a GPU takes everything at once.
    piece = _PIECE if device.type == "cpu" else max(count, 1)
    for start in range(0, count, piece):
        size = min(piece, count - start)
        words = torch.empty(-(-size // _PER_WORD), dtype=torch.int64, device=device)
        words.random_(generator=generator)  # the highest bit is never set: 15 of 16 are used
        level = words.view(torch.int16)[:size].to(torch.int32).bitwise_and_(_LEVELS - 1)
        torch.index_select(table, 0, level, out=numbers[start : start + size])
    return numbers.view(shape)


@functools.cache
def _table(device: torch.device) -> Tensor:
    """Return the 32768 numbers, in order."""
    share = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS
    table: Tensor = torch.special.ndtri(share)
    return (table / table.square().mean().sqrt()).float().to(device)
