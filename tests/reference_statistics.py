"""Mean squares of one-way and two-way layouts, summed one by one, and brute-force planning."""

from __future__ import annotations

import math
import statistics

import numpy as np
from scipy import stats


def _mean(values):
    return sum(values) / len(values)


def nested(groups):
    """Return mean, standard error, degrees, and the standard deviations between and within."""
    a, means = len(groups), [_mean(group) for group in groups]
    mean = _mean(means)
    between = sum((m - mean) ** 2 for m in means) / (a - 1)
    within = sum((y - m) ** 2 for group, m in zip(groups, means) for y in group)
    within /= sum(len(group) - 1 for group in groups)
    # E[between] = seed variance + within * mean of 1 / n_i
    seed = between - within * _mean([1 / len(group) for group in groups])
    return mean, math.sqrt(between / a), a - 1, math.sqrt(max(seed, 0)), math.sqrt(within)


def crossed(table):
    """Return mean, standard error, degrees, and the three standard deviations of a full table."""
    a, n = len(table), len(table[0])
    rows = [_mean(row) for row in table]
    columns = [_mean([row[j] for row in table]) for j in range(n)]
    mean = _mean(rows)
    ms_rows = n * sum((m - mean) ** 2 for m in rows) / (a - 1)
    ms_columns = a * sum((m - mean) ** 2 for m in columns) / (n - 1)
    ms_rest = 0.0
    for i in range(a):
        for j in range(n):
            ms_rest += (table[i][j] - rows[i] - columns[j] + mean) ** 2
    ms_rest /= (a - 1) * (n - 1)
    common = max((ms_columns - ms_rest) / a, 0)
    error = math.sqrt(ms_rows / (a * n) + common / n)
    degrees = min(a, n) - 1 if common else a - 1
    seed = math.sqrt(max((ms_rows - ms_rest) / n, 0))
    return mean, error, degrees, seed, math.sqrt(common), math.sqrt(ms_rest)


def crossed_in_folds(tables):
    """Return mean, standard error and three standard deviations; one full table for each fold."""
    k, a, n = len(tables), len(tables[0]), len(tables[0][0])
    ss_rows, ss_rest = 0.0, 0.0
    for table in tables:
        rows = [_mean(row) for row in table]
        columns = [_mean([row[j] for row in table]) for j in range(n)]
        mean = _mean(rows)
        ss_rows += n * sum((m - mean) ** 2 for m in rows)
        for i in range(a):
            for j in range(n):
                ss_rest += (table[i][j] - rows[i] - columns[j] + mean) ** 2
    ms_rows = ss_rows / (k * (a - 1))
    ms_rest = ss_rest / (k * (a - 1) * (n - 1))
    columns = [_mean([row[j] for table in tables for row in table]) for j in range(n)]
    mean = _mean(columns)
    between_columns = sum((m - mean) ** 2 for m in columns) / (n - 1)
    common = max(between_columns - ms_rest / (k * a), 0)
    error = math.sqrt(ms_rows / n / (k * a) + common / n)
    seed = math.sqrt(max((ms_rows - ms_rest) / n, 0))
    return mean, error, seed, math.sqrt(common), math.sqrt(ms_rest)


def interval(mean, error, degrees, confidence=0.95):
    """Return the t interval by scipy."""
    half = stats.t.ppf((1 + confidence) / 2, degrees) * error
    return mean - half, mean + half


def typical_width(values, chips, confidence, low=-math.inf, high=math.inf):
    """Return the width of the interval of so many chips that are spread like the values."""
    shares = [(i + 0.5) / chips for i in range(chips)]
    quantiles = [float(np.quantile(values, share)) for share in shares]
    scale = statistics.stdev(values) / (statistics.stdev(quantiles) or 1)
    middle = _mean(quantiles)
    sample = [min(max(_mean(values) + scale * (q - middle), low), high) for q in quantiles]
    found = skewed_interval(sample, confidence, low, high, always_below=chips <= 10)
    return min(found[1], high) - max(found[0], low)


def fewest_chips(std, width, confidence):
    """Try one number of normal chips after the other."""
    for n in range(2, 11):
        scores = [float(stats.norm.ppf((i + 0.5) / n)) for i in range(n)]
        scores = [std * score / statistics.stdev(scores) for score in scores]
        low, high = skewed_interval(scores, confidence, always_below=True)
        if high - low <= width:
            return n
    n = 11
    while 2 * stats.t.ppf((1 + confidence) / 2, n - 1) * std / math.sqrt(n) > width:
        n += 1
    return n


def fewest_chips_per_training(seed, common, chip, trainings, width, confidence):
    """Try one number of chips after the other."""
    n = 2 if trainings <= 3 else 11
    while True:
        degrees = (min(trainings, n) if common else trainings) - 1
        error = math.sqrt(seed**2 / trainings + chip**2 / (trainings * n) + common**2 / n)
        if 2 * stats.t.ppf((1 + confidence) / 2, degrees) * error <= width:
            return n
        n += 1


def skewness(values):
    """Return the third central moment over the cubed standard deviation, divisor n."""
    mean = _mean(values)
    second = _mean([(v - mean) ** 2 for v in values])
    return 0.0 if second < 1e-24 else _mean([(v - mean) ** 3 for v in values]) / second**1.5


def lean(values):
    """Return on which side an interval needs another value: -1, 1, or 0 for neither."""
    skew, limit = skewness(values), 1e-6 if len(values) <= 10 else 0.5
    return 0 if abs(skew) <= limit else int(math.copysign(1, skew))


def with_another(values, side, low=-math.inf, high=math.inf):
    """Return the values with one more beyond the outermost one of a side."""
    least, most = min(values), max(values)
    beyond = least - (most - least) if side < 0 else most + (most - least)
    return [*values, min(max(beyond, low), high)]


def skewed_interval(values, confidence=0.95, low=-math.inf, high=math.inf, always_below=False):
    """Return the t interval, extended on the side to which the values lean."""
    sides = {lean(values), -1 if always_below else 0} - {0}
    samples = [values, *(with_another(values, side, low, high) for side in sides)]
    found = [
        interval(_mean(v), statistics.stdev(v) / math.sqrt(len(v)), len(v) - 1, confidence)
        for v in samples
    ]
    bounds = list(found[0])
    for side, (lower, upper) in zip(sides, found[1:]):
        bounds = [min(bounds[0], lower) if side < 0 else bounds[0], bounds[1]]
        bounds = [bounds[0], max(bounds[1], upper) if side > 0 else bounds[1]]
    return tuple(bounds)


def new_images(low, high, right):
    """Extend an interval to new images; ``right[chip][image]`` is whether it was correct."""
    chips, images = len(right), len(right[0])
    shares = [sum(row[k] for row in right) / chips for k in range(images)]
    p = _mean(shares)
    variance = sum((share - p) ** 2 for share in shares) / (images - 1) / images
    effective = min(p * (1 - p) / variance if variance else math.inf, 2 * images)
    effective = max(effective, 1)
    # Wilson's bounds solve (p - q)^2 = z^2 q (1 - q) / m for q.
    z = stats.norm.ppf(0.975)
    a, b, c = 1 + z * z / effective, -(2 * p + z * z / effective), p * p
    root = math.sqrt(max(b * b - 4 * a * c, 0))
    below, above = (-b - root) / (2 * a), (-b + root) / (2 * a)
    return (
        max(p - math.sqrt((p - low) ** 2 + (p - below) ** 2), 0),
        min(p + math.sqrt((high - p) ** 2 + (above - p) ** 2), 1),
    )


def extended(table, side, confidence=0.95, low=-math.inf, high=math.inf):
    """Return the interval of a full table, extended on a side by another chip of all trainings."""
    chips = [_mean(column) for column in zip(*table)]
    beyond = with_another(chips, side, low, high)[-1]
    shifts = [_mean(row) - _mean(chips) for row in table]
    more = [[*row, min(max(beyond + s, low), high)] for row, s in zip(table, shifts)]
    found = interval(*crossed(table)[:3], confidence)
    other = interval(*crossed(more)[:3], confidence)
    if side < 0:
        return min(found[0], other[0]), found[1]
    return found[0], max(found[1], other[1])
