"""Run a suite: jobs in parallel, each once, independent of failures of others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spikewvat.lab.recipes.results import RunResult, over_folds, row_result
from spikewvat.lab.suites.jobs import (
    Found,
    Job,
    JobFailed,
    RowJob,
    Training,
    failed,
    finished,
    given_up,
)
from spikewvat.lab.suites.pool import run_all
from spikewvat.results import RowResult


@dataclass(frozen=True)
class SuiteResult:
    """Outcome of a suite.

    Args:
        rows: Results by row name, over the seeds that succeeded.
        failed: The jobs without a result.
    """

    rows: Mapping[str, RowResult]
    failed: tuple[tuple[RowJob, JobFailed], ...]


def trainings_of(jobs: Sequence[RowJob], out: Path) -> list[Training]:
    """Return the trainings that unfinished jobs need, each once.

    Args:
        jobs: See :func:`jobs_of`.
        out: Folder that contains one folder per suite.
    """
    unfinished = (job for job in jobs if finished(job.folder(out)) is None)
    return list(dict.fromkeys(job.training for job in unfinished))


def run_suite(
    jobs: Sequence[RowJob],
    out: Path,
    *,
    data_root: Path | None = None,
    processes: int = 1,
    dask: str | None = None,
    on_job: Callable[[Job, Found], None] = lambda job, found: None,
) -> SuiteResult:
    """Run jobs in single-threaded processes, and join the seeds of each row.

    The result of a finished job is read back. An interrupted job resumes from its checkpoint, a
    failed job does not stop the others, and a job that another process is running is awaited. All
    networks are trained, once each, before any is tested.

    Args:
        jobs: See :func:`jobs_of`.
        out: Folder that contains one folder per suite, and one for trained networks.
        data_root: Folder of the data sets; their usual locations by default. Generated data sets
            are always there.
        processes: Number of processes.
        dask: Address of a Dask scheduler; jobs then run on its workers, which need the package, the
            data and ``out`` under the same paths.
        on_job: Called when a training or a job ends.

    Returns:
        The rows and the failures, in the order of the jobs.

    Raises:
        RecipeError: If the scheduler does not answer.
    """
    run = functools.partial(run_all, out=out, data_root=data_root, processes=processes, dask=dask)
    found: dict[Job, Found] = {}

    def ended(job: Job, what: Found) -> None:
        found[job] = what
        on_job(job, what)

    ready = []
    for training in trainings_of(jobs, out):
        if (missing := training.lacks(data_root)) is None:
            ready.append(training)
        else:
            ended(training, failed(training.folder(out), missing))
    # The slowest first, so that all processes end at about the same time.
    slow_first = sorted(ready, key=lambda t: t.recipe.method.name == "plain")
    for each, what in run(slow_first):
        ended(each, what)
    trained = []
    for job in jobs:
        why = found.get(job.training)
        if isinstance(why, JobFailed):
            text = f"{why.message} (in its training: {why.log})"
            ended(job, given_up(job.folder(out), why.message, text, skipped=why.skipped))
        else:
            trained.append(job)
    for row, what in run(trained):
        ended(row, what)
    lost = tuple((job, what) for job in jobs if isinstance(what := found[job], JobFailed))
    incomplete = {(job.row, job.seed) for job, _ in lost}  # a fold may be missing
    by_row: dict[str, dict[int, list[RunResult]]] = {}
    for job in jobs:
        what = found[job]
        if isinstance(what, RunResult) and (job.row, job.seed) not in incomplete:
            by_row.setdefault(job.row, {}).setdefault(job.seed, []).append(what)
    rows = {
        name: row_result([over_folds(parts, seed) for seed, parts in by_seed.items()])
        for name, by_seed in by_row.items()
    }
    return SuiteResult(rows, lost)
