"""Choose the settings of a suite's rows on data held out from training, then compare the chosen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikewvat import serialisation
from spikewvat.errors import DataError, DivergedError, RecipeError
from spikewvat.lab.recipes import Recipe
from spikewvat.lab.suites.jobs import JobFailed, RowJob, jobs_of
from spikewvat.lab.suites.runner import SuiteResult
from spikewvat.lab.suites.suite import Row, Selection, Setup, Suite
from spikewvat.results import RowResult, Selected, Tried
from spikewvat.robustness.statistics import mean_of


def selection_jobs(
    suite: Suite, *, preset: str | None, overrides: Iterable[str] = ()
) -> list[RowJob]:
    """Return the jobs that choose settings: each setting of each row, on the selection's seeds.

    Args:
        suite: A suite with a selection.
        preset: Scale of the recipes.
        overrides: Such as ``"training.lr=1e-4"``, for all jobs.

    Raises:
        RecipeError: If a recipe is malformed, or would choose by data that it trains on or is
            tested on in the end.
    """
    plan = _plan(suite)
    candidates = _with_rows(
        suite,
        lambda row, setup: _candidates(row, setup, plan),
        folds=None,
        columns=(),
        seeds=None,
    )
    name = f"{suite.folder.name}-selection"
    jobs = jobs_of(candidates, preset=preset, seeds=plan.seeds, overrides=overrides, name=name)
    for job in jobs:
        check_blind(job.recipe, str(job))
    return jobs


def comparison_jobs(
    suite: Suite,
    selected: Mapping[str, Selected],
    *,
    preset: str | None,
    seeds: Sequence[int],
    overrides: Iterable[str] = (),
) -> list[RowJob]:
    """Return the jobs that compare the chosen settings on fresh seeds and the test data.

    Args:
        suite: A suite with a selection.
        selected: Choices by row, see :func:`select`; rows without one are left out.
        preset: Scale of the recipes.
        seeds: Training seeds, none of them among those of the selection.
        overrides: The same as for the selection.

    Raises:
        RecipeError: If a recipe is malformed, or a seed was used in the selection.
    """
    plan = _plan(suite)
    for setup in suite.setups:
        suite.check_fresh((trained for _, _, trained in setup.parts(seeds)), "--seeds")

    def chosen(row: Row, setup: Setup) -> list[Row]:
        if row.name not in selected:
            return []
        setting = selected[row.name].setting
        return [row.model_copy(update={"overrides": (_held_out(plan), *row.overrides, *setting)})]

    compared = _with_rows(suite, chosen)
    return jobs_of(compared, preset=preset, seeds=seeds, overrides=overrides, once=True)


def check_blind(recipe: Recipe, job: str) -> None:
    """Raise RecipeError unless a recipe is evaluated on data held out from its training.

    Args:
        recipe: Recipe of a job that chooses settings.
        job: Name of the job, for the message.
    """
    if recipe.evaluation.split != "validation" or not recipe.training.validation:
        raise RecipeError(
            f"{job} would choose a setting by evaluation.split = {recipe.evaluation.split!r} with "
            f"training.validation = {recipe.training.validation:g}. Settings are chosen on data "
            "held out from training, never on test data: leave these two keys out."
        )


def select(suite: Suite, found: SuiteResult) -> dict[str, Selected]:
    """Choose the setting of each row: that of the highest mean score over the selection's seeds.

    A setting with which a training diverged has no score and is not chosen. A row is left out if a
    job of its settings failed for another reason.

    Args:
        suite: A suite with a selection.
        found: Results of :func:`selection_jobs`.
    """
    plan = _plan(suite)
    lost = {job.row: why for job, why in found.failed if not _diverged(why)}
    selected = {}
    for row, setup in [(row, each) for each in suite.setups for row in each.rows]:
        names = [candidate.name for candidate in _candidates(row, setup, plan)]
        if any(name in lost for name in names):
            continue
        results = [found.rows.get(name) for name in names]
        tried = tuple(
            Tried(setting, _scores(result, plan))
            for setting, result in zip(row.settings, results, strict=True)
        )
        known = [result for result in results if result is not None]
        if not known:
            continue
        selected[row.name] = Selected(
            tried=tried,
            chosen=max(range(len(tried)), key=lambda place: _rank(tried[place])),
            seeds=plan.seeds,
            sigmas=plan.sigmas,
            chips=plan.chips,
            images=known[0].curves[0].reports[0].images,
            columns=_columns(suite, setup),
        )
    return selected


def run_selected(
    suite: Suite,
    run: Callable[[list[RowJob]], SuiteResult],
    results: Path,
    *,
    preset: str | None,
    seeds: Sequence[int],
    overrides: Iterable[str] = (),
    told: Callable[[str], object] = lambda line: None,
) -> SuiteResult:
    """Choose the setting of each row and compare the chosen ones, row by row.

    A row is written as soon as it is complete. One that is there already is not run again, on
    whatever machine it was run, unless its settings, seeds or recipe have changed since.

    Args:
        suite: A suite with a selection.
        run: Runs jobs, see :func:`spikewvat.lab.suites.run_suite`.
        results: Folder of one result file per row.
        preset: Scale of the recipes.
        seeds: Training seeds of the comparison, unless a set-up has its own.
        overrides: Such as ``"training.lr=1e-4"``, for all jobs.
        told: Called with a line for each row.

    Raises:
        RecipeError: If a recipe is malformed, settings would be chosen on test data, or a seed
            serves choice and comparison.
        CheckpointError: If a row cannot be written.
    """
    options: dict[str, Any] = {"preset": preset, "overrides": tuple(overrides)}
    selection_jobs(suite, **options)  # whatever is wrong is refused before anything is run
    comparison_jobs(suite, {}, seeds=seeds, **options)
    rows: dict[str, RowResult] = {}
    lost: list[tuple[RowJob, JobFailed]] = []
    for name in [row.name for row in suite.rows]:
        alone, path = suite.chosen([name]), results / f"{name}.json"
        known = _known(alone, path, seeds, options)
        if known is not None:
            told(f"{name}: kept from {path}")
            rows[name] = known
            continue
        tried = run(selection_jobs(alone, **options))
        lost += tried.failed
        selected = select(alone, tried)
        if name not in selected:
            continue
        told(f"{name}: chosen {', '.join(selected[name].setting)}")
        compared = run(comparison_jobs(alone, selected, seeds=seeds, **options))
        lost += compared.failed
        if name in compared.rows:
            rows[name] = replace(compared.rows[name], selection=selected[name])
            serialisation.write(path, rows[name])
    return SuiteResult(rows, tuple(lost))


def _known(
    suite: Suite, path: Path, seeds: Sequence[int], options: Mapping[str, Any]
) -> RowResult | None:
    """Return the result of a suite's only row if it is there and of the same settings and recipe.

    A key of a recipe that there was not yet when it was run makes no difference.
    """
    try:
        known = serialisation.read(path, RowResult)
    except DataError:  # none, or none that can be read
        return None
    (setup,), plan, chosen = suite.setups, _plan(suite), known.selection
    (row,) = setup.rows
    if chosen is None or not 0 <= chosen.chosen < len(chosen.tried):
        return None
    asked = (row.settings, plan.seeds, plan.sigmas, plan.chips, _columns(suite, setup))
    found = (tuple(tried.setting for tried in chosen.tried), chosen.seeds, chosen.sigmas)
    if asked != (*found, chosen.chips, chosen.columns):
        return None
    job = comparison_jobs(suite, {row.name: chosen}, seeds=seeds, **options)[0]
    same_seeds = known.seeds == tuple(setup.seeds or seeds)
    return known if same_seeds and _agree(known.recipe, job.recipe.content()) else None


def _agree(one: Any, other: Any) -> bool:
    """Return whether two nested values are equal as JSON, in the keys that both have."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        shared = (one.keys() & other.keys()) - {"description"}
        return all(_agree(one[key], other[key]) for key in shared)
    return json.dumps(serialisation.finite(one)) == json.dumps(serialisation.finite(other))


def _columns(suite: Suite, setup: Setup) -> dict[str, dict[str, Any]]:
    names = suite.columns if setup.columns is None else setup.columns
    return {name: suite.columns[name] for name in names}


def _plan(suite: Suite) -> Selection:
    if suite.selection is None:
        raise RecipeError(f"the suite {suite.title!r} has no [selection].")
    return suite.selection


def _held_out(plan: Selection) -> str:
    return f"training.validation={plan.validation}"


def _candidates(row: Row, setup: Setup, plan: Selection) -> list[Row]:
    """Return a row for each setting, evaluated on held-out data."""
    blind = (
        "evaluation.split=validation",
        f"evaluation.sigmas={json.dumps(list(plan.sigmas))}",
        f"evaluation.chips={plan.chips}",
        "evaluation.seed=1",  # other chips than those that the networks are compared on
    )
    return [
        row.model_copy(
            update={
                "name": f"{row.name}-{number}",
                "overrides": (
                    *(_held_out(plan), *row.overrides, *setting),
                    *(*setup.choosing, *blind),
                ),
                "settings": (),
            }
        )
        for number, setting in enumerate(row.settings, start=1)
    ]


def _with_rows(suite: Suite, rows: Callable[[Row, Setup], list[Row]], **update: object) -> Suite:
    """Return the suite with other rows for each one; set-ups without any are left out."""
    setups = []
    for setup in suite.setups:
        made = tuple(new for row in setup.rows for new in rows(row, setup))
        if made:
            setups.append(setup.model_copy(update={"rows": made, **update}))
    return suite.model_copy(update={"setups": tuple(setups)})


def _scores(result: RowResult | None, plan: Selection) -> tuple[float, ...]:
    """Return the score of each seed, NaN for those without a result."""
    known = {} if result is None else result.by_seed
    return tuple(mean_of(known[s].means) if s in known else math.nan for s in plan.seeds)


def _rank(tried: Tried) -> float:
    return -math.inf if math.isnan(tried.score) else tried.score


def _diverged(why: JobFailed) -> bool:
    return why.message.startswith(DivergedError.__name__)
