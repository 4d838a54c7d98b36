"""The summary in words, generated entirely from the results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from spikewvat.formatting import interval, percent, points
from spikewvat.lab.suites.claims import judged
from spikewvat.lab.suites.suite import Row
from spikewvat.lab.suites.table import header, published
from spikewvat.results import RowResult
from spikewvat.robustness import Difference, Interval, paired_differences

Found = Sequence[tuple[Row, RowResult]]
TOLERATED = 0.05
"""Loss of accuracy up to which a chip works, if the test has set no target."""


class Gain(NamedTuple):
    """Gain in accuracy of one method over another, on the same chips.

    Args:
        mean: The difference, a fraction.
        interval: Its 95 % interval over trainings and chips; None if the methods were not tested on
            the same chips, or there is a single chip.
        trainings: Number of trainings of each method.
    """

    mean: float
    interval: Interval | None
    trainings: int

    @property
    def words(self) -> str:
        """The difference in points with its interval."""
        if self.interval is None:
            return points(abs(self.mean))
        low, high = (100 * bound for bound in self.interval)
        if self.mean < 0:
            low, high = -high, -low
        over = f"{self.trainings} trainings" if self.trainings > 1 else "one training"
        return f"{points(abs(self.mean))} (95 % CI {interval(low, high, '.1f')}, {over})"


def differences(found: Found) -> tuple[Difference, ...]:
    """Compare the rows of a set-up with the first, at the largest variation.

    Args:
        found: Rows evaluated at the same sizes of variation.

    Returns:
        The differences of the rows that were tested on the first row's device and images, over the
        training seeds that all of these share; none if they were not tested on the same chips.
    """
    first = found[0][1].curves[0][-1]
    alike = [
        pair
        for pair in found
        if (last := pair[1].curves[0][-1]).device == first.device and last.images == first.images
    ]
    common = [seed for seed in found[0][1].seeds if all(seed in r.by_seed for _, r in alike)]
    if len(alike) < 2 or not common:
        return ()
    reports = {row.name: [result.by_seed[seed][-1] for seed in common] for row, result in alike}
    try:
        return paired_differences(reports, reference=alike[0][0].name).differences
    except ValueError:  # other chips
        return ()


def gain(base: tuple[Row, RowResult], other: tuple[Row, RowResult]) -> Gain:
    """Compare two rows at the largest variation.

    Args:
        base: The row to compare with.
        other: The row that may be better.
    """
    for difference in differences([base, other]):
        low, high = difference.found.interval()
        interval = None if math.isnan(low) else Interval(low, high)
        return Gain(difference.found.mean, interval, difference.found.trainings)
    return Gain(other[1].mean(-1) - base[1].mean(-1), None, 0)


def summary(found: Found) -> list[str]:
    """Summarise the rows of a set-up: the best method, its gain and cost, the published order.

    Args:
        found: Rows evaluated at the same sizes of variation, at least one; the first is the
            baseline.
    """
    return [_best(found), *_published(found)]


def grouped(found: Found) -> list[Found]:
    """Return the rows of a set-up in groups evaluated at the same sizes."""
    groups: dict[tuple[str, ...], list[tuple[Row, RowResult]]] = {}
    for row, result in found:
        groups.setdefault(tuple(header([result])), []).append((row, result))
    return list(groups.values())


def target_of(found: Found) -> float:
    """Return the accuracy at which a chip works, a fraction.

    It is the test's target; without one, the accuracy of the first row without variation minus
    :data:`TOLERATED`.
    """
    first = found[0][1]
    target = first.curves[0][-1].target
    return round(max(first.clean - TOLERATED, 0.0), 2) if target is None else target


def where(result: RowResult) -> str:
    """Return the largest variation of a row, as the start of a sentence."""
    return f"At {result.axis.heading(result.sigmas[-1])}" if result.sized else "On chips"


def _best(found: Found) -> str:
    """Name the method with the highest accuracy under the largest variation, and its cost."""
    ranked = sorted(found, key=lambda pair: pair[1].mean(-1), reverse=True)
    row, best = ranked[0]
    text = f"{where(best)} {row.method} reaches {percent(best.mean(-1))} %"
    if len(ranked) == 1:
        return f"{text}, {points(best.clean - best.mean(-1))} below its accuracy without variation."
    base_row, base = found[0]
    if base is best:
        return (
            f"{text}, {gain(ranked[1], ranked[0]).words} more than {ranked[1][0].method}: no other "
            "method helps here."
        )
    change = best.clean - base.clean
    price = f"{points(abs(change))} {'more' if change > 0 else 'less'}"
    if points(abs(change)) == points(0):
        price = "as much"
    return (
        f"{text}, {gain(found[0], ranked[0]).words} more than {base_row.method} "
        f"({percent(base.mean(-1))} %); without variation {price}."
    )


def _published(found: Found) -> list[str]:
    """Tell which neighbours in the published order are in the same order here."""
    known = [(figure, pair) for pair in found if (figure := published(*pair)) is not None]
    theirs = [pair for _, pair in sorted(known, key=lambda item: -item[0])]
    if len(theirs) < 2:
        return []
    said = []
    for better, worse in pairwise(theirs):
        lead = gain(worse, better)
        low, high = lead.interval or (math.nan, math.nan)
        text = f"{better[0].method} > {worse[0].method} is {judged(low, high)}"
        said.append(
            f"{text} ({100 * lead.mean:+.1f}, 95 % CI {interval(100 * low, 100 * high, '+.1f')})"
        )
    return [f"Of the published order {'; '.join(said)}."]
