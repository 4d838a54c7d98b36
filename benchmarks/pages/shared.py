"""What the tables share: where results lie, reading them, a line of Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikewvat.lab.suites import RowResult, Suite

BENCHMARKS = Path(__file__).parent.parent
ROOT = BENCHMARKS.parent
RESULTS = BENCHMARKS / "results"
SNNTORCH = ("adam", "swa", "wvat")


class NotRunError(LookupError):
    """There is no result to show yet."""


def load(folder: str, name: str) -> dict[str, Any]:
    """Return a result file.

    Raises:
        NotRunError: If there is none.
    """
    path = RESULTS / folder / f"{name}.json"
    if not path.is_file():
        raise NotRunError(str(path))
    return dict(json.loads(path.read_text()))


def results_of(suite: Suite) -> dict[str, RowResult]:
    """Return the rows of a suite that have results."""
    folder = RESULTS / suite.folder.name
    paths = {row.name: folder / f"{row.name}.json" for row in suite.rows}
    return {name: RowResult.read(path) for name, path in paths.items() if path.exists()}


def row_of(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"
