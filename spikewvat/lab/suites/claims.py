"""Compare published claims with results: reproduced or not, and by how much."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

from spikewvat.formatting import interval
from spikewvat.lab.suites.suite import Claim
from spikewvat.results import RowResult
from spikewvat.robustness.axis import Axis
from spikewvat.robustness.hierarchy import Hierarchy, hierarchical
from spikewvat.robustness.results import Degradation
from spikewvat.serialisation import plain, write_json

FILE = "claims.json"
_Figures: TypeAlias = Mapping[int, Mapping[int, float]]
"""Values by the seeds of training and chip; no variation counts as one chip."""


@dataclass(frozen=True)
class Verdict:
    """A claim and the results for it.

    Args:
        claim: The claim.
        better: Accuracy or drop in %, or increase of the loss, of the rows that should lead, by
            name: means over the seeds shared by all rows, or over a row's own seeds if fewer than
            two are shared; None if there is no result.
        worse: The same for the other rows.
        axis: The quantity that the claim's sigma measures.
        lead: Smallest lead of a row that should be ahead over one of the others, paired by training
            and chip; None if they cannot be paired.
    """

    claim: Claim
    better: Mapping[str, float | None]
    worse: Mapping[str, float | None]
    axis: Axis = Axis()  # noqa: RUF009 -- frozen
    lead: Hierarchy | None = None

    @property
    def reproduced(self) -> bool | None:
        """Whether every row leads all others by more than the margin; None if one is missing.

        Equal values are not a lead.
        """
        sign = 1 if self.claim.of == "accuracy" else -1
        leads = []
        for ahead, behind in itertools.product(self.better.values(), self.worse.values()):
            if ahead is None or behind is None:
                return None
            leads.append(sign * (ahead - behind))
        return min(leads) > self.claim.margin

    @property
    def beyond_chance(self) -> bool | None:
        """Whether the lead's 95 % interval excludes the margin; None without an interval."""
        if self.lead is None or self.lead.degrees < 1:
            return None
        low, high = self.lead.interval()
        return low > self.claim.margin or high < self.claim.margin

    @property
    def word(self) -> str:
        """``"reproduced"``, ``"not reproduced"`` or ``"unknown"``."""
        if self.reproduced is None:
            return "unknown"
        return "reproduced" if self.reproduced else "not reproduced"

    def __str__(self) -> str:
        where = (
            "on chips" if self.claim.sigma is None else f"at {self.axis.heading(self.claim.sigma)}"
        )
        where = "without variation" if self.claim.sigma == 0 else where
        numbers = self.numbers("no result")
        lead = f"; closest lead {self.lead_text}" if self.lead_text else ""
        return f"{self.word}: {self.claim.text} ({self.what} {where}: {numbers}{lead})"

    @property
    def what(self) -> str:
        """Description of the numbers."""
        return {"accuracy": "accuracy", "drop": "points lost", "rise": "rise of the loss"}[
            self.claim.of
        ]

    def numbers(self, missing: str) -> str:
        """Return the compared values, those that should lead first.

        Args:
            missing: Text for a row without a result.
        """
        digits = ".3g" if self.claim.of == "rise" else ".1f"
        return ", ".join(
            f"{name} {missing if value is None else format(value, digits)}"
            for name, value in {**self.better, **self.worse}.items()
        )

    @property
    def lead_text(self) -> str:
        """The lead with its interval, and whether it may be due to chance; empty without a lead."""
        if self.lead is None or self.beyond_chance is None:
            return ""
        low, high = self.lead.interval()
        chance = "beyond chance" if self.beyond_chance else "within chance"
        margin = f" over a margin of {self.claim.margin:g}" if self.claim.margin else ""
        return f"{self.lead.mean:+.2f}, 95 % CI {interval(low, high, '+.2f')}{margin}, {chance}"


def verdicts(claims: Iterable[Claim], results: Mapping[str, RowResult]) -> tuple[Verdict, ...]:
    """Compare claims with results.

    Args:
        claims: Claims of a suite.
        results: Results by row name.

    Returns:
        One verdict for each claim with at least one result.
    """
    found = []
    for claim in claims:
        figures = {
            name: _figures(claim, results[name])
            for name in (*claim.better, *claim.worse)
            if name in results
        }
        figures = _shared(figures)
        if any(figure is not None for figure in figures.values()):
            better, worse = (
                {name: _mean(figures.get(name)) for name in names}
                for names in (claim.better, claim.worse)
            )
            axis = results[next(iter(figures))].axis
            found.append(Verdict(claim, better, worse, axis, _lead(claim, figures)))
    return tuple(found)


def write_verdicts(found: Iterable[Verdict], path: Path) -> None:
    """Write verdicts as JSON, atomically.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    # Nobody reads the words back; they are for those who open the file.
    rows = [
        {"verdict": one.word, "beyond_chance": one.beyond_chance, **plain(one)} for one in found
    ]
    write_json(path, {"claims": rows})


def _figures(claim: Claim, result: RowResult) -> _Figures | None:
    """Return the values that a claim compares, in %; None if the row was not tested that way."""
    figures = {
        seed: _of_training(claim, curve, result.axis) for seed, curve in result.by_seed.items()
    }
    found = {seed: figure for seed, figure in figures.items() if figure is not None}
    return found if len(found) == len(figures) else None


def _shared(figures: Mapping[str, _Figures | None]) -> dict[str, _Figures | None]:
    """Keep only trainings whose seed all rows have, unless fewer than two would remain."""
    known = [set(figure) for figure in figures.values() if figure is not None]
    common = set.intersection(*known) if known else set()
    if len(common) < 2:
        return dict(figures)
    return {
        name: figure and {seed: chips for seed, chips in figure.items() if seed in common}
        for name, figure in figures.items()
    }


def _of_training(claim: Claim, curve: Degradation, axis: Axis) -> Mapping[int, float] | None:
    if claim.sigma == 0 and claim.of != "rise":
        return {0: 0.0 if claim.of == "drop" else 100 * curve.clean}
    sizes = [report.sigma if axis.name is None else report.size for report in curve.reports]
    place = next((n for n, size in enumerate(sizes) if _same(size, claim.sigma)), None)
    if place is None:
        return None
    report = curve.reports[place]
    values = report.losses if claim.of == "rise" else report.accuracies
    if values is None:
        return None
    chips = dict(zip(report.seeds, values.tolist(), strict=True))
    if claim.of == "rise":
        ideal = next((r.losses for r in curve.reports if r.sigma == 0), None)
        if ideal is None:
            return None
        return {chip: loss - float(ideal.mean()) for chip, loss in chips.items()}
    if claim.of == "drop":
        return {chip: 100 * (curve.reference - accuracy) for chip, accuracy in chips.items()}
    return {chip: 100 * accuracy for chip, accuracy in chips.items()}


def _mean(figures: _Figures | None) -> float | None:
    if figures is None:
        return None
    return fmean(fmean(training.values()) for training in figures.values())


def _lead(claim: Claim, figures: Mapping[str, _Figures | None]) -> Hierarchy | None:
    """Return the smallest lead of one row over another; None if a pair shares no chips."""
    sign = 1 if claim.of == "accuracy" else -1
    leads = []
    for ahead, behind in itertools.product(claim.better, claim.worse):
        mine, theirs = figures.get(ahead), figures.get(behind)
        if mine is None or theirs is None or set(mine) != set(theirs):
            return None
        rows = [
            {
                chip: sign * (value - theirs[seed][chip])
                for chip, value in one.items()
                if chip in theirs[seed]
            }
            for seed, one in mine.items()
        ]
        if not all(rows):
            return None
        chips = {tuple(row) for row in rows}
        values = [list(row.values()) for row in rows]
        leads.append(hierarchical(values, same_chips=len(chips) == 1))
    return min(leads, key=lambda lead: lead.mean)


def _same(size: float | None, wanted: float | None) -> bool:
    if size is None or wanted is None:
        return size is wanted
    return math.isclose(size, wanted, abs_tol=1e-12)
