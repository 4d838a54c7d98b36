"""Cost of a training step of each method relative to plain training."""

from __future__ import annotations

from spikewvat.formatting import MISSING, within
from spikewvat.lab.report.collect import Section
from spikewvat.lab.report.content import Part, Picture, Table
from spikewvat.lab.report.pictures import dots
from spikewvat.results import StepTime, StepTimes


def overhead(section: Section) -> list[Part]:
    """Return one part per measurement of step times."""
    return [_part(name, found) for name, found in section.step_times.items()]


def _part(name: str, found: StepTimes) -> Part:
    by_setup = found.by_setup
    table = []
    for method in dict.fromkeys(row.method for row in found.rows):
        held = [group.get(method) for group in by_setup.values()]
        table.append([method, *(MISSING if row is None else _cell(row) for row in held)])
    ratios = {
        setup: {method: (row.ratio, *row.quartiles) for method, row in group.items()}
        for setup, group in by_setup.items()
    }
    sentences = []
    for setup, group in by_setup.items():
        costs = {method: row.ratio for method, row in group.items() if row.ratio != 1}
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


def _cell(row: StepTime) -> str:
    return f"{row.ms:.1f} ms" if row.ratio == 1 else within(row.ratio, *row.quartiles)
