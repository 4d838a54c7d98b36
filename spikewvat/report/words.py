"""A summary in words, every one of which comes from the figures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from spikewvat.bench import RowResult
from spikewvat.bench.suite import Row
from spikewvat.report.content import percent, points
from spikewvat.robustness.statistics import Interval, mean_interval, mean_of

Found = Sequence[tuple[Row, RowResult]]


class Gain(NamedTuple):
    """How much more accurate one method is than another, on the same chips.

    Args:
        mean: The difference, a fraction.
        interval: Its 95 % interval; None where the methods did not meet the same chips, or there
            is one chip only.
        over: What the interval is over.
    """

    mean: float
    interval: Interval | None
    over: str

    @property
    def words(self) -> str:
        """The difference in points with its interval."""
        if self.interval is None:
            return points(abs(self.mean))
        low, high = (100 * bound for bound in self.interval)
        if self.mean < 0:
            low, high = -high, -low
        return f"{points(abs(self.mean))} (95 % CI over {self.over} {low:.1f} .. {high:.1f})"


def gain(base: RowResult, other: RowResult, index: int = -1) -> Gain:
    """Compare two methods at one magnitude of the variation.

    The interval is over training seeds where both have several in common, and over the chips of
    the one training otherwise: it then says nothing of other trainings.

    Args:
        base: The method that is compared with.
        other: The method that may be better.
        index: Which magnitude.
    """
    mean = other.mean(index) - base.mean(index)
    seeds, others = (list(result.content.get("seeds", ())) for result in (base, other))
    both = [seed for seed in seeds if seed in others]
    pairs = [
        (base.curves[seeds.index(seed)][index], other.curves[others.index(seed)][index])
        for seed in both
    ]
    if not pairs or any(one.seeds != two.seeds for one, two in pairs):
        return Gain(mean, None, "")
    differences = [two.accuracies - one.accuracies for one, two in pairs]
    if len(differences) > 1:
        means = [mean_of(difference) for difference in differences]
        over = f"{len(means)} training seeds, the same chips"
        return Gain(mean_of(means), mean_interval(means), over)
    (chips,) = differences
    interval = mean_interval(chips) if len(chips) > 1 else None
    return Gain(mean_of(chips), interval, f"{len(chips)} chips of one training")


def summary(found: Found) -> list[str]:
    """Return what the rows of a set-up say: the best method, its gain and price, the order.

    Args:
        found: Rows evaluated at the same magnitudes, at least one; the first is the baseline.
    """
    return [_best(found), *_published(found)]


def _best(found: Found) -> str:
    """Say what keeps the most accuracy under the largest variation, and what that costs."""
    sigma = f"σ = {100 * found[0][1].sigmas[-1]:g} %"
    ranked = sorted(found, key=lambda pair: pair[1].mean(-1), reverse=True)
    row, best = ranked[0]
    text = f"At {sigma} {row.method} reaches {percent(best.mean(-1))} %"
    if len(ranked) == 1:
        return f"{text}, {points(_clean(best) - best.mean(-1))} below its ideal weights."
    base_row, base = found[0]
    if base is best:
        other_row, other = ranked[1]
        return (
            f"{text}, {gain(other, base).words} more than {other_row.method}: no other method "
            "helps here."
        )
    change = _clean(best) - _clean(base)
    price = f"{points(abs(change))} {'more' if change > 0 else 'less'}"
    if points(abs(change)) == points(0):
        price = "as much"
    return (
        f"{text}, {gain(base, best).words} more than {base_row.method} "
        f"({percent(base.mean(-1))} %); with ideal weights {price}."
    )


def _published(found: Found) -> list[str]:
    """Say which neighbours in the published order stand in it here too."""
    rows = [(row, result) for row, result in found if len(row.paper) == len(result.sigmas)]
    if len(rows) < 2:
        return []
    theirs = sorted(rows, key=lambda pair: -pair[0].paper[-1][0])
    verdicts, leads = [], []
    for (above, better), (below, worse) in pairwise(theirs):
        found_gain = gain(worse, better)
        low, high = found_gain.interval or (found_gain.mean, found_gain.mean)
        if low > 0:
            verdict = "reproduced"
        elif high < 0:
            verdict = f"not reproduced, {below.method} leads by {found_gain.words}"
        else:
            bounds = f"{100 * low:.1f} .. {100 * high:.1f}"
            verdict = f"undecided ({100 * found_gain.mean:+.1f} points, 95 % CI {bounds})"
        leads.append(f"{100 * found_gain.mean:.1f}")
        verdicts.append(f"{above.method} > {below.method} is {verdict}")
    order = " > ".join(row.method for row, _ in theirs)
    if all(verdict.endswith("is reproduced") for verdict in verdicts):
        return [f"The published order {order} is reproduced (by {', '.join(leads)} points)."]
    return [f"Of the published order {order}: {'; '.join(verdicts)}."]


def _clean(result: RowResult) -> float:
    return mean_of([curve.clean for curve in result.curves])
