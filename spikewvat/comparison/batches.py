"""The loaders that a user brings: checked, and the test batches read once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, TypeAlias

from torch import Tensor, nn

from spikewvat.errors import DataError

Loader: TypeAlias = Iterable[Any]
"""Batches ``(inputs, labels)``; can be iterated several times."""
Loaders: TypeAlias = Loader | tuple[Loader, Loader]
"""Test batches, or training and test batches."""

ROOM = 2**30
"""Bytes of test batches that are kept."""
_REMEDY = "Pass a DataLoader or a list of batches (inputs, labels)."


def pair_of(loaders: Loaders, *, wanted: bool) -> tuple[Loader, Loader]:
    """Return training and test batches.

    Args:
        loaders: What the user has passed.
        wanted: Whether training batches are needed.

    Raises:
        DataError: If they are something else, or there are no training batches though wanted.
    """
    pair = isinstance(loaders, tuple) and len(loaders) == 2
    pair = pair and not any(isinstance(part, Tensor) or _is_batch(part) for part in loaders)
    training, test = loaders if pair else ((), loaders)
    if wanted and not pair:
        raise DataError(
            "a training function needs training batches too, got test batches alone. "
            "Pass a pair (training, test) of loaders."
        )
    if wanted:
        _check_loader(training, "training")
        _check_batch(next(iter(training), None), "training")
    _check_loader(test, "test")
    return training, test


def samples(loader: Loader) -> int:
    """Return how many samples a loader yields, without reading them where it says so."""
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, Sized):
        return len(dataset)
    return sum(len(labels) for _, labels in loader)


class TestBatches:
    """Test batches that are read once and shared by all networks.

    Batches that do not fit into memory are read again at every pass.

    Args:
        loader: Yields the batches, the same at every pass.
        room: Bytes that they may take.

    Raises:
        DataError: If one is no pair of tensors, or there is none.
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    def __init__(self, loader: Loader, room: int = ROOM) -> None:
        self._loader = loader
        self._kept: list[Any] = []
        self._whole = True
        for batch in loader:
            _check_batch(batch, "test")
            self._kept.append(batch)
            room -= sum(part.nbytes for part in batch)
            if room < 0:
                del self._kept[1:]
                self._whole = False
                break
        _check_batch(next(iter(self._kept), None), "test")

    @property
    def first(self) -> list[Any]:
        """A copy of the first batch, alone."""
        return [tuple(part.clone() for part in batch) for batch in self._kept[:1]]

    def __iter__(self) -> Iterator[Any]:
        if not self._whole:
            return iter(self._loader)
        # Copies: a first layer that works in place must not change what is kept.
        return ((inputs.clone(), labels) for inputs, labels in self._kept)


def _check_loader(loader: object, what: str) -> None:
    """Raise DataError unless something can yield batches several times."""
    problem = f"the {what} loader is {type(loader).__name__!r}"
    if isinstance(loader, Iterator):
        raise DataError(f"{problem}, which can be iterated only once. {_REMEDY}")
    if isinstance(loader, Tensor | nn.Module | str | Mapping) or not isinstance(loader, Iterable):
        raise DataError(f"{problem}, expected batches (inputs, labels). {_REMEDY}")


def _check_batch(batch: object, what: str) -> None:
    """Raise DataError unless a batch is there and a pair of tensors."""
    if batch is None:
        raise DataError(f"the {what} loader yields no batch. Check the data set and its split.")
    if not _is_batch(batch):
        raise DataError(
            f"a batch of the {what} loader is {type(batch).__name__!r}, expected a pair (inputs, "
            f"labels) of tensors. {_REMEDY}"
        )


def _is_batch(value: object) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(part, Tensor) for part in value)
    )
