"""Slow, literal equations of the device models; one number at a time, no tensors."""

from __future__ import annotations

import math


def mean_and_std(values):
    """Mean and population standard deviation."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))


def moments(values):
    """Mean, population standard deviation and skewness."""
    mean, std = mean_and_std(values)
    return mean, std, math.fsum((v - mean) ** 3 for v in values) / len(values) / std**3


def sizes(values):
    """Size and bounds of the range by rule, for one tensor or one channel."""
    mean, std = mean_and_std(values)
    largest = max(abs(v) for v in values)
    return {
        "SixSigma": (6 * std, mean - 3 * std, mean + 3 * std),
        "HalfWidth": (3 * std, mean - 3 * std, mean + 3 * std),
        "AbsMax": (largest, -largest, largest),
        "MinMax": (max(values) - min(values), min(values), max(values)),
    }


def quantise(values, bits):
    """Steps q and values s q with s = max|w| / (2^(b-1) - 1); Python rounds half to even."""
    top = 2 ** (bits - 1) - 1
    scale = max(abs(v) for v in values) / top
    steps = [max(-top, min(top, round(v / scale))) for v in values]
    return scale, steps, [scale * q for q in steps]


def differential_pair(weight, largest, g_min, g_max):
    """Conductances of one weight, and the weight read back from them."""
    share = max(-1.0, min(1.0, weight / largest))
    plus = g_min + (g_max - g_min) * max(0.0, share)
    minus = g_min + (g_max - g_min) * max(0.0, -share)
    return plus, minus, largest * (plus - minus) / (g_max - g_min)


def drift_mean_square(nu, spread, log_age, steps=20_000):
    """E[(exp(-log_age max(0, N(nu, spread^2))) - 1)^2] by the midpoint rule."""
    total = 0.0
    for i in range(steps):
        z = -9 + 18 * (i + 0.5) / steps
        exponent = max(0.0, nu + spread * z)
        density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        total += (math.exp(-log_age * exponent) - 1) ** 2 * density * 18 / steps
    return total


def empirical_mean_square(place, levels):
    """Mean square error at a place: linear between the levels (position, errors)."""
    squares = [sum(e * e for e in errors) / len(errors) for _, errors in levels]
    positions = [position for position, _ in levels]
    if place <= positions[0]:
        return squares[0]
    for i in range(1, len(positions)):
        if place <= positions[i]:
            share = (place - positions[i - 1]) / (positions[i] - positions[i - 1])
            return (1 - share) * squares[i - 1] + share * squares[i]
    return squares[-1]
