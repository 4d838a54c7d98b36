"""Compare published claims with results: supported, contradicted or undecided."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Literal, TypeAlias

from spikewvat.formatting import interval
from spikewvat.lab.suites.suite import Claim
from spikewvat.results import RowResult
from spikewvat.robustness.axis import Axis
from spikewvat.robustness.hierarchy import Hierarchy, hierarchical
from spikewvat.robustness.results import Degradation
from spikewvat.robustness.statistics import holm
from spikewvat.serialisation import Real, plain, write_json

FILE = "claims.json"
Word: TypeAlias = Literal["supported", "contradicted", "undecided"]
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
        lead: The lead that decides, paired by training and chip: of the rows that should be ahead
            and the others, the pair with the lowest upper bound if that is below the margin, else
            the pair with the lowest lower bound; None if they cannot be paired.
    """

    claim: Claim
    better: Mapping[str, float | None]
    worse: Mapping[str, float | None]
    axis: Axis = Axis()  # noqa: RUF009 -- frozen
    lead: Hierarchy | None = None
    p_adjusted: Real = math.nan

    @property
    def word(self) -> Word:
        """The verdict; undecided if a row or an interval is missing, or it includes the margin."""
        if self.lead is None:
            return "undecided"
        return judged(*self.lead.interval(), self.claim.margin)

    def __str__(self) -> str:
        where = (
            "on chips" if self.claim.sigma is None else f"at {self.axis.heading(self.claim.sigma)}"
        )
        where = "without variation" if self.claim.sigma == 0 else where
        numbers = self.numbers("no result")
        lead = f"; lead {self.lead_text}" if self.lead_text else ""
        lead += f"; p {self.p_text} after Holm" if self.p_text else ""
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
        """The lead with its interval; empty without one."""
        if self.lead is None or self.lead.degrees < 1:
            return ""
        low, high = self.lead.interval()
        margin = f" over a margin of {self.claim.margin:g}" if self.claim.margin else ""
        one = ", one training" if self.lead.trainings == 1 else ""
        mean = round(self.lead.mean, 2) + 0.0  # never -0.00
        return f"{mean:+.2f}, 95 % CI {interval(low, high, '+.2f')}{margin}{one}"

    @property
    def p_text(self) -> str:
        """The adjusted p-value; empty without one."""
        if math.isnan(self.p_adjusted):
            return ""
        return "< 0.001" if self.p_adjusted < 0.001 else f"= {self.p_adjusted:.2g}"


def judged(low: float, high: float, margin: float = 0.0) -> Word:
    """Judge the statement that a lead is above a margin by the lead's 95 % interval.

    Example:
        >>> judged(0.2, 1.5), judged(-0.79, 0.86), judged(-2.0, -0.1), judged(math.nan, math.nan)
        ('supported', 'undecided', 'contradicted', 'undecided')
    """
    if low > margin:
        return "supported"
    return "contradicted" if high < margin else "undecided"


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
    return _adjusted(found)


def _adjusted(found: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Give each verdict its p-value, corrected for the number of verdicts."""
    raw = [math.nan if v.lead is None else v.lead.minus(v.claim.margin).p_value for v in found]
    known = iter(holm([p for p in raw if not math.isnan(p)]))
    return tuple(
        verdict if math.isnan(p) else replace(verdict, p_adjusted=next(known))
        for verdict, p in zip(found, raw, strict=True)
    )


def write_verdicts(found: Iterable[Verdict], path: Path) -> None:
    """Write verdicts as JSON, atomically.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    # Nobody reads the words back; they are for those who open the file.
    rows = [{"verdict": one.word, **plain(one)} for one in found]
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
    """Return the lead that decides; None if a row is missing or a pair shares no chips."""
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

    def bound(lead: Hierarchy, side: int, undefined: float) -> float:
        value = lead.interval()[side]
        return undefined if math.isnan(value) else value

    worst = min(leads, key=lambda lead: bound(lead, 1, math.inf))
    if bound(worst, 1, math.inf) < claim.margin:
        return worst
    return min(leads, key=lambda lead: bound(lead, 0, -math.inf))


def _same(size: float | None, wanted: float | None) -> bool:
    if size is None or wanted is None:
        return size is wanted
    return math.isclose(size, wanted, abs_tol=1e-12)
