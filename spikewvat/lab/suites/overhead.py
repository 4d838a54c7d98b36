"""A suite of step times: what a training step of each row costs beside the set-up's baseline."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from spikewvat.errors import MissingDataError, TrainingStalledWarning
from spikewvat.lab.recipes import Recipe, build
from spikewvat.lab.recipes.schema import GENERATED
from spikewvat.lab.suites.cells import ERROR, CellFailed, failed
from spikewvat.lab.suites.steps import STEPS, Step, interleaved, step_of
from spikewvat.lab.suites.suite import Row, Setup, Suite
from spikewvat.provenance import provenance
from spikewvat.results import StepTime, StepTimes

FILE = "methods.json"
Batch: TypeAlias = tuple[Tensor, Tensor]
Timed: TypeAlias = StepTime | CellFailed
"""What a step of a row takes, or why it could not be timed."""


@dataclass(frozen=True)
class SuiteTimes:
    """What became of a suite of step times.

    Args:
        times: What could be timed, None where nothing could.
        failed: The rows without a result, by name.
    """

    times: StepTimes | None
    failed: dict[str, CellFailed]


def run_step_times(
    suite: Suite,
    out: Path,
    *,
    preset: str | None = None,
    overrides: Iterable[str] = (),
    data_root: Path | None = None,
    rounds: int | None = None,
    on_row: Callable[[Row, Timed], None] = lambda row, found: None,
) -> SuiteTimes:
    """Time the methods of each set-up in turn, in this process, with one thread.

    Args:
        suite: Names set-ups, each with a baseline.
        out: Folder for the errors of rows that fail.
        preset: Scale of the recipes.
        overrides: ``"training.lr=1e-4"``, for all rows alike.
        data_root: Where the data sets lie; their usual places by default.
        rounds: How often each method has its turn; the suite's by default.
        on_row: Called as each row is known.

    Returns:
        The times of what could be run.

    Raises:
        RecipeError: If a recipe is malformed.
    """
    seed, overrides = suite.seeds_of(preset)[0], tuple(overrides)
    recipes = {
        row.name: build.check(suite.recipe(row, preset=preset, seed=seed, overrides=overrides))
        for row in suite.rows
    }
    torch.set_num_threads(1)
    lost: dict[str, CellFailed] = {}
    times: list[StepTime] = []
    for setup in suite.setups:
        steps = _steps(setup, recipes, data_root, out, lost)
        baseline = setup.baseline or setup.rows[0].name
        if baseline not in steps:
            why = lost[baseline]
            message = f"there is nothing to compare with: {why.message}"
            gone = {name: CellFailed(message, why.log, why.skipped) for name in steps}
            lost, steps = {**lost, **gone}, {}
        found: dict[str, dict[str, Any]] = {}
        if steps:
            with warnings.catch_warnings():
                # The same batch again and again: whether it learns is of no matter.
                warnings.simplefilter("ignore", TrainingStalledWarning)
                found = interleaved(steps, baseline=baseline, rounds=rounds or suite.rounds)
        for row in setup.rows:
            if row.name in found:
                times.append(StepTime(setup=setup.name, method=row.method, **found[row.name]))
            on_row(row, times[-1] if row.name in found else lost[row.name])
    if not times:
        return SuiteTimes(None, lost)
    result = StepTimes(
        rows=tuple(times),
        recipe=suite.title,
        seeds=(seed,),
        scale=preset or "quick",
        steps_per_round=STEPS,
        **provenance(),
    )
    return SuiteTimes(result, lost)


def _steps(
    setup: Setup,
    recipes: dict[str, Recipe],
    data_root: Path | None,
    out: Path,
    lost: dict[str, CellFailed],
) -> dict[str, Step]:
    """Return what makes a step of each row, and note those that cannot make one."""
    steps: dict[str, Step] = {}
    batches: dict[str, Batch] = {}  # by what they depend on
    for row in setup.rows:
        folder, recipe = out / row.name, recipes[row.name]
        key = f"{recipe.data!r} {recipe.training.batch_size}"
        try:
            if key not in batches:
                batches[key] = _batch(recipe, data_root)
            step = _step(recipe, batches[key])
            step()
            (folder / ERROR).unlink(missing_ok=True)
            steps[row.name] = step
        except Exception as error:  # whatever it is, the other methods go on
            message, skipped = " ".join(str(error).split()), isinstance(error, MissingDataError)
            message = message if skipped else f"{type(error).__name__}: {message}"
            lost[row.name] = failed(folder, message, traceback.format_exc(), skipped=skipped)
    return steps


def _step(recipe: Recipe, batch: Batch) -> Step:
    """Return what makes a step as a recipe says."""
    inputs, labels = batch
    recipe = build.with_input_shape(recipe, inputs.shape[-3:])
    model = build.build_model(recipe)
    optimizer, _ = build.build_optimizer(recipe, model.parameters())
    loss = build.build_loss(recipe)
    return step_of(
        model,
        optimizer,
        lambda output: loss(output, labels),
        inputs,
        method=build.build_method(recipe, model, optimizer),
    )


def _batch(recipe: Recipe, data_root: Path | None) -> Batch:
    """Return a training batch, evenly spaced over the data set."""
    size = recipe.training.batch_size
    few = recipe.evaluation.model_copy(update={"batch_size": size, "images": size})
    root = None if recipe.data.name in GENERATED else data_root
    data = build.build_data(recipe.model_copy(update={"evaluation": few}), root)
    inputs, labels = next(iter(data.train_in_order))
    return inputs, labels
