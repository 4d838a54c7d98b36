"""Run jobs in parallel processes, each once, even if processes are killed."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import torch

from spikewvat.errors import RecipeError, require
from spikewvat.lab.recipes.lock import filelock
from spikewvat.lab.recipes.schema import GENERATED
from spikewvat.lab.suites.jobs import ERROR, Found, Job, failed, finished, given_up
from spikewvat.memory import keep_freed_memory

joblib = require("joblib", extra="cli", purpose="running suites")

LOCK = "job.lock"
RUNNING = "running.txt"
"""Holds the id of the process that runs a job; remains only if that process was killed."""
Task: TypeAlias = tuple[int, Job, Path, Path | None, bool, int | None]
Ran: TypeAlias = tuple[int, Found | None]
Each: TypeAlias = Callable[[Sequence[Task]], Iterable[Ran]]
_HEARTBEAT = 0.5  # seconds between two looks at whether the parent is there
_PATIENCE = 60  # seconds that a scheduler may take to answer, and workers to come


def run_all(
    jobs: Sequence[Job],
    out: Path,
    *,
    data_root: Path | None = None,
    processes: int = 1,
    dask: str | None = None,
) -> Iterator[tuple[Job, Found]]:
    """Run jobs and yield each as it ends; already finished ones come first.

    When a process is killed, joblib abandons all running jobs; Dask, after some retries, only the
    job in that process. Jobs that were running are then run again one at a time, each resuming from
    its checkpoint, and the others as before. A job is given up if its process is killed again while
    no other job runs.

    Args:
        jobs: The jobs, started in this order as processes become free.
        out: Folder of all suites.
        data_root: Folder of the data sets.
        processes: Number of processes; with one, jobs run in this process.
        dask: Address of a scheduler; jobs then run on its workers instead.

    Yields:
        Each job with its outcome.

    Raises:
        RecipeError: If no scheduler answers, or a worker would run several jobs at once.
        MissingExtraError: If Dask is not installed.
    """
    left = dict(enumerate(jobs))
    for number, job in enumerate(jobs):
        if (earlier := finished(job.folder(out))) is not None:
            yield left.pop(number), earlier
    alone: list[int] = []  # they were running when a process was killed
    elsewhere: set[int] = set()  # another bench runs them
    deaths: Counter[int] = Counter()
    with _backend(processes, dask) as (each, lost):
        while left:
            now = alone[:1] or [n for n in left if n not in elsewhere] or list(left)
            waits = {n: n in elsewhere for n in now}
            parent = os.getpid() if dask is None else None
            tasks = [(n, left[n], out, data_root, waits[n], parent) for n in now]
            try:
                for number, found in each(tasks):
                    if found is None:
                        elsewhere.add(number)
                    else:
                        yield left.pop(number), found
            except lost as error:
                unfinished = [n for n in now if n in left and (waits[n] or n not in elsewhere)]
                elsewhere.difference_update(unfinished)
                begun = [n for n in unfinished if (left[n].folder(out) / RUNNING).exists()]
                deaths.update(begun or unfinished)
                alone += [n for n in begun or unfinished if n not in alone]
                if len(now) == 1 and deaths[now[0]] > 1:
                    message = (
                        f"its process was killed again while no other job ran "
                        f"({type(error).__name__}). The usual cause is memory: lower "
                        "evaluation.batch_size or training.batch_size."
                    )
                    job = left.pop(now[0])
                    yield job, given_up(job.folder(out), message)
            alone = [n for n in alone if n in left and n not in elsewhere]


def _run(
    number: int, job: Job, out: Path, data_root: Path | None, wait: bool, parent: int | None
) -> Ran:
    """Run a job or read its result; None if another process is running it."""
    folder = job.folder(out)
    if os.getpid() != parent and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with
    if parent is not None and os.getpid() != parent:
        end_with(parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / LOCK, timeout=-1 if wait else 0):
            found = finished(folder)  # by whoever held it until now
            if found is None:
                (folder / RUNNING).write_text(f"{os.getpid()}\n")
                torch.set_num_threads(1)
                keep_freed_memory()
                root = None if job.recipe.data.name in GENERATED else data_root
                try:
                    found = job.run(out, root)
                finally:
                    (folder / RUNNING).unlink()
            (folder / ERROR).unlink(missing_ok=True)
        return number, found
    except filelock.Timeout:
        return number, None
    except Exception as error:  # whatever it is, the other jobs go on
        return number, failed(folder, error)


@functools.cache
def end_with(parent: int) -> None:
    """End this process, whatever it does, once its parent is gone.

    A bench that is killed outright cannot stop its workers: they would train on for hours, and a
    bench that is started anew would wait for them. What a job has saved stays whole.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_HEARTBEAT)
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


@contextmanager
def _backend(processes: int, dask: str | None) -> Iterator[tuple[Each, type[Exception]]]:
    """Return the function that runs tasks, and the exceptions it raises if a process is killed."""
    if dask is None:
        # One at a time: joblib would hand out several quick ones, and lose them together.
        options = {"return_as": "generator_unordered", "batch_size": 1}
        yield (
            lambda tasks: joblib.Parallel(processes, **options)(
                joblib.delayed(_run)(*task) for task in tasks
            ),
            BrokenProcessPool,
        )
        return
    library = require("distributed", extra="dask", purpose="--dask")
    try:
        client = library.Client(dask, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise RecipeError(
            f"--dask {dask!r}: no scheduler answers there ({error}). Start one with: "
            "dask scheduler --host 127.0.0.1"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            raise RecipeError(
                f"--dask {dask!r}: there is no worker after {_PATIENCE} s. "
                "Start some with: dask worker --nthreads 1"
            ) from error
        for worker, count in client.nthreads().items():
            if count > 1:
                # Training seeds the generators of the whole process: two would mix them up.
                raise RecipeError(
                    f"--dask {dask!r}: worker {worker} has {count} threads, expected 1: a process "
                    "trains one network at a time. Start it with: dask worker --nthreads 1"
                )
        yield functools.partial(_on_workers, library, client), library.KilledWorker


def _on_workers(library: Any, client: Any, tasks: Sequence[Task]) -> Iterator[Ran]:
    """Run tasks on the workers of a cluster; raise at the end if a worker was killed.

    This does not use joblib, which waits forever for a task that Dask has given up.
    """
    killed = None
    futures = [client.submit(_run, *task, pure=False) for task in tasks]
    for future in library.as_completed(futures, loop=client.loop):
        try:
            yield future.result()
        except library.KilledWorker as error:
            killed = error
    if killed is not None:
        raise killed
