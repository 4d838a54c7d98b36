"""From the cells of a row to its result file, and from rows to a table beside published figures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikewvat.errors import DataError
from spikewvat.lab.recipes.results import write_json
from spikewvat.lab.suites.suite import Row, Setup, Suite
from spikewvat.robustness.activity import Activity
from spikewvat.robustness.axis import Axis
from spikewvat.robustness.results import ChipReport, Degradation
from spikewvat.robustness.statistics import mean_of, sample_std

MISSING = "-"
_RANGES = {
    "SixSigma": "the 6-sigma width of each layer",
    "HalfWidth": "half of the 6-sigma width of each layer",
    "AbsMax": "the largest magnitude in each layer",
    "MinMax": "the width from the least to the largest weight of each layer",
}


@dataclass(frozen=True, eq=False)
class RowResult:
    """A row with all its training seeds.

    Args:
        content: What its result file holds.
        curves: Accuracy against sigma of each training seed, in the order of the seeds.
    """

    content: Mapping[str, Any]
    curves: tuple[Degradation, ...]

    @classmethod
    def read(cls, path: Path | str) -> RowResult:
        """Read a result file.

        Raises:
            DataError: If it is missing or malformed.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            seeds = content["seeds"]
            activities = content.get("activity", [None] * len(seeds))
            curves = tuple(
                Degradation(
                    clean,
                    tuple(
                        ChipReport.from_dict(row)
                        for row in content["rows"]
                        if row["training_seed"] == seed
                    ),
                    None if activity is None else Activity.from_dict(activity),
                )
                for seed, clean, activity in zip(seeds, content["clean"], activities, strict=True)
            )
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{str(path)!r} is no result file of a row ({error}).") from error
        return cls(content, curves)

    def write(self, path: Path | str) -> None:
        """Write the result file, atomically.

        Raises:
            CheckpointError: If it cannot be written.
        """
        write_json(path, self.content)

    @property
    def by_seed(self) -> dict[int, Degradation]:
        """The curve of each training seed."""
        seeds = self.content.get("seeds", range(len(self.curves)))
        return dict(zip(seeds, self.curves, strict=True))

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Magnitudes of the variation, or severities of a corruption."""
        return self.curves[0].sigmas

    @property
    def axis(self) -> Axis:
        """What the magnitudes are of."""
        return self.curves[0].axis

    @property
    def sized(self) -> bool:
        """Whether a size is swept: that of the device, sigma, or of a corruption."""
        named = self.axis.name is not None
        return named or all(report.sigma is not None for report in self.curves[0])

    @property
    def clean(self) -> float:
        """Mean over seeds of the accuracy of ideal weights, a fraction."""
        return mean_of(_tensor(curve.clean for curve in self.curves))

    @property
    def clean_std(self) -> float:
        """Standard deviation over seeds of the accuracy of ideal weights."""
        return sample_std(_tensor(curve.clean for curve in self.curves))

    @property
    def pooled(self) -> Degradation:
        """One curve whose chips are those of all training seeds."""
        return Degradation.pooled(list(self.curves))

    def mean(self, index: int) -> float:
        """Return the mean over seeds of the mean accuracy over chips, a fraction."""
        return mean_of(_tensor(curve.means[index] for curve in self.curves))

    def std(self, index: int) -> float:
        """Return the standard deviation over seeds of the mean accuracy over chips."""
        return sample_std(_tensor(curve.means[index] for curve in self.curves))

    @property
    def spread(self) -> float:
        """Mean over seeds of the standard deviation over chips, at the largest variation."""
        return mean_of(_tensor(curve.reports[-1].std for curve in self.curves))


def row_result(cells: Sequence[Mapping[str, Any]]) -> RowResult:
    """Join the results of a row's seeds.

    Args:
        cells: Content of the ``result.json`` of each seed.
    """
    first = cells[0]
    content = {
        "recipe": first["recipe"],
        "seeds": [cell["recipe"]["seed"] for cell in cells],
        "scale": first["scale"],
        "commit": first["commit"],
        "versions": first["versions"],
        "samples": first["training"]["samples"],
        "seconds": [sum(e["seconds"] for e in c["training"]["history"]) for c in cells],
        "clean": [cell["clean"] for cell in cells],
        **{
            key: [cell[key] for cell in cells]
            for key in ("conversion", "activity", "landscape")
            if key in first
        },
        "rows": [
            {"training_seed": cell["recipe"]["seed"], **row}
            for cell in cells
            for row in cell["rows"]
        ],
    }
    return RowResult(content, tuple(Degradation.from_dict(cell) for cell in cells))


def published(row: Row, result: RowResult) -> float | None:
    """Return the published accuracy in % at the largest variation, None where there is none."""
    without_ideal = len(row.paper) == len(result.sigmas)
    with_ideal = not _holds_ideal(result) and len(row.paper) == len(result.sigmas) + 1
    return row.paper[-1][0] if without_ideal or with_ideal else None


def header(results: Iterable[RowResult]) -> list[str]:
    """Return the columns of a table of rows that were evaluated alike."""
    some = next(iter(results))
    axis = some.axis
    last = axis.size(some.sigmas[-1])
    return [
        *([] if _holds_ideal(some) else ["ideal weights"]),
        *([axis.heading(size) for size in some.sigmas] if some.sized else ["on chips"]),
        f"drop at {last}" if some.sized else "drop",
        "spread over chips",
        "worst chip",
        "chips that work",
        *([f"spikes at {last}", f"operations at {last}"] if _is_counted(some) else []),
    ]


def cells(result: RowResult, row: Row | None = None) -> list[str]:
    """Return the cells of one row, published figures and the difference from them in brackets.

    Args:
        result: Our figures.
        row: Holds the published ones, if there are any.
    """
    figures = [(result.mean(i), result.std(i)) for i in range(len(result.sigmas))]
    paper = () if row is None else row.paper
    if not _holds_ideal(result):
        figures.insert(0, (result.clean, result.clean_std))
        if 0 < len(paper) <= len(result.sigmas):
            paper = ((math.nan,), *paper)  # published without the accuracy of ideal weights
    texts = []
    for index, (mean, std) in enumerate(figures):
        text = _percent(mean)
        if len(result.curves) > 1:
            text += f" ± {_percent(std)}"
        if index < len(paper) and not math.isnan(paper[index][0]):
            published = paper[index][0]
            text += f" ({published:.1f}, {100 * mean - published:+.1f})"
        texts.append(text)
    everything = result.pooled
    report = everything.reports[-1]
    texts += [
        _percent(everything.drops[-1]),
        _percent(result.spread),
        _percent(report.worst),
    ]
    if report.target is None:
        texts.append(MISSING)
    else:
        chips = report.yield_at(report.target)
        texts.append(f"{chips.working} of {chips.chips} ≥ {100 * report.target:g} %")
    if report.activity is not None and everything.activity is not None:
        found, clean = report.activity, everything.activity
        texts += [
            _changed(found.spikes, clean.spikes),
            _changed(found.operations, clean.operations),
        ]
    return texts


def times(setup: Setup, results: Mapping[str, RowResult]) -> dict[str, str]:
    """Return how long rows were trained by name, in units of the set-up's baseline.

    Args:
        setup: Names the baseline; without one nothing is returned.
        results: Results by row name.
    """
    if setup.baseline is None or setup.baseline not in results:
        return {}
    unit = mean_of(results[setup.baseline].content["seconds"])
    found = {row.name: results[row.name] for row in setup.rows if row.name in results}
    if unit == 0:
        return {}
    return {n: f"{mean_of(r.content['seconds']) / unit:.2f}" for n, r in found.items()}


def markdown(suite: Suite, results: Mapping[str, RowResult]) -> str:
    """Return the table of a suite with a note on what its figures are.

    Args:
        suite: Its rows, in the order of the table. Set-ups that were evaluated at other sizes
            get a table of their own.
        results: Results by row name; a row without one is shown as missing.

    Raises:
        DataError: If no row has a result.
    """
    if not results:
        raise DataError(f"no row of {suite.title!r} has a result yet. Run the suite first.")
    runs = {name: _run(result) for name, result in results.items()}
    mixed = len(set(runs.values())) > 1
    tables: dict[tuple[str, ...], list[Setup]] = {}
    for setup in suite.setups:
        columns = _columns(setup, results) or next(iter(tables), ())
        tables.setdefault(columns, []).append(setup)
    first, *others = tables  # set-ups before the first that has a result have no columns
    if not first:
        tables[others[0]] = tables.pop(()) + tables[others[0]]
    parts = [
        _table(setups, columns, results, runs if mixed else {}, several=len(suite.setups) > 1)
        for columns, setups in tables.items()
    ]
    note = (
        f"Accuracy in %, mean ± standard deviation over training seeds"
        f"{'' if mixed else f' ({next(iter(runs.values()))})'}; {sizes_note(results.values())}; "
        "spread is the standard deviation over chips."
    )
    if any(_is_counted(result) for result in results.values()):
        note += (
            " Spikes and synaptic operations are means per image, in brackets the change against "
            "the network with ideal weights and without corruption."
        )
    if any(setup.baseline for setup in suite.setups):
        note += " Training time is in units of the first method's."
    if any(row.paper for row in suite.rows):
        note += f" In brackets: {suite.source or 'the published figure'}, and ours minus it."
    return "\n\n".join([*parts, note])


def sizes_note(results: Iterable[RowResult]) -> str:
    """Return a clause on what the sizes of rows are."""
    return "; ".join(dict.fromkeys(result.axis.note(_range(result)) for result in results))


def _range(result: RowResult) -> str:
    """Return what sigma is a fraction of, as the device says it."""
    device = result.curves[0].reports[-1].device
    if device.startswith("Lognormal"):
        return "the logarithm of each weight"
    rules = re.findall(r"range=(\w+)\(", device) or ["SixSigma"]
    return " and ".join(dict.fromkeys(_RANGES.get(rule, f"the range {rule}") for rule in rules))


def _columns(setup: Setup, results: Mapping[str, RowResult]) -> tuple[str, ...]:
    """Return the headings of a set-up's results, none where it has no result."""
    found = [results[row.name] for row in setup.rows if row.name in results]
    if not found:
        return ()
    return (*header(found), *(["training time"] if setup.baseline else []))


def _table(
    setups: Sequence[Setup],
    columns: Sequence[str],
    results: Mapping[str, RowResult],
    runs: Mapping[str, str],
    *,
    several: bool,
) -> str:
    """Return one table; ``runs`` says how large each run was, where they differ."""
    heads = [*columns, *(["run"] if runs else [])]
    lines = [
        _line([*([""] if several else []), "", *heads]),
        _line(["---"] * (1 + several) + ["--:"] * len(heads)),
    ]
    for setup in setups:
        taken = times(setup, results)
        for number, row in enumerate(setup.rows):
            texts = [MISSING] * len(heads)
            if row.name in results:
                texts = cells(results[row.name], row)
                texts += [taken.get(row.name, MISSING)] if setup.baseline else []
                texts += [runs[row.name]] if runs else []
            first = [setup.name if number == 0 else ""] if several else []
            lines.append(_line([*first, row.method, *texts]))
    return "\n".join(lines)


def _holds_ideal(result: RowResult) -> bool:
    """Return whether one of the sizes is neither variation nor corruption at all."""
    return any(report.ideal for report in result.curves[0])


def _is_counted(result: RowResult) -> bool:
    """Return whether spikes and operations were counted."""
    last = result.curves[0].reports[-1]
    return last.activity is not None and result.curves[0].activity is not None


def _changed(value: float, clean: float) -> str:
    """Return a count and its change."""
    return f"{value:.4g}" + (f" ({100 * (value / clean - 1):+.0f} %)" if clean else "")


def _run(result: RowResult) -> str:
    """Return how large a run was: scale, seeds, samples."""
    content, seeds = result.content, len(result.content["seeds"])
    samples = content["samples"]
    return (
        f"{content['scale']} scale, {seeds} training seed{'s' if seeds > 1 else ''}, "
        f"{samples['train']} training and {samples['test']} test samples"
    )


def _tensor(values: Iterable[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float64)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"
