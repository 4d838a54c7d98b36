"""What the tables share: where results lie, and reading them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from spikewvat import formatting
from spikewvat.formatting import Markdown
from spikewvat.lab.suites import Suite
from spikewvat.results import RowResult
from spikewvat.serialisation import read, read_json

BENCHMARKS = Path(__file__).parent.parent
ROOT = BENCHMARKS.parent
RESULTS = BENCHMARKS / "results"
SNNTORCH = ("adam", "swa", "wvat")


class NotRunError(LookupError):
    """There is no result to show yet."""


def load(folder: str, name: str) -> dict[str, Any]:
    """Return the content of a result file.

    Raises:
        NotRunError: If there is none.
    """
    return read_json(path_of(folder, name))


def path_of(folder: str, name: str) -> Path:
    """Return where a result file lies.

    Raises:
        NotRunError: If there is none.
    """
    path = RESULTS / folder / f"{name}.json"
    if not path.is_file():
        raise NotRunError(str(path))
    return path


def results_of(suite: Suite) -> dict[str, RowResult]:
    """Return the rows of a suite that have results."""
    folder = RESULTS / suite.folder.name
    paths = {row.name: folder / f"{row.name}.json" for row in suite.rows}
    return {name: read(path, RowResult) for name, path in paths.items() if path.exists()}


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> str:
    """Return a table whose cells are our own Markdown, such as code, and are not escaped."""
    cells = ([Markdown(cell) for cell in row] for row in rows)
    return formatting.markdown_table(heads, cells, names=names)
