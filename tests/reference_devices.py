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


class Preset:
    """One cell of a technology: conductance at a time from three standard normal numbers."""

    def __init__(self, window, cell):
        self.window, self.cell = window, cell


def _pcm(g, time, z1, z2, z3):
    x = max(g / 25, 1e-7)
    written = max(0.0, g + z1 * (0.26348 + 1.9650 * (g / 25) - 1.1731 * (g / 25) ** 2))
    mean = min(max(-0.0155 * math.log(x) + 0.0244, 0.049), 0.1)
    std = min(max(-0.0125 * math.log(x) - 0.0059, 0.008), 0.045)
    drifted = written * ((time + 20) / 20) ** -abs(mean + std * z2)
    share = min(0.2, 0.0088 / max(max(written / 25, 1e-7) ** 0.65, 1e-3))
    noise = math.sqrt(math.log((time + 20 + 250e-9) / (2 * 250e-9)))
    return max(0.0, drifted + drifted * share * noise * z3)


def _hermes(g, time, z1, z2, z3):
    x = g / 20.7
    std = 0.16603222 + 4.71806468 * x - 8.48101252 * x**2 + 4.68961419 * x**3
    written = max(0.0, g + z1 * std)
    x = max(x, 1e-7)
    mean = -0.0436 * x**2 - 0.0126 * x + 0.0736
    if x < 0.0945:
        mean = min(max(-0.0387 * math.log(x) - 0.0182, 0.0720), 0.13)
    spread = -0.0118 * x**2 + 0.0093 * x + 0.0073
    if x < 0.3055:
        spread = min(max(-0.0117 * math.log(x) - 0.0057, 0.0091), 0.04)
    drifted = written * ((time + 300) / 300) ** -abs(mean + spread * z2)
    y = max(written / 20.7, 1e-7)
    share = 0.0069 * y**3 - 0.0280 * y**2 + 0.0211 * y + 0.0123
    if y < 0.16:
        share = min(max(-0.0117 * math.log(y) - 0.0069, 0.015), 0.04)
    noise = math.sqrt(math.log((time + 300 + 512e-9) / (2 * 512e-9)))
    return max(0.0, drifted + drifted * share * noise * z3)


def _wan(g, time, z1, z2, z3):
    x = g / 40
    second = -16.815 * x**4 + 45.393 * x**3 - 43.853 * x**2 + 16.030 * x + 0.348
    day = -16.458 * x**4 + 47.095 * x**3 - 50.773 * x**2 + 22.086 * x + 0.701
    two = -11.934 * x**4 + 37.062 * x**3 - 43.507 * x**2 + 20.274 * x + 0.782
    if time <= 1:
        std = second
    elif time <= 86400:
        std = second + (day - second) * math.log(time) / math.log(86400)
    else:
        std = day + (two - day) * math.log(time / 86400) / math.log(2)
    return max(0.0, g + max(0.0, std) * z1)


def _cmo(g, time, z1, z2, z3):
    written = max(0.0, g + z1 * (0.00106879 * g + 0.00081107))
    if time == 0:
        return written
    log = math.log(max(1.0, time))
    relaxed = written - 0.08900206 * log + (0.04201137 * log + 0.41183342) * z2
    relaxed = min(max(relaxed, 9.0), 88.2)
    noise = math.sqrt(math.log((time + 1e-6) / 2e-6))
    return max(0.0, relaxed + 0.0277316483 * math.log10(max(1.0, relaxed)) * noise * z3)


def _milo(g, time, z1, z2, z3):
    return max(0.0, g + z1 * max(0.0, 4.782321 - 0.009107 * g))


_SONOS = {  # day: A, B, mean drift by powers of the current
    0.0: (19.88665, 176.3115, [0.0] * 11),
    1.0: (
        *(25.59102, 186.85544),
        (
            *(1.72684e-01, 5.72552e-02, -6.85715e-04, 3.50271e-06, -9.37682e-09, 1.40575e-11),
            *(-1.19803e-14, 5.41293e-18, -8.85448e-22, -1.66869e-25, 5.95180e-29),
        ),
    ),
    2.0: (
        *(28.72753, 193.56834),
        (
            *(2.50712e-01, 6.62195e-02, -6.83218e-04, 2.99442e-06, -6.78255e-09, 7.70482e-12),
            *(-3.04983e-15, -2.15919e-18, 2.94617e-21, -1.23359e-24, 1.85329e-28),
        ),
    ),
    3.0: (
        *(31.04318, 198.90332),
        (
            *(-1.75300e-02, 9.76883e-02, -9.63791e-04, 4.55551e-06, -1.22391e-08, 1.93786e-11),
            *(-1.85899e-14, 1.07659e-17, -3.58211e-21, 5.96785e-25, -3.30410e-29),
        ),
    ),
    5.0: (
        *(34.57909, 207.34309),
        (
            *(3.19927e-01, 1.06596e-01, -1.04054e-03, 4.50290e-06, -1.10352e-08, 1.56477e-11),
            *(-1.27592e-14, 5.45513e-18, -7.26841e-22, -2.43893e-25, 7.14608e-29),
        ),
    ),
}


def _sonos(g, time, z1, z2, z3):
    def law(day):
        a, b, coefficients = _SONOS[day]
        return a, b, math.fsum(c * g**i for i, c in enumerate(coefficients))

    day = time / 86400
    a, b, moved = law(day) if day in _SONOS else (math.nan,) * 3
    if day == 2.5:
        a, b, moved = ((one + other) / 2 for one, other in zip(law(2.0), law(3.0), strict=True))
    written = max(0.0, g + z1 * max(0.0, a * (1 - math.exp(-(g + moved) / b))))
    now = written + moved
    return max(0.0, now + z3 * max(0.0, 12.58037 * (1 - math.exp(-now / 215.36557))))


PRESETS = {
    "pcm": Preset((0.0, 25.0), _pcm),
    "hermes": Preset((0.0, 20.7), _hermes),
    "wan": Preset((0.0, 40.0), _wan),
    "cmo": Preset((9.0, 88.2), _cmo),
    "milo": Preset((50.0, 225.0), _milo),
    "sonos": Preset((0.0, 1600.0), _sonos),
}
