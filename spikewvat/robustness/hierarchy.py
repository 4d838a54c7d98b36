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

    Args:
        values: One value per chip for each training; equally many for all trainings if
            ``same_chips``.
        same_chips: Whether chip j is the same chip (the same seed) for all trainings.
        bounds: The smallest and the largest value possible, such as 0 and 1 for accuracies.

    Returns:
        The mean with its standard error and components.

    Raises:
        ValueError: If there are no values, one is not finite, or ``same_chips`` and their numbers
            differ.

    References:
        Variance components (Searle, Casella and McCulloch, 1992), chapters 3 and 4.

    Example:
        >>> found = hierarchical([[0.90, 0.92], [0.94, 0.96]], same_chips=False)
        >>> round(found.mean, 4), round(found.std_error, 4), found.degrees
        (0.93, 0.02, 1)
    """
    groups = _as_groups(values, same_chips=same_chips)
    found = _summary(groups, same_chips=same_chips)
    if len(groups) > 1 and (len(groups) <= FEW_TRAININGS or not same_chips):
        return found
    chips = torch.stack(groups).mean(0)

    def extended(*, below: bool) -> Estimate:
        phantom = with_phantom(chips, below=below, bounds=bounds)[-1:]
        shifted = [(phantom + group.mean() - chips.mean()).clamp(*bounds) for group in groups]
        more = [torch.cat(pair) for pair in zip(groups, shifted, strict=True)]
        other = _summary(more, same_chips=same_chips)
        return Estimate(other.mean, other.std_error, other.degrees)

    sides = doubtful_sides(chips)
    return replace(
        found,
        low=extended(below=True) if sides.low else None,
        high=extended(below=False) if sides.high else None,
    )


def _summary(groups: list[Tensor], *, same_chips: bool) -> Hierarchy:
    trainings, counts = len(groups), [len(group) for group in groups]
    means = torch.stack([group.mean() for group in groups])
    chips = trainings / sum(1 / count for count in counts)
    if same_chips and trainings > 1 and counts[0] > 1:
        return _crossed(torch.stack(groups))
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
    between = float(means.var(correction=1))
    seed_variance = between - within / chips
    return Hierarchy(
        mean=float(means.mean()),
        trainings=trainings,
        chips=chips,
        seed_std=seed_variance if math.isnan(seed_variance) else math.sqrt(max(seed_variance, 0.0)),
        common_std=0.0,
        chip_std=math.sqrt(within),
        std_error=math.sqrt(between / trainings),
        degrees=trainings - 1,
    )


def over_trainings(reports: Sequence[ChipReport]) -> Hierarchy:
    """Summarise the accuracies of several trainings, one report per training.

    Args:
        reports: Reports of the same device and images. Equal seeds are the same chips.

    Returns:
        As :func:`hierarchical`.

    Raises:
        ValueError: If there is no report.
    """
    return hierarchical(
        [r.accuracies for r in reports],
        same_chips=_on_same_chips(reports),
        bounds=FRACTIONS,
    )


def _on_same_chips(reports: Sequence[ChipReport]) -> bool:
    return len({report.seeds for report in reports}) == 1


def _crossed(table: Tensor) -> Hierarchy:
    """Return the summary of a table ``[trainings, chips]`` with the same chip in each column."""
    trainings, chips = table.shape
    mean, by_training, by_chip = table.mean(), table.mean(1), table.mean(0)
    rest = table - by_training[:, None] - by_chip[None, :] + mean
    error = float(rest.square().sum()) / ((trainings - 1) * (chips - 1))
    between = float(by_training.var(correction=1))
    seed = max(between - error / chips, 0.0)
    common = max(float(by_chip.var(correction=1)) - error / trainings, 0.0)
    return Hierarchy(
        mean=float(mean),
        trainings=trainings,
        chips=float(chips),
        seed_std=math.sqrt(seed),
        common_std=math.sqrt(common),
        chip_std=math.sqrt(error),
        std_error=math.sqrt(between / trainings + common / chips),
        degrees=min(trainings, chips) - 1 if common else trainings - 1,
    )


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
