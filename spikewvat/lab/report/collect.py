"""Collect a folder of results: suites, their rows, failures and missing results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikewvat.errors import DataError, MissingDataError, RecipeError
from spikewvat.lab.recipes.results import RunResult, row_result
from spikewvat.lab.recipes.run import RESULT
from spikewvat.lab.suites import Suite, read_suite
from spikewvat.lab.suites.jobs import ERROR
from spikewvat.lab.suites.suite import FILE, TRAINED, Row, Setup, suites_folder
from spikewvat.results import Landscape, RowResult, StepTimes
from spikewvat.serialisation import KIND, read, read_json, restored

JOB = re.compile(r"(?P<row>.+)-seed\d+-[0-9a-f]{8}")
"""Name of a job's folder, see ``RowJob.folder``: row, seed, digest of the recipe."""


@dataclass(frozen=True)
class Section:
    """A suite with its results.

    Args:
        suite: The suite, with its rows in the order of the table.
        folder: Folder of the results.
        results: Results by row name.
        landscapes: The loss around single networks, by file name without extension.
        step_times: Times of training steps, by file name without extension.
        others: Names of files that the report does not show, without extension.
        unreadable: Files without a valid result, and why.
        failures: Names of failed jobs, by error.
        skipped: Names of jobs skipped for missing data, by the missing data.
    """

    suite: Suite
    folder: Path
    results: Mapping[str, RowResult]
    landscapes: Mapping[str, Landscape] = field(default_factory=dict)
    step_times: Mapping[str, StepTimes] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    failures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def found(self, setup: Setup) -> list[tuple[Row, RowResult]]:
        """Return the rows of a set-up that have results."""
        return [(row, self.results[row.name]) for row in setup.rows if row.name in self.results]

    @property
    def missing(self) -> tuple[str, ...]:
        """Rows without results, or with fewer seeds than other rows."""
        scales = {result.scale for result in self.results.values()}
        measured = {
            (row.setup, row.method) for times in self.step_times.values() for row in times.rows
        }
        gaps = []
        for setup in self.suite.setups:
            if setup.presets and not scales & set(setup.presets):
                continue  # belongs to a scale at which nothing was run
            most = max((_seeds(result) for _, result in self.found(setup)), default=0)
            for row in setup.rows:
                label = f"{setup.name}: {row.method}"
                if (setup.name, row.method) in measured:
                    continue
                if row.name not in self.results:
                    gaps.append(label)
                elif _seeds(self.results[row.name]) < most:
                    gaps.append(f"{label} ({_seeds(self.results[row.name])} of {most} seeds)")
        return tuple(gaps)


def collect(folder: Path | str) -> list[Section]:
    """Read all suites in a folder of results.

    Args:
        folder: Contains one folder per suite, as written by ``spikewvat bench --out`` or
            ``--results``, or is itself such a folder.

    Returns:
        One section per suite, in alphabetical order.

    Raises:
        DataError: If there is no such folder, or it contains no result.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(
            f"there is no folder {str(root)!r}. Pass the --out folder of spikewvat bench."
        )
    inner = (path for path in root.iterdir() if path.is_dir() and path.name != TRAINED)
    folders = [root, *sorted(inner)]
    sections = [section for path in folders if (section := _section(path)) is not None]
    if not sections:
        raise DataError(
            f"{str(root)!r} holds no suite results. Run spikewvat bench SUITE --out DIR first, and "
            "pass DIR."
        )
    return sections


def _section(folder: Path) -> Section | None:
    """Return the section for a suite's folder, or None if it is empty."""
    if (folder / RESULT).is_file():
        return None  # a single run
    found: dict[type, dict[str, Any]] = {RowResult: {}, Landscape: {}, StepTimes: {}}
    others, unreadable = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            content = read_json(path)
            named = str(content.get(KIND)).partition(" ")[0]
            kind = next((kind for kind in found if kind.__name__ == named), None)
            if kind is None:
                others.append(path.stem)
            else:
                found[kind][path.stem] = restored(content, kind, source=repr(str(path)))
        except DataError as error:
            unreadable.append(str(error))
    results: dict[str, RowResult] = found[RowResult]
    for name, jobs in _jobs(folder).items():
        known = results.get(name)
        if known is None or len(jobs) > _seeds(known):
            try:
                results[name] = row_result(jobs)
            except ValueError as error:
                unreadable.append(f"finished jobs of {name!r} cannot be joined ({error})")
    stopped = _stopped(folder)
    if not (any(found.values()) or others or unreadable or stopped):
        return None
    skipped = {why: names for why, names in stopped.items() if MissingDataError.__name__ in why}
    failures = {why: names for why, names in stopped.items() if why not in skipped}
    suite = _suite(folder, results)
    lost = [row.name for row in suite.rows if row.name in others]
    unreadable += [f"{str(folder / name)!r}.json is not the result of a row" for name in lost]
    return Section(
        suite,
        folder,
        results,
        found[Landscape],
        found[StepTimes],
        tuple(name for name in others if name not in lost),
        tuple(unreadable),
        failures,
        skipped,
    )


def _jobs(folder: Path) -> dict[str, list[RunResult]]:
    """Return the finished jobs of each row by seed, for the most recently finished recipe.

    They remain without a joint file if the suite was interrupted.
    """
    groups: dict[str, dict[str, list[tuple[float, RunResult]]]] = {}
    for name, run in _runs(folder):
        path = run / RESULT
        try:
            job = read(path, RunResult)
        except DataError:
            continue  # one job is no reason not to show the others; the row lacks a seed
        recipe = {key: value for key, value in job.recipe.items() if key != "seed"}
        same = groups.setdefault(name, {}).setdefault(json.dumps(recipe, sort_keys=True), [])
        same.append((path.stat().st_mtime, job))
    latest = {
        name: max(recipes.values(), key=lambda same: max(time for time, _ in same))
        for name, recipes in groups.items()
    }
    return {
        name: sorted((job for _, job in same), key=lambda job: job.seed)
        for name, same in latest.items()
    }


def _stopped(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the jobs without a result, by error."""
    jobs: dict[str, list[str]] = {}
    for path in sorted(folder.glob(f"*/{ERROR}")):
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        jobs.setdefault((text.splitlines() or ["unknown"])[-1], []).append(path.parent.name)
    return {error: tuple(names) for error, names in jobs.items()}


def _runs(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the folders of a suite's jobs with their rows."""
    for path in sorted(folder.iterdir()):
        name = JOB.fullmatch(path.name)
        if name is not None and path.is_dir():
            yield name["row"], path


def _suite(folder: Path, results: Mapping[str, RowResult]) -> Suite:
    """Return the suite of some results, reconstructed from them if it is unknown.

    Raises:
        DataError: If its file is malformed.
    """
    own = (folder / FILE).is_file()
    if own or (suites_folder() / folder.name / FILE).is_file():
        try:
            suite = read_suite(folder if own else folder.name)
        except RecipeError as error:
            raise DataError(str(error)) from error
        if own or not results or any(row.name in results for row in suite.rows):
            return suite
    rows = tuple(Row(method=name, recipe=f"{name}.toml") for name in results)
    # Built without checks: there may be no row at all, only other measurements.
    return Suite.model_construct(
        title=folder.name.capitalize(),
        source="",
        seeds={},
        setups=(Setup(name=folder.name, rows=rows),) if rows else (),
        folder=folder,
    )


def _seeds(result: RowResult) -> int:
    return len(result.curves)
