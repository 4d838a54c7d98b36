"""Tables of how often the printed intervals hold."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

from pages.shared import load, markdown_table
from spikewvat.formatting import MISSING, percent

NAMES = {
    "mean": ("mean accuracy of a network", "mean accuracy over trainings"),
    "difference": ("difference of two networks", "difference of two methods"),
    "folds": ("", "difference of two methods over five folds"),
    "network yield": ("yield of a network",),
    "training yield, normal": ("", "yield, if trainings differ like normal noise"),
    "training yield, any": ("", "yield, whatever trainings differ like"),
    "percentile": ("worst chip as a percentile",),
    "new images": ("mean accuracy for new images",),
    "new images, hits unknown": ("mean accuracy for new images, from accuracies alone",),
    "new images, these images only": ("`ci95` of these images taken for new images",),
    "difference for new images": ("difference of two networks for new images",),
    "difference for new images, these images only": (
        "difference for these images taken for new images",
    ),
    "planned": ("mean accuracy, number of chips from `chips_needed`",),
    "stopped": ("mean accuracy, stopped at `interval_width`",),
    "stopped, any time": ("mean accuracy, `any_time`, at all numbers of chips at once",),
}
"""What an interval is called, for one training and for several."""


def coverage() -> str:
    """Return the table of intervals in the cases where they should hold."""
    rows: dict[tuple[str, int], dict[int, list[float]]] = {}
    for cell in _cells():
        if cell["claimed"]:
            row = rows.setdefault((_name(cell), cell["trainings"]), {})
            row.setdefault(cell["chips"], []).append(cell["coverage"])
    lines = []
    for (name, trainings), by_chips in sorted(rows.items(), key=_order):
        lines.append([name, str(trainings), *_columns(by_chips, mean=True)])
    return markdown_table(["", "trainings", *_heads()], lines, names=1)


def failures() -> str:
    """Return the table of intervals in the cases where none can hold, or they assume otherwise."""
    rows: dict[tuple[str, str], dict[int, list[float]]] = {}
    for cell in _cells():
        if not cell["claimed"]:
            row = rows.setdefault((_name(cell), cell["law"]), {})
            row.setdefault(cell["chips"], []).append(cell["coverage"])
    lines = [[*key, *_columns(row, mean=False)] for key, row in sorted(rows.items(), key=_order)]
    return markdown_table(["", "if", *_heads()], lines, names=2)


def _cells() -> list[dict[str, Any]]:
    jobs = load("coverage", "coverage")["jobs"].values()
    return [cell for job in jobs for cell in job["cells"]]


def _heads() -> list[str]:
    return [f"{chips} chips" for chips in sorted({cell["chips"] for cell in _cells()})]


def _columns(by_chips: dict[int, list[float]], *, mean: bool) -> Iterable[str]:
    for chips in sorted({cell["chips"] for cell in _cells()}):
        found = by_chips.get(chips)
        if not found:
            yield MISSING
        else:
            worst = percent(min(found))
            yield f"{percent(fmean(found))} ({worst})" if mean else worst


def _name(cell: dict[str, Any]) -> str:
    kind, share = cell["interval"], cell["interval"].rpartition(", ")
    if share[2].replace(".", "").isdigit():
        kind = share[0]
    return NAMES[kind][min(cell["trainings"] - 1, 1) if len(NAMES[kind]) > 1 else 0]


def _order(item: tuple[tuple[Any, ...], object]) -> tuple[int, Any]:
    names = [name for pair in NAMES.values() for name in pair]
    return names.index(item[0][0]), item[0][1]
