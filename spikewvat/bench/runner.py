"""Running a suite: its cells side by side, each once, none stopped by another's failure."""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed

from spikewvat import files
from spikewvat.bench.suite import Suite
from spikewvat.bench.table import RowResult, row_result
from spikewvat.recipes import Recipe, build
from spikewvat.recipes import run as runs
from spikewvat.recipes.convert import convert_run
from spikewvat.trainer import CHECKPOINT

ERROR = "error.txt"


@dataclass(frozen=True, eq=False)
class Cell:
    """One recipe with one seed.

    Args:
        row: Name of its row.
        recipe: What is run.
        trained: What trains the network that this one converts; None where this one trains.
    """

    row: str
    recipe: Recipe
    trained: Cell | None = None

    def __str__(self) -> str:
        return f"{self.row}, seed {self.recipe.seed}"

    def folder(self, out: Path) -> Path:
        """Return where its files lie; another recipe of the same name has another folder."""
        content = json.dumps(self.recipe.content(), sort_keys=True, default=str)
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        if self.trained is not None:
            return self.trained.folder(out) / f"{self.row}-{digest}"
        return out / f"{self.row}-seed{self.recipe.seed}-{digest}"


@dataclass(frozen=True)
class CellFailed:
    """A cell that raised.

    Args:
        message: The error in one line.
        log: File with the traceback.
    """

    message: str
    log: Path


Found = dict[str, Any] | CellFailed
"""What became of a cell: the content of its ``result.json``, or why there is none."""


@dataclass(frozen=True)
class SuiteResult:
    """What became of a suite.

    Args:
        rows: Results by row name, of the seeds that ended well.
        failed: The cells that raised.
    """

    rows: Mapping[str, RowResult]
    failed: tuple[tuple[Cell, CellFailed], ...]


def cells_of(
    suite: Suite, *, preset: str | None, seeds: Iterable[int], overrides: Iterable[str] = ()
) -> list[Cell]:
    """Read and check the recipes of a suite, before the first one runs.

    Args:
        suite: Names the rows.
        preset: Scale of the recipes.
        seeds: Training seeds of each row.
        overrides: ``"training.lr=1e-4"``, for all cells alike.

    Raises:
        RecipeError: If a recipe is malformed.
    """
    overrides, cells = tuple(overrides), []
    for row in suite.rows:
        for seed in seeds:
            recipe = suite.recipe(row, preset=preset, seed=seed, overrides=overrides)
            recipe, trained = build.check(recipe), None
            if recipe.conversion is not None:
                trained = Cell(row.trained, recipe.model_copy(update={"conversion": None}))
            cells.append(Cell(row.name, recipe, trained))
    return cells


def run_suite(
    cells: Sequence[Cell],
    out: Path,
    *,
    data_root: Path | None = None,
    jobs: int = 1,
    on_cell: Callable[[Cell, Found], None] = lambda cell, found: None,
) -> SuiteResult:
    """Run cells and join the seeds of each row.

    Args:
        cells: See :func:`cells_of`.
        out: Folder that holds a folder for each cell.
        data_root: Where the data sets lie; their usual places by default.
        jobs: Number of processes.
        on_cell: Called as each cell ends.

    Returns:
        The rows and the failures, in the order of the cells.
    """
    found: dict[Cell, Found] = {}
    for cell, what in run_cells(cells, out, data_root=data_root, jobs=jobs):
        on_cell(cell, what)
        found[cell] = what
    finished: dict[str, list[dict[str, Any]]] = {}
    failed = []
    for cell in cells:
        what = found[cell]
        if isinstance(what, CellFailed):
            failed.append((cell, what))
        else:
            finished.setdefault(cell.row, []).append(what)
    rows = {name: row_result(results) for name, results in finished.items()}
    return SuiteResult(rows, tuple(failed))


def run_cells(
    cells: Sequence[Cell], out: Path, *, data_root: Path | None = None, jobs: int = 1
) -> Iterator[tuple[Cell, Found]]:
    """Run cells in processes of one thread each, and yield each as it ends.

    A finished cell is read back, one that was cut off goes on from its checkpoint, one that
    raises does not stop the others. Networks are trained once, and before any is converted.

    Args:
        cells: What to run.
        out: Folder that holds a folder for each cell.
        data_root: Where the data sets lie; their usual places by default.
        jobs: Number of processes.

    Yields:
        The cell, and the content of its ``result.json`` or why it failed.
    """
    training = [cell for cell in cells if cell.trained is None]
    known = {cell.folder(out) for cell in training}
    needed = {c.trained.folder(out): c.trained for c in cells if c.trained is not None}
    training += [cell for folder, cell in needed.items() if folder not in known]
    asked = {id(cell) for cell in cells}
    for stage in (training, [cell for cell in cells if cell.trained is not None]):
        # The slowest first, so that all processes end at about the same time.
        order = sorted(range(len(stage)), key=lambda i: stage[i].recipe.method.name == "plain")
        results = Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(_run)(i, stage[i], out, data_root) for i in order
        )
        for i, found in results:
            if id(stage[i]) in asked:
                yield stage[i], found


def _run(number: int, cell: Cell, out: Path, data_root: Path | None) -> tuple[int, Found]:
    folder = cell.folder(out)
    result = folder / runs.RESULT
    try:
        if result.is_file():
            return number, dict(json.loads(result.read_text()))
        torch.set_num_threads(1)
        if cell.trained is None:
            resume = (folder / CHECKPOINT).is_file()
            found = runs.train(
                cell.recipe, folder, data_root=data_root, resume=resume, progress=False
            )
        else:
            source = cell.trained.folder(out)
            if not (source / runs.RESULT).is_file():
                return number, CellFailed(f"{cell.trained} has failed", source / ERROR)
            found = convert_run(
                source, folder, cell.recipe, data_root=data_root, resume=True, progress=False
            )
        (folder / ERROR).unlink(missing_ok=True)
    except Exception as error:  # whatever it is, the other cells go on
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        files.write_atomic(folder / ERROR, traceback.format_exc())
        return number, CellFailed(message, folder / ERROR)
    return number, found
