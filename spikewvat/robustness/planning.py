"""The number of chips to simulate for an interval of a given width."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikewvat.devices.base import check_above_zero
from spikewvat.robustness.hierarchy import FEW_TRAININGS, Hierarchy
from spikewvat.robustness.intervals import FEW, chip_interval, skewed_interval
from spikewvat.robustness.results import ChipReport
from spikewvat.robustness.statistics import Interval, check_confidence, student_t_quantile


def chips_needed(spread: ChipReport | float, width: float, *, confidence: float = 0.95) -> int:
    r"""Return the number of chips for a narrow enough interval of the mean accuracy.

    It plans for the interval that a report prints (:func:`~spikewvat.robustness.intervals
    .chip_interval`), which is wider than Student's for few or skewed chips. With :math:`n` chips it
    is computed at the quantiles :math:`(i - 1/2) / n` of the pilot run, or of a normal
    distribution, scaled to its standard deviation :math:`s`. For more than ten chips that are not
    skewed this is

    .. math:: 2\, t_{n-1,\,(1+c)/2}\, s / \sqrt n \le w

    The spread of the actual run is random too: about half of the time its interval is a little
    wider.

    Args:
        spread: A report of a pilot run, or the standard deviation over chips, a fraction, of chips
            that are not skewed.
        width: Full width of the interval, a fraction, above 0.
        confidence: Coverage, between 0 and 1.

    Returns:
        Number of chips, at least 2.

    Raises:
        ValueError: If an argument is out of range, or a report has a single chip.

    Example:
        >>> chips_needed(0.01, width=0.01)
        18
    """
    pilot = spread.accuracies if isinstance(spread, ChipReport) else None
    std = spread.std if isinstance(spread, ChipReport) else spread
    if math.isnan(std) or std < 0:
        raise ValueError(
            f"spread must be at least 0, got {std!r}. A pilot run needs at least two chips."
        )
    check_above_zero("width", width)
    check_confidence(confidence)

    def enough(chips: int) -> bool:
        return _expected(pilot, std, chips, confidence).width <= width

    for few in range(2, FEW + 1):
        if enough(few):
            return few
    too_few, chips = FEW, FEW + 1
    while not enough(chips):
        too_few, chips = chips, 2 * chips
    while chips - too_few > 1:
        middle = (too_few + chips) // 2
        too_few, chips = (too_few, middle) if enough(middle) else (middle, chips)
    return chips


def _expected(pilot: Tensor | None, std: float, chips: int, confidence: float) -> Interval:
    """Return the interval of a typical run of so many chips."""
    shares = (torch.arange(chips, dtype=torch.float64) + 0.5) / chips
    scores = torch.special.ndtri(shares) if pilot is None else pilot.double().quantile(shares)
    scores -= scores.mean()
    scores *= std / max(float(scores.std()), 1e-300)
    cautious = chips <= FEW  # so few always lean to one side or the other
    if pilot is None:
        return skewed_interval(scores, confidence=confidence, cautious=cautious)
    scores = (scores + pilot.mean()).clamp(0, 1)
    return chip_interval(scores, confidence=confidence, cautious=cautious)


def chips_needed_per_training(
    found: Hierarchy, width: float, *, trainings: int | None = None, confidence: float = 0.95
) -> int:
    r"""Return the smallest number of chips per training, for several trainings.

    .. math:: 2\, t \sqrt{\frac{\sigma_s^2 + r^2 \sigma_e^2 / n}{a}
        + \frac{r^2 \sigma_c^2}{n}} \le w

    where r is the width of the pilot's interval relative to Student's, above 1 for skewed chips.
    More chips cannot make up for too few trainings: the first term remains.

    Args:
        found: Variance components of a pilot run, see :func:`~spikewvat.robustness.hierarchical`.
        width: Full width of the interval, a fraction, above 0.
        trainings: Number of trainings, at least 2; by default that of the pilot run.
        confidence: Coverage, between 0 and 1.

    Returns:
        Number of chips, at least 2; for more than three trainings at least 11, since the interval
        of fewer chips is wider.

    Raises:
        ValueError: If an argument is out of range, the components are unknown, or no number of
            chips is sufficient; the message then gives a sufficient number of trainings.

    Example:
        >>> from spikewvat.robustness import hierarchical
        >>> pilot = hierarchical([[0.90, 0.94], [0.91, 0.95], [0.92, 0.93]], same_chips=True)
        >>> chips_needed_per_training(pilot, width=0.10)
        4
    """
    count = found.trainings if trainings is None else trainings
    seed, common, chip = found.seed_std, found.common_std, found.chip_std
    if math.isnan(seed) or math.isnan(chip):
        raise ValueError(
            f"components of {found.trainings} trainings x {found.chips:g} chips are not known. A "
            "pilot run needs at least two of each."
        )
    if count < 2:
        raise ValueError(f"trainings must be at least 2, got {count!r}.")
    check_above_zero("width", width)
    check_confidence(confidence)
    if _width(seed / math.sqrt(count), count - 1, confidence) >= width:
        more = count
        while _width(seed / math.sqrt(more), more - 1, confidence) >= width:
            more += 1
        raise ValueError(
            f"no number of chips makes the interval of {count} trainings as narrow as {width:g}: "
            f"the trainings themselves differ by {seed:.3g}. Take at least {more} trainings."
        )

    stretch = _stretch(found)
    chip, common = stretch * chip, stretch * common

    def width_of(chips: int) -> float:
        error = math.sqrt((seed**2 + chip**2 / chips) / count + common**2 / chips)
        return _width(error, (min(count, chips) if common else count) - 1, confidence)

    # With many chips the degrees are those of the trainings: solved for their number.
    quantile = student_t_quantile((1 + confidence) / 2, count - 1)
    room = (width / (2 * quantile)) ** 2 - seed**2 / count
    least = 2 if count <= FEW_TRAININGS else FEW + 1
    chips = max(least, int((chip**2 / count + common**2) / room))
    while width_of(chips) > width:
        chips += 1
    return chips


def _stretch(found: Hierarchy) -> float:
    """Return the width of an interval relative to Student's, 1 for few chips of unknown shape."""
    student = _width(found.std_error, found.degrees, 0.95)
    return found.interval().width / student if found.chips > FEW and student > 0 else 1.0


def _width(std_error: float, degrees: int, confidence: float) -> float:
    return 2 * student_t_quantile((1 + confidence) / 2, degrees) * std_error
