"""Accuracy against the size of weight variation, row by row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from spikewvat.devices.conventions import over_all
from spikewvat.formatting import MISSING, interval, percent
from spikewvat.lab.report.collect import Section
from spikewvat.lab.report.content import Part, Picture, Table
from spikewvat.lab.report.pictures import Bar, dots
from spikewvat.lab.report.words import Found, differences, grouped, summary, target_of, where
from spikewvat.lab.suites.suite import Setup
from spikewvat.lab.suites.table import cells, errors_note, header, range_words, sizes_note, times
from spikewvat.results import RowResult
from spikewvat.robustness import Difference, plots

_FEW = 6
"""Largest number of rows drawn as lines; more would be too small."""


def variation(section: Section) -> list[Part]:
    """Return one part per set-up that has results."""
    return [
        _part(setup, found, section.suite.source)
        for setup in section.suite.setups
        if (found := section.found(setup))
    ]


def _part(setup: Setup, found: Found, source: str) -> Part:
    tables, pictures, sentences, details = [], [], [], []
    for group in grouped(found):  # rows evaluated at other sizes are another table
        compared = differences(group)
        tables.append(_figures(group, compared))
        pictures += _pictures(setup, group)
        sentences += summary(group)
        details.append(_everything(setup, group, compared, source))
    results = [result for _, result in found]
    parts = [
        "Accuracy in %, mean ± standard deviation over training seeds",
        sizes_note(results),
        errors_note(results),
    ]
    note = f"{'; '.join(filter(None, parts))}."
    return Part(
        name=setup.name,
        shows=frozenset(row.name for row, _ in found),
        sentences=sentences,
        tables=tables,
        pictures=pictures,
        note=note,
        details=details,
        runs=[(row.method, how_run(result)) for row, result in found],
    )


def _figures(group: Found, compared: Sequence[Difference]) -> Table:
    """Return accuracies at up to three sizes, the worst chip, working chips, the lead."""
    first = group[0][1]
    last = len(first.sigmas) - 1
    shown = (
        sorted({last // 2, last}) if not first.holds_ideal else sorted({0, (last + 1) // 2, last})
    )
    columns = ["method"] if first.holds_ideal else ["method", "no variation"]
    columns += [first.axis.heading(first.sigmas[i]) if first.sized else "on chips" for i in shown]
    columns += ["worst chip", "chips that work"]
    columns += [f"minus {group[0][0].method}, 95 % CI"] if compared else []
    leads = {difference.method: difference for difference in compared}
    rows = []
    for row, result in group:
        report = result.pooled.reports[-1]
        figures = [(result.mean(i), result.std(i)) for i in shown]
        figures = figures if first.holds_ideal else [(result.clean, result.clean_std), *figures]
        several = len(result.curves) > 1
        texts = [percent(m) + (f" ± {percent(s)}" if several else "") for m, s in figures]
        works = MISSING
        if report.sampled_from is None:
            chips = report.yield_at(target_of(group))
            works = f"{chips.working} of {chips.chips} ≥ {100 * chips.target:g} %"
        lead = [_lead(leads.get(row.name))] if compared else []
        rows.append([row.method, *texts, percent(report.worst), works, *lead])
    return Table(columns, rows)


def _lead(difference: Difference | None) -> str:
    if difference is None:
        return MISSING
    low, high = (100 * bound for bound in difference.found.interval())
    return f"{100 * difference.found.mean:+.1f} ({interval(low, high, '+.1f')})"


def _everything(setup: Setup, group: Found, compared: Sequence[Difference], source: str) -> Table:
    """Return all figures of a group, with published ones and p-values."""
    title = "All figures"
    if any(row.paper for row, _ in group):
        title += f"; in brackets {source or 'the published figure'}, and ours minus it"
    results = {row.name: result for row, result in group}
    taken = times(setup, results)
    adjusted = {difference.method: difference.p_adjusted for difference in compared}
    columns = [*header(results.values()), *(["training time"] if taken else [])]
    columns += [f"p beside {group[0][0].method}, adjusted"] if compared else []
    rows = []
    for row, result in group:
        texts = [row.method, *cells(result, row)]
        texts += [taken.get(row.name, MISSING)] if taken else []
        p = adjusted.get(row.name, math.nan)
        texts += [MISSING if math.isnan(p) else f"{p:.2g}"] if compared else []
        rows.append(texts)
    return Table(["method", *columns], rows, title=title)


def _pictures(setup: Setup, group: Found) -> list[Picture]:
    """Return lines over sizes or, for a single size or many rows, dots at the largest size."""
    curves = {row.method: result.pooled for row, result in group}
    if len(group[0][1].sigmas) > 1 and len(curves) <= _FEW:
        text = f"{setup.name}: accuracy against variation for {', '.join(curves)}"
        label = range_words(group[0][1]).removeprefix("the ")
        figure = plots.accuracy_against_sigma(curves, range_label=label, title=setup.name)
        return [Picture(figure, text)]
    if len(curves) == 1:
        return []
    bars = {}
    for name in sorted(curves, key=lambda name: -curves[name][-1].mean):
        report = curves[name][-1]
        low, high = np.quantile(report.accuracies.numpy(), [0.1, 0.9])
        bars[name] = Bar(100 * report.mean, 100 * float(low), 100 * float(high))
    targets = {curve[-1].target for curve in curves.values()}
    place = f"{setup.name}, {where(group[0][1]).lower()}"
    note = "dot: mean of chips; line: 10th to 90th percentile"
    target = targets.pop() if len(targets) == 1 else None
    figure = dots({"": bars}, x_label="accuracy (%)", title=place, note=note, target=target)
    return [Picture(figure, f"{place}: accuracy of {', '.join(bars)}")]


def how_run(result: RowResult) -> str:
    """Describe the runs of a row."""
    last = result.curves[0][-1]
    parts = [f"{result.scale} scale"] if result.scale else []
    seeds = ", ".join(map(str, result.seeds))
    parts.append(f"training seed{'s' * (len(result.seeds) > 1)} {seeds}")
    parts += [result.extent] if result.extent else []
    parts.append(f"{last.device} on {last.chips} chips a training")
    if result.errors:
        parts.append(f"errors of {over_all(result.errors)}")
    if sum(result.seconds) > 0:
        parts.append(f"{sum(result.seconds) / 60:.1f} min of training")
    if result.commit:
        parts.append(f"commit {result.commit[:12]}")
    return "; ".join(parts)
