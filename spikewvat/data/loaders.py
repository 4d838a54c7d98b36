"""Batches of recordings, time first, and of still images."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from spikewvat.data.packed import Together
from spikewvat.errors import DataError

_IMAGE_CHANNELS = (1, 3)


def collate(
    items: Sequence[tuple[Any, Any]], *, time_first: bool | None = None
) -> tuple[Tensor, Tensor]:
    """Make a batch of items.

    Args:
        items: Pairs of data and a label: tensors or numpy arrays of one shape, spikes [T, ...] or
            still images, and whole numbers; recordings of one data set may come
            :class:`~spikewvat.data.packed.Together`.
        time_first: Whether the first axis of an item is time. By default it is told by the shape
            where that is possible, see :func:`make_loader`.

    Returns:
        Spikes float32 [T, B, ...], sparse where the items are (still images: [B, ...]), and
        labels int64 [B].

    Raises:
        DataError: If an item is no such pair, shapes differ, or they do not tell whether the first
            axis is time.

    Example:
        >>> spikes, labels = collate([(torch.ones(5, 2, 4, 4, dtype=torch.uint8), 7)] * 3)
        >>> spikes.shape, spikes.dtype, labels.tolist()
        (torch.Size([5, 3, 2, 4, 4]), torch.float32, [7, 7, 7])
    """
    if isinstance(items, Together) and time_first in (None, items.time_first):
        return items.batch()
    for item in items:
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(
                f"an item of the data set is {_described(item)}, expected a pair (data, label). "
                "Wrap the data set."
            )
    data = [_as_tensor(item[0]) for item in items]
    labels = torch.tensor([_as_label(item[1]) for item in items], dtype=torch.int64)
    shapes = list(dict.fromkeys((tuple(one.shape), one.layout) for one in data))
    if len(shapes) > 1:
        (one, _), (other, _) = shapes[:2]
        if one == other:
            raise DataError("items of a batch are sparse and dense. Make all of them the same.")
        cure = (
            "Bin all recordings to the same number of time steps (time_steps, or n_time_bins of "
            "tonic's ToFrame), or pad them"
            if one[1:] == other[1:]
            else "Bring all items to one size"
        )
        raise DataError(f"items of a batch have shapes {one} and {other}. {cure}.")
    shape = tuple(data[0].shape)
    timed = _is_time_first(shape) if time_first is None else time_first
    if not data[0].is_sparse:
        return torch.stack(data, dim=1 if timed else 0).float(), labels
    if not timed:
        raise DataError(f"sparse items of shape {shape} must have time first.")
    return _sparse_batch(data), labels


def _is_time_first(shape: tuple[int, ...]) -> bool:
    """Return whether items of a shape are spikes over time, or raise DataError."""
    if len(shape) == 4:  # [T, C, H, W]
        return True
    if len(shape) == 1:  # features
        return False
    if len(shape) == 3:
        few, line = shape[0] in _IMAGE_CHANNELS, shape[1] == 1
        if few != line:
            return line  # [T, 1, units] of one-dimensional sensors, or an image [C, H, W]
    raise DataError(
        f"items of shape {shape} do not tell whether their first axis is time. Pass "
        "make_loader(..., time_first=True) for spikes [T, ...], time_first=False for still images."
    )


def _as_tensor(data: Any) -> Tensor:
    if isinstance(data, np.ndarray):
        if data.dtype.kind not in "biuf":
            raise DataError(
                f"an item of the data set holds {data.dtype}, expected numbers. Bin recordings of "
                "events to frames first, by bin_events or tonic's ToFrame."
            )
        native = data.dtype.newbyteorder("=")
        data = torch.from_numpy(data.astype(native, order="C", copy=False))
    if not isinstance(data, Tensor) or data.is_complex() or data.dim() == 0:
        raise DataError(
            f"data of an item is {_described(data)}, expected a tensor or a numpy array [...] of "
            "real numbers. Convert it in the data set."
        )
    return data


def _as_label(label: Any) -> int:
    try:
        number = label.item() if isinstance(label, Tensor | np.ndarray | np.generic) else label
        if int(number) == number:
            return int(number)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        pass
    raise DataError(
        f"a label is {_described(label)}, expected one whole number, the class. Convert it with "
        "the data set's target_transform."
    )


def _described(value: Any) -> str:
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"a {type(value).__name__} of {value.dtype} and shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{str(value)[:40]!r} ({type(value).__name__})"


def _sparse_batch(items: Sequence[Tensor]) -> Tensor:
    """Return coalesced sparse spikes [T, B, ...] of sparse [T, ...], one by one."""
    items = [item.coalesce() for item in items]
    counts = torch.tensor([item.values().numel() for item in items])
    index = torch.cat([item.indices() for item in items], dim=1)
    sample = torch.arange(len(items)).repeat_interleave(counts)
    # Each item is in order of time already; a stable sort merges them without a full key.
    order = torch.argsort(index[0] * len(items) + sample, stable=True)
    index = torch.cat([index[:1], sample[None], index[1:]])[:, order]
    values = torch.cat([item.values() for item in items])[order].float()
    steps, *rest = items[0].shape
    return torch.sparse_coo_tensor(
        index, values, (steps, len(items), *rest), is_coalesced=True, check_invariants=False
    )


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    time_first: bool | None = None,
    shuffle: bool = False,
    generator: Generator | None = None,
    workers: int = 0,
    drop_last: bool = False,
) -> DataLoader[Any]:
    """Make a loader of batches with time first.

    Whether items are spikes over time is told by their shape: [T, C, H, W] and [T, 1, units] are,
    [C, H, W] of one or three channels and [features] are not. Any other shape, such as
    [T, units], needs ``time_first``.

    Args:
        dataset: Yields ``(spikes [T, ...], label)``, or still images ``([C, H, W], label)``, as
            tensors or numpy arrays, such as those of tonic's ``ToFrame``.
        batch_size: Samples in a batch B, at least 1.
        time_first: Whether the first axis of an item is time.
        shuffle: Another order in every epoch.
        generator: Source of the order; ``None`` uses torch's global one.
        workers: Number of processes that load; 0 loads in this one.
        drop_last: Leave out the last batch where it is incomplete.

    Returns:
        Yields spikes float32 [T, B, ...] (still images: [B, ...]) and labels int64 [B]. Items
        that cannot be put together raise :class:`~spikewvat.errors.DataError` when they are met.

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
        collate_fn=functools.partial(collate, time_first=time_first),
        persistent_workers=workers > 0,
    )
