"""Batches of an epoch, read and augmented on a thread of their own while the network trains."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from typing import Any, TypeVar

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    SequentialSampler,
    Subset,
    default_collate,
)

from spikewvat.data.loaders import collate

Made = TypeVar("Made")


def prepared(
    loader: DataLoader[Any], prepare: Callable[[Any], Made]
) -> AbstractContextManager[Generator[Made]]:
    """Return the batches of a pass over a loader, for a ``with`` statement.

    A thread prepares the next one while one is used, unless reading could draw from the global
    generators, of which the network draws at the same time: then no run would repeat itself.

    Args:
        loader: Where the batches come from.
        prepare: Makes of each batch what is wanted; draws from no global generator.
    """
    made = (prepare(batch) for batch in loader)
    return closing(_ahead(made) if _draws_nothing(loader) else made)


def _draws_nothing(loader: DataLoader[Any]) -> bool:
    """Return whether reading leaves this process's generators alone, as far as that is known."""
    sampler, dataset = loader.sampler, loader.dataset
    ordered = isinstance(sampler, SequentialSampler | DistributedSampler)
    own = isinstance(getattr(sampler, "generator", None), torch.Generator)
    if type(loader.batch_sampler) is not BatchSampler or not (ordered or own):
        return False
    if loader.num_workers > 0:
        return True
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    how = getattr(loader.collate_fn, "func", loader.collate_fn)
    return how in (collate, default_collate) and bool(getattr(dataset, "repeatable", False))


def _ahead(batches: Iterator[Made]) -> Generator[Made]:
    end: Any = object()
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        coming = thread.submit(next, batches, end)
        while (batch := coming.result()) is not end:
            coming = thread.submit(next, batches, end)
            yield batch
