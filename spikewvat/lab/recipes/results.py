"""What a run has found: the content of its result file, and that of a row of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spikewvat.results import Converted, Landscape, RowResult
from spikewvat.robustness.results import Degradation
from spikewvat.serialisation import Fraction


@dataclass(frozen=True, eq=False)
class Training:
    """How a network was trained.

    Args:
        epochs: How many.
        samples: Numbers of samples by part of the data.
        history: A row for each epoch, with its ``seconds``.
        stopped_early: Whether it did not get better.
        averaged_epochs: Over how many epochs the weights were averaged.
        best_epoch: The best watched one, None where nothing was watched.
        best_accuracy: Its accuracy.
        watching: What was watched.
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
        """Time of all epochs."""
        return float(sum(epoch["seconds"] for epoch in self.history))


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run has found.

    Args:
        recipe: What was run, for the record.
        seed: Of the training.
        scale: Scale of the recipe.
        method: How the network was trained, in a word.
        split: Which samples it was tested on.
        device: What the chips are, in words.
        curve: Accuracy without variation and on chips; no reports where no chip was asked for.
        corruption: What happens to spikes, in words, or None.
        run: Folder of the run that was evaluated.
        weights: File of weights in it.
        training: How it was trained, or fine-tuned after a conversion.
        settings: Numbers that the method was given, by name.
        converted: What it does after its conversion, or None.
        landscape: The loss around its weights, or None.
        versions: Of Python and the packages.
        commit: Of spikewvat.
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
    settings: Mapping[str, float] = field(default_factory=dict)
    converted: Converted | None = None
    landscape: Landscape | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None


def row_result(runs: Sequence[RunResult]) -> RowResult:
    """Join the runs of a row.

    Args:
        runs: One for each training seed.

    Raises:
        ValueError: If there is none, or they were evaluated differently.
    """
    if not runs:
        raise ValueError("a row without runs, expected at least one.")
    first, trained = runs[0], [run.training for run in runs if run.training is not None]
    return RowResult(
        seeds=tuple(run.seed for run in runs),
        curves=tuple(run.curve for run in runs),
        seconds=tuple(training.seconds for training in trained),
        samples=trained[0].samples if trained else {},
        scale=first.scale,
        settings=first.settings,
        converted=tuple(run.converted for run in runs if run.converted is not None),
        landscape=tuple(run.landscape for run in runs if run.landscape is not None),
        recipe=first.recipe,
        versions=first.versions,
        commit=first.commit,
    )
