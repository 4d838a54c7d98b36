"""Rows of accuracy against the magnitude of weight variation."""

from __future__ import annotations

import math

from spikewvat.bench.suite import Row, Setup
from spikewvat.bench.table import RowResult, cells, header
from spikewvat.report.collect import Section
from spikewvat.report.content import MISSING, Part, Picture, Table
from spikewvat.report.words import differences, summary
from spikewvat.robustness import plots


def variation(section: Section) -> list[Part]:
    """Return a part for each set-up that has results."""
    return [
        _part(setup, found, section.suite.source)
        for setup in section.suite.setups
        if (found := section.found(setup))
    ]


def _part(setup: Setup, found: list[tuple[Row, RowResult]], source: str) -> Part:
    # Rows evaluated at other magnitudes are another table.
    groups: dict[tuple[float, ...], list[tuple[Row, RowResult]]] = {}
    for row, result in found:
        groups.setdefault(result.sigmas, []).append((row, result))
    tables, pictures, sentences = [], [], []
    for number, (sigmas, group) in enumerate(groups.items()):
        columns = header(result for _, result in group)
        figures = {row.name: cells(result, row) for row, result in group}
        if number == 0:  # the rows without a result are shown in one table only
            blank = [MISSING] * len(columns)
            known = {row.name for row, _ in found}
            figures |= {row.name: blank for row in setup.rows if row.name not in known}
        rows = [[row.method, *figures[row.name]] for row in setup.rows if row.name in figures]
        tables.append(Table(["method", *columns], rows))
        tables += _differences(group)
        curves = {row.method: result.pooled for row, result in group}
        if len(sigmas) > 1:
            text = f"{setup.name}: accuracy against variation for {', '.join(curves)}"
            pictures.append(Picture(plots.accuracy_against_sigma(curves), text))
        sentences += summary(group)
    note = (
        "Accuracy in %, mean ± standard deviation over training seeds; σ relative to the range of "
        "each layer's weights; spread is the standard deviation over chips."
    )
    if any(row.paper for row, _ in found):
        note += f" In brackets: {source or 'the published figure'}, and ours minus it."
    return Part(
        name=setup.name,
        shows=frozenset(row.name for row, _ in found),
        sentences=sentences,
        tables=tables,
        pictures=pictures,
        note=note,
        runs=[(row.method, how_run(result)) for row, result in found],
    )


def _differences(group: list[tuple[Row, RowResult]]) -> list[Table]:
    """Return the table of differences from the first row, none where they cannot be paired."""
    found = differences(group)
    if not found:
        return []
    rows = []
    for (row, _), difference in zip(group[1:], found, strict=True):
        low, high = (100 * bound for bound in difference.found.interval())
        interval = MISSING if math.isnan(low) else f"{low:+.1f} .. {high:+.1f}"
        p = MISSING if math.isnan(difference.p_adjusted) else f"{difference.p_adjusted:.2g}"
        rows.append([row.method, f"{100 * difference.found.mean:+.1f}", interval, p])
    return [
        Table(
            ["method", "points", "95 % CI", "p, adjusted"],
            rows,
            title=f"Minus {group[0][0].method}, on the same chips at the largest variation",
        )
    ]


def how_run(result: RowResult) -> str:
    """Return in words how a row was run."""
    content = result.content
    parts = [f"{content['scale']} scale"] if "scale" in content else []
    seeds = content.get("seeds", ())
    if seeds:
        parts.append(f"training seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
    if "samples" in content:
        samples = content["samples"]
        learned = f"{samples['train']} training and " if samples["train"] else ""
        parts.append(f"{learned}{samples['test']} test samples")
    parts.append(f"{result.curves[0][-1].device} on {result.curves[0][-1].chips} chips a training")
    if sum(content.get("seconds", ())) > 0:
        parts.append(f"{sum(content['seconds']) / 60:.1f} min of training")
    if content.get("commit"):
        parts.append(f"commit {str(content['commit'])[:12]}")
    return "; ".join(parts)
