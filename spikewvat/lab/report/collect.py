"""Collect a folder of results: suites, their rows, failures and missing results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikewvat.errors import DataError, MissingDataError, RecipeError
from spikewvat.lab.recipes.results import RunResult, row_result
from spikewvat.lab.recipes.saved import RESULT
from spikewvat.lab.suites import Suite, read_suite
from spikewvat.lab.suites.jobs import ERROR
from spikewvat.lab.suites.suite import FILE, TRAINED, Row, Setup, suites_folder
from spikewvat.lab.suites.table import device_words
from spikewvat.results import Landscape, RowResult, StepTimes
from spikewvat.serialisation import KIND, read, read_json, restored

IMPORTANCE = (
    # Settings chosen on held-out data come before those that were not, or were by the test data.
    *("tuned", "vgg5", "demo", "screening", "epochs", "mnist", "cifar10", "cifar100", "imagenet"),
    *("conversion", "ftj", "retention", "quantization", "distributions", "spikes", "directions"),
    *("ablation", "twolayer", "landscape", "nmnist", "overhead", "directions_steps"),
)
"""Suites of the package, those that answer the most first. Own ones precede, others follow."""

RUNS = "Trained runs"
"""Title of the section of single runs."""

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
        """Rows without results."""
        measured = {
            (row.setup, row.method) for times in self.step_times.values() for row in times.rows
        }
        return tuple(
            f"{setup.name}: {row.method}"
            for setup in self._planned
            for row in setup.rows
            if row.name not in self.results and (setup.name, row.method) not in measured
        )

    @property
    def fewer(self) -> tuple[str, ...]:
        """Rows with fewer seeds than others of the set-up."""
        found = []
        for setup in self._planned:
            seeds = {row.method: _seeds(result) for row, result in self.found(setup)}
            most = max(seeds.values(), default=0)
            found += [
                f"{setup.name}: {method} ({count} of {most})"
                for method, count in seeds.items()
                if count < most
            ]
        return tuple(found)

    @property
    def _planned(self) -> list[Setup]:
        """The set-ups of the scales at which anything was run."""
        scales = {result.scale for result in self.results.values()}
        return [s for s in self.suite.setups if not s.presets or scales & set(s.presets)]


def collect(folder: Path | str) -> list[Section]:
    """Read all suites in a folder of results.

    Args:
        folder: Contains one folder per suite, as written by ``spikewvat bench --out`` or
            ``--results``, or per run of ``spikewvat train``, or is itself such a folder.

    Returns:
        One section per suite and one for all runs: the user's own first, then by
        :data:`IMPORTANCE`.

    Raises:
        DataError: If there is no such folder, or it contains no result.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(
            f"there is no folder {str(root)!r}. Pass the --out folder of spikewvat bench, compare "
            "or train."
        )
    inner = sorted(path for path in root.iterdir() if path.is_dir() and path.name != TRAINED)
    runs = [path / RESULT for path in inner if (path / RESULT).is_file()]
    runs = [path for path in runs if not JOB.fullmatch(path.parent.name)]
    folders = [path for path in inner if not (path / RESULT).is_file()]
    found = [_section(root, runs), *map(_section, folders)]
    sections = sorted((one for one in found if one is not None), key=_rank)
    if not sections:
        raise DataError(
            f"{str(root)!r} holds no results. Run spikewvat bench SUITE --out DIR, compare or "
            "train first, and pass DIR."
        )
    return sections


def _rank(section: Section) -> int:
    """Return the place of a section: own suites and runs, the package's by importance, others."""
    name = section.folder.name
    if (section.folder / FILE).is_file() or section.suite.title == RUNS:
        return -1
    return IMPORTANCE.index(name) if name in IMPORTANCE else len(IMPORTANCE)


def _section(folder: Path, runs: Sequence[Path] = ()) -> Section | None:
    """Return the section for a suite's folder and the results of runs, or None if it is empty."""
    found: dict[type, dict[str, Any]] = {RowResult: {}, Landscape: {}, StepTimes: {}, RunResult: {}}
    others, unreadable = [], []
    for path in [*sorted(folder.glob("*.json")), *runs]:
        try:
            content = read_json(path)
            named = str(content.get(KIND)).partition(" ")[0]
            kind = next((kind for kind in found if kind.__name__ == named), None)
            if kind is None:
                others.append(path.stem)
            else:
                name = path.parent.name if path.name == RESULT else path.stem
                found[kind][name] = restored(content, kind, source=repr(str(path)))
        except DataError as error:
            unreadable.append(str(error))
    results: dict[str, RowResult] = found[RowResult]
    methods: dict[str, str] = {}
    joined = _jobs(folder)
    for one in found[RunResult].values():
        same = next((g for g in joined.values() if _alike(g[0], one)), None)
        if same is None:
            label = f"{one.method}, {one.recipe['name']}"
            name = label if label not in joined else f"{label}, {len(joined) + 1}"
            joined[name], methods[name] = [one], one.method
        elif one.seed not in [other.seed for other in same]:
            same.append(one)
    for name, jobs in joined.items():
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
    suite = _suite(folder, results, methods)
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


def _alike(one: RunResult, other: RunResult) -> bool:
    """Whether two runs differ in nothing but the seed of the training."""
    recipes = [{k: v for k, v in run.recipe.items() if k != "seed"} for run in (one, other)]
    return recipes[0] == recipes[1] and one.method == other.method


def _suite(folder: Path, results: Mapping[str, RowResult], methods: Mapping[str, str]) -> Suite:
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
    setups: dict[tuple[str, str], list[Row]] = {}
    unique = set(methods.values()) if len(set(methods.values())) == len(methods) else set()
    for name, result in results.items():
        label = methods.get(name, name)
        row = Row(method=label if label in unique else name, name=name, recipe=f"{name}.toml")
        key = (_network(result) or folder.name, device_words(result))
        setups.setdefault(key, []).append(row)
    networks = [network for network, _ in setups]
    names = [
        network if networks.count(network) == 1 else f"{network} on {device}"
        for network, device in setups
    ]
    # Built without checks: there may be no row at all, only other measurements.
    return Suite.model_construct(
        title=RUNS if methods else folder.name.capitalize(),
        source="",
        seeds={},
        setups=tuple(
            Setup(name=name, rows=tuple(rows))
            for name, rows in zip(names, setups.values(), strict=True)
        ),
        folder=folder,
    )


def _network(result: RowResult) -> str:
    """Return the network and data of a result's recipe; empty if unknown."""
    model, data = (result.recipe.get(part, {}).get("name") for part in ("model", "data"))
    return f"{model} ({data})" if model and data else ""


def _seeds(result: RowResult) -> int:
    return len(result.curves)
