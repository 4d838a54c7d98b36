"""Intervals with the stated coverage for chip accuracies: skewed, near 1, on a finite test set."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from spikewvat.robustness.statistics import (
    ANYTHING,
    FRACTIONS,
    Interval,
    check_confidence,
    mean_interval,
    wilson_interval,
)

FEW = 10
"""Number of values up to which a sample does not show how skewed they are."""
_SKEWED, _ROUNDING = 0.5, 1e-6


def chip_interval(
    accuracies: Tensor, *, confidence: float = 0.95, cautious: bool = False
) -> Interval:
    """Return an interval of the mean accuracy over chips that allows for skewness.

    It is :func:`skewed_interval`, and the extra chips as well as the bounds lie within [0, 1].

    Args:
        accuracies: One fraction per chip ``[chips]``.
        confidence: Coverage, between 0 and 1.
        cautious: Always extend the lower side.

    Returns:
        The interval; NaN bounds for a single chip.

    Raises:
        ValueError: If there are no values or ``confidence`` is out of range.

    Example:
        >>> [round(bound, 3) for bound in chip_interval(torch.tensor([0.90, 0.92, 0.94]))]
        [0.87, 0.97]
    """
    low, high = skewed_interval(
        accuracies, confidence=confidence, cautious=cautious, bounds=FRACTIONS
    )
    return Interval(max(low, 0.0), min(high, 1.0)) if len(accuracies) > 1 else Interval(low, high)


def skewed_interval(
    values: Tensor,
    *,
    confidence: float = 0.95,
    cautious: bool = False,
    bounds: Interval = ANYTHING,
) -> Interval:
    """Return an interval of the mean of numbers that may be skewed.

    Student's interval misses the mean too often if a few values are far from the others. On the
    side to which the sample is skewed (by more than 0.5, or at all if there are at most ten
    values), one more value is added to it, as far beyond the outermost one as the opposite end of
    the sample is from it, and the wider of the two bounds is used. ``benchmarks/coverage.py``
    measures the coverage. No narrow interval is valid if outliers are so
    rare that the sample may contain none (Bahadur and Savage, 1956), see :func:`unseen_share`.

    Args:
        values: Independent numbers ``[n]``.
        confidence: Coverage, between 0 and 1.
        cautious: Always extend the lower side.
        bounds: The smallest and the largest value possible.

    Returns:
        The interval; NaN bounds for a single value.

    Raises:
        ValueError: If there are no values or ``confidence`` is out of range.

    References:
        The nonexistence of certain statistical procedures in nonparametric problems (Bahadur and
        Savage, 1956)
    """
    low, high = mean_interval(values, confidence=confidence)
    if len(values) == 1:
        return Interval(low, high)
    sides = doubtful_sides(values)
    if sides.low or cautious:
        more = with_phantom(values, below=True, bounds=bounds)
        low = min(low, mean_interval(more, confidence=confidence).low)
    if sides.high:
        more = with_phantom(values, below=False, bounds=bounds)
        high = max(high, mean_interval(more, confidence=confidence).high)
    return Interval(low, high)


class Sides(NamedTuple):
    """On which sides of a sample Student's interval is unreliable."""

    low: bool
    high: bool


def doubtful_sides(values: Tensor) -> Sides:
    """Return on which sides Student's interval is unreliable, see :func:`skewed_interval`."""
    skewed, limit = skewness(values), _ROUNDING if len(values) <= FEW else _SKEWED
    return Sides(skewed < -limit, skewed > limit)


def with_phantom(values: Tensor, *, below: bool, bounds: Interval) -> Tensor:
    """Append one value, as far beyond an end of a sample as the other end is from that end.

    Args:
        values: Numbers ``[n]``.
        below: Whether it lies below the smallest one, else above the largest.
        bounds: The smallest and the largest value possible.

    Returns:
        Numbers ``[n + 1]``, float64.
    """
    values = values.double()
    least, most = values.aminmax(dim=-1, keepdim=True)
    phantom = 2 * least - most if below else 2 * most - least
    return torch.cat([values, phantom.clamp(*bounds)], dim=-1)


def skewness(values: Tensor) -> float:
    """Return the skewness of a sample, 0 if all values are equal."""
    centred = values.double() - values.double().mean()
    spread = float(centred.square().mean().sqrt())
    return 0.0 if spread < 1e-12 else float(centred.pow(3).mean()) / spread**3


@lru_cache(maxsize=4096)
def share_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """Return Clopper and Pearson's interval of a share; its coverage is never below ``confidence``.

    Wilson's interval is 7 to 15 % narrower, but covers only .86 to .91 for shares above .985.

    Args:
        successes: Number of successes, for example working chips.
        trials: Number of trials, at least 1.
        confidence: Coverage, between 0 and 1.

    Returns:
        The interval.

    Raises:
        ValueError: If an argument is out of range.

    References:
        The use of confidence or fiducial limits (Clopper and Pearson, 1934),
        https://doi.org/10.1093/biomet/26.4.404

    Example:
        >>> [round(bound, 4) for bound in share_interval(97, 100)]
        [0.9148, 0.9938]
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            "share_interval needs 0 <= successes <= trials and at least 1 trial, "
            f"got {successes!r} of {trials!r}."
        )
    tail = (1 - check_confidence(confidence)) / 2

    def bound(failures: int) -> float:
        """Return the failure rate at which this few failures have the tail's probability."""
        if failures == trials:
            return 1.0
        low, high = failures / trials, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if _at_most(failures, middle) > tail else (low, middle)
        return (low + high) / 2

    def _at_most(count: int, share: float) -> float:
        k = torch.arange(count + 1, dtype=torch.float64)
        logs = (
            math.lgamma(trials + 1)
            - torch.lgamma(k + 1)
            - torch.lgamma(trials - k + 1)
            + k * math.log(share if share > 0 else 1e-300)
            + (trials - k) * math.log1p(-min(share, 1 - 1e-16))
        )
        return float(logs.exp().sum())

    return Interval(1 - bound(trials - successes), bound(successes))


def unseen_share(chips: int, *, confidence: float = 0.95) -> float:
    r"""Bound the share of chips worse than the worst of a sample: :math:`1 - (1 - c)^{1/n}`.

    With this confidence, at most this share of all chips is worse than the worst of the sample,
    whatever the distribution.

    Args:
        chips: Size of the sample n, at least 1.
        confidence: c, between 0 and 1.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Determination of sample sizes for setting tolerance limits (Wilks, 1941),
        https://doi.org/10.1214/aoms/1177731788

    Example:
        >>> [round(unseen_share(chips), 3) for chips in (10, 25, 59, 100)]
        [0.259, 0.113, 0.05, 0.03]
    """
    if chips < 1:
        raise ValueError(f"chips must be at least 1, got {chips!r}.")
    return float(1 - (1 - check_confidence(confidence)) ** (1 / chips))


def over_images(
    interval: Interval,
    mean: float,
    images: int,
    *,
    hits: Tensor | None = None,
    confidence: float = 0.95,
) -> Interval:
    r"""Extend the interval of a mean accuracy from the images at hand to new images.

    The half-widths over chips and of Wilson's interval over images are added in quadrature,

    .. math:: \text{low} = \bar p - \sqrt{(\bar p - l)^2 + (\bar p - w(m_\text{eff}))^2},
        \qquad m_\text{eff} = \min\left(\frac{\bar p (1 - \bar p)}{v / m},\; 2m\right)

    and likewise for the upper bound; v is the variance over images of the share of correct chips.

    Args:
        interval: Interval over chips, or trainings and chips, for these images.
        mean: The mean accuracy, a fraction.
        images: Number of images, m.
        hits: Share of chips that classify each image correctly ``[images]``; without it
            :math:`m_\text{eff} = m`, which is valid but wider.
        confidence: Coverage, between 0 and 1.

    Returns:
        The interval, cut to [0, 1]; NaN bounds are kept.

    Raises:
        ValueError: If ``images`` is below 1 or ``mean`` is not a fraction.

    References:
        Construction of confidence limits about effect measures (Zou and Donner, 2008),
        https://doi.org/10.1002/sim.3095

    Example:
        >>> [round(bound, 4) for bound in over_images(Interval(0.936, 0.946), 0.941, 395)]
        [0.9127, 0.9606]
    """
    if images < 1 or not 0 <= mean <= 1:
        raise ValueError(
            f"over_images needs a fraction and at least 1 image, got {mean!r} of {images!r} images."
        )
    effective = float(images)
    if hits is not None and images > 1:
        variance = float(hits.double().var(correction=1)) / images
        binomial = mean * (1 - mean)
        effective = 2.0 * images if variance <= 0 else min(binomial / variance, 2.0 * images)
    effective = max(effective, 1.0)
    # Wilson's interval of a share of a number of images that need not be whole.
    low, high = wilson_interval(mean * effective, effective, confidence=confidence)
    return (
        Interval(
            max(mean - math.hypot(mean - interval.low, mean - low), 0.0),
            min(mean + math.hypot(interval.high - mean, high - mean), 1.0),
        )
        if not math.isnan(interval.low)
        else interval
    )


def running_interval(accuracies: Tensor, planned: int, *, confidence: float = 0.95) -> Interval:
    r"""Return an interval of the mean that is valid at all numbers of chips simultaneously.

    You may look at it after every chip and stop at any time. It is a mixture of t statistics:

    .. math:: \bar x \pm s \sqrt{\frac{(n - 1)\, u}{n}}, \quad
        u = \frac{A - 1}{1 - A / k}, \quad A = \left(\frac{\sqrt k}{1 - c}\right)^{2/n},
        \quad k = 1 + n g, \quad g = 8.8 / n_\text{planned}

    It is infinite while :math:`A \ge k`, and needs 2.5 to 2.9 times as many chips.

    Args:
        accuracies: Accuracies of the chips so far ``[n]``.
        planned: Approximate number of chips at which it should be narrowest, at least 2.
        confidence: Coverage c, between 0 and 1.

    Returns:
        The interval, cut to [0, 1].

    Raises:
        ValueError: If an argument is out of range.

    References:
        On confidence sequences (Lai, 1976), https://doi.org/10.1214/aos/1176343406; Time-uniform
        confidence spheres and t-tests (Wang and Ramdas, 2023), https://arxiv.org/abs/2310.03722
    """
    if planned < 2:
        raise ValueError(f"planned must be at least 2, got {planned!r}.")
    check_confidence(confidence)
    n = len(accuracies)
    k = 1 + n * 8.8 / planned
    level = (math.sqrt(k) / (1 - confidence)) ** (2 / n) if n else math.inf
    if n < 2 or level >= k:
        return Interval(0.0, 1.0)
    values = accuracies.double()
    u = (level - 1) / (1 - level / k)
    half = float(values.std(correction=1)) * math.sqrt((n - 1) * u / n)
    mean = float(values.mean())
    return Interval(max(mean - half, 0.0), min(mean + half, 1.0))
