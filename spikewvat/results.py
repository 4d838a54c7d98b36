"""Contents of result files: rows, converted networks, loss landscapes, step times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from spikewvat.conversion import TimeSweep
from spikewvat.devices import ErrorSize
from spikewvat.robustness.axis import Axis
from spikewvat.robustness.landscape import LayerHistogram, LossLines, LossSurface, Sharpness
from spikewvat.robustness.results import ChipReport, Degradation
from spikewvat.robustness.statistics import mean_of, sample_std
from spikewvat.serialisation import Fraction, Real


@dataclass(frozen=True, eq=False)
class Converted:
    """Results of a converted network.

    Args:
        ann: Accuracy of the ANN, a fraction.
        over_time: Accuracy and costs against the number of time steps.
        thresholds: Thresholds by layer of neurons.
        seconds: Duration of the conversion.
    """

    ann: Fraction
    over_time: TimeSweep
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Landscape:
    """The loss around the weights of a network.

    Args:
        method: Name of the training method.
        device: Description of the chips.
        split: The part of the data that was evaluated.
        loss: Name of the loss.
        lines: Loss along lines to simulated chips.
        sharpness: Increase of the loss on chips, and along the steepest ascent.
        surface: Loss on a plane, or None if not requested.
        histograms: Weights of each layer; empty if not requested.
        scale: Scale of the recipe.
        seed: Seed of the training.
        run: Folder of the run.
        weights: The weights file in that folder.
        recipe: The recipe of the run.
        versions: Versions of Python and the packages.
        commit: Commit of spikewvat.
    """

    method: str
    device: str
    split: str
    loss: str
    lines: LossLines
    sharpness: Sharpness
    surface: LossSurface | None = None
    histograms: tuple[LayerHistogram, ...] = ()
    scale: str = ""
    seed: int | None = None
    run: str = ""
    weights: str = ""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None


@dataclass(frozen=True)
class StepTime:
    """Time of a training step of a method.

    Args:
        setup: Network and data.
        method: Name of the training method.
        ms: Median time of a step, milliseconds.
        ratio: Median over rounds of the time over that of the set-up's baseline.
        quartiles: Quartiles of that ratio.
        rounds: Number of rounds.
    """

    setup: str
    method: str
    ms: float
    ratio: float
    quartiles: tuple[float, float]
    rounds: int = 0


@dataclass(frozen=True)
class StepTimes:
    """Times of training steps, relative to the baseline of each set-up.

    Args:
        rows: Step times, grouped by set-up.
        recipe: The recipe that was timed, for the record.
        seeds: Seeds of the networks and of the order.
        scale: Scale of the recipes.
        sigma: Size of the variation, or None if the recipes set it.
        steps_per_round: Number of steps per time measurement.
        versions: Versions of Python and the packages.
        commit: Commit of spikewvat.
    """

    rows: tuple[StepTime, ...]
    recipe: str = ""
    seeds: tuple[int, ...] = ()
    scale: str = ""
    sigma: float | None = None
    steps_per_round: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None

    def __post_init__(self) -> None:
        """Check that there is at least one row."""
        if not self.rows:
            raise ValueError("there are no step times, expected at least one row.")

    @property
    def by_setup(self) -> dict[str, dict[str, StepTime]]:
        """The methods of each set-up by name."""
        found: dict[str, dict[str, StepTime]] = {}
        for row in self.rows:
            found.setdefault(row.setup, {})[row.method] = row
        return found


@dataclass(frozen=True)
class Tried:
    """A setting of a method that was tried.

    Args:
        setting: Overrides of the recipe.
        scores: Its score with each seed of the selection; NaN where the training diverged.
    """

    setting: tuple[str, ...]
    scores: tuple[Real, ...]

    @property
    def score(self) -> float:
        """Mean over seeds; NaN if a training diverged."""
        return mean_of(self.scores)


@dataclass(frozen=True)
class Selected:
    """How the setting of a row was chosen, on data held out from training.

    Args:
        tried: The settings that were tried.
        chosen: Place of the chosen one among them, that of the highest score.
        seeds: Training seeds of the selection.
        sigmas: A score is the mean accuracy over chips and these sizes of the variation.
        chips: Number of chips at each size.
        images: Number of held-out samples.
        columns: What defines the row's other chips: changes of the evaluation by name.
    """

    tried: tuple[Tried, ...]
    chosen: int
    seeds: tuple[int, ...]
    sigmas: tuple[float, ...]
    chips: int
    images: int
    columns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def setting(self) -> tuple[str, ...]:
        """The overrides of the chosen setting."""
        return self.tried[self.chosen].setting


@dataclass(frozen=True, eq=False)
class RowResult:
    """A row: one method on one kind of chip, with all its trainings.

    Args:
        seeds: The seed of each training.
        curves: Accuracy against the size of variation or corruption, for each training.
        seconds: Duration of each training; empty if unknown.
        samples: Numbers of samples by part of the data.
        scale: Scale of the recipes.
        settings: Numeric parameters of the method, by name; NaN for infinite ones.
        converted: Results of each network after its conversion; empty if not converted.
        landscape: The loss around each network; empty if not evaluated.
        errors: How large the errors of each network's weights are on the last kind of chip; empty
            if not known.
        columns: Reports of each network on other chips, by name; empty if not requested.
        selection: How the setting was chosen; None if there was none to choose.
        test_reads: How often the test data was read for each network; empty if not counted.
        recipe: The recipe, for the record.
        versions: Versions of Python and the packages.
        commit: Commit of spikewvat.
    """

    seeds: tuple[int, ...]
    curves: tuple[Degradation, ...]
    seconds: tuple[float, ...] = ()
    samples: Mapping[str, int] = field(default_factory=dict)
    scale: str = ""
    settings: Mapping[str, Real] = field(default_factory=dict)
    converted: tuple[Converted, ...] = ()
    landscape: tuple[Landscape, ...] = ()
    errors: tuple[ErrorSize, ...] = ()
    columns: tuple[Mapping[str, ChipReport], ...] = ()
    selection: Selected | None = None
    test_reads: tuple[int, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None

    def __post_init__(self) -> None:
        """Check that all figures are for the same trainings and sizes."""
        names = ("curves", "seconds", "converted", "landscape", "errors", "columns", "test_reads")
        for name in names:
            count = len(getattr(self, name))
            if count != len(self.seeds) and (count or name == "curves"):
                raise ValueError(f"{name} are {count}, expected one for each seed {self.seeds}.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}, expected distinct numbers.")
        if not self.curves or not all(self.curves):
            raise ValueError("a row without results, expected at least one size of one training.")
        _ = self.pooled  # refuses curves of different sizes

    @property
    def extent(self) -> str:
        """How many samples it was trained and tested on, in words; empty if unknown."""
        if not self.samples:
            return ""
        tested = "test" if "test" in self.samples else "validation"
        learned = f"{self.samples['train']} training and " if self.samples.get("train") else ""
        return f"{learned}{self.samples[tested]} {tested} samples"

    @property
    def by_seed(self) -> dict[int, Degradation]:
        """The curve of each training seed."""
        return dict(zip(self.seeds, self.curves, strict=True))

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Sizes of the variation, or severities of a corruption."""
        return self.curves[0].sigmas

    @property
    def axis(self) -> Axis:
        """The quantity that is swept."""
        return self.curves[0].axis

    @property
    def sized(self) -> bool:
        """Whether a size is swept: the device's sigma or the severity of a corruption."""
        named = self.axis.name is not None
        return named or all(report.sigma is not None for report in self.curves[0])

    @property
    def holds_ideal(self) -> bool:
        """Whether one of the sizes means neither variation nor corruption."""
        return any(report.ideal for report in self.curves[0])

    @property
    def counted(self) -> bool:
        """Whether spikes and operations were counted."""
        last = self.curves[0].reports[-1]
        return last.activity is not None and self.curves[0].activity is not None

    @property
    def clean(self) -> float:
        """Mean over seeds of the accuracy without variation, a fraction."""
        return self._over_seeds(mean_of, lambda curve: curve.clean)

    @property
    def clean_std(self) -> float:
        """Standard deviation over seeds of the accuracy without variation."""
        return self._over_seeds(sample_std, lambda curve: curve.clean)

    @property
    def pooled(self) -> Degradation:
        """A single curve with the chips of all networks: training seeds, and folds if any."""
        return Degradation.pooled(self.curves)

    def mean(self, index: int) -> float:
        """Return the mean over seeds of the mean accuracy over chips, a fraction."""
        return self._over_seeds(mean_of, lambda curve: curve.means[index])

    def std(self, index: int) -> float:
        """Return the standard deviation over seeds of the mean accuracy over chips."""
        return self._over_seeds(sample_std, lambda curve: curve.means[index])

    @property
    def spread(self) -> float:
        """Mean over networks of the standard deviation over chips, at the largest variation."""
        networks = [one for curve in self.curves for one in curve.reports[-1].networks]
        return mean_of([one.std for one in networks])

    def _over_seeds(
        self, statistic: Callable[[torch.Tensor], float], figure: Callable[[Degradation], float]
    ) -> float:
        values: Iterable[float] = (figure(curve) for curve in self.curves)
        return statistic(torch.tensor(list(values), dtype=torch.float64))
