"""What files of results hold: a row, a converted network, the loss around one, step times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from spikewvat.conversion import TimeSweep
from spikewvat.robustness.axis import Axis
from spikewvat.robustness.landscape import LayerHistogram, LossLines, LossSurface, Sharpness
from spikewvat.robustness.results import Degradation
from spikewvat.robustness.statistics import mean_of, sample_std
from spikewvat.serialisation import Fraction


@dataclass(frozen=True, eq=False)
class Converted:
    """What a network does after its conversion.

    Args:
        ann: Accuracy before it, a fraction.
        over_time: Accuracy and costs against the number of time steps.
        thresholds: Of each layer of neurons.
        seconds: How long the conversion took.
    """

    ann: Fraction
    over_time: TimeSweep
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Landscape:
    """The loss around the weights of a network.

    Args:
        method: How it was trained, in a word.
        device: What the chips are, in words.
        split: Which samples were evaluated.
        loss: Name of the loss.
        lines: Loss along lines to simulated chips.
        sharpness: How far it rises on chips, and along the steepest ascent.
        surface: Loss on a plane, None where none was asked for.
        histograms: Weights of each layer, none where none were asked for.
        scale: Scale of the recipe.
        seed: Of the training.
        run: Folder of the run.
        weights: File of weights in it.
        recipe: What was run.
        versions: Of Python and the packages.
        commit: Of spikewvat.
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
    """What a training step of a method takes.

    Args:
        setup: Network and data.
        method: How the network is trained.
        ms: Median time of a step, milliseconds.
        ratio: Median over rounds of the time over that of the set-up's baseline.
        quartiles: Of that ratio.
        rounds: How many.
    """

    setup: str
    method: str
    ms: float
    ratio: float
    quartiles: tuple[float, float]
    rounds: int = 0


@dataclass(frozen=True)
class StepTimes:
    """What training steps take, beside those of each set-up's baseline.

    Args:
        rows: Set-up by set-up.
        recipe: What was timed, for the record.
        seeds: Of networks and order.
        scale: Scale of the recipes.
        sigma: Size of the variation, None where recipes say it.
        steps_per_round: Steps between two readings of the clock.
        versions: Of Python and the packages.
        commit: Of spikewvat.
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
        """Refuse a table without rows."""
        if not self.rows:
            raise ValueError("there are no step times, expected at least one row.")

    @property
    def by_setup(self) -> dict[str, dict[str, StepTime]]:
        """The methods of each set-up by name."""
        found: dict[str, dict[str, StepTime]] = {}
        for row in self.rows:
            found.setdefault(row.setup, {})[row.method] = row
        return found


@dataclass(frozen=True, eq=False)
class RowResult:
    """A row: one method on one kind of chips, with all its trainings.

    Args:
        seeds: The seed of each training.
        curves: Accuracy against the size of variation or corruption, for each training.
        seconds: How long each training took; empty where that is not known.
        samples: Numbers of samples by part of the data.
        scale: Scale of the recipes.
        settings: Numbers that the method was given, by name.
        converted: What each network does after its conversion; empty where none was converted.
        landscape: The loss around each network; empty where nobody looked.
        recipe: What was run, for the record.
        versions: Of Python and the packages.
        commit: Of spikewvat.
    """

    seeds: tuple[int, ...]
    curves: tuple[Degradation, ...]
    seconds: tuple[float, ...] = ()
    samples: Mapping[str, int] = field(default_factory=dict)
    scale: str = ""
    settings: Mapping[str, float] = field(default_factory=dict)
    converted: tuple[Converted, ...] = ()
    landscape: tuple[Landscape, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str | None = None

    def __post_init__(self) -> None:
        """Refuse figures that are not of the same trainings and sizes."""
        for name in ("curves", "seconds", "converted", "landscape"):
            count = len(getattr(self, name))
            if count != len(self.seeds) and (count or name == "curves"):
                raise ValueError(f"{name} are {count}, expected one for each seed {self.seeds}.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}, expected each of them once.")
        if not self.curves or not all(self.curves):
            raise ValueError("a row without figures, expected at least one size of one training.")
        _ = self.pooled  # refuses curves of different sizes

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
        """What the sizes are of."""
        return self.curves[0].axis

    @property
    def sized(self) -> bool:
        """Whether a size is swept: that of the device, sigma, or of a corruption."""
        named = self.axis.name is not None
        return named or all(report.sigma is not None for report in self.curves[0])

    @property
    def holds_ideal(self) -> bool:
        """Whether one of the sizes is neither variation nor corruption at all."""
        return any(report.ideal for report in self.curves[0])

    @property
    def counted(self) -> bool:
        """Whether spikes and operations were counted."""
        last = self.curves[0].reports[-1]
        return last.activity is not None and self.curves[0].activity is not None

    @property
    def clean(self) -> float:
        """Mean over seeds of the accuracy of ideal weights, a fraction."""
        return self._over_seeds(mean_of, lambda curve: curve.clean)

    @property
    def clean_std(self) -> float:
        """Standard deviation over seeds of the accuracy of ideal weights."""
        return self._over_seeds(sample_std, lambda curve: curve.clean)

    @property
    def pooled(self) -> Degradation:
        """One curve whose chips are those of all training seeds."""
        return Degradation.pooled(self.curves)

    def mean(self, index: int) -> float:
        """Return the mean over seeds of the mean accuracy over chips, a fraction."""
        return self._over_seeds(mean_of, lambda curve: curve.means[index])

    def std(self, index: int) -> float:
        """Return the standard deviation over seeds of the mean accuracy over chips."""
        return self._over_seeds(sample_std, lambda curve: curve.means[index])

    @property
    def spread(self) -> float:
        """Mean over seeds of the standard deviation over chips, at the largest variation."""
        return self._over_seeds(mean_of, lambda curve: curve.reports[-1].std)

    def _over_seeds(
        self, statistic: Callable[[torch.Tensor], float], figure: Callable[[Degradation], float]
    ) -> float:
        values: Iterable[float] = (figure(curve) for curve in self.curves)
        return statistic(torch.tensor(list(values), dtype=torch.float64))
