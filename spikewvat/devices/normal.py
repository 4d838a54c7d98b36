"""Standard normal numbers, fast enough to be drawn for every weight in every training step."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import generator_device, normal

_LEVELS = 2**15
_PIECE = 2**16
_PER_WORD = 4  # numbers of 16 bits in one random word of 64
_MASK = 0x7FFF_7FFF_7FFF_7FFF


def standard_normal(
    shape: torch.Size,
    *,
    dtype: torch.dtype,
    generator: Generator | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Draw independent standard normal numbers, times a factor if there is one.

    In float32 a number is one of 32768 equally likely ones, the midpoints (in probability) of as
    many slices of the normal distribution, scaled to a variance of exactly 1; the largest is
    4.2. That is finer than a device can be programmed or read, and takes half of the time of
    ``torch.randn``, which was most of the cost of variation-aware steps of a small network.
    Float64 numbers come from ``torch.randn``.

    Args:
        shape: Shape of the result.
        dtype: float32 or float64.
        generator: Source of randomness; ``None`` uses torch's global one.
        scale: A single number of ``dtype``. Where it can, it multiplies the possible numbers
            instead of those drawn: the same products, to the last bit, without another pass.

    Returns:
        A new contiguous tensor on the generator's device.
    """
    device = generator_device(generator)
    if dtype != torch.float32:
        numbers = normal(shape, dtype, generator)
        return numbers if scale is None else numbers.mul_(scale.to(device))
    count = shape.numel()
    table = _table(device)
    late = scale is not None and count < _LEVELS
    if scale is not None and not late:
        table = table * scale.to(device).view(())
    numbers = torch.empty(count, dtype=dtype, device=device)
    for part, levels in _drawn_levels(count, device, generator):
        torch.index_select(table, 0, levels, out=numbers[part])
    if late and scale is not None:
        numbers.mul_(scale.to(device).view(()))
    return numbers.view(shape)


def normal_pieces(
    count: int, *, generator: Generator | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield what :func:`standard_normal` draws piece by piece, and never hold all of it.

    Args:
        count: How many numbers.
        generator: Source of randomness on the CPU; ``None`` uses torch's global one.

    Yields:
        Places and float32 numbers, in memory that is used again.
    """
    cpu = torch.device("cpu")
    table, found = _table(cpu), torch.empty(min(_PIECE, count), dtype=torch.float32)
    for part, levels in _drawn_levels(count, cpu, generator):
        yield part, torch.index_select(table, 0, levels, out=found[: len(levels)])


def _drawn_levels(
    count: int, device: torch.device, generator: Generator | None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield places in the table for so many numbers, part by part, in one buffer."""
    # In pieces that stay in the processor's cache; a GPU takes everything at once.
    piece = _PIECE if device.type == "cpu" else max(count, 1)
    whole = min(piece, count)
    words = torch.empty(-(-whole // _PER_WORD), dtype=torch.int64, device=device)
    levels = torch.empty(whole, dtype=torch.int32, device=device)
    for start in range(0, count, piece):
        size = min(piece, count - start)
        drawn = words[: -(-size // _PER_WORD)].random_(generator=generator)
        # 15 bits of each 16; the highest bit of a word is never set.
        level = levels[:size].copy_(drawn.bitwise_and_(_MASK).view(torch.int16)[:size])
        yield slice(start, start + size), level


@functools.cache
def _table(device: torch.device) -> Tensor:
    """Return the 32768 numbers, in order."""
    share = (torch.arange(_LEVELS, dtype=torch.float64) + 0.5) / _LEVELS
    table: Tensor = torch.special.ndtri(share)
    return (table / table.square().mean().sqrt()).float().to(device)
