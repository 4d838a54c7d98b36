"""Split a budget between chips and images: the cheapest design for a given interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spikewvat.devices.base import check_above_zero
from spikewvat.robustness.planning import chips_needed
from spikewvat.robustness.results import ChipReport


@dataclass(frozen=True)
class Split:
    """A number of chips, each tested on its own sample of images.

    Args:
        chips: Number of chips.
        images: Number of images per chip.
        width: Expected full width of the interval of the mean accuracy, a fraction.
        chip_cost: Cost of programming one chip, in images.
    """

    chips: int
    images: int
    width: float
    chip_cost: float

    @property
    def chip_images(self) -> int:
        """Total number of images classified."""
        return self.chips * self.images

    @property
    def cost(self) -> float:
        """Total cost of classifying images and programming chips, in images."""
        return self.chips * (self.chip_cost + self.images)


def best_split(
    pilot: ChipReport, width: float, *, chip_cost: float, confidence: float = 0.95
) -> Split:
    r"""Return the cheapest numbers of chips and images for an interval of a given width.

    Chip i classifies m of the N images of the test set, drawn for it without replacement. Its
    accuracy :math:`y_i` varies both between chips and between samples of images:

    .. math:: V(m) = \mathrm{Var}(y_i) = \tau^2 + S^2 \left(\frac{1}{m} - \frac{1}{N}\right)

    with :math:`\tau^2` the variance over chips of the accuracy on all images, and :math:`S^2` the
    mean over chips of the variance of correct (1) and wrong (0) over the images of one chip. Chips
    and their samples are independent, so the mean of n chips has variance :math:`V(m) / n`,
    Student's interval over the :math:`y_i` covers both parts, and the cheapest number of images per
    chip follows:

    .. math:: \min_m \; n (c + m) \quad \text{with} \quad V(m) / n = v \;\Rightarrow\;
        \min_m \; \Big(\tau^2 - \frac{S^2}{N} + \frac{S^2}{m}\Big) (c + m) \;\Rightarrow\;
        m^* = S \sqrt{\frac{c}{\tau^2 - S^2 / N}}

    where the derivative :math:`\tau^2 - S^2 / N - S^2 c / m^2` is zero, cut to 1 .. N; N if the
    denominator is not positive. The components come from the pilot run: with accuracies
    :math:`y_i` on :math:`m_0` images each, :math:`\hat S^2 = \overline{y_i (1 - y_i)} \, m_0 /
    (m_0 - 1)`, and :math:`\hat\tau^2` is the variance of the :math:`y_i` minus
    :math:`\hat S^2 (1/m_0 - 1/N)`, at least 0.

    Args:
        pilot: A run of at least two chips, on all images or on a sample per chip.
        width: Full width of the interval of the mean accuracy, a fraction: 0.01 for half a
            percentage point on each side.
        chip_cost: Cost of programming a chip and starting its pass, in images; above 0. To estimate
            it, time a chip on few and on many images.
        confidence: Coverage, between 0 and 1.

    Returns:
        The split; pass its numbers to ``Evaluator.chips(chips=..., images_per_chip=...)``.

    Raises:
        ValueError: If a number is out of range, or the pilot has a single chip or image.

    References:
        Sampling Techniques (Cochran, 1977), chapter 10: the optimum of two-stage sampling.

    Example:
        >>> import torch
        >>> values = torch.tensor([0.94, 0.95, 0.96], dtype=torch.float64)
        >>> pilot = ChipReport("Gaussian(sigma=0.1)", 0.1, values, (1, 2, 3), images=10_000)
        >>> split = best_split(pilot, width=0.01, chip_cost=50)
        >>> split.chips, split.images, split.chip_images
        (64, 158, 10112)
    """
    check_above_zero("chip_cost", chip_cost)
    between, within = components(pilot)
    images = pilot.images if pilot.sampled_from is None else pilot.sampled_from
    rest = between - within / images
    many = math.sqrt(within * chip_cost / rest) if rest > 0 else math.inf
    each = min(max(1, round(min(many, images))), images)
    std = math.sqrt(_variance(between, within, each, images))
    chips = chips_needed(std, width, confidence=confidence)
    return Split(chips, each, width, chip_cost)


def components(report: ChipReport) -> tuple[float, float]:
    """Return the variance over chips and the variance over images of one chip.

    Args:
        report: Report of at least two chips and two images.

    Returns:
        Variance over chips of the accuracy on all images, and the mean variance of correct and
        wrong over the images of a chip, see :func:`best_split`.

    Raises:
        ValueError: If there is a single chip or image.
    """
    if report.chips < 2 or report.images < 2:
        raise ValueError(
            f"a pilot run of {report.chips} chips x {report.images} images has no components. "
            "Use at least two of each."
        )
    seen, total = report.images, report.sampled_from or report.images
    wrong = 1 - report.accuracies
    within = float((report.accuracies * wrong).mean()) * seen / (seen - 1)
    between = report.std**2 - within * (1 / seen - 1 / total)
    return max(between, 0.0), within


def _variance(between: float, within: float, images: int, total: int) -> float:
    """Return the variance of a chip's accuracy on a sample of the images."""
    return between + within * (1 / images - 1 / total)
