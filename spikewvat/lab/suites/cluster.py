"""Jobs on a Dask cluster: the only file that imports Dask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import joblib

from spikewvat.errors import RecipeError, require

_PATIENCE = 60  # seconds that a scheduler may take to answer, and workers to come


@contextmanager
def connected(address: str) -> Iterator[type[BaseException]]:
    """Make joblib run what it is given on a cluster.

    Args:
        address: The scheduler's, such as ``tcp://10.0.0.1:8786``.

    Yields:
        What is raised where a task has killed several workers.

    Raises:
        RecipeError: If nobody answers there, or a worker would run several jobs at once.
        MissingExtraError: If Dask is not installed.
    """
    library = require("distributed", extra="dask", purpose="--dask")
    try:
        client = library.Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise RecipeError(
            f"--dask {address!r}: no scheduler answers there ({error}). "
            "Start one with: dask scheduler"
        ) from error
    with client:
        several = {worker: count for worker, count in client.nthreads().items() if count > 1}
        if several:
            # Training seeds the generators of the whole process: two at once would mix them up.
            worker, count = next(iter(several.items()))
            raise RecipeError(
                f"--dask {address!r}: worker {worker} has {count} threads, expected 1: a process "
                "trains one network at a time. Start it with: dask worker --nthreads 1"
            )
        with joblib.parallel_config(
            backend="dask", client=client, wait_for_workers_timeout=_PATIENCE
        ):
            yield library.KilledWorker
