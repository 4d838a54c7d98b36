"""What lies in a folder of results: suites, their rows, what failed, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spikewvat.bench import RowResult, Suite, read_suite
from spikewvat.bench.runner import ERROR
from spikewvat.bench.suite import FILE, Row, Setup, suites_folder
from spikewvat.errors import DataError, RecipeError


@dataclass(frozen=True)
class Section:
    """A suite and what there is of it.

    Args:
        suite: Its rows, in the order of the table.
        folder: Where the results lie.
        results: Results by row name.
        unreadable: Row files that hold no result, and why.
        failures: Cells that failed, and why.
    """

    suite: Suite
    folder: Path
    results: Mapping[str, RowResult]
    unreadable: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Rows of the suite that have no result."""
        return tuple(
            f"{setup.name}: {row.method}"
            for setup in self.suite.setups
            for row in setup.rows
            if row.name not in self.results
        )


def collect(folder: Path | str) -> list[Section]:
    """Read all suites in a folder of results.

    Args:
        folder: Holds a folder for each suite, as ``spikewvat bench --out`` and ``--results``
            write them, or is one of these.

    Returns:
        A section for each suite, in alphabetical order.

    Raises:
        DataError: If there is no such folder, or no result in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"there is no folder {str(root)!r}. Pass the --out folder of a bench.")
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    sections = [section for path in folders if (section := _section(path)) is not None]
    if not sections:
        raise DataError(
            f"{str(root)!r} holds no result of a suite. "
            "Run spikewvat bench SUITE --out DIR first, and pass DIR."
        )
    return sections


def _section(folder: Path) -> Section | None:
    """Return what lies in a suite's folder; None where nothing does."""
    results, unreadable = {}, []
    for path in sorted(folder.glob("*.json")):
        try:
            results[path.stem] = RowResult.read(path)
        except DataError as error:
            unreadable.append(str(error))
    if not results:
        return None
    # Result files of other measurements lie beside those of rows.
    suite = _suite(folder, tuple(results))
    named = {row.name for row in suite.rows}
    failures = []
    for path in sorted(folder.rglob(ERROR)):
        lines = path.read_text(encoding="utf-8").strip().splitlines()
        failures.append(f"{path.parent.name}: {lines[-1] if lines else 'unknown'}")
    return Section(
        suite,
        folder,
        results,
        tuple(text for text in unreadable if any(f"{name}.json" in text for name in named)),
        tuple(failures),
    )


def _suite(folder: Path, names: tuple[str, ...]) -> Suite:
    """Return the suite that a folder's results are of, made of its files where none is known."""
    own = (folder / FILE).is_file()
    if own or (suites_folder() / folder.name / FILE).is_file():
        try:
            suite = read_suite(folder if own else folder.name)
        except RecipeError as error:
            raise DataError(str(error)) from error
        if any(row.name in names for row in suite.rows):
            return suite
    rows = tuple(Row(method=name, recipe=f"{name}.toml") for name in names)
    return Suite(title=folder.name, seeds={}, setups=(Setup(name=folder.name, rows=rows),))
