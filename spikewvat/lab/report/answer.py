"""The answer on top of a report: how many chips work with which method, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from spikewvat.formatting import MISSING, interval, percent
from spikewvat.lab.places import suite_names
from spikewvat.lab.report.collect import RUNS, Section
from spikewvat.lab.report.content import Picture, Table
from spikewvat.lab.report.pictures import chips
from spikewvat.lab.report.words import TOLERATED, Found, gain, grouped, target_of
from spikewvat.lab.suites.claims import judged
from spikewvat.lab.suites.suite import Row, Setup
from spikewvat.lab.suites.table import device_words, times
from spikewvat.results import RowResult
from spikewvat.robustness import TrainingYield, yield_over_trainings

_NAMED, _DRAWN = 3, 8
"""Most methods beside the baseline in the sentence; most in the picture."""
_SHORT = 10.0
"""Seconds of a training that are too few to tell the cost of a step."""


class Standing(NamedTuple):
    """A method on chips of the largest variation.

    Args:
        row: The row of the method.
        result: Its results.
        works: Its working chips with intervals; None if chips saw samples of the images.
    """

    row: Row
    result: RowResult
    works: TrainingYield | None

    @property
    def mean(self) -> float:
        """Mean accuracy, a fraction."""
        return self.result.mean(-1)

    @property
    def order(self) -> tuple[float, float]:
        """What methods are ordered by: share of working chips, then accuracy."""
        return (self.works.share if self.works else 0.0, self.mean)

    @property
    def percentile(self) -> float:
        """Accuracy that nine of ten chips reach."""
        return float(self.result.pooled[-1].accuracies.quantile(0.1))


class Answer(NamedTuple):
    """The answer.

    Args:
        sentence: Network, device, working chips of each method.
        next: What to do next.
        note: What the numbers mean.
        picture: Every chip; None if chips saw samples of the images.
    """

    sentence: str
    next: str
    note: str
    picture: Picture | None


def answer(sections: Sequence[Section]) -> Answer | None:
    """Return the answer of the most important set-up; None if nothing was tested on chips."""
    for section in sections:
        for setup in section.suite.setups:
            if found := section.found(setup):
                return _answer(section, setup, grouped(found)[0])
    return None


def leaderboards(sections: Sequence[Section]) -> list[Table]:
    """Return the methods of each set-up by working chips, the answer's first."""
    setups = [(section, setup) for section in sections for setup in section.suite.setups]
    names = [setup.name for _, setup in setups]
    steps = {
        (row.setup, row.method): f"{row.ratio:.2f}"
        for section in sections
        for found in section.step_times.values()
        for row in found.rows
        if names.count(row.setup) < 2  # the same name in two suites may be two networks
    }
    boards = []
    for section, setup in setups:
        for group in grouped(section.found(setup)):
            taken = _times(setup, group)
            rows = []
            for one in sorted(_standings(group), key=lambda s: s.order, reverse=True):
                row = one.row
                time = steps.get((setup.name, row.method), taken.get(row.name, MISSING))
                last = [percent(one.percentile), percent(one.mean), time]
                rows.append([row.method, *_yield_cells(one.works), *last])
            target = target_of(group)
            title = f"{section.suite.title}: {setup.name}, a chip works at {100 * target:g} %"
            boards.append(Table(_HEADS, rows, title=title))
    return boards


def _times(setup: Setup, group: Found) -> dict[str, str]:
    """Return training times relative to the baseline's, or to the first row's of a comparison.

    A comparison trains one network after the other, the first with the start of everything: of
    short trainings the times say nothing.
    """
    results = {row.name: result for row, result in group}
    if not all("network" in r.recipe and r.seconds for r in results.values()):
        return times(setup, results)
    shortest = {name: min(result.seconds) for name, result in results.items()}
    unit = shortest[group[0][0].name]
    return {n: f"{seconds / unit:.2f}" for n, seconds in shortest.items()} if unit > _SHORT else {}


_HEADS = ("method", "chips that work", "95 % CI", "10th percentile", "mean", "step time")


def _yield_cells(works: TrainingYield | None) -> list[str]:
    if works is None:
        return [MISSING, MISSING]
    return [f"{percent(works.share, 0)} % ({works.working} of {works.chips})", _bounds(works)]


def _bounds(works: TrainingYield) -> str:
    low, high = (100 * bound for bound in works.model)
    return interval(low, high, ".0f")


def _standings(found: Found) -> list[Standing]:
    target, standings = target_of(found), []
    for row, result in found:
        reports = [curve[-1] for curve in result.curves]
        sampled = any(report.sampled_from is not None for report in reports)
        works = None if sampled else yield_over_trainings(reports, target)
        standings.append(Standing(row, result, works))
    return standings


def _answer(section: Section, setup: Setup, found: Found) -> Answer:
    standings = _standings(found)
    ranked = sorted(standings, key=lambda one: one.order, reverse=True)
    named = ranked[: _NAMED + 1]
    base = standings[0]
    if base not in named:
        named[-1] = base
    where, device = setup.name, device_words(base.result)
    if "network" in base.result.recipe:
        where = section.suite.title  # the set-up of a comparison is the device
    elif section.suite.title != RUNS:
        where += f" ({section.suite.title})"
    title, target = f"Chips that work: {where}", target_of(found)
    if device not in where:
        where += f" on {device}"
    note = f"A chip works if it classifies at least {100 * target:g} % of the test set correctly"
    if base.result.curves[0][-1].target is None:
        note += (
            f"; no target was set, so this is {100 * TOLERATED:g} points below {base.row.method} "
            "without variation"
        )
    if base.works is None:
        means = ", ".join(f"{one.row.method} {percent(one.mean)} %" for one in named)
        return Answer(
            f"{where}: mean accuracy {means}; no yield, because chips saw samples of the images.",
            "Leave out images_per_chip to learn how many chips work.",
            "",
            None,
        )
    texts: list[str] = []
    for one in named:
        if one.works is not None:
            of = f" of {one.works.chips} chips work" if not texts else ""
            if texts and one.works.chips != base.works.chips:
                of = f" of {one.works.chips}"
            bounds = f"95 % CI {_bounds(one.works)} %"
            texts.append(f"{one.works.working}{of} with {one.row.method} ({bounds})")
    more = len(ranked) - len(named)
    rest = f"; {more} more methods below" if more else ""
    return Answer(
        f"{where}: {', '.join(texts)}{rest}.",
        _next(section, ranked, base),
        f"{note}. {_meaning(named)}",
        _picture(ranked[:_DRAWN], target, title=title),
    )


def _meaning(named: Sequence[Standing]) -> str:
    """Say what the intervals hold for."""
    works = named[0].works
    if works is None or works.trainings == 1:
        return "Intervals hold for these networks and say nothing of other trainings."
    low, high = (100 * bound for bound in works.free)
    return (
        "Intervals hold for further trainings if these differ like normal noise; without that "
        f"assumption {works.trainings} trainings show only {interval(low, high, '.0f')} % for "
        f"{named[0].row.method}."
    )


def _picture(ranked: Sequence[Standing], target: float, *, title: str) -> Picture:
    accuracies = {one.row.method: one.result.pooled[-1].accuracies.tolist() for one in ranked}
    labels = []
    for one in ranked:
        if one.works is not None:
            labels.append(f"{one.works.working} of {one.works.chips}\n({_bounds(one.works)} %)")
    figure = chips(accuracies, labels, target=target, title=title)
    return Picture(figure, f"{title}, accuracy of every chip for {', '.join(accuracies)}")


def _next(section: Section, ranked: Sequence[Standing], base: Standing) -> str:
    """Return what to do next: train with the best method, or find out more."""
    best, more = ranked[0], _more(section, base.result)
    method, plain = best.row.method, base.row.method
    lead = gain((base.row, base.result), (best.row, best.result))
    low, high = lead.interval or (math.nan, math.nan)
    if len(ranked) == 1:
        text = f"Compare {method} with other methods on the same chips ({more})."
    elif best.works is not None and best.works.working == 0:
        text = "No chip works: train longer, or lower the target or the variation."
    elif best is base:
        text = (
            f"Stay with {plain}, or train the others longer: with none of them more chips work. To "
            f"be surer, add trainings ({more})."
        )
    elif judged(low, high) != "supported":
        bounds = interval(100 * low, 100 * high, "+.1f")
        text = (
            f"Add trainings before you choose {method} ({more}): its lead over {plain} in accuracy "
            f"is undecided, {100 * lead.mean:+.1f} points (95 % CI {bounds})."
        )
    else:
        text = (
            f"Train with {method}: the 95 % interval of its lead over {plain} in accuracy, on the "
            "same chips, excludes 0."
        )
        if lead.trainings == 1:
            text += f" One training says nothing of others, so add some ({more})."
    if base.result.curves[0][-1].target is None:
        text += " Set the accuracy that a chip needs (target)."
    return text


def _more(section: Section, result: RowResult) -> str:
    """Return the command that finds out more."""
    if section.suite.title == RUNS:
        return "spikewvat train with other recipes and seeds"
    seeds = ",".join(map(str, range(max(5, len(result.seeds) + 2))))
    if section.folder.name in suite_names():
        return f"spikewvat bench {section.folder.name} --seeds {seeds}"
    if "network" in result.recipe:
        return f"spikewvat compare ... --train ... --seeds {seeds}"
    return f"spikewvat bench {section.folder.name}/ --seeds {seeds}"
