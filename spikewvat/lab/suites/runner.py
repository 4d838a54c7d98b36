"""Running a suite: its cells side by side, each once, none stopped by another's failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spikewvat.lab.recipes.results import RunResult, row_result
from spikewvat.lab.suites.cells import (
    ERROR,
    Cell,
    CellFailed,
    Found,
    Job,
    Training,
    cells_of,
    failed,
    finished,
)
from spikewvat.lab.suites.pool import Pool
from spikewvat.results import RowResult

__all__ = [
    "ERROR",
    "Cell",
    "CellFailed",
    "Found",
    "Job",
    "SuiteResult",
    "Training",
    "cells_of",
    "run_cells",
    "run_suite",
    "trainings_of",
]


@dataclass(frozen=True)
class SuiteResult:
    """What became of a suite.

    Args:
        rows: Results by row name, of the seeds that ended well.
        failed: The cells without a result.
    """

    rows: Mapping[str, RowResult]
    failed: tuple[tuple[Cell, CellFailed], ...]


def trainings_of(cells: Sequence[Cell], out: Path) -> list[Training]:
    """Return the networks that unfinished cells test, each once.

    Args:
        cells: See :func:`cells_of`.
        out: Folder that holds a folder for each suite.
    """
    unfinished = (cell for cell in cells if finished(cell.folder(out)) is None)
    return list(dict.fromkeys(cell.training for cell in unfinished))


def run_suite(
    cells: Sequence[Cell],
    out: Path,
    *,
    data_root: Path | None = None,
    jobs: int = 1,
    dask: str | None = None,
    on_job: Callable[[Job, Found], None] = lambda job, found: None,
) -> SuiteResult:
    """Run cells and join the seeds of each row.

    Args:
        cells: See :func:`cells_of`.
        out: Folder that holds a folder for each suite, and one for trained networks.
        data_root: Where the data sets lie; their usual places by default. Generated ones have
            no other.
        jobs: Number of processes.
        dask: Address of a Dask scheduler, on whose workers cells run instead; they need the
            package, the data and ``out`` under the same paths.
        on_job: Called as each training and each cell ends.

    Returns:
        The rows and the failures, in the order of the cells.

    Raises:
        RecipeError: If no scheduler answers.
    """
    found: dict[Job, Found] = {}
    for job, what in run_cells(cells, out, data_root=data_root, jobs=jobs, dask=dask):
        on_job(job, what)
        found[job] = what
    by_row: dict[str, list[RunResult]] = {}
    lost = []
    for cell in cells:
        what = found[cell]
        if isinstance(what, CellFailed):
            lost.append((cell, what))
        else:
            by_row.setdefault(cell.row, []).append(what)
    rows = {name: row_result(results) for name, results in by_row.items()}
    return SuiteResult(rows, tuple(lost))


def run_cells(
    cells: Sequence[Cell],
    out: Path,
    *,
    data_root: Path | None = None,
    jobs: int = 1,
    dask: str | None = None,
) -> Iterator[tuple[Job, Found]]:
    """Run cells in processes of one thread each, and yield each as it ends.

    A finished cell is read back, one that was cut off goes on from its checkpoint, one that
    raises does not stop the others, one that another bench runs is waited for. Networks are
    trained once, and before any is tested.

    Args:
        cells: What to run.
        out: See :func:`run_suite`, here and below.
        data_root: Where the data sets lie.
        jobs: Number of processes.
        dask: Address of a Dask scheduler.

    Yields:
        A training or a cell, and the content of its ``result.json`` or why it failed.

    Raises:
        RecipeError: If no scheduler answers.
    """
    # The slowest first, so that all processes end at about the same time.
    trainings = sorted(trainings_of(cells, out), key=lambda t: t.recipe.method.name == "plain")
    untrained: dict[Training, CellFailed] = {}
    with Pool(out, data_root=data_root, jobs=jobs, dask=dask) as pool:
        for job, found in pool.run(trainings):
            if isinstance(job, Training) and isinstance(found, CellFailed):
                untrained[job] = found
            yield job, found
        for cell in cells:
            if cell.training in untrained:
                why = untrained[cell.training]
                text = f"{why.message} (in its training: {why.log})"
                yield cell, failed(cell.folder(out), why.message, text, skipped=why.skipped)
        yield from pool.run([cell for cell in cells if cell.training not in untrained])
