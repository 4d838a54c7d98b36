"""Means over training seeds and chips: variance components and intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from spikewvat.robustness.intervals import doubtful_sides, with_phantom
from spikewvat.robustness.results import ChipReport
from spikewvat.robustness.statistics import (
    ANYTHING,
    FRACTIONS,
    Interval,
    check_confidence,
    student_t_p_value,
    student_t_quantile,
)
from spikewvat.serialisation import Real

FEW_TRAININGS = 3
"""Number of trainings up to which their t quantile makes up for skewed chips."""


class Estimate(NamedTuple):
    """A mean, its standard error, and the degrees of freedom of its t interval."""

    mean: float
    std_error: float
    degrees: int

    def bound(self, side: int, confidence: float) -> float:
        """Return the lower (side -1) or upper (1) bound of the interval."""
        quantile = student_t_quantile((1 + confidence) / 2, self.degrees)
        return self.mean + side * quantile * self.std_error

    def p_value(self, side: int) -> float:
        """Return the p-value for a mean of 0 whose interval lies on one side of it."""
        if side * self.mean <= 0:
            return 1.0
        if self.std_error == 0:
            return 0.0
        return student_t_p_value(self.mean / self.std_error, self.degrees)


@dataclass(frozen=True)
class Hierarchy:
    r"""A mean over training seeds and chips.

    The model is :math:`y_{ij} = \mu + s_i + c_j + e_{ij}` for training i and chip j. The effect of
    a chip, :math:`c_j`, can be separated only if all trainings are tested on the same chips.

    Args:
        mean: Mean over trainings of the mean over chips.
        trainings: Number of trainings.
        chips: Number of chips per training; the harmonic mean if it differs.
        seed_std: Standard deviation of :math:`s`, 0 if none is detected; NaN if undefined.
        common_std: Standard deviation of :math:`c`; 0 if none is detected or it cannot be
            separated.
        chip_std: Standard deviation of :math:`e`; NaN for a single chip.
        std_error: Standard error of the mean; NaN if undefined.
        degrees: Degrees of freedom of its t interval; 0 if undefined.
        low: The estimate with one more chip far below the others; None if it is not needed. The
            lower of the two lower bounds is used, see
            :func:`~spikewvat.robustness.intervals.skewed_interval`.
        high: The same with one more chip far above the others, for the upper bound.
    """

    mean: float
    trainings: int
    chips: float
    seed_std: Real
    common_std: float
    chip_std: Real
    std_error: Real
    degrees: int
    low: Estimate | None = None
    high: Estimate | None = None

    def _estimates(self, side: int) -> list[Estimate]:
        """Return the estimates that bound the mean on the lower (-1) or upper side (1)."""
        more = self.low if side < 0 else self.high
        own = Estimate(self.mean, self.std_error, self.degrees)
        return [own] if more is None else [own, more]

    def interval(self, confidence: float = 0.95) -> Interval:
        """Return the interval of the mean; its bounds are NaN if it is undefined.

        Raises:
            ValueError: If ``confidence`` lies outside (0, 1).
        """
        check_confidence(confidence)
        if self.degrees < 1:
            return Interval(math.nan, math.nan)
        return Interval(
            min(estimate.bound(-1, confidence) for estimate in self._estimates(-1)),
            max(estimate.bound(1, confidence) for estimate in self._estimates(1)),
        )

    def minus(self, value: float) -> Hierarchy:
        """Return the summary of the same values minus a constant."""

        def moved(estimate: Estimate | None) -> Estimate | None:
            return estimate and estimate._replace(mean=estimate.mean - value)

        return replace(self, mean=self.mean - value, low=moved(self.low), high=moved(self.high))

    @property
    def p_value(self) -> float:
        """Two-sided p-value for a mean of 0; NaN if it is undefined.

        The interval at confidence c excludes 0 if and only if the p-value is below 1 - c.
        """
        if self.degrees < 1:
            return math.nan
        side = 1 if self.mean > 0 else -1
        return max(estimate.p_value(side) for estimate in self._estimates(-side))

    def __str__(self) -> str:
        low, high = (100 * bound for bound in self.interval())
        many = "training" if self.trainings == 1 else "trainings"
        # No interval of so few trainings holds whatever their distribution.
        assumed = " if trainings differ like normal noise" if self.trainings > 1 else ""
        return (
            f"{100 * self.mean:.2f} % (95 % CI {low:.2f} .. {high:.2f}{assumed}; "
            f"{self.trainings} {many} x {self.chips:g} chips)"
        )


def hierarchical(
    values: Sequence[Tensor | Sequence[float]] | Tensor,
    *,
    same_chips: bool,
    bounds: Interval = ANYTHING,
    folds: Sequence[int] | None = None,
) -> Hierarchy:
    r"""Summarise values from several trainings with several chips each.

    Chips of one training are not independent trainings: an interval that pools them is too narrow.
    The variance of the mean is computed from the means of the trainings,

    .. math:: \mathrm{Var}(\bar y) = \frac{1}{a} \frac{\sum_i (\bar y_i - \bar y)^2}{a - 1}
        + \frac{\hat\sigma_c^2}{n},
        \qquad \hat\sigma_c^2 = \max\left(0, \frac{M_c - M_e}{a}\right)

    where :math:`M` are the mean squares of the two-way layout; without common chips the second term
    is absent. The t interval has a - 1 degrees of freedom (n - 1 if there are fewer chips and they
    matter), which is exact without a chip effect and conservative with one: Satterthwaite's larger
    number undercovers clearly for two or three trainings. The components are method-of-moments
    estimates, cut off at 0.

    If the means over trainings of the chips are skewed, one more chip widens the interval, see
    :func:`~spikewvat.robustness.intervals.skewed_interval`. Two or three trainings do not need it,
    for their t quantile is far above that of the chips; nor do other chips for each training, for
    their means vary little.

    A single training gives the interval over its chips, which says nothing about other trainings.

    In cross-validation with several trainings of each of k folds, trainings are compared within
    their folds: :math:`\bar y_i - \bar y` becomes the deviation from the fold's mean, the effects
    of chips are those of a fold, and a - k degrees of freedom remain. The interval is over
    trainings and chips for these folds.

    Args:
        values: One value per chip for each training; equally many for all trainings if
            ``same_chips``.
        same_chips: Whether chip j is the same chip (the same seed) for all trainings.
        bounds: The smallest and the largest value possible, such as 0 and 1 for accuracies.
        folds: Fold of each training, at least two trainings to each; the same one by default.

    Returns:
        The mean with its standard error and components.

    Raises:
        ValueError: If there are no values, one is not finite, ``same_chips`` and their numbers
            differ, or a fold has a single training.

    References:
        Variance components (Searle, Casella and McCulloch, 1992), chapters 3 and 4.

    Example:
        >>> found = hierarchical([[0.90, 0.92], [0.94, 0.96]], same_chips=False)
        >>> round(found.mean, 4), round(found.std_error, 4), found.degrees
        (0.93, 0.02, 1)
    """
    groups = _as_groups(values, same_chips=same_chips)
    places = _places(folds, len(groups))
    found = _summary(groups, places, same_chips=same_chips)
    if len(groups) > 1 and (len(groups) <= FEW_TRAININGS or not same_chips):
        return found
    chips = torch.stack(groups).mean(0)

    def extended(*, below: bool) -> Estimate:
        phantom = with_phantom(chips, below=below, bounds=bounds)[-1:]
        shifted = [(phantom + group.mean() - chips.mean()).clamp(*bounds) for group in groups]
        more = [torch.cat(pair) for pair in zip(groups, shifted, strict=True)]
        other = _summary(more, places, same_chips=same_chips)
        return Estimate(other.mean, other.std_error, other.degrees)

    sides = doubtful_sides(chips)
    return replace(
        found,
        low=extended(below=True) if sides.low else None,
        high=extended(below=False) if sides.high else None,
    )


def _summary(groups: list[Tensor], places: list[list[int]], *, same_chips: bool) -> Hierarchy:
    """Return the summary; ``places`` are the trainings of each fold."""
    trainings, counts = len(groups), [len(group) for group in groups]
    means = torch.stack([group.mean() for group in groups])
    chips = trainings / sum(1 / count for count in counts)
    if same_chips and trainings > 1 and counts[0] > 1:
        return _crossed(torch.stack(groups), places)
    freedom = sum(counts) - trainings
    squares = sum(float((group - group.mean()).square().sum()) for group in groups)
    within = squares / freedom if freedom else math.nan
    if trainings == 1:
        return Hierarchy(
            mean=float(means.mean()),
            trainings=1,
            chips=chips,
            seed_std=math.nan,
            common_std=0.0,
            chip_std=math.sqrt(within),
            std_error=math.sqrt(within / counts[0]),
            degrees=freedom,
        )
    between = _within_folds(means, places).square().sum().item() / (trainings - len(places))
    seed_variance = between - within / chips
    return Hierarchy(
        mean=float(means.mean()),
        trainings=trainings,
        chips=chips,
        seed_std=seed_variance if math.isnan(seed_variance) else math.sqrt(max(seed_variance, 0.0)),
        common_std=0.0,
        chip_std=math.sqrt(within),
        std_error=math.sqrt(between / trainings),
        degrees=trainings - len(places),
    )


def over_trainings(reports: Sequence[ChipReport]) -> Hierarchy:
    """Summarise the accuracies of several trainings, one report per training.

    Args:
        reports: Reports of the same device and images. Equal seeds are the same chips. Reports of
            cross-validation are of one training for each fold.

    Returns:
        As :func:`hierarchical`.

    Raises:
        ValueError: If there is no report.
    """
    tables = tables_by_fold(reports)
    return hierarchical(
        [row for table in tables for row in table],
        same_chips=_on_same_chips(reports),
        bounds=FRACTIONS,
        folds=[fold for table in tables for fold in range(len(table))],
    )


def tables_by_fold(reports: Sequence[ChipReport]) -> list[Tensor]:
    """Return the accuracies ``[trainings, chips]`` behind each report, a training for each fold.

    A single report, or one without folds, counts as one training.
    """
    known = [report.by_fold for report in reports if report.by_fold is not None]
    if 1 < len(known) == len(reports):
        return known
    return [report.accuracies[None] for report in reports]


def _on_same_chips(reports: Sequence[ChipReport]) -> bool:
    return len({report.seeds for report in reports}) == 1


def _crossed(table: Tensor, places: list[list[int]]) -> Hierarchy:
    """Return the summary of a table ``[trainings, chips]`` with the same chip in each column."""
    trainings, chips = table.shape
    by_training, by_chip = table.mean(1), table.mean(0)
    freedom = trainings - len(places)
    rest = _within_folds(table - by_training[:, None], places)
    error = float(rest.square().sum()) / (freedom * (chips - 1))
    between = float(_within_folds(by_training, places).square().sum()) / freedom
    seed = max(between - error / chips, 0.0)
    common = max(float(by_chip.var(correction=1)) - error / trainings, 0.0)
    return Hierarchy(
        mean=float(table.mean()),
        trainings=trainings,
        chips=float(chips),
        seed_std=math.sqrt(seed),
        common_std=math.sqrt(common),
        chip_std=math.sqrt(error),
        std_error=math.sqrt(between / trainings + common / chips),
        degrees=min(freedom, chips - 1) if common else freedom,
    )


def _within_folds(values: Tensor, places: list[list[int]]) -> Tensor:
    """Return the deviations of trainings, the first axis, from the mean of their fold."""
    found = torch.empty_like(values)
    for place in places:
        found[place] = values[place] - values[place].mean(0)
    return found


def _places(folds: Sequence[int] | None, trainings: int) -> list[list[int]]:
    """Return the places of the trainings of each fold.

    Raises:
        ValueError: If there is not one fold for each training, or one has a single training.
    """
    if folds is None or len(set(folds)) == 1 == trainings:
        return [list(range(trainings))]
    places = [[i for i, one in enumerate(folds) if one == fold] for fold in sorted(set(folds))]
    if len(folds) != trainings or min(map(len, places)) < 2:
        raise ValueError(
            f"folds are {list(folds)} of {trainings} trainings, expected a fold for each training "
            "and two trainings or more in each. Leave them out, or train on more seeds."
        )
    return places


def _as_groups(
    values: Sequence[Tensor | Sequence[float]] | Tensor, *, same_chips: bool
) -> list[Tensor]:
    groups = [torch.as_tensor(group, dtype=torch.float64).flatten() for group in values]
    if not groups or any(len(group) == 0 for group in groups):
        raise ValueError(
            f"values hold {[len(group) for group in groups]} chips, expected at least one "
            "training with at least one chip each."
        )
    for index, group in enumerate(groups):
        if not bool(torch.isfinite(group).all()):
            raise ValueError(f"values of training {index} are not finite: {group.tolist()}.")
    if same_chips and len({len(group) for group in groups}) > 1:
        raise ValueError(
            f"values hold {[len(group) for group in groups]} chips, expected the same chips for "
            "all trainings. Pass same_chips=False."
        )
    return groups
