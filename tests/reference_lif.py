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


def recurrent_forward(currents, weight, reset, beta, threshold, alpha, state):
    """Return spikes, potentials and the state after the last step of a layer, lists [t][n]."""
    spikes, potentials = [], []
    left, sent, flow = state
    for step in currents:
        heard = [sum(w * s for w, s in zip(row, sent)) for row in weight]
        flow = [alpha * f + i + h for f, i, h in zip(flow, step, heard)]
        u = [c + i for c, i in zip(left, flow)]
        sent = [1.0 if v >= threshold else 0.0 for v in u]
        ends = [forward([0.0], reset, b, threshold, carry=v) for b, v in zip(beta, u)]
        left = [end[2] for end in ends]
        spikes.append(sent)
        potentials.append(u)
    return spikes, potentials, (left, sent, flow)


def recurrent_backward(
    of_spikes, of_state, currents, weight, reset, beta, threshold, alpha, state, slope_at, detach
):
    """Return gradients of currents [t][n], weight [n][n], beta [n] and the state at the start."""
    spikes, potentials, _ = recurrent_forward(
        currents, weight, reset, beta, threshold, alpha, state
    )
    count = len(weight)
    of_left, of_sent, of_flow = (list(part) for part in of_state)
    of_currents = [[0.0] * count for _ in currents]
    of_weight = [[0.0] * count for _ in range(count)]
    of_beta = [0.0] * count
    for t in range(len(currents) - 1, -1, -1):
        before = spikes[t - 1] if t else state[1]
        for n in range(count):
            u = potentials[t][n]
            (of_u,), _, share = backward(
                [of_spikes[t][n] + of_sent[n]],
                of_left[n],
                [u],
                reset,
                beta[n],
                threshold,
                slope_at,
                detach,
            )
            of_beta[n] += share
            of_left[n] = of_u
            of_flow[n] = of_u + of_flow[n]
            of_currents[t][n] = of_flow[n]
            for m in range(count):
                of_weight[n][m] += of_currents[t][n] * before[m]
        of_sent = [
            sum(of_currents[t][n] * weight[n][m] for n in range(count)) for m in range(count)
        ]
        of_flow = [alpha * f for f in of_flow]
    return of_currents, of_weight, of_beta, (of_left, of_sent, of_flow)
