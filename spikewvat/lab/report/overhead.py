"""Cost of a training step of each method relative to plain training."""

from __future__ import annotations

from spikewvat.formatting import MISSING, within
from spikewvat.lab.report.collect import Section
from spikewvat.lab.report.content import Part, Picture, Table
from spikewvat.lab.report.pictures import Bar, dots
from spikewvat.results import StepTime, StepTimes

_COLUMNS = 6
"""Most set-ups in a table."""


def overhead(section: Section) -> list[Part]:
    """Return one part per measurement of step times."""
    return [_part(name, found) for name, found in section.step_times.items()]


def _part(name: str, found: StepTimes) -> Part:
    by_setup = found.by_setup
    methods = list(dict.fromkeys(row.method for row in found.rows))
    tables = []
    for start in range(0, len(by_setup), _COLUMNS):
        setups = dict(list(by_setup.items())[start : start + _COLUMNS])
        held = [[method, *(_cell(g.get(method)) for g in setups.values())] for method in methods]
        tables.append(Table(["method", *setups], held))
    ratios = {
        setup: {method: Bar(row.ratio, *row.quartiles) for method, row in group.items()}
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
    title, label = f"What a step costs ({name})", "time of a step over plain training's"
    note = "dot: median of rounds; line: quartiles"
    figure = dots(ratios, x_label=label, title=title, note=note)
    return Part(
        name=title,
        shows=frozenset([name]),
        sentences=sentences,
        tables=tables,
        pictures=[Picture(figure, f"{title}: {label}")],
        note="Median time of a step over that of plain training in the same round, quartiles of "
        "the rounds in brackets; milliseconds for plain training.",
    )


def _cell(row: StepTime | None) -> str:
    if row is None:
        return MISSING
    return f"{row.ms:.1f} ms" if row.ratio == 1 else within(row.ratio, *row.quartiles)
