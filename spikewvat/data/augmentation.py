"""Augmentation of whole batches of spikes, time first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class RandomShift:
    """Shift every sample by up to some pixels in each direction, the same for all time steps.

    What is shifted out is lost, what comes in is empty; spikes stay spikes.

    Args:
        pixels: Largest shift, at least 1.

    Raises:
        ValueError: If ``pixels`` is below 1.

    Example:
        >>> spikes = torch.ones(2, 3, 1, 8, 8)
        >>> RandomShift(2)(spikes, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 1, 8, 8])
    """

    pixels: int

    def __post_init__(self) -> None:
        if self.pixels < 1:
            raise ValueError(f"pixels must be at least 1, got {self.pixels!r}.")

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return shifted spikes.

        Args:
            spikes: Spikes [T, B, C, H, W], dense or sparse.
            generator: Source of the shifts, on the CPU; ``None`` uses torch's global one.

        Returns:
            Spikes of the same shape, dtype and device.

        Raises:
            ValueError: If ``spikes`` has not five dimensions.
        """
        if spikes.dim() != 5:
            raise ValueError(
                f"RandomShift needs spikes [T, B, C, H, W], got shape {tuple(spikes.shape)}."
            )
        batch, height, width = spikes.shape[1], spikes.shape[3], spikes.shape[4]
        low, high = -self.pixels, self.pixels + 1
        shifts = torch.randint(low, high, (batch, 2), generator=generator)
        if spikes.is_sparse:
            return _shifted_events(spikes, shifts)
        shifted = torch.zeros_like(spikes)
        for index, (dy, dx) in enumerate(shifts.tolist()):
            to_y, from_y = _overlap(dy, height)
            to_x, from_x = _overlap(dx, width)
            shifted[:, index, :, to_y, to_x] = spikes[:, index, :, from_y, from_x]
        return shifted


def _shifted_events(spikes: Tensor, shifts: Tensor) -> Tensor:
    """Shift the coordinates of sparse spikes; their order stays, so they stay coalesced."""
    spikes = spikes.coalesce()
    index, values = spikes.indices().clone(), spikes.values()
    index[3:] += shifts.to(index.device)[index[1]].t()
    sides = torch.tensor(spikes.shape[3:], device=index.device)[:, None]
    kept = ((index[3:] >= 0) & (index[3:] < sides)).all(0)
    return torch.sparse_coo_tensor(
        index[:, kept], values[kept], spikes.shape, is_coalesced=True, check_invariants=False
    )


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Return where the kept part goes to and where it comes from."""
    if shift >= 0:
        return slice(shift, size), slice(0, max(size - shift, 0))
    return slice(0, max(size + shift, 0)), slice(-shift, size)
