"""Batches with time first, for any framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset


def collate(items: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Make a batch of items.

    Args:
        items: Pairs of a tensor, spikes [T, C, H, W] or a still image [C, H, W], and a label.

    Returns:
        Spikes float32 [T, B, C, H, W] (still images: [B, C, H, W]), labels int64 [B].

    Example:
        >>> spikes, labels = collate([(torch.ones(5, 2, 4, 4, dtype=torch.uint8), 7)] * 3)
        >>> spikes.shape, spikes.dtype, labels.tolist()
        (torch.Size([5, 3, 2, 4, 4]), torch.float32, [7, 7, 7])
    """
    timed = items[0][0].dim() == 4
    data = torch.stack([item[0] for item in items], dim=1 if timed else 0)
    return data.float(), torch.tensor([int(item[1]) for item in items], dtype=torch.int64)


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    shuffle: bool = False,
    generator: Generator | None = None,
    workers: int = 0,
    drop_last: bool = False,
) -> DataLoader[Any]:
    """Make a loader of batches with time first.

    Args:
        dataset: Yields ``(spikes [T, C, H, W], label)``, or still images ``([C, H, W], label)``.
        batch_size: Samples in a batch B, at least 1.
        shuffle: Another order in every epoch.
        generator: Source of the order; ``None`` uses torch's global one.
        workers: Number of processes that load; 0 loads in this one.
        drop_last: Leave out the last batch where it is incomplete.

    Returns:
        Yields spikes float32 [T, B, C, H, W] (still images: [B, C, H, W]) and labels int64 [B].

    Raises:
        ValueError: If ``batch_size`` is below 1 or ``workers`` below 0.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size!r}.")
    if workers < 0:
        raise ValueError(f"workers must be at least 0, got {workers!r}.")
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        generator=generator,
        num_workers=workers,
        drop_last=drop_last,
        collate_fn=collate,
        persistent_workers=workers > 0,
    )
