"""Gaussian numbers that are looked up instead of drawn, for cheap training steps.

A draw is cut out of a table of :math:`2^{22}` standard normal numbers (16 MiB) that are always the
same, from a place that is drawn for each million weights. It costs little more than its copy. Draws
share numbers, at other weights: that is good enough to train with, and no way to simulate a chip.

The idea is that of the shared noise table of Evolution Strategies as a Scalable Alternative to
Reinforcement Learning (Salimans et al., 2017), https://arxiv.org/abs/1703.03864
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import generator_device
from spikewvat.devices.normal import standard_normal
from spikewvat.pieces import slices

ENTRIES = 2**22
STRETCH = 2**20
"""Entries that are cut out at once."""

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
    for part, found in _stretches(len(entries), noise.device, generator):
        entries[part] = found
    return noise if scale is None else noise.mul_(scale.to(noise.device))


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
    for stretch, found in _stretches(count, torch.device("cpu"), generator):
        for piece in slices(len(found)):
            yield slice(stretch.start + piece.start, stretch.start + piece.stop), found[piece]


def _stretches(
    count: int, device: torch.device, generator: Generator | None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield parts of the table for so many numbers."""
    table = _table(device)
    for stretch in slices(count, STRETCH):
        size = stretch.stop - stretch.start
        start = torch.randint(ENTRIES - size + 1, (), device=device, generator=generator)
        if device.type == "cpu":
            found = table[int(start) :][:size]
        else:  # a GPU need not wait for the place
            found = table[start + torch.arange(size, device=device)]
        yield stretch, found


@functools.cache
def _table(device: torch.device) -> Tensor:
    """Return the table, the same on every device."""
    generator = Generator().manual_seed(_SEED)
    numbers = standard_normal(torch.Size([ENTRIES]), dtype=torch.float32, generator=generator)
    return numbers.to(device)
