"""Loaders that a user brings: what they are, whether a network fits them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from torch import Tensor, nn

from spikewvat.adapters import Adapter
from spikewvat.errors import DataError
from spikewvat.lab.suites.methods import Loader
from spikewvat.robustness import Evaluator

Loaders: TypeAlias = Loader | tuple[Loader, Loader]
"""Test batches, or training and test batches."""


def pair_of(loaders: Loaders, *, wanted: bool) -> tuple[Loader, Loader]:
    """Return training and test batches.

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
    for loader, what in ((test, "test"), *([(training, "training")] if wanted else [])):
        _check(loader, what)
    return training, test


def try_on(model: nn.Module, test: Loader, adapter: Adapter) -> None:
    """Test a network on one batch, so that what does not fit is known before hours of training.

    Raises:
        DataError: If the network and the batches do not fit.
        UnsupportedModelError: If it has no synaptic weights.
    """
    adapter.synaptic_weights(model)
    try:
        _ = Evaluator(model, list(itertools.islice(test, 1)), adapter=adapter).accuracy
    except (ValueError, TypeError) as error:
        raise DataError(f"the network does not fit the test batches: {error}") from error


def count(loader: Loader) -> int:
    """Return how many samples a loader yields."""
    return sum(len(labels) for _, labels in loader)


def _check(loader: Loader, what: str) -> None:
    """Raise DataError unless something yields batches, and does so again."""
    problem = f"the {what} loader is {type(loader).__name__!r}"
    remedy = "Pass a DataLoader or a list of batches (inputs, labels)."
    if isinstance(loader, Tensor | nn.Module | str | Mapping) or not isinstance(loader, Iterable):
        raise DataError(f"{problem}, expected batches (inputs, labels). {remedy}")
    if iter(loader) is loader:
        raise DataError(f"{problem}, which can be iterated only once. {remedy}")
    first = next(iter(loader), None)
    if first is None:
        raise DataError(f"the {what} loader yields no batch. Check the data set and its split.")
    if not _is_batch(first):
        raise DataError(
            f"a batch of the {what} loader is {type(first).__name__!r}, expected a pair (inputs, "
            f"labels) of tensors. {remedy}"
        )


def _is_batch(value: object) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(part, Tensor) for part in value)
    )
