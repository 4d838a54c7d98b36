"""A suite of step times: the cost of each row's training step relative to a baseline."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from spikewvat.errors import TrainingStalledWarning
from spikewvat.lab.recipes.loaders import open_data
from spikewvat.lab.recipes.resolve import Resolved, resolve
from spikewvat.lab.recipes.schema import GENERATED
from spikewvat.lab.suites.jobs import ERROR, JobFailed, failed
from spikewvat.lab.suites.steps import STEPS, Step, interleaved, step_of
from spikewvat.lab.suites.suite import Row, Setup, Suite
from spikewvat.provenance import provenance
from spikewvat.results import StepTime, StepTimes

FILE = "methods.json"
Batch: TypeAlias = tuple[Tensor, Tensor]
Timed: TypeAlias = StepTime | JobFailed
"""Time of a row's step, or the reason why it could not be measured."""


@dataclass(frozen=True)
class SuiteTimes:
    """Outcome of a suite of step times.

    Args:
        times: The measured times, or None if there are none.
        failed: The rows without a result, by name.
    """

    times: StepTimes | None
    failed: dict[str, JobFailed]


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
    """Time the methods of each set-up in turn, in this process with a single thread.

    Args:
        suite: The suite; every set-up has a baseline.
        out: Folder for the errors of rows that fail.
        preset: Scale of the recipes.
        overrides: Such as ``"training.lr=1e-4"``, for all rows.
        data_root: Folder of the data sets; their usual locations by default.
        rounds: Number of rounds; the suite's by default.
        on_row: Called with each row as it becomes available.

    Returns:
        The measured times, and the rows that failed.

    Raises:
        RecipeError: If a recipe is malformed.
    """
    seed, overrides = suite.seeds_of(preset)[0], tuple(overrides)
    recipes = {
        row.name: resolve(suite.recipe(row, preset=preset, seed=seed, overrides=overrides))
        for row in suite.rows
    }
    torch.set_num_threads(1)
    lost: dict[str, JobFailed] = {}
    times: list[StepTime] = []
    for setup in suite.setups:
        steps = _steps(setup, recipes, data_root, out, lost)
        baseline = setup.baseline or setup.rows[0].name
        if baseline not in steps:
            why = lost[baseline]
            message = f"there is nothing to compare with: {why.message}"
            gone = {name: JobFailed(message, why.log, why.skipped) for name in steps}
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
    recipes: dict[str, Resolved],
    data_root: Path | None,
    out: Path,
    lost: dict[str, JobFailed],
) -> dict[str, Step]:
    """Return a step function for each row, and record the rows without one."""
    steps: dict[str, Step] = {}
    batches: dict[str, Batch] = {}  # by what they depend on
    for row in setup.rows:
        folder, resolved = out / row.name, recipes[row.name]
        key = f"{resolved.recipe.data!r} {resolved.recipe.training.batch_size}"
        try:
            if key not in batches:
                batches[key] = _batch(resolved, data_root)
            step = _step(resolved, batches[key])
            step()
            (folder / ERROR).unlink(missing_ok=True)
            steps[row.name] = step
        except Exception as error:  # whatever it is, the other methods go on
            lost[row.name] = failed(folder, error)
    return steps


def _step(resolved: Resolved, batch: Batch) -> Step:
    """Return the step function of a recipe."""
    inputs, labels = batch
    resolved = resolved.with_input_shape(inputs.shape[-3:])
    model = resolved.build_model()
    optimizer, _ = resolved.optimization(model.parameters())
    return step_of(
        model,
        optimizer,
        lambda output: resolved.loss(output, labels),
        inputs,
        method=resolved.build_method(model, optimizer),
    )


def _batch(resolved: Resolved, data_root: Path | None) -> Batch:
    """Return a training batch, evenly spaced over the data set."""
    recipe = resolved.recipe
    few = resolved.evaluated(
        batch_size=recipe.training.batch_size, images=recipe.training.batch_size
    )
    root = None if recipe.data.name in GENERATED else data_root
    inputs, labels = next(iter(open_data(few, root).train_in_order))
    return inputs, labels
