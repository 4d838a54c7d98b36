"""Augmentation of whole batches of spikes, time first, or of still images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor


class Augmentation(Protocol):
    """Changes a batch of spikes or images, each sample by draws of its own."""

    def __call__(self, batch: Tensor, /, *, generator: Generator | None = None) -> Tensor:
        """Return a batch of the same shape, dtype and device."""
        ...


@dataclass(frozen=True)
class RandomShift:
    """Shift every sample by up to some pixels along each axis, the same for all time steps.

    What is shifted out is lost, what comes in is empty; spikes stay spikes. On images this is a
    random crop of the image padded by so many pixels.

    Args:
        pixels: Largest shift, at least 1.
        fill: What comes in, the same for all channels or one for each; for images the value of
            a black pixel.

    Raises:
        ValueError: If ``pixels`` is below 1.

    Example:
        >>> spikes = torch.ones(2, 3, 1, 8, 8)
        >>> RandomShift(2)(spikes, generator=torch.Generator().manual_seed(0)).shape
        torch.Size([2, 3, 1, 8, 8])
    """

    pixels: int
    fill: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        if self.pixels < 1:
            raise ValueError(f"pixels must be at least 1, got {self.pixels!r}.")

    def __call__(self, batch: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return shifted samples.

        Args:
            batch: Spikes [T, B, C, H, W], dense or sparse, or images [B, C, H, W].
            generator: Source of the shifts, on the CPU; ``None`` uses torch's global one.

        Returns:
            A batch of the same shape, dtype and device.

        Raises:
            ValueError: If the batch has another number of dimensions or, where ``fill`` has one
                value for each, of channels; or is sparse and ``fill`` is not 0.
        """
        _check(batch, "RandomShift")
        samples, channels, height, width = batch.shape[-4:]
        if isinstance(self.fill, tuple) and len(self.fill) != channels:
            raise ValueError(
                f"fill has {len(self.fill)} values, but the batch {channels} channels."
            )
        low, high = -self.pixels, self.pixels + 1
        shifts = torch.randint(low, high, (samples, 2), generator=generator)
        if batch.is_sparse:
            if self.fill != 0:
                raise ValueError(f"fill must be 0 for sparse spikes, got {self.fill!r}.")
            return _shifted_events(batch, shifts)
        # One window of each padded sample; all windows are views of one memory.
        border = self.pixels
        size = (*batch.shape[:-2], height + 2 * border, width + 2 * border)
        fill = batch.new_tensor(self.fill).reshape(-1, 1, 1)
        padded = fill.expand(size).clone()
        padded[..., border:-border, border:-border] = batch
        windows = padded.movedim(-4, 0).unfold(-2, height, 1).unfold(-2, width, 1)
        top, left = (border - shifts).to(batch.device).unbind(1)
        each = torch.arange(samples, device=batch.device)
        shifted: Tensor = windows.movedim((-4, -3), (1, 2))[each, top, left]
        return shifted.movedim(0, -4).contiguous()


@dataclass(frozen=True)
class RandomFlip:
    """Mirror some samples left to right, all time steps alike.

    Args:
        probability: Share of the samples that are mirrored, between 0 and 1.

    Raises:
        ValueError: If ``probability`` is outside of 0..1.

    Example:
        >>> RandomFlip(1.0)(torch.tensor([[[[1.0, 2.0]]]])).tolist()
        [[[[2.0, 1.0]]]]
    """

    probability: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie between 0 and 1, got {self.probability!r}.")

    def __call__(self, batch: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return samples, some of them mirrored.

        Args:
            batch: Spikes [T, B, C, H, W], dense or sparse, or images [B, C, H, W].
            generator: Source of the choice, on the CPU; ``None`` uses torch's global one.

        Returns:
            A batch of the same shape, dtype and device.

        Raises:
            ValueError: If the batch has another number of dimensions.
        """
        _check(batch, "RandomFlip")
        samples = batch.shape[-4]
        chosen = (torch.rand(samples, generator=generator) < self.probability).to(batch.device)
        if batch.is_sparse:
            return _flipped_events(batch, chosen)
        return torch.where(chosen[:, None, None, None], batch.flip(-1), batch)


@dataclass(frozen=True)
class Chain:
    """Several augmentations, one after the other.

    Args:
        steps: In order.
    """

    steps: Sequence[Augmentation]

    def __call__(self, batch: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return what the last step returns."""
        for step in self.steps:
            batch = step(batch, generator=generator)
        return batch


def _check(batch: Tensor, name: str) -> None:
    if batch.dim() not in (4, 5) or (batch.is_sparse and batch.dim() == 4):
        raise ValueError(
            f"{name} needs spikes [T, B, C, H, W] or images [B, C, H, W], "
            f"got shape {tuple(batch.shape)}."
        )


def _flipped_events(spikes: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the coordinates of sparse spikes."""
    spikes = spikes.coalesce()
    index, width = spikes.indices().clone(), spikes.shape[-1]
    x = index[-1]
    index[-1] = torch.where(chosen[index[-4]], width - 1 - x, x)
    flipped = torch.sparse_coo_tensor(index, spikes.values(), spikes.shape, check_invariants=False)
    return flipped.coalesce()  # the order within a row has changed


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
