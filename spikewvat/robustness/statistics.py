"""Intervals and p-values of simple samples: Student-t for a mean, Wilson for a share, Holm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor


class Interval(NamedTuple):
    """A closed interval; its bounds are NaN if it is undefined.

    Args:
        low: Lower bound.
        high: Upper bound.
    """

    low: float
    high: float

    @property
    def width(self) -> float:
        """Full width, high - low."""
        return self.high - self.low


ANYTHING = Interval(-math.inf, math.inf)
FRACTIONS = Interval(0.0, 1.0)


def mean_of(values: Tensor | Sequence[float]) -> float:
    """Return the mean, computed in float64.

    Args:
        values: At least one number.

    Returns:
        The mean.

    Raises:
        ValueError: If there are no values.
    """
    return float(_as_vector(values).mean())


def sample_std(values: Tensor | Sequence[float]) -> float:
    """Return the sample standard deviation (ddof 1), computed in float64.

    Args:
        values: At least one number.

    Returns:
        The standard deviation; NaN for a single value, whose spread is unknown.

    Raises:
        ValueError: If there are no values.

    Example:
        >>> sample_std([1.0, 3.0])
        1.4142135623730951
    """
    vector = _as_vector(values)
    return math.nan if len(vector) == 1 else float(vector.std(correction=1))


def mean_interval(values: Tensor | Sequence[float], *, confidence: float = 0.95) -> Interval:
    r"""Return the Student-t confidence interval of the mean.

    .. math:: \bar x \pm t_{n-1,\,(1+c)/2}\, \frac{s}{\sqrt n}

    Args:
        values: At least one independent number, such as the accuracy of each chip.
        confidence: Coverage c, between 0 and 1.

    Returns:
        The interval; NaN bounds for a single value, whose spread is unknown.

    Raises:
        ValueError: If there are no values or ``confidence`` is out of range.

    References:
        The probable error of a mean (Student, 1908), https://doi.org/10.1093/biomet/6.1.1

    Example:
        >>> [round(bound, 3) for bound in mean_interval([0.90, 0.92, 0.94])]
        [0.87, 0.97]
    """
    vector = _as_vector(values)
    mean, count = float(vector.mean()), len(vector)
    if count == 1:
        return Interval(math.nan, math.nan)
    quantile = student_t_quantile((1 + check_confidence(confidence)) / 2, count - 1)
    half = quantile * sample_std(vector) / math.sqrt(count)
    return Interval(mean - half, mean + half)


@lru_cache(maxsize=1024)
def student_t_quantile(probability: float, degrees: int) -> float:
    r"""Return a quantile of Student's t distribution with a whole number of degrees of freedom.

    With :math:`\theta = \arctan(t / \sqrt\nu)` the probability of :math:`|T| \le t` is a finite sum
    of positive powers of :math:`\cos\theta`, exact up to rounding; the quantile is found by
    bisection over :math:`\theta`.

    Args:
        probability: Between 0 and 1, both excluded.
        degrees: Degrees of freedom :math:`\nu`, at least 1.

    Returns:
        t such that P(T <= t) = ``probability``.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Handbook of Mathematical Functions (Abramowitz and Stegun, 1964), Eq. 26.7.3 and 26.7.4

    Example:
        >>> round(student_t_quantile(0.975, 4), 6)
        2.776445
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability must lie between 0 and 1, got {probability!r}.")
    if degrees < 1:
        raise ValueError(f"degrees must be at least 1, got {degrees!r}.")
    if probability < 0.5:
        return -student_t_quantile(1 - probability, degrees)
    inside = _probability_inside(degrees)
    low, high = 0.0, math.pi / 2
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < 2 * probability - 1 else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def student_t_p_value(t: float, degrees: int) -> float:
    """Return the two-sided p-value of Student's t test.

    Args:
        t: The statistic, an estimate over its standard error; may be infinite.
        degrees: Degrees of freedom, at least 1.

    Returns:
        P(|T| >= |t|), exact to about 1e-15.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> round(student_t_p_value(2.776445, 4), 6)
        0.05
    """
    if math.isnan(t):
        raise ValueError("t must be a number, got nan.")
    if degrees < 1:
        raise ValueError(f"degrees must be at least 1, got {degrees!r}.")
    theta = math.atan(abs(t) / math.sqrt(degrees))
    return min(max(1 - _probability_inside(degrees)(theta), 0.0), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Adjust p-values by Holm's method, which controls the family-wise error rate.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})

    Args:
        p_values: One per comparison in the family, in any order.

    Returns:
        Adjusted p-values in the same order.

    Raises:
        ValueError: If one lies outside [0, 1].

    References:
        A simple sequentially rejective multiple test procedure (Holm, 1979),
        https://www.jstor.org/stable/4615733

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    for p in p_values:
        if not 0 <= p <= 1:
            raise ValueError(f"p_values must lie between 0 and 1, got {p!r}.")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def wilson_interval(successes: float, trials: float, *, confidence: float = 0.95) -> Interval:
    r"""Return Wilson's score interval of a share; it stays within [0, 1] and never has width 0.

    .. math:: \frac{1}{1 + z^2/n} \left( \hat p + \frac{z^2}{2n} \pm
        z \sqrt{\frac{\hat p (1 - \hat p)}{n} + \frac{z^2}{4 n^2}} \right)

    Args:
        successes: Number of successes, for example working chips; an effective number need not be
            whole.
        trials: Number of trials n, at least 1.
        confidence: Coverage, between 0 and 1.

    Returns:
        The interval.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Probable inference, the law of succession, and statistical inference (Wilson, 1927),
        https://doi.org/10.1080/01621459.1927.10502953

    Example:
        >>> [round(bound, 4) for bound in wilson_interval(97, 100)]
        [0.9155, 0.9897]
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            "wilson_interval needs 0 <= successes <= trials and at least 1 trial, "
            f"got {successes!r} of {trials!r}."
        )
    z = NormalDist().inv_cdf((1 + check_confidence(confidence)) / 2)
    share, z2 = successes / trials, z * z / trials
    centre = (share + z2 / 2) / (1 + z2)
    half = math.sqrt(z2 * (share * (1 - share) + z2 / 4)) / (1 + z2)
    # At the ends the exact bound is 0 or 1; rounding would leave it just outside.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return Interval(low, high)


def _probability_inside(degrees: int) -> Callable[[float], float]:
    r"""Return the function from :math:`\theta` to P(|T| <= sqrt(degrees) tan(theta))."""
    # 1, 2/3, 2/3 4/5 ... for odd degrees, 1, 1/2, 1/2 3/4 ... for even ones.
    start = 2 + degrees % 2
    steps = torch.arange(start, max(degrees - 1, start), 2, dtype=torch.float64)
    coefficients = torch.cat([steps.new_ones(1), torch.cumprod((steps - 1) / steps, 0)])
    powers = 2 * torch.arange(len(coefficients), dtype=torch.float64) + degrees % 2

    def inside(theta: float) -> float:
        series = math.sin(theta) * float((coefficients * math.cos(theta) ** powers).sum())
        if degrees % 2:
            return 2 / math.pi * (theta + (series if degrees > 1 else 0.0))
        return series

    return inside


def _as_vector(values: Tensor | Sequence[float]) -> Tensor:
    vector = torch.as_tensor(values, dtype=torch.float64).flatten()
    if len(vector) == 0:
        raise ValueError("there are no values to summarise, expected at least one.")
    return vector


def check_confidence(confidence: float) -> float:
    """Return a coverage; raise ValueError unless it lies between 0 and 1, both excluded."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}.")
    return confidence
