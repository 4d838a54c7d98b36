"""Mean squares of one-way and two-way layouts, summed one by one, and brute-force planning."""

from __future__ import annotations

import math

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


def interval(mean, error, degrees, confidence=0.95):
    """Return the t interval by scipy."""
    half = stats.t.ppf((1 + confidence) / 2, degrees) * error
    return mean - half, mean + half


def fewest_chips(std, width, confidence):
    """Try one number of chips after the other."""
    n = 2
    while 2 * stats.t.ppf((1 + confidence) / 2, n - 1) * std / math.sqrt(n) > width:
        n += 1
    return n


def fewest_chips_per_training(seed, common, chip, trainings, width, confidence):
    """Try one number of chips after the other."""
    n = 2
    while True:
        degrees = (min(trainings, n) if common else trainings) - 1
        error = math.sqrt(seed**2 / trainings + chip**2 / (trainings * n) + common**2 / n)
        if 2 * stats.t.ppf((1 + confidence) / 2, degrees) * error <= width:
            return n
        n += 1
