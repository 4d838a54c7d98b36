"""Accuracy against the size of weight variation, row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spikewvat.formatting import MISSING, interval
from spikewvat.lab.report.collect import Section
from spikewvat.lab.report.content import Part, Picture, Table
from spikewvat.lab.report.pictures import dots
from spikewvat.lab.report.words import Found, differences, summary, where
from spikewvat.lab.suites.suite import Row, Setup
from spikewvat.lab.suites.table import cells, header, sizes_note, times
from spikewvat.results import RowResult
from spikewvat.robustness import plots

_FEW = 6
"""Largest number of rows drawn as lines; more would overlap."""


def variation(section: Section) -> list[Part]:
    """Return one part per set-up that has results."""
    return [
        _part(setup, found, section.suite.source)
        for setup in section.suite.setups
        if (found := section.found(setup))
    ]


def _part(setup: Setup, found: Found, source: str) -> Part:
    # Rows evaluated at other sizes are another table.
    groups: dict[tuple[str, ...], list[tuple[Row, RowResult]]] = {}
    for row, result in found:
        groups.setdefault(tuple(header([result])), []).append((row, result))
    first, *_ = groups.values()
    absent = [row for row in setup.rows if row not in [known for known, _ in found]]
    tables, pictures, sentences = [], [], []
    for group in groups.values():
        tables.append(_figures(setup, group, absent if group is first else []))
        tables += _differences(group)
        pictures += _pictures(setup, group)
        sentences += summary(group)
    sizes = sizes_note(result for _, result in found)
    note = (
        f"Accuracy in %, mean ± standard deviation over training seeds; {sizes}; spread is the "
        "standard deviation over chips."
    )
    if setup.baseline:
        note += " Training time is in units of the first method's."
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


def _figures(setup: Setup, group: Found, absent: Sequence[Row]) -> Table:
    """Return the table of a group in the order of the set-up, including rows without results."""
    results = {row.name: result for row, result in group}
    taken = times(setup, results)
    columns = [*header(results.values()), *(["training time"] if taken else [])]
    rows = []
    for row in setup.rows:
        if row.name in results:
            last = [taken.get(row.name, MISSING)] if taken else []
            rows.append([row.method, *cells(results[row.name], row), *last])
        elif row in absent:
            rows.append([row.method, *[MISSING] * len(columns)])
    return Table(["method", *columns], rows)


def _pictures(setup: Setup, group: Found) -> list[Picture]:
    """Return lines over sizes or, for a single size or many rows, dots at the largest size."""
    drawn = []
    curves = {row.method: result.pooled for row, result in group}
    sizes = len(group[0][1].sigmas)
    if sizes > 1 and len(curves) <= _FEW:
        text = f"{setup.name}: accuracy against variation for {', '.join(curves)}"
        drawn.append(Picture(plots.accuracy_against_sigma(curves), text))
    elif len(curves) > 1:
        ordered = sorted(curves, key=lambda name: -curves[name][-1].mean)
        found = {}
        for name in ordered:
            report = curves[name][-1]
            low, high = np.quantile(report.accuracies.numpy(), [0.1, 0.9])
            found[name] = (100 * report.mean, 100 * float(low), 100 * float(high))
        label = f"accuracy {where(group[0][1]).lower()} (%), 10th to 90th percentile of chips"
        drawn.append(Picture(dots({"": found}, x_label=label), f"{setup.name}: {label}"))
    return drawn


def _differences(group: Found) -> list[Table]:
    """Return the table of differences from the first row; none if rows cannot be paired."""
    found = differences(group)
    if not found:
        return []
    rows = []
    for (row, _), difference in zip(group[1:], found, strict=True):
        low, high = (100 * bound for bound in difference.found.interval())
        p = MISSING if math.isnan(difference.p_adjusted) else f"{difference.p_adjusted:.2g}"
        mean = f"{100 * difference.found.mean:+.1f}"
        rows.append([row.method, mean, interval(low, high, "+.1f"), p])
    return [
        Table(
            ["method", "points", "95 % CI", "p, adjusted"],
            rows,
            title=f"Minus {group[0][0].method}, on the same chips at the largest variation",
        )
    ]


def how_run(result: RowResult) -> str:
    """Describe the runs of a row."""
    last, samples = result.curves[0][-1], result.samples
    parts = [f"{result.scale} scale"] if result.scale else []
    seeds = ", ".join(map(str, result.seeds))
    parts.append(f"training seed{'s' * (len(result.seeds) > 1)} {seeds}")
    if samples:
        learned = f"{samples['train']} training and " if samples["train"] else ""
        parts.append(f"{learned}{samples['test']} test samples")
    parts.append(f"{last.device} on {last.chips} chips a training")
    if sum(result.seconds) > 0:
        parts.append(f"{sum(result.seconds) / 60:.1f} min of training")
    if result.commit:
        parts.append(f"commit {result.commit[:12]}")
    return "; ".join(parts)
