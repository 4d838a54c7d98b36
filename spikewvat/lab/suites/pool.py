"""Jobs side by side in processes, of which some may be killed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import BrokenProcessPool

from spikewvat.lab.suites import locks
from spikewvat.lab.suites.cluster import connected
from spikewvat.lab.suites.jobs import Found, Job, failed, finished, run_job

_DEATHS = 2  # of its process, until a job is given up
_FRUITLESS = 3  # deaths in a row of processes that had not begun a job

Task = tuple[int, Job]


class Pool:
    """Processes that run jobs; use it as a context.

    When a process is killed, joblib gives up all that are under way. The jobs that were running
    are then run alone, one after the other, each going on from its checkpoint, and the rest as
    before. A job whose process is killed again while nothing else runs is given up.

    Args:
        out: Folder of all suites.
        data_root: Where the data sets lie.
        processes: How many; with one, jobs run in this process.
        dask: Address of a scheduler, on whose workers jobs run instead.
    """

    def __init__(
        self,
        out: Path,
        *,
        data_root: Path | None = None,
        processes: int = 1,
        dask: str | None = None,
    ) -> None:
        self._out = out
        self._data_root = data_root
        self._processes = processes
        self._dask = dask
        self._context = ExitStack()
        self._lost: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __enter__(self) -> Pool:
        """Connect to the cluster, if there is one."""
        if self._dask is not None:
            self._lost = (self._context.enter_context(connected(self._dask)),)
        return self

    def __exit__(self, *details: object) -> None:
        """Disconnect."""
        self._context.close()

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Found]]:
        """Run jobs and yield each as it ends; those that have ended before come first.

        Args:
            jobs: What to run, in this order as far as processes are free.

        Yields:
            The job and what became of it.
        """
        left: dict[int, Job] = {}
        for number, job in enumerate(jobs):
            earlier = finished(job.folder(self._out))
            if earlier is not None:
                yield job, earlier
            else:
                left[number] = job
        alone: list[int] = []  # they were running when a process was killed
        elsewhere: set[int] = set()  # another bench runs them
        deaths: Counter[int] = Counter()
        fruitless = 0
        while left:
            now = alone[:1] or [n for n in left if n not in elsewhere] or list(left)
            try:
                for number, found in self._parallel([(n, left[n]) for n in now], elsewhere):
                    if found is None:
                        elsewhere.add(number)
                        continue
                    fruitless = 0
                    yield left.pop(number), found
            except self._lost as error:
                cut = [n for n in now if n in left and self._was_cut_off(left[n])]
                fruitless = 0 if cut else fruitless + 1
                deaths.update(cut)
                alone += [n for n in cut if n not in alone]
                if alone and now == alone[:1] and deaths[alone[0]] >= _DEATHS:
                    yield self._given_up(left.pop(alone[0]), error)
                elif fruitless >= _FRUITLESS:
                    for number in list(left):
                        yield self._given_up(left.pop(number), error)
            alone = [n for n in alone if n in left and n not in elsewhere]

    def _parallel(
        self, tasks: Sequence[Task], elsewhere: set[int]
    ) -> Iterator[tuple[int, Found | None]]:
        """Run tasks and yield each as it ends, None for those that another bench runs."""
        # One at a time: joblib would hand out several quick ones, and lose them together.
        run = Parallel(
            n_jobs=self._processes if self._dask is None else -1,
            return_as="generator_unordered",
            batch_size=1,
        )
        yield from run(
            delayed(_run)(*task, self._out, self._data_root, task[0] in elsewhere, os.getpid())
            for task in tasks
        )

    def _was_cut_off(self, job: Job) -> bool:
        folder = job.folder(self._out)
        return finished(folder) is None and locks.was_cut_off(folder)

    def _given_up(self, job: Job, error: BaseException) -> tuple[Job, Found]:
        message = (
            f"its process was killed again while no other job ran ({type(error).__name__}). "
            "The usual cause is memory: lower evaluation.batch_size or training.batch_size."
        )
        return job, failed(job.folder(self._out), message)


def _run(
    number: int, job: Job, out: Path, data_root: Path | None, wait: bool, parent: int
) -> tuple[int, Found | None]:
    return number, run_job(job, out, data_root, wait=wait, parent=parent)
