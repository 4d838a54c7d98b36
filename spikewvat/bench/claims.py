"""Published statements held against results: reproduced or not, and by which numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikewvat.bench.suite import Claim
from spikewvat.bench.table import RowResult
from spikewvat.recipes.results import write_json
from spikewvat.robustness.axis import Axis
from spikewvat.robustness.statistics import mean_of

FILE = "claims.json"


@dataclass(frozen=True)
class Verdict:
    """A claim and what was found.

    Args:
        claim: The statement.
        better: Accuracy or drop in %, or rise of the loss, of the rows that should be ahead, by
            name, means over seeds; None where there is no result.
        worse: The same of the others.
        axis: What the claim's sigma is of.
    """

    claim: Claim
    better: Mapping[str, float | None]
    worse: Mapping[str, float | None]
    axis: Axis = Axis()  # noqa: RUF009 -- frozen

    @property
    def reproduced(self) -> bool | None:
        """Whether each is ahead of all others by more than the margin; None if one is missing.

        Of equal figures neither is ahead.
        """
        sign = 1 if self.claim.of == "accuracy" else -1
        leads = []
        for ahead, behind in itertools.product(self.better.values(), self.worse.values()):
            if ahead is None or behind is None:
                return None
            leads.append(sign * (ahead - behind))
        return min(leads) > self.claim.margin

    @property
    def word(self) -> str:
        """``"reproduced"``, ``"not reproduced"`` or ``"unknown"``."""
        if self.reproduced is None:
            return "unknown"
        return "reproduced" if self.reproduced else "not reproduced"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return {
            **self.claim.model_dump(),
            "verdict": self.word,
            "values": {**self.better, **self.worse},
        }

    def __str__(self) -> str:
        digits = ".3g" if self.claim.of == "rise" else ".1f"
        numbers = ", ".join(
            f"{name} {'no result' if value is None else format(value, digits)}"
            for name, value in {**self.better, **self.worse}.items()
        )
        what = {"accuracy": "accuracy", "drop": "points lost", "rise": "rise of the loss"}
        where = (
            "on chips" if self.claim.sigma is None else f"at {self.axis.heading(self.claim.sigma)}"
        )
        where = "of ideal weights" if self.claim.sigma == 0 else where
        return f"{self.word}: {self.claim.text} ({what[self.claim.of]} {where}: {numbers})"


def verdicts(claims: Iterable[Claim], results: Mapping[str, RowResult]) -> tuple[Verdict, ...]:
    """Hold claims against results.

    Args:
        claims: A suite's.
        results: Results by row name.

    Returns:
        One verdict for each claim that any result speaks of.
    """
    found = []
    for claim in claims:
        better, worse = (
            {name: _value(claim, results.get(name)) for name in names}
            for names in (claim.better, claim.worse)
        )
        if any(value is not None for value in (*better.values(), *worse.values())):
            axes = [results[name].axis for name in (*better, *worse) if name in results]
            found.append(Verdict(claim, better, worse, *axes[:1]))
    return tuple(found)


def write_verdicts(found: Iterable[Verdict], path: Path) -> None:
    """Write verdicts as JSON, atomically.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    write_json(path, {"claims": [verdict.to_dict() for verdict in found]})


def _value(claim: Claim, result: RowResult | None) -> float | None:
    """Return what a claim compares, in %; None where the row was not tested so."""
    if result is None:
        return None
    if claim.sigma == 0 and claim.of != "rise":
        accuracy = result.clean
    else:
        swept = result.axis.name is not None
        sizes = [report.size if swept else report.sigma for report in result.curves[0]]
        places = [n for n, size in enumerate(sizes) if _same(size, claim.sigma)]
        if not places:
            return None
        if claim.of == "rise":
            return _rise(result, places[0])
        accuracy = result.mean(places[0])
    return 100 * (accuracy if claim.of == "accuracy" else result.clean - accuracy)


def _rise(result: RowResult, place: int) -> float | None:
    """Return the mean loss above that of ideal weights; None where no loss was taken."""
    rises = []
    for curve in result.curves:
        ideal = next((report.losses for report in curve if report.sigma == 0), None)
        losses = curve[place].losses
        if ideal is None or losses is None:
            return None
        rises.append(mean_of(losses) - mean_of(ideal))
    return mean_of(rises)


def _same(size: float | None, wanted: float | None) -> bool:
    if size is None or wanted is None:
        return size is wanted
    return math.isclose(size, wanted, abs_tol=1e-12)
