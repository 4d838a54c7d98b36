"""Gaussian noise that is looked up instead of drawn, for cheap training steps."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import generator_device
from spikewvat.devices.noise import Gaussian
from spikewvat.devices.normal import standard_normal

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
    table, entries = _table(noise.device), noise.view(-1)
    factor = None if scale is None else scale.to(noise.device).view(())
    for first in range(0, len(entries), _PIECE):
        part = entries[first : first + _PIECE]
        places = _ENTRIES - len(part) + 1
        start = torch.randint(places, (), device=noise.device, generator=generator)
        if noise.device.type == "cpu":
            found = table[int(start) :][: len(part)]
        else:  # a GPU need not wait for the place
            found = table[start + torch.arange(len(part), device=noise.device)]
        if factor is None:
            part.copy_(found)
        else:
            torch.mul(found.to(dtype), factor, out=part)
    return noise


@dataclass(frozen=True)
class GaussianTable(Gaussian):
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

    _numbers = staticmethod(looked_up_normal)


@functools.cache
def _table(device: torch.device) -> Tensor:
    """Return the table, the same on every device."""
    generator = Generator().manual_seed(_SEED)
    numbers = standard_normal(torch.Size([_ENTRIES]), dtype=torch.float32, generator=generator)
    return numbers.to(device)
