"""A summary in words, every one of which comes from the figures."""

from __future__ import annotations

from collections.abc import Sequence

from spikewvat.bench import RowResult
from spikewvat.bench.suite import Row, Setup
from spikewvat.report.collect import Section
from spikewvat.robustness.statistics import mean_interval


def summary(section: Section) -> list[str]:
    """Return a sentence or two on each set-up of a suite.

    Args:
        section: A suite and its results.
    """
    sentences = []
    for setup in section.suite.setups:
        found = [
            (row, section.results[row.name]) for row in setup.rows if row.name in section.results
        ]
        if found:
            sentences.append(" ".join([_best(setup, found), *_published(found)]))
    return sentences


def _best(setup: Setup, found: Sequence[tuple[Row, RowResult]]) -> str:
    """Say what keeps the most accuracy under the largest variation, and what that costs."""
    sigma = f"σ = {100 * found[0][1].sigmas[-1]:g} %"
    ranked = sorted(found, key=lambda pair: pair[1].mean(-1), reverse=True)
    row, best = ranked[0]
    text = f"{setup.name}: at {sigma} {row.method} reaches {_percent(best.mean(-1))} %"
    if len(ranked) == 1:
        return f"{text}, {_points(_clean(best) - best.mean(-1))} below its ideal weights."
    base_row, base = found[0]
    if base is best:
        other_row, other = ranked[1]
        return (
            f"{text}, more than {other_row.method} ({_percent(other.mean(-1))} %): no other method "
            "helps here."
        )
    gain = best.mean(-1) - base.mean(-1)
    text += (
        f", {_points(gain)} more than {base_row.method} ({_percent(base.mean(-1))} %)"
        f"{_certainty(base, best)}"
    )
    change = _clean(best) - _clean(base)
    more = "more" if change > 0 else "less"
    return f"{text}; with ideal weights {_points(abs(change))} {more}."


def _certainty(base: RowResult, best: RowResult) -> str:
    """Return the interval of a gain over chips that both meet, where they meet the same ones."""
    gains = []
    for one, other in zip(base.curves, best.curves, strict=False):
        first, second = one.reports[-1], other.reports[-1]
        if first.seeds != second.seeds:
            return ""
        gains.append(float(second.mean - first.mean))
    if len(gains) < 2 or base.content["seeds"] != best.content["seeds"]:
        return ""
    low, high = mean_interval(gains)
    return f" (95 % CI over {len(gains)} training seeds {100 * low:.1f} .. {100 * high:.1f})"


def _published(found: Sequence[tuple[Row, RowResult]]) -> list[str]:
    """Say whether the order of the methods is the published one."""
    rows = [(row, result) for row, result in found if len(row.paper) == len(result.sigmas)]
    if len(rows) < 2:
        return []
    ours = [row.method for row, result in sorted(rows, key=lambda pair: -pair[1].mean(-1))]
    theirs = [row.method for row, _ in sorted(rows, key=lambda pair: -pair[0].paper[-1][0])]
    if ours == theirs:
        return [f"The order {' > '.join(ours)} is the published one."]
    return [
        f"The published order {' > '.join(theirs)} is not reproduced: here it is "
        f"{' > '.join(ours)}."
    ]


def _clean(result: RowResult) -> float:
    return sum(curve.clean for curve in result.curves) / len(result.curves)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:.1f} points"
