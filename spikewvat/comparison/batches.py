"""The user's data loaders, and the checks that they must pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any, TypeAlias

from torch import Tensor, nn

from spikewvat.errors import DataError

Loader: TypeAlias = Iterable[Any]
"""Batches ``(inputs, labels)`` that can be iterated several times."""
Loaders: TypeAlias = Loader | tuple[Loader, Loader]
"""Test batches, or training and test batches."""

_REMEDY = "Pass a DataLoader or a list of batches (inputs, labels)."


def pair_of(loaders: Loaders, *, wanted: bool) -> tuple[Loader, Loader]:
    """Return training and test batches.

    Args:
        loaders: The argument that the user passed.
        wanted: Whether training batches are needed.

    Raises:
        DataError: If the argument is anything else, or lacks training batches that are needed.
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
    """Return the number of samples in a loader, without reading it if it tells."""
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, Sized):
        return len(dataset)
    return sum(len(labels) for _, labels in loader)


class TestBatches:
    """Test batches, checked as they are read; the first one is remembered.

    Args:
        loader: Yields the same batches in every pass.
    """

    __test__ = False  # not a test, whatever pytest makes of the name

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self.first: list[tuple[Tensor, Tensor]] = []
        """The first batch alone, once there has been a pass."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the batches.

        Raises:
            DataError: If a batch is not a pair of tensors, or there are no batches.
        """
        for batch in self._loader:
            _check_batch(batch, "test")
            inputs, labels = batch
            if not self.first:
                self.first.append((inputs.clone(), labels))
            # A copy: a first layer that works in place must not change what the user holds.
            yield inputs.clone(), labels
        if not self.first:
            _check_batch(None, "test")


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
