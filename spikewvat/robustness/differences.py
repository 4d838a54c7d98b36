"""Compare methods by their differences on the same chips and images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import torch
from torch import Tensor

from spikewvat.robustness.hierarchy import Hierarchy, hierarchical, tables_by_fold
from spikewvat.robustness.results import ChipReport, Degradation
from spikewvat.robustness.statistics import Interval, holm, student_t_quantile
from spikewvat.serialisation import Real

Trainings: TypeAlias = Sequence[Degradation] | Sequence[ChipReport]
"""Results of a method's trainings, in the order of their training seeds."""


@dataclass(frozen=True)
class Difference:
    """The difference between two methods.

    Args:
        method: The method.
        reference: The method that is subtracted.
        found: Mean difference in accuracy, a fraction, with its standard error.
        p_adjusted: p-value after Holm's correction over all differences in the table.
        new_images: 95 % interval of the difference for new images as well; None if the reports do
            not know which images each chip classified correctly, or the chips differ.
    """

    method: str
    reference: str
    found: Hierarchy
    p_adjusted: Real
    new_images: Interval | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the adjusted p-value is below 5 %."""
        return self.p_adjusted < 0.05

    def __str__(self) -> str:
        bounds = _in_points(self.found.interval())
        if self.new_images is not None:
            bounds += f"; for new images as well {_in_points(self.new_images)}"
        return (
            f"{self.method} - {self.reference}: {100 * self.found.mean:+.2f} points "
            f"(95 % CI {bounds}), p = {self.found.p_value:.2g}, adjusted {self.p_adjusted:.2g}"
        )


@dataclass(frozen=True)
class Differences:
    """The differences between several methods.

    Args:
        device: Description of the chips.
        sigma: Size of the variation; None if the device has none.
        differences: The differences, in the order of the methods.
    """

    device: str
    sigma: float | None
    differences: tuple[Difference, ...]

    def between(self, method: str, reference: str) -> Difference:
        """Return the difference of two methods.

        Raises:
            KeyError: If they were not compared in this order.
        """
        for difference in self.differences:
            if (difference.method, difference.reference) == (method, reference):
                return difference
        known = ", ".join(f"{d.method} - {d.reference}" for d in self.differences)
        raise KeyError(f"{method} - {reference} was not compared (compared: {known}).")

    def __str__(self) -> str:
        return "\n".join(str(difference) for difference in self.differences)


def paired_differences(
    methods: Mapping[str, Trainings],
    *,
    sigma: float | None = None,
    reference: str | None = None,
) -> Differences:
    """Compare methods that were tested on the same chips and images.

    Training i of one method is paired with training i of the other, chip by chip, so everything
    that both share (initial weights, chips, images) cancels. The interval is over trainings and
    chips (:func:`~spikewvat.robustness.hierarchical`) for these images, and a second one for new
    images as well; with a single training it is over chips and holds for these networks only. The
    p-values are adjusted for the number of
    comparisons by Holm's method over the whole table; the intervals are not.

    Args:
        methods: Results of :meth:`~spikewvat.Evaluator.sweep` or
            :meth:`~spikewvat.Evaluator.chips` by method, one for each training seed
            and in the same order of seeds.
        sigma: Size of the variation to compare at; by default the last of each curve.
        reference: Compare every method with this one; by default all pairs, the later method in the
            mapping minus the earlier one.

    Returns:
        The differences.

    Raises:
        ValueError: If there are fewer than two methods, ``reference`` is not one of them, numbers
            of trainings differ, or devices, images or chips differ.
        KeyError: If ``sigma`` was not swept.

    Example:
        >>> import torch
        >>> def chips(*accuracies):
        ...     found = torch.tensor(accuracies, dtype=torch.float64)
        ...     return ChipReport("Gaussian(sigma=0.1)", 0.1, found, (1, 2), images=100)
        >>> table = paired_differences({
        ...     "sgd": [chips(0.90, 0.92), chips(0.91, 0.95)],
        ...     "wvat": [chips(0.94, 0.96), chips(0.95, 0.97)],
        ... })
        >>> round(table.between("wvat", "sgd").found.mean, 4)
        0.035
    """
    if reference is not None and reference not in methods:
        known = ", ".join(repr(name) for name in methods)
        raise ValueError(f"reference {reference!r} is not one of the methods ({known}).")
    if len(methods) < 2:
        raise ValueError(f"there is nothing to compare in {list(methods)}, expected two methods.")
    reports = {name: [_at(item, sigma) for item in items] for name, items in methods.items()}
    first = _check_alike(reports)
    if reference is None:
        pairs = [(later, earlier) for earlier, later in combinations(reports, 2)]
    else:
        pairs = [(name, reference) for name in reports if name != reference]
    found = [_difference(reports[one], reports[other], one, other) for one, other in pairs]
    adjusted = holm([difference.p_value for difference in found])
    rows = (
        Difference(one, other, own, p, _over_images(own, reports[one], reports[other]))
        for (one, other), own, p in zip(pairs, found, adjusted, strict=True)
    )
    return Differences(first.device, first.sigma, tuple(rows))


def _at(item: Degradation | ChipReport, sigma: float | None) -> ChipReport:
    if isinstance(item, ChipReport):
        return item
    return item.reports[-1] if sigma is None else item.at(sigma)


def _check_alike(reports: Mapping[str, Sequence[ChipReport]]) -> ChipReport:
    """Return the first report, after checking that all reports are comparable."""
    numbers = {name: len(items) for name, items in reports.items()}
    if len(set(numbers.values())) > 1 or 0 in numbers.values():
        raise ValueError(
            f"numbers of trainings are {numbers}, expected the same number for each method."
        )
    first_name, first = next((name, items[0]) for name, items in reports.items())
    for name, items in reports.items():
        for item in items:
            if (item.device, item.images) != (first.device, first.images):
                raise ValueError(
                    f"{name!r} was evaluated on {item.images} images with {item.device}, "
                    f"{first_name!r} on {first.images} images with {first.device}. "
                    "Evaluate all methods alike."
                )
    return first


def _difference(
    ones: Sequence[ChipReport], others: Sequence[ChipReport], one: str, other: str
) -> Hierarchy:
    """Return the paired difference on the chips that both methods were tested on."""
    rows: list[Tensor] = []
    chips: list[tuple[int, ...]] = []
    folds: list[int] = []
    tables = zip(tables_by_fold(ones), tables_by_fold(others), strict=True)
    for mine, theirs, (left, right) in zip(ones, others, tables, strict=True):
        places = {seed: place for place, seed in enumerate(theirs.seeds)}
        shared = [place for place, seed in enumerate(mine.seeds) if seed in places]
        if not shared or (len(ones) == 1 and len(shared) == 1):
            raise ValueError(
                f"{one!r} and {other!r} share {len(shared)} chips, expected at least two of the "
                "same seed. Evaluate both with equal seeds and chips."
            )
        known = tuple(mine.seeds[place] for place in shared)
        if left.shape[0] != right.shape[0]:
            raise ValueError(
                f"{one!r} was tested on {left.shape[0]} folds, {other!r} on {right.shape[0]}. "
                "Evaluate both alike."
            )
        rows += left[:, shared] - right[:, [places[seed] for seed in known]]
        chips.append(known)
        folds += range(len(left))
    return hierarchical(rows, same_chips=len(set(chips)) == 1, folds=folds)


def _over_images(
    found: Hierarchy, ones: Sequence[ChipReport], others: Sequence[ChipReport]
) -> Interval | None:
    r"""Extend the interval of a difference from the images at hand to new images.

    The half-widths over trainings and chips and over images are added in quadrature. The second is
    Student's interval of the mean over images of the difference :math:`d_k` between the shares of
    chips that are right on image k, with half an image added to its variance for each of the four
    cases (both right, both wrong, either one right): without them, methods that differ on no image
    would have no width.

    .. math:: t_{m + 1} \sqrt{\frac{1 + \sum_k (d_k - \bar d)^2}{(m + 1)(m + 2)}}

    Args:
        found: The difference.
        ones: Reports of the method, one for each training.
        others: Reports of the reference.

    Returns:
        The interval; None if the reports have no ``hits``, or their chips differ.

    References:
        Construction of confidence limits about effect measures (Zou and Donner, 2008),
        https://doi.org/10.1002/sim.3095; Simple improved confidence intervals for comparing
        matched proportions (Agresti and Min, 2005), https://doi.org/10.1002/sim.1781
    """
    pairs = list(zip(ones, others, strict=True))
    parts = [
        (one.hits - other.hits) / one.chips
        for one, other in pairs
        if one.hits is not None and other.hits is not None and one.seeds == other.seeds
    ]
    if len(parts) < len(pairs):
        return None
    by_image = torch.stack(parts).double().mean(0)
    m = len(by_image)
    squares = 1 + float((by_image - by_image.mean()).square().sum())
    half = student_t_quantile(0.975, m + 1) * math.sqrt(squares / ((m + 1) * (m + 2)))
    low, high = found.interval()
    return Interval(
        found.mean - math.hypot(found.mean - low, half),
        found.mean + math.hypot(high - found.mean, half),
    )


def _in_points(interval: Interval) -> str:
    low, high = (100 * bound for bound in interval)
    return f"{low:+.2f} .. {high:+.2f}"
