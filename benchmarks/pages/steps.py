"""Tables of training steps: price, memory, limits, and accuracy with noise that is looked up."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import quantiles
from typing import Any

from pages.directions import difference
from pages.shared import load, markdown_table, results_of
from spikewvat.formatting import MISSING, percent, within
from spikewvat.lab.suites import read_suite
from spikewvat.robustness.statistics import mean_interval

SIGMA = 0.10


def step_times() -> str:
    """Return the time of each method's step over a plain one, network by network."""
    rows: dict[str, dict[str, Any]] = load("speed", "steps")["rows"]
    methods = list(dict.fromkeys(name for row in rows.values() for name in row["ms"]))
    plain = [f"{_middle(row['ms']['plain']):.1f} ms" for row in rows.values()]
    lines = [["plain", *plain]]
    for method in methods:
        if method != "plain":
            lines.append([method, *(ratio(row["ms"], method) for row in rows.values())])
    return markdown_table(["", *rows], lines)


def ratio(ms: dict[str, list[float]], method: str) -> str:
    """Return the median over rounds of a method's time over a plain step's, and quartiles."""
    if method not in ms:
        return MISSING
    pairs = zip(ms[method], ms["plain"], strict=True)
    low, middle, high = quantiles([one / other for one, other in pairs], method="inclusive")
    return within(middle, low, high)


def _middle(values: list[float]) -> float:
    return quantiles(values, method="inclusive")[1]


def step_memory() -> str:
    """Return the peak memory of a step, in multiples of the parameters."""
    peaks: dict[str, float] = load("speed", "step_memory")["peaks"]
    return markdown_table([*peaks], [[f"{peak:.2f}" for peak in peaks.values()]])


def step_parts() -> str:
    """Return the table of what a perturbation adds, part by part, and of each part's limit."""
    rows: dict[str, dict[str, Any]] = load("speed", "step_parts")["rows"]
    heads, lines = [""], []
    for name in rows:
        heads += [name, "limit", "reached"]
    for part in next(iter(rows.values()))["ms"]:
        cells = [part]
        for row in rows.values():
            taken, limit = row["ms"][part], row["limit_ms"][part]
            cells += [f"{taken:.3g} ms", f"{limit:.3g} ms", f"{100 * limit / taken:.0f} %"]
        lines.append(cells)
    return markdown_table(heads, lines)


def looked_up() -> str:
    """Return accuracies with noise drawn and looked up, and the paired difference."""
    lines = [*_studied(), *_small()]
    heads = ["", "pairs", "drawn, %", "looked up, %", "difference, points"]
    return markdown_table(heads, lines)


def _studied() -> Iterator[list[str]]:
    """Yield the rows of the study of perturbations: momentum and noise at once."""
    suite = read_suite("directions")
    found = results_of(suite)
    for setup in suite.setups:
        prefix = setup.rows[0].name.rsplit("-", 1)[0]
        pair = [found.get(f"{prefix}-{kind}") for kind in ("both", "both-table")]
        drawn, table = pair
        if drawn is None or table is None:
            continue
        count = str(min(len(drawn.curves), len(table.curves)))
        means = [percent(result.mean(result.sigmas.index(SIGMA))) for result in (drawn, table)]
        yield [setup.name, count, *means, difference(table, drawn, SIGMA)]


def _small() -> Iterator[list[str]]:
    """Yield the rows of small networks: noise alone."""
    for name, pairs in load("speed", "looked_up")["rows"].items():
        kinds = ("drawn", "looked up")
        drawn, found = ([pair[kind] for pair in pairs.values()] for kind in kinds)
        means = [f"{sum(values) / len(values):.1f}" for values in (drawn, found)]
        gained = [one - other for one, other in zip(found, drawn, strict=True)]
        cell = within(sum(gained) / len(gained), *mean_interval(gained), "+.2f")
        yield [f"{name}, MNIST", str(len(pairs)), *means, cell]
