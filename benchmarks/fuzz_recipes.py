"""Recipes, suites and results that are wrong in a random place: nothing but our own errors.

    python benchmarks/fuzz_recipes.py --recipes 2000 --suites 300 --results 2000 --seed 0

Every recipe of the package is changed in one to three places (a value of another kind or size, a
key that is missing, doubled or misspelt, damaged text) and then read and resolved; a suite is read;
a result file is read, and one of a hundred is shown in a report with an intact one beside it. What
is raised must be one of the package's own errors, with a message that says something, within some
seconds; a report must come out whatever a file holds. Prints counts, and every offence.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

from spikewvat import files
from spikewvat.errors import (
    CheckpointError,
    DataError,
    MissingExtraError,
    RecipeError,
    UnsupportedModelError,
)
from spikewvat.lab.places import suite_names, suites_folder
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.report import write_report
from spikewvat.lab.suites import read_suite
from spikewvat.results import Landscape, RowResult, StepTimes
from spikewvat.serialisation import read

OURS = (CheckpointError, DataError, MissingExtraError, RecipeError, UnsupportedModelError)
SLOW = 20.0  # seconds
ROOT = Path(__file__).parent
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 1.5, -0.5, 1e9, 10**9, 2**63, 10**30, 1e308, 5e-324),
    *(float("nan"), float("inf"), -float("inf")),
    *("", "x", "../../x", "/", "nul\0", "wvat", "gaussian", "gaussian:sigma=1e400", "a" * 5000),
    *("quantized:bits=99>>gaussian", "gaussian>>", ":", "=", "ü\u202e", "<b>|</b>"),
    *([], [[]], [1], ["x"], [None], {}, {"name": 3}, {"name": "gaussian"}, {"x": {}}, [{}, 1]),
]


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in nested tables and lists."""
    items: Any = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += places(value, (*path, key))
    return found


def any_value(rng: random.Random) -> Any:
    """Return a value that is wrong nearly everywhere."""
    return copy.deepcopy(rng.choice(VALUES))


def mutated(tree: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return a copy that is wrong in one to three places."""
    tree = json.loads(json.dumps(tree))
    for _ in range(rng.randint(1, 3)):
        paths = places(tree)
        if not paths:
            break
        *outer, key = rng.choice(paths)
        table: Any = tree
        for part in outer:
            table = table[part]
        what = rng.random()
        if what < 0.55:
            table[key] = any_value(rng)
        elif what < 0.7 and isinstance(table[key], int | float):
            table[key] *= rng.choice([-1, 0, 1e-9, 1e9, 10, 0.5])
        elif what < 0.8:
            del table[key]
        elif what < 0.9 and isinstance(table, dict):
            table[f"{key}{rng.choice('x_ 1')}"] = table.pop(key)
        elif isinstance(table, dict):
            table[rng.choice(["name", "extends", "preset", "variant", "x", "device"])] = any_value(
                rng
            )
        else:
            table.append(any_value(rng))
    return tree


def without_none(tree: Any) -> Any:
    """TOML has no null."""
    if isinstance(tree, dict):
        return {key: without_none(v) for key, v in tree.items() if v is not None}
    return [without_none(v) for v in tree if v is not None] if isinstance(tree, list) else tree


def damaged(text: bytes, rng: random.Random) -> bytes:
    """Return text with a few bytes changed, cut out or repeated."""
    data = bytearray(text)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(max(1, len(data)))
        what = rng.random()
        if what < 0.4 and data:
            data[at % len(data)] = rng.randrange(256)
        elif what < 0.7:
            del data[at : at + rng.randint(1, 40)]
        else:
            data[at:at] = data[at : at + rng.randint(1, 40)] * rng.randint(1, 20)
    return bytes(data)


class Tally:
    """What happened, and what should not have."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.offences: dict[str, str] = {}

    def run(self, kind: str, action: Callable[[], object], describe: Callable[[], str]) -> None:
        """Do something that may raise the package's own errors and no others."""
        began, offence = time.monotonic(), ""
        try:
            action()
            outcome = "accepted"
        except OURS as error:
            outcome = type(error).__name__
            if len(str(error)) < 10 or len(str(error)) > 20_000:
                offence = f"says {str(error)[:300]!r}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome = "OFFENCE"
            where = traceback.extract_tb(error.__traceback__)
            ours = next((f for f in reversed(where) if "spikewvat" in f.filename), where[-1])
            offence = (
                f"{type(error).__name__} {str(error)[:200]!r} at {ours.filename}:{ours.lineno}"
            )
        if time.monotonic() - began > SLOW:
            outcome, offence = "OFFENCE", f"took {time.monotonic() - began:.0f} s"
        self.counts[f"{kind}: {outcome}"] += 1
        if offence:
            self.offences.setdefault(f"{kind}: {offence}", describe())


def recipes(count: int, rng: random.Random, tally: Tally, folder: Path) -> None:
    """Read and resolve recipes."""
    paths = sorted(suites_folder().rglob("*.toml"))
    paths = [path for path in paths if path.name != "suite.toml"]
    for number in range(count):
        source = rng.choice(paths)
        path = folder / f"recipe{number}.toml"
        if number % 5 == 4:
            path.write_bytes(damaged(source.read_bytes(), rng))
            base = source.parent
        else:
            tree = files.read_toml(source)
            base = source.parent
            if isinstance(tree.get("extends"), str):
                tree["extends"] = str((base / tree["extends"]).resolve())
            path.write_text(tomli_w.dumps(without_none(mutated(tree, rng))), encoding="utf-8")
        preset = rng.choice([None, None, "quick", "paper", "smoke"])

        def go(path: Path = path, preset: str | None = preset) -> object:
            return resolve(read_recipe(path, preset=preset))

        tally.run("recipe", go, lambda path=path: path.read_bytes().decode(errors="replace"))


def suites(count: int, rng: random.Random, tally: Tally, folder: Path) -> None:
    """Read suites."""
    names = suite_names()
    for number in range(count):
        place = folder / f"suite{number}"
        place.mkdir()
        source = suites_folder() / rng.choice(names) / "suite.toml"
        path = place / "suite.toml"
        if number % 5 == 4:
            path.write_bytes(damaged(source.read_bytes(), rng))
        else:
            tree = without_none(mutated(files.read_toml(source), rng))
            path.write_text(tomli_w.dumps(tree), encoding="utf-8")
        tally.run(
            "suite",
            lambda place=place: read_suite(place),
            lambda path=path: path.read_bytes().decode(errors="replace"),
        )


def results(count: int, rng: random.Random, tally: Tally, folder: Path) -> None:
    """Read result files, and show some in a report beside an intact one."""
    sources = sorted((ROOT / "results").rglob("*.json"))
    known = {kind.__name__: kind for kind in (RowResult, Landscape, StepTimes)}
    pool = []
    for path in sources:
        kind = known.get(str(json.loads(path.read_text()).get("kind", "")).partition(" ")[0])
        if kind is not None and path.stat().st_size < 2**19:
            pool.append((path, kind))
    for number in range(count):
        source, kind = rng.choice(pool)
        place = folder / f"result{number}" / source.parent.name
        place.mkdir(parents=True)
        path = place / source.name
        if number % 3 == 2:
            path.write_bytes(damaged(source.read_bytes(), rng))
        else:
            path.write_text(json.dumps(mutated(json.loads(source.read_text()), rng)))
        content = path.read_text(errors="replace")[:3000]
        tally.run(
            "result", lambda path=path, kind=kind: read(path, kind), lambda text=content: text
        )
        if number % 100:
            continue
        neighbour = next((p for p, k in pool if p.parent == source.parent and p != source), None)
        if neighbour is None:
            continue
        (place / neighbour.name).write_bytes(neighbour.read_bytes())

        def report(place: Path = place) -> None:
            try:
                write_report(place, place.parent / "report")
            except OURS as error:
                raise AssertionError(f"no report: {error}") from error

        tally.run("report", report, lambda text=content: text)


def main() -> int:
    """Fuzz; the exit code is 1 if anything but the package's own errors was met."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("recipes", 2000), ("suites", 300), ("results", 2000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        for what, count in (
            (recipes, given.recipes),
            (suites, given.suites),
            (results, given.results),
        ):
            what(count, random.Random(f"{what.__name__} {given.seed}"), tally, Path(folder))
            print(f"{what.__name__}: {count} done", file=sys.stderr, flush=True)
    for name, number in sorted(tally.counts.items()):
        print(f"{name:36} {number:6}")
    for offence, text in tally.offences.items():
        print(f"\n{offence}\n{text[:1500]}")
    return 1 if tally.offences else 0


if __name__ == "__main__":
    sys.exit(main())
