"""From the cells of a row to its result file, and from rows to a table beside published figures."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikewvat.bench.suite import Row, Suite
from spikewvat.errors import DataError
from spikewvat.recipes.results import write_json
from spikewvat.robustness.results import ChipReport, Degradation
from spikewvat.robustness.statistics import mean_of, sample_std

MISSING = "-"


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
            curves = tuple(
                Degradation(
                    clean,
                    tuple(
                        ChipReport.from_dict(row)
                        for row in content["rows"]
                        if row["training_seed"] == seed
                    ),
                )
                for seed, clean in zip(content["seeds"], content["clean"], strict=True)
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
    def sigmas(self) -> tuple[float, ...]:
        """Magnitudes of the variation."""
        return self.curves[0].sigmas

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
        **({"conversion": [c["conversion"] for c in cells]} if "conversion" in first else {}),
        "rows": [
            {"training_seed": cell["recipe"]["seed"], **row}
            for cell in cells
            for row in cell["rows"]
        ],
    }
    return RowResult(content, tuple(Degradation.from_dict(cell) for cell in cells))


def header(results: Iterable[RowResult]) -> list[str]:
    """Return the columns of a table of rows that were evaluated alike."""
    some = next(iter(results))
    sigmas = [f"{100 * sigma:g} %" for sigma in some.sigmas]
    return [
        *(f"σ = {sigma}" for sigma in sigmas),
        f"drop at {sigmas[-1]}",
        "spread over chips",
        "worst chip",
        "chips that work",
    ]


def cells(result: RowResult, row: Row | None = None) -> list[str]:
    """Return the cells of one row, published figures and the difference from them in brackets.

    Args:
        result: Our figures.
        row: Holds the published ones, if there are any.
    """
    texts = []
    for index in range(len(result.sigmas)):
        text = _percent(result.mean(index))
        if len(result.curves) > 1:
            text += f" ± {_percent(result.std(index))}"
        if row is not None and index < len(row.paper):
            published = row.paper[index][0]
            text += f" ({published:.1f}, {100 * result.mean(index) - published:+.1f})"
        texts.append(text)
    everything = result.pooled
    report = everything.reports[-1]
    texts += [
        _percent(everything.clean - report.mean),
        _percent(result.spread),
        _percent(report.worst),
    ]
    if report.target is None:
        return [*texts, MISSING]
    chips = report.yield_at(report.target)
    return [*texts, f"{chips.working} of {chips.chips} ≥ {100 * report.target:g} %"]


def markdown(suite: Suite, results: Mapping[str, RowResult]) -> str:
    """Return the table of a suite with a note on what its figures are.

    Args:
        suite: Its rows, in the order of the table.
        results: Results by row name; a row without one is shown as missing.

    Raises:
        DataError: If no row has a result.
    """
    if not results:
        raise DataError(f"no row of {suite.title!r} has a result yet. Run the suite first.")
    runs = {name: _run(result) for name, result in results.items()}
    mixed = len(set(runs.values())) > 1
    several = len(suite.setups) > 1
    columns = [*header(results.values()), *(["run"] if mixed else [])]
    head = [*([""] if several else []), "", *columns]
    lines = [_line(head), _line(["---"] * (1 + several) + ["--:"] * len(columns))]
    for setup in suite.setups:
        for number, row in enumerate(setup.rows):
            texts = [MISSING] * len(columns)
            if row.name in results:
                texts = cells(results[row.name], row) + ([runs[row.name]] if mixed else [])
            first = [setup.name if number == 0 else ""] if several else []
            lines.append(_line([*first, row.method, *texts]))
    note = (
        f"Accuracy in %, mean ± standard deviation over training seeds"
        f"{'' if mixed else f' ({next(iter(runs.values()))})'}; σ relative to the 6-sigma width "
        "of each layer; spread is the standard deviation over chips."
    )
    if any(row.paper for row in suite.rows):
        note += f" In brackets: {suite.source or 'the published figure'}, and ours minus it."
    return "\n".join([*lines, "", note])


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
