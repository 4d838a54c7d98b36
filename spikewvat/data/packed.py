"""Binned recordings in a compact form: where there is a spike, and batches made of that at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Row = NDArray[np.uint8]
"""A recording: how many places of each step are filled, then the places, then their counts."""


@dataclass(frozen=True)
class Packing:
    """How recordings of one shape are packed: two bytes a step and two a spike, three if counted.

    Args:
        shape: Steps, channels, height and width; at most 65 536 places in a step.
        counted: Whether a place holds a count and not just a spike.
    """

    shape: tuple[int, int, int, int]
    counted: bool = False

    def pack(self, frames: NDArray[np.uint8]) -> Row:
        """Return the row of binned frames [T, C, H, W]."""
        flat = frames.reshape(self.shape[0], -1)
        places = np.flatnonzero(flat)
        counts = np.bincount(places // flat.shape[1], minlength=len(flat))
        parts = [counts.astype("<u2"), (places % flat.shape[1]).astype("<u2")]
        values = [flat.reshape(-1)[places]] if self.counted else []
        return np.concatenate([part.view(np.uint8) for part in (*parts, *values)])

    def unpack(self, rows: Sequence[Row], dtype: torch.dtype, *, sparse: bool) -> Tensor:
        """Return recordings as a batch [T, B, C, H, W]."""
        return self.sparse(rows, dtype) if sparse else self.dense(rows, dtype)

    def dense(self, rows: Sequence[Row], dtype: torch.dtype) -> Tensor:
        """Return recordings as a batch [T, B, C, H, W]."""
        lengths, places, values = self._joined(rows)
        steps, *rest = self.shape
        spikes = torch.zeros((steps, len(rows), *rest), dtype=dtype)
        starts = np.arange(steps) * len(rows) + np.arange(len(rows))[:, None]
        flat = np.repeat((starts * int(np.prod(rest))).reshape(-1), lengths.reshape(-1))
        flat += places
        filled = 1 if values is None else torch.from_numpy(values).to(dtype)
        spikes.view(-1)[torch.from_numpy(flat)] = filled
        return spikes

    def sparse(self, rows: Sequence[Row], dtype: torch.dtype) -> Tensor:
        """Return recordings as a coalesced sparse batch [T, B, C, H, W]."""
        lengths, places, values = self._joined(rows)
        # Rows come sample by sample; a batch takes all samples of a step before the next step.
        starts = lengths.cumsum() - lengths.reshape(-1)
        starts, lengths = (part.reshape(lengths.shape).T.reshape(-1) for part in (starts, lengths))
        order = np.repeat(starts - (lengths.cumsum() - lengths), lengths)
        order += np.arange(len(order))
        steps, *rest = self.shape
        index = np.empty((5, len(order)), np.int64)
        for axis, numbers in enumerate(np.indices((steps, len(rows)))):
            index[axis] = np.repeat(numbers.reshape(-1), lengths)
        where = np.indices(rest).reshape(3, -1)
        np.take(where, places[order], axis=1, out=index[2:])
        filled = np.ones(len(order), np.uint8) if values is None else values[order]
        return torch.sparse_coo_tensor(
            torch.from_numpy(index),
            torch.from_numpy(filled).to(dtype),
            (steps, len(rows), *rest),
            is_coalesced=True,
            check_invariants=False,
        )

    def _joined(self, rows: Sequence[Row]) -> tuple[NDArray[Any], NDArray[Any], Row | None]:
        """Return how many places [B, T] are filled, which, and with how much, row after row."""
        head, width = 2 * self.shape[0], 3 if self.counted else 2
        ends = [head + 2 * ((len(row) - head) // width) for row in rows]
        lengths = np.stack([row[:head] for row in rows]).view("<u2").astype(np.int64)
        pairs = list(zip(rows, ends, strict=True))
        places = np.concatenate([row[head:end] for row, end in pairs]).view("<u2")
        values = np.concatenate([row[end:] for row, end in pairs]) if self.counted else None
        return lengths, places, values


class MakesBatches(Protocol):
    """A data set that makes a batch faster than its items."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an item."""
        ...

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return spikes [T, B, ...], or images [B, ...], and labels [B]."""
        ...


class Together(Sequence[tuple[Tensor, int]]):
    """Items of a data set that are made together, or one by one by who does not know of that.

    Args:
        dataset: Makes them.
        indices: Which ones.
        time_first: Whether the first axis of an item is time.
    """

    def __init__(
        self, dataset: MakesBatches, indices: Sequence[int], *, time_first: bool = True
    ) -> None:
        self._dataset, self._indices = dataset, list(indices)
        self.time_first = time_first

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            chosen = self._indices[index]
            return Together(self._dataset, chosen, time_first=self.time_first)
        return self._dataset[self._indices[index]]

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        if self.time_first:
            return (self._dataset[index] for index in self._indices)
        images, labels = self.batch()
        return zip(images.unbind(), labels.tolist(), strict=True)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return the batch."""
        return self._dataset.batch(self._indices)
