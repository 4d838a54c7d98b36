"""Results of a run, and of a row of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from spikewvat.devices import ErrorSize
from spikewvat.results import Converted, Landscape, RowResult
from spikewvat.robustness.results import ChipReport, Degradation
from spikewvat.serialisation import Fraction, Real


@dataclass(frozen=True, eq=False)
class Training:
    """Record of a training.

    Args:
        epochs: Number of epochs.
        samples: Number of samples in each part of the data.
        history: One row per epoch, including its ``seconds``.
        stopped_early: Whether training stopped early for lack of improvement.
        averaged_epochs: Number of epochs over which weights were averaged.
        best_epoch: The best watched epoch, or None if nothing was watched.
        best_accuracy: Its accuracy.
        watching: The data that was watched.
    """

    epochs: int
    samples: Mapping[str, int]
    history: tuple[Mapping[str, Any], ...] = ()
    stopped_early: bool = False
    averaged_epochs: int = 0
    best_epoch: int | None = None
    best_accuracy: Fraction | None = None
    watching: str | None = None

    @property
    def seconds(self) -> float:
        """Total time of all epochs."""
        return float(sum(epoch["seconds"] for epoch in self.history))


@dataclass(frozen=True, eq=False)
class RunResult:
    """The results of a run.

    Args:
        recipe: The recipe, for the record.
        seed: Seed of the training.
        scale: Scale of the recipe.
        method: Name of the training method.
        split: The part of the data used for testing.
        device: Description of the chips.
        curve: Accuracy without variation and on chips; without reports if no chips were requested.
        corruption: Description of the corruption of spikes, or None.
        run: Folder of the run that was evaluated.
        weights: The weights file in that folder.
        training: Record of the training, or of fine-tuning after a conversion.
        settings: Numeric parameters of the method, by name; NaN for infinite ones.
        converted: Results after its conversion, or None.
        landscape: The loss around its weights, or None.
        columns: Reports on other chips, by name.
        test_reads: How often the test data was read for this network; None if not counted.
        errors: How large the errors of the weights are on the last kind of chip, or None.
        versions: Versions of Python and the packages.
        commit: Commit of spikewvat.
    """

    recipe: Mapping[str, Any]
    seed: int
    scale: str
    method: str
    split: str
    device: str
    curve: Degradation
    corruption: str | None = None
    run: str = ""
    weights: str = ""
    training: Training | None = None
    settings: Mapping[str, Real] = field(default_factory=dict)
    converted: Converted | None = None
    landscape: Landscape | None = None
    columns: Mapping[str, ChipReport] = field(default_factory=dict)
    test_reads: int | None = None
    errors: ErrorSize | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None


def row_result(runs: Sequence[RunResult]) -> RowResult:
    """Join the runs of a row.

    Correctness by image stays in the files of the runs, unless the test data was read once for each
    of them, so that their differences have intervals over images too.

    Args:
        runs: One run per training seed.

    Raises:
        ValueError: If there are no runs, or they were evaluated differently.
    """
    if not runs:
        raise ValueError("a row without runs, expected at least one.")
    first, trained = runs[0], [run.training for run in runs if run.training is not None]
    errors = tuple(run.errors for run in runs if run.errors is not None)
    reads = tuple(run.test_reads for run in runs if run.test_reads is not None)
    return RowResult(
        seeds=tuple(run.seed for run in runs),
        curves=tuple(run.curve if reads else run.curve.without_hits() for run in runs),
        seconds=tuple(training.seconds for training in trained),
        samples=trained[0].samples if trained else {},
        scale=first.scale,
        settings=first.settings,
        converted=tuple(run.converted for run in runs if run.converted is not None),
        landscape=tuple(run.landscape for run in runs if run.landscape is not None),
        errors=errors if len(errors) == len(runs) else (),
        columns=tuple(run.columns for run in runs if run.columns),
        test_reads=reads,
        recipe=first.recipe,
        versions=first.versions,
        commit=first.commit,
    )


def over_folds(folds: Sequence[RunResult], seed: int) -> RunResult:
    """Join runs whose networks were tested on different folds of the data.

    Chip j of the joint run is chip j of every network, each on its own fold.

    Args:
        folds: One run for each fold; a single run is returned as it is.
        seed: Seed of the joint run.
    """
    if len(folds) == 1:
        return folds[0]
    first = folds[0]
    images = [fold.curve.reports[0].images for fold in folds]
    clean = sum(n * fold.curve.clean for n, fold in zip(images, folds, strict=True)) / sum(images)
    reports = tuple(map(_over_images, zip(*(fold.curve.reports for fold in folds), strict=True)))
    columns = {name: _over_images([fold.columns[name] for fold in folds]) for name in first.columns}
    trained = [fold.training for fold in folds if fold.training is not None]
    training = trained[0] if trained else None
    if training is not None:
        samples = {**training.samples, "test": sum(images)}
        history = tuple(epoch for each in trained for epoch in each.history)
        training = replace(training, samples=samples, history=history)
    data = {key: value for key, value in first.recipe["data"].items() if key != "fold"}
    return replace(
        first,
        seed=seed,
        curve=Degradation(clean, reports),
        columns=columns,
        training=training,
        recipe={**first.recipe, "data": data},
        run="",
    )


def _over_images(reports: Sequence[ChipReport]) -> ChipReport:
    """Return the report of the same chips on the images of all folds."""
    images = sum(report.images for report in reports)
    right = [report.accuracies * report.images for report in reports]
    hits = [report.hits for report in reports if report.hits is not None]
    return replace(
        reports[0],
        accuracies=torch.stack(right).sum(0) / images,
        images=images,
        losses=None,
        activity=None,
        calibrated=None,
        hits=torch.cat(hits) if len(hits) == len(reports) else None,
        by_fold=torch.stack([report.accuracies for report in reports]),
    )
