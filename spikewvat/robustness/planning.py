"""The number of chips to simulate for an interval of a given width."""

from __future__ import annotations

import math
from statistics import NormalDist

from spikewvat.devices.base import check_above_zero
from spikewvat.robustness.hierarchy import Hierarchy
from spikewvat.robustness.results import ChipReport
from spikewvat.robustness.statistics import check_confidence, student_t_quantile


def chips_needed(spread: ChipReport | float, width: float, *, confidence: float = 0.95) -> int:
    r"""Return the smallest number of chips for a narrow enough interval of the mean.

    .. math:: 2\, t_{n-1,\,(1+c)/2}\, s / \sqrt n \le w

    The spread of the actual run is random too: about half of the time its interval is a little
    wider.

    Args:
        spread: Standard deviation over chips, a fraction, or a report of a pilot run.
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
    std = spread.std if isinstance(spread, ChipReport) else spread
    if math.isnan(std) or std < 0:
        raise ValueError(
            f"spread must be at least 0, got {std!r}. A pilot run needs at least two chips."
        )
    check_above_zero("width", width)
    check_confidence(confidence)
    # The quantile of the normal distribution is below each of Student's.
    chips = max(2, int((2 * NormalDist().inv_cdf((1 + confidence) / 2) * std / width) ** 2))
    while _width(std / math.sqrt(chips), chips - 1, confidence) > width:
        chips += 1
    return chips


def chips_needed_per_training(
    found: Hierarchy, width: float, *, trainings: int | None = None, confidence: float = 0.95
) -> int:
    r"""Return the smallest number of chips per training, for several trainings.

    .. math:: 2\, t \sqrt{\frac{\sigma_s^2 + \sigma_e^2 / n}{a} + \frac{\sigma_c^2}{n}} \le w

    More chips cannot make up for too few trainings: the first term remains.

    Args:
        found: Variance components of a pilot run, see :func:`~spikewvat.robustness.hierarchical`.
        width: Full width of the interval, a fraction, above 0.
        trainings: Number of trainings, at least 2; by default that of the pilot run.
        confidence: Coverage, between 0 and 1.

    Returns:
        Number of chips, at least 2.

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

    def width_of(chips: int) -> float:
        error = math.sqrt((seed**2 + chip**2 / chips) / count + common**2 / chips)
        return _width(error, (min(count, chips) if common else count) - 1, confidence)

    # With many chips the degrees are those of the trainings: solved for their number.
    quantile = student_t_quantile((1 + confidence) / 2, count - 1)
    room = (width / (2 * quantile)) ** 2 - seed**2 / count
    chips = max(2, int((chip**2 / count + common**2) / room))
    while width_of(chips) > width:
        chips += 1
    return chips


def _width(std_error: float, degrees: int, confidence: float) -> float:
    return 2 * student_t_quantile((1 + confidence) / 2, degrees) * std_error
