"""Running a suite: its jobs side by side, each once, none stopped by another's failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikewvat.lab.suites.jobs import (
    ERROR,
    Found,
    Job,
    JobFailed,
    RowJob,
    Training,
    failed,
    finished,
    jobs_of,
)
from spikewvat.lab.suites.pool import Pool
from spikewvat.lab.suites.table import RowResult, row_result

__all__ = [
    "ERROR",
    "RowJob",
    "JobFailed",
    "Found",
    "Job",
    "SuiteResult",
    "Training",
    "jobs_of",
    "run_jobs",
    "run_suite",
    "trainings_of",
]


@dataclass(frozen=True)
class SuiteResult:
    """What became of a suite.

    Args:
        rows: Results by row name, of the seeds that ended well.
        failed: The jobs without a result.
    """

    rows: Mapping[str, RowResult]
    failed: tuple[tuple[RowJob, JobFailed], ...]


def trainings_of(jobs: Sequence[RowJob], out: Path) -> list[Training]:
    """Return the networks that unfinished jobs test, each once.

    Args:
        jobs: See :func:`jobs_of`.
        out: Folder that holds a folder for each suite.
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
    """Run jobs and join the seeds of each row.

    Args:
        jobs: See :func:`jobs_of`.
        out: Folder that holds a folder for each suite, and one for trained networks.
        data_root: Where the data sets lie; their usual places by default. Generated ones have
            no other.
        processes: Number of processes.
        dask: Address of a Dask scheduler, on whose workers jobs run instead; they need the
            package, the data and ``out`` under the same paths.
        on_job: Called as each training and each job ends.

    Returns:
        The rows and the failures, in the order of the jobs.

    Raises:
        RecipeError: If no scheduler answers.
    """
    found: dict[Job, Found] = {}
    for job, what in run_jobs(jobs, out, data_root=data_root, processes=processes, dask=dask):
        on_job(job, what)
        found[job] = what
    by_row: dict[str, list[dict[str, Any]]] = {}
    lost = []
    for job in jobs:
        what = found[job]
        if isinstance(what, JobFailed):
            lost.append((job, what))
        else:
            by_row.setdefault(job.row, []).append(what)
    rows = {name: row_result(results) for name, results in by_row.items()}
    return SuiteResult(rows, tuple(lost))


def run_jobs(
    jobs: Sequence[RowJob],
    out: Path,
    *,
    data_root: Path | None = None,
    processes: int = 1,
    dask: str | None = None,
) -> Iterator[tuple[Job, Found]]:
    """Run jobs in processes of one thread each, and yield each as it ends.

    A finished job is read back, one that was cut off goes on from its checkpoint, one that
    raises does not stop the others, one that another bench runs is waited for. Networks are
    trained once, and before any is tested.

    Args:
        jobs: What to run.
        out: See :func:`run_suite`, here and below.
        data_root: Where the data sets lie.
        processes: Number of processes.
        dask: Address of a Dask scheduler.

    Yields:
        A training or a job, and the content of its ``result.json`` or why it failed.

    Raises:
        RecipeError: If no scheduler answers.
    """
    # The slowest first, so that all processes end at about the same time.
    trainings = sorted(trainings_of(jobs, out), key=lambda t: t.recipe.method.name == "plain")
    untrained: dict[Training, JobFailed] = {}
    with Pool(out, data_root=data_root, processes=processes, dask=dask) as pool:
        for job, found in pool.run(trainings):
            if isinstance(job, Training) and isinstance(found, JobFailed):
                untrained[job] = found
            yield job, found
        for job in jobs:
            if job.training in untrained:
                why = untrained[job.training]
                text = f"{why.message} (in its training: {why.log})"
                yield job, failed(job.folder(out), why.message, text, skipped=why.skipped)
        yield from pool.run([job for job in jobs if job.training not in untrained])
