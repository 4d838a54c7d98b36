"""The jobs of a suite: trainings, each run once, and rows that test the networks."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from spikewvat import files, serialisation
from spikewvat.errors import CheckpointError, DataError, MissingDataError, RecipeError
from spikewvat.lab.recipes import Recipe
from spikewvat.lab.recipes import run as runs
from spikewvat.lab.recipes.convert import convert_run
from spikewvat.lab.recipes.evaluation import (
    evaluate_as,
    evaluated_otherwise,
    method_label,
    run_result,
)
from spikewvat.lab.recipes.landscape import landscape_run
from spikewvat.lab.recipes.loaders import data_folder
from spikewvat.lab.recipes.resolve import Resolved, resolve
from spikewvat.lab.recipes.results import RunResult
from spikewvat.lab.recipes.saved import RESULT
from spikewvat.lab.recipes.schema import GENERATED
from spikewvat.lab.suites.progress import LOG
from spikewvat.lab.suites.suite import TRAINED, Suite
from spikewvat.lab.trainer import CHECKPOINT, FINAL
from spikewvat.lab.trainer.console import console_to
from spikewvat.robustness.landscape import LossLines
from spikewvat.robustness.results import ChipReport, Degradation

ERROR = "error.txt"
TESTED = "tested.txt"
"""End of the name of a file beside weights: it holds the job that has read the test data."""


@dataclass(frozen=True, eq=False)
class Training:
    """A training: a recipe without the steps after training.

    Args:
        recipe: The recipe to run.
        resolved: The resolved recipe, or the error that it raised.
    """

    recipe: Recipe
    resolved: Resolved | MissingDataError

    def __str__(self) -> str:
        return f"training of {self._kind}, seed {self.recipe.seed}"

    @property
    def _kind(self) -> str:
        recipe = self.recipe
        return f"{recipe.data.name} {recipe.model.name} {method_label(recipe)}"

    @cached_property
    def identity(self) -> str:
        """Name of its folder; equal trainings of different suites share it."""
        content = self.recipe.training_content()
        return f"{self._kind.replace(' ', '-')}-seed{self.recipe.seed}-{_digest(content)}"

    def folder(self, out: Path) -> Path:
        """Return the folder of its files."""
        return out / TRAINED / self.identity

    def lacks(self, data_root: Path | None) -> MissingDataError | None:
        """Return what is missing if there is no folder of its data; None if it has to be tried."""
        if isinstance(self.resolved, MissingDataError):
            return self.resolved
        if self.recipe.data.name in GENERATED:
            return None
        try:
            data_folder(self.recipe.data.name, data_root)
        except MissingDataError as error:
            return error
        return None

    def run(self, out: Path, data_root: Path | None) -> RunResult | None:
        """Train, or resume from a checkpoint; each epoch is a line of a log."""
        folder = self.folder(out)
        resume = (folder / CHECKPOINT).is_file()
        with (folder / LOG).open("a", encoding="utf-8") as log:
            return runs.train(
                _ready(self.resolved),
                folder,
                data_root=data_root,
                resume=resume,
                test=False,
                console=console_to(log),
            )


@dataclass(frozen=True, eq=False)
class RowJob:
    """A row with one training seed.

    Args:
        suite: Name of its suite.
        row: Name of its row.
        seed: Seed of the row that it counts for; the recipe's own unless the row has folds.
        recipe: Sets how the network is tested and, if at all, converted first.
        resolved: The resolved recipe, or the error that it raised.
        training: The training of the network.
        columns: The recipe with other chips to test on, by name.
        once: Whether the test data may be read once only for this network.
        weights: File of the network in the training's folder.
    """

    suite: str
    row: str
    seed: int
    recipe: Recipe
    resolved: Resolved | MissingDataError
    training: Training
    columns: Mapping[str, Resolved] = field(default_factory=dict)
    once: bool = False
    weights: str = FINAL

    def __str__(self) -> str:
        return f"{self.row}, seed {self.recipe.seed}"

    def folder(self, out: Path) -> Path:
        """Return the folder of its files; another recipe of the same name has a different one."""
        content = {
            **self.recipe.content(),
            "name": self.training.identity,
            "description": "",
        }
        if self.columns:
            tested = {
                name: one.recipe.content()["evaluation"] for name, one in self.columns.items()
            }
            content["columns"] = tested
        if self.weights != FINAL:
            content["weights"] = self.weights
        return out / self.suite / f"{self.row}-seed{self.recipe.seed}-{_digest(content)}"

    def run(self, out: Path, data_root: Path | None) -> RunResult:
        """Test the trained network, after conversion if the recipe asks for it."""
        source, folder = self.training.folder(out), self.folder(out)
        resolved = _ready(self.resolved)
        trained = serialisation.read(source / RESULT, RunResult)
        if self.recipe.conversion is not None:
            return convert_run(
                source, folder, resolved, data_root=data_root, resume=True, progress=False
            )
        if self.recipe.landscape is not None:
            return _looked_around(resolved, source, folder, trained, data_root)
        if self.once:
            self._claim_test_data(source, folder)
        found = evaluate_as(
            resolved,
            source,
            weights=self.weights,
            columns=self.columns,
            data_root=data_root,
            progress=False,
        )
        training = trained.training
        if training is not None and found.curve.reports:
            images = found.curve.reports[0].images
            samples = {**training.samples, resolved.recipe.evaluation.split: images}
            training = replace(training, samples=samples)
        found = replace(found, training=training, test_reads=1 if self.once else None)
        serialisation.write(folder / RESULT, found)
        return found

    def _claim_test_data(self, source: Path, folder: Path) -> None:
        """Note beside the network's weights that this job reads the test data.

        Raises:
            RecipeError: If another job has read it for the same network.
        """
        note = source / f"{self.weights}.{TESTED}"
        try:
            with note.open("x", encoding="utf-8") as file:
                file.write(folder.name)
        except FileExistsError:
            by = note.read_text(encoding="utf-8")
            if by != folder.name:
                raise RecipeError(
                    f"the test data was read for {str(source / self.weights)!r} before, by {by!r}. "
                    "Test it once: compare on fresh seeds if anything has changed since."
                ) from None


Job = Training | RowJob
"""A unit of work for one process."""


@dataclass(frozen=True)
class JobFailed:
    """A job that ended without a result.

    Args:
        message: The error in one line.
        log: File with the traceback.
        skipped: Whether the only reason is missing data.
    """

    message: str
    log: Path
    skipped: bool = False


Found = RunResult | JobFailed
"""Outcome of a job: the content of its ``result.json``, or the reason for its absence."""


def jobs_of(
    suite: Suite,
    *,
    preset: str | None,
    seeds: Iterable[int],
    overrides: Iterable[str] = (),
    name: str | None = None,
    once: bool = False,
) -> list[RowJob]:
    """Read and check all recipes of a suite, before the first one runs.

    Args:
        suite: The suite with its rows.
        preset: Scale of the recipes.
        seeds: Training seeds of each row, unless its set-up has its own.
        overrides: Such as ``"training.lr=1e-4"``, for all jobs.
        name: Name of the suite's folder; that of its recipes by default.
        once: Let each network meet the test data once only.

    Returns:
        The jobs, row by row and, if its set-up has folds, fold by fold; jobs that test the same
        network share its training.

    Raises:
        RecipeError: If a recipe is malformed.
    """
    seeds, overrides = tuple(seeds), tuple(overrides)
    trainings: dict[str, Training] = {}
    jobs = []
    for setup in suite.setups:
        parts = setup.parts(seeds)
        for row, (seed, fold, trained) in itertools.product(setup.rows, parts):
            changes = overrides if fold is None else (*overrides, f"data.fold={fold}")
            recipe = suite.recipe(row, preset=preset, seed=trained, overrides=changes)
            columns = {}
            resolved: Resolved | MissingDataError
            try:
                resolved = resolve(recipe)
                recipe = resolved.recipe
                for key in suite.columns if setup.columns is None else setup.columns:
                    other = evaluated_otherwise(recipe, **suite.columns[key])
                    columns[key] = resolve(other)
            except MissingDataError as error:  # the job says so when it is run
                resolved = error
            training = _training_of(recipe, resolved)
            training = trainings.setdefault(training.identity, training)
            folder, weights = name or suite.folder.name, FINAL if row.averaged else CHECKPOINT
            jobs.append(
                RowJob(folder, row.name, seed, recipe, resolved, training, columns, once, weights)
            )
    return jobs


def _training_of(recipe: Recipe, resolved: Resolved | MissingDataError) -> Training:
    """Return the training of a job; with held-out data to watch, the test data stays closed."""
    alone = recipe.model_copy(update={"conversion": None, "landscape": None})
    if recipe.training.validation:
        blind = recipe.evaluation.model_copy(update={"split": "validation"})
        alone = alone.model_copy(update={"evaluation": blind})
    if isinstance(resolved, Resolved):
        resolved = replace(resolved, recipe=alone, conversion=None)
    return Training(alone, resolved)


def finished(folder: Path) -> RunResult | None:
    """Return the result of a job, or None if it has not finished successfully."""
    try:
        return serialisation.read(folder / RESULT, RunResult)
    except DataError:  # none, or none that can be read
        return None


def failed(folder: Path, error: Exception) -> JobFailed:
    """Record an exception in a job's folder, see :func:`given_up`."""
    message, skipped = " ".join(str(error).split()), isinstance(error, MissingDataError)
    message = message if skipped else f"{type(error).__name__}: {message}"
    return given_up(folder, message, "".join(traceback.format_exception(error)), skipped=skipped)


def given_up(folder: Path, message: str, log: str = "", *, skipped: bool = False) -> JobFailed:
    """Record in a job's folder why it has no result, and return that outcome.

    Args:
        folder: Folder of the job.
        message: The error in one line.
        log: The traceback.
        skipped: Whether the only reason is missing data.
    """
    path = folder / ERROR
    # The disk may be full, perhaps the very reason: then the message is all there is.
    with contextlib.suppress(CheckpointError):
        files.write_atomic(path, log or f"{message}\n")
    return JobFailed(message, path, skipped)


def _ready(resolved: Resolved | MissingDataError) -> Resolved:
    if isinstance(resolved, MissingDataError):
        raise resolved
    return resolved


def _looked_around(
    resolved: Resolved,
    source: Path,
    folder: Path,
    trained: RunResult,
    data_root: Path | None,
) -> RunResult:
    """Evaluate the loss around the weights; positions on its lines also serve as chips of a row."""
    plan = resolved.recipe.landscape
    assert plan is not None  # the caller has looked
    options = {key: getattr(plan, key) for key in type(plan).model_fields}
    found = landscape_run(source, data_root=data_root, progress=False, **options)
    result = replace(
        run_result(resolved, chips_of_lines(found.lines), training=trained.training),
        recipe={**found.recipe, "landscape": resolved.recipe.content()["landscape"]},
        method=found.method,
        split=found.split,
        device=found.device,
        landscape=replace(found, run="", recipe={}, versions={}),  # which the result holds itself
    )
    serialisation.write(folder / RESULT, result)
    return result


def chips_of_lines(lines: LossLines) -> Degradation:
    """Return the curve from no variation outwards, with each line as a chip.

    Args:
        lines: Losses and accuracies along the lines.
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
