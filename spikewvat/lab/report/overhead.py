"""What a training step of each method costs beside plain training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spikewvat.lab.report.collect import Section
from spikewvat.lab.report.content import MISSING, Part, Picture, Table, spread
from spikewvat.lab.report.pictures import dots

_KEYS = {"setup", "method", "ms", "ratio", "quartiles"}


def overhead(section: Section) -> list[Part]:
    """Return a part for each measurement of step times."""
    return [
        _part(name, content["rows"])
        for name, content in section.measurements.items()
        if isinstance(content.get("rows"), list)
        and content["rows"]
        and all(isinstance(row, dict) and row.keys() >= _KEYS for row in content["rows"])
    ]


def _part(name: str, rows: list[Mapping[str, Any]]) -> Part:
    by_setup: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_setup.setdefault(row["setup"], {})[row["method"]] = row
    methods = list(dict.fromkeys(row["method"] for row in rows))
    table = []
    for method in methods:
        held = [group.get(method) for group in by_setup.values()]
        table.append([method, *(MISSING if row is None else _cell(row) for row in held)])
    ratios = {
        setup: {method: (row["ratio"], *row["quartiles"]) for method, row in group.items()}
        for setup, group in by_setup.items()
    }
    sentences = []
    for setup, group in by_setup.items():
        costs = {method: row["ratio"] for method, row in group.items() if row["ratio"] != 1}
        if costs:
            least, most = min(costs, key=costs.__getitem__), max(costs, key=costs.__getitem__)
            sentences.append(
                f"{setup}: from {costs[least]:.2f} ({least}) to {costs[most]:.2f} ({most}) times "
                "the time of a plain step."
            )
    return Part(
        name=f"What a step costs ({name})",
        shows=frozenset([name]),
        sentences=sentences,
        tables=[Table(["method", *by_setup], table)],
        pictures=[Picture(dots(ratios, x_label="time of a step over plain training's"), name)],
        note="Median time of a step over that of plain training in the same round, quartiles of "
        "the rounds in brackets; milliseconds for plain training.",
    )


def _cell(row: Mapping[str, Any]) -> str:
    if row["ratio"] == 1:
        return f"{row['ms']:.1f} ms"
    return f"{row['ratio']:.2f} {spread(*row['quartiles'])}"
