"""The cells of a suite: networks that are trained, each once, and rows that test them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from spikewvat import files, serialisation
from spikewvat.errors import CheckpointError, DataError, MissingDataError
from spikewvat.lab.memory import keep_freed_memory
from spikewvat.lab.recipes import Recipe, build
from spikewvat.lab.recipes import run as runs
from spikewvat.lab.recipes.convert import convert_run
from spikewvat.lab.recipes.landscape import landscape_run
from spikewvat.lab.recipes.results import RunResult
from spikewvat.lab.recipes.schema import GENERATED
from spikewvat.lab.suites import locks
from spikewvat.lab.suites.suite import Suite
from spikewvat.lab.trainer import CHECKPOINT
from spikewvat.robustness.landscape import LossLines
from spikewvat.robustness.results import ChipReport, Degradation

ERROR = "error.txt"
TRAINED = "trained"
"""Folder of the trained networks, which all suites share."""


@dataclass(frozen=True, eq=False)
class Training:
    """A network that is trained: a recipe without what comes afterwards.

    Args:
        recipe: What is run.
    """

    recipe: Recipe

    def __str__(self) -> str:
        return f"training of {self._kind}, seed {self.recipe.seed}"

    @property
    def _kind(self) -> str:
        recipe = self.recipe
        return f"{recipe.data.name} {recipe.model.name} {runs.method_label(recipe)}"

    @cached_property
    def identity(self) -> str:
        """Name of its folder; equal trainings of different suites have one."""
        content = self.recipe.training_content()
        return f"{self._kind.replace(' ', '-')}-seed{self.recipe.seed}-{_digest(content)}"

    def folder(self, out: Path) -> Path:
        """Return where its files lie."""
        return out / TRAINED / self.identity

    def run(self, out: Path, data_root: Path | None) -> RunResult | None:
        """Train, or go on from a checkpoint."""
        folder = self.folder(out)
        resume = (folder / CHECKPOINT).is_file()
        return runs.train(
            self.recipe, folder, data_root=data_root, resume=resume, test=False, progress=False
        )


@dataclass(frozen=True, eq=False)
class Cell:
    """A row with one training seed.

    Args:
        suite: Name of its suite.
        row: Name of its row.
        recipe: Says how the network is tested, and converted before that if it is.
        training: What trains the network.
    """

    suite: str
    row: str
    recipe: Recipe
    training: Training

    def __str__(self) -> str:
        return f"{self.row}, seed {self.recipe.seed}"

    def folder(self, out: Path) -> Path:
        """Return where its files lie; another recipe of the same name has another folder."""
        content = {
            **self.recipe.content(),
            "name": self.training.identity,
            "description": "",
        }
        return out / self.suite / f"{self.row}-seed{self.recipe.seed}-{_digest(content)}"

    def run(self, out: Path, data_root: Path | None) -> RunResult:
        """Test the trained network, converted if the recipe says so."""
        source, folder = self.training.folder(out), self.folder(out)
        trained = serialisation.read(source / runs.RESULT, RunResult)
        if self.recipe.conversion is not None:
            return convert_run(
                source, folder, self.recipe, data_root=data_root, resume=True, progress=False
            )
        if self.recipe.landscape is not None:
            return _looked_around(self.recipe, source, folder, trained, data_root)
        # The data has told the training which shape its samples are of.
        recipe = self.recipe.model_copy(update={"model": runs.read_run(source).model})
        found = runs.evaluate_as(recipe, source, data_root=data_root, progress=False)
        found = replace(found, training=trained.training)
        serialisation.write(folder / runs.RESULT, found)
        return found


Job = Training | Cell
"""What one process does at a time."""


@dataclass(frozen=True)
class CellFailed:
    """A cell without a result.

    Args:
        message: The error in one line.
        log: File with the traceback.
        skipped: Whether nothing is wrong but that data is not there.
    """

    message: str
    log: Path
    skipped: bool = False


Found = RunResult | CellFailed
"""What became of a cell: the content of its ``result.json``, or why there is none."""


def cells_of(
    suite: Suite, *, preset: str | None, seeds: Iterable[int], overrides: Iterable[str] = ()
) -> list[Cell]:
    """Read and check the recipes of a suite, before the first one runs.

    Args:
        suite: Names the rows.
        preset: Scale of the recipes.
        seeds: Training seeds of each row.
        overrides: ``"training.lr=1e-4"``, for all cells alike.

    Returns:
        Row by row; cells that test one network share its training.

    Raises:
        RecipeError: If a recipe is malformed.
    """
    seeds, overrides = tuple(seeds), tuple(overrides)
    trainings: dict[str, Training] = {}
    cells = []
    for row in suite.rows:
        for seed in seeds:
            recipe = suite.recipe(row, preset=preset, seed=seed, overrides=overrides)
            with contextlib.suppress(MissingDataError):  # the cell says so when it is run
                recipe = build.check(recipe)
            plain = recipe.model_copy(update={"conversion": None, "landscape": None})
            training = Training(plain)
            training = trainings.setdefault(training.identity, training)
            cells.append(Cell(suite.folder.name, row.name, recipe, training))
    return cells


def finished(folder: Path) -> RunResult | None:
    """Return what a cell has found, None where it has not ended well."""
    try:
        return serialisation.read(folder / runs.RESULT, RunResult)
    except DataError:  # none, or none that can be read
        return None


def run_job(
    job: Job, out: Path, data_root: Path | None, *, wait: bool, parent: int
) -> Found | None:
    """Run a cell, or read back what it has found.

    Args:
        job: What to run.
        out: Folder of all suites.
        data_root: Where the data sets lie; their usual places by default.
        wait: Wait while another process runs it.
        parent: Process that waits for the result.

    Returns:
        What became of it; None where another process runs it and ``wait`` is off.
    """
    folder = job.folder(out)
    if os.getpid() != parent and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with
    try:
        with locks.held(folder, wait=wait) as mine:
            if not mine:
                return None
            found = finished(folder)  # by whoever held it until now
            if found is None:
                torch.set_num_threads(1)
                keep_freed_memory()
                root = None if job.recipe.data.name in GENERATED else data_root
                found = job.run(out, root)
            (folder / ERROR).unlink(missing_ok=True)
        return found
    except Exception as error:  # whatever it is, the other cells go on
        message, skipped = " ".join(str(error).split()), isinstance(error, MissingDataError)
        message = message if skipped else f"{type(error).__name__}: {message}"
        return failed(folder, message, traceback.format_exc(), skipped=skipped)


def failed(folder: Path, message: str, log: str = "", *, skipped: bool = False) -> CellFailed:
    """Note in a cell's folder why it has no result, and return that.

    Args:
        folder: The cell's.
        message: The error in one line.
        log: Traceback.
        skipped: Whether nothing is wrong but that data is not there.
    """
    path = folder / ERROR
    # The disk may be full, perhaps the very reason: then the message is all there is.
    with contextlib.suppress(CheckpointError):
        files.write_atomic(path, log or f"{message}\n")
    return CellFailed(message, path, skipped)


def _looked_around(
    recipe: Recipe,
    source: Path,
    folder: Path,
    trained: RunResult,
    data_root: Path | None,
) -> RunResult:
    """Evaluate the loss around the weights; the places on its lines are chips of a row, too."""
    plan = recipe.landscape
    assert plan is not None  # the caller has looked
    options = {key: getattr(plan, key) for key in type(plan).model_fields}
    found = landscape_run(source, data_root=data_root, progress=False, **options)
    result = replace(
        runs.run_result(recipe, chips_of_lines(found.lines), training=trained.training),
        recipe={**found.recipe, "landscape": recipe.content()["landscape"]},
        method=found.method,
        split=found.split,
        device=found.device,
        landscape=replace(found, run="", recipe={}, versions={}),  # which the result holds itself
    )
    serialisation.write(folder / runs.RESULT, result)
    return result


def chips_of_lines(lines: LossLines) -> Degradation:
    """Return the places from ideal weights on, each line a chip.

    Args:
        lines: What was found along them.
    """
    reports = [
        ChipReport(
            device=lines.device,
            sigma=None if lines.sigma is None else round(magnitude, 9),
            accuracies=lines.accuracies[:, place],
            seeds=lines.seeds,
            images=lines.images,
            losses=lines.losses[:, place],
        )
        for place, magnitude in enumerate(lines.magnitudes)
        if magnitude > -1e-9 and (lines.sigma is not None or place == len(lines.positions) - 1)
    ]
    return Degradation(lines.clean_accuracy, tuple(reports))


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
