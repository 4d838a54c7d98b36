"""LIF neurons one at a time, plain Python numbers, written straight from the equations."""

from __future__ import annotations

import math


def slope(x, surrogate, sharpness):
    """Return the surrogate's slope at a distance from the threshold."""
    if surrogate == "atan":
        return sharpness / 2 / (1 + (math.pi / 2 * sharpness * x) ** 2)
    return 1 / (1 + sharpness * abs(x)) ** 2


def forward(currents, reset, beta, threshold, carry=0.0):
    """Return spikes, potentials, and what is left, of one neuron."""
    spikes, potentials = [], []
    for current in currents:
        u = carry + current
        s = 1.0 if u >= threshold else 0.0
        if reset == "subtract":
            carry = beta * (u - threshold * s)
        elif reset == "after decay":
            carry = beta * u - threshold * s
        else:
            carry = beta * u * (1 - s)
        spikes.append(s)
        potentials.append(u)
    return spikes, potentials, carry


def backward(of_spikes, of_left, currents, reset, beta, threshold, slope_at, detach, carry=0.0):
    """Return gradients of the currents, of the carry at the start, and of beta."""
    spikes, potentials, _ = forward(currents, reset, beta, threshold, carry)
    of_currents = [0.0] * len(currents)
    of_carry, of_beta = of_left, 0.0
    for t in range(len(currents) - 1, -1, -1):
        u, s, dsdu = potentials[t], spikes[t], slope_at(potentials[t] - threshold)
        through_reset = 0.0 if detach else dsdu
        if reset == "subtract":
            of_beta += of_carry * (u - threshold * s)
            change = beta * (1 - threshold * through_reset)
        elif reset == "after decay":
            of_beta += of_carry * u
            change = beta - threshold * through_reset
        else:
            of_beta += of_carry * u * (1 - s)
            change = beta * (1 - s) - beta * u * through_reset
        of_carry = of_currents[t] = of_spikes[t] * dsdu + of_carry * change
    return of_currents, of_carry, of_beta
