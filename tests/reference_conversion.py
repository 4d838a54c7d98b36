"""Slow, literal loops of converted networks: sections 5.3 and 5.4 of hybrid conversion, float64.

One neuron at a time, plain Python numbers; gradients are carried backward by the chain rule.
"""

from __future__ import annotations

import math


def hybrid_neuron(inputs, threshold=1.0, leak=1.0):
    """Return spikes, potentials after each step, and steps since the last spike at each step."""
    u, last = 0.0, -1000
    spikes, potentials, waited = [], [], []
    for t, x in enumerate(inputs):
        z = u / threshold - 1
        o = 1.0 if z > 0 else 0.0
        waited.append((t - 1) - last)
        u = leak * u + x - threshold * o
        if o:
            last = t - 1
        spikes.append(o)
        potentials.append(u)
    return spikes, potentials, waited


def stdb_slope(waited, a=0.3, b=0.01):
    """Return the surrogate's slope so many steps after the last spike."""
    return a * math.exp(-b * waited)


def linear_slope(z, a=0.3):
    """Return the linear surrogate's slope at relative potential z."""
    return a * max(0.0, 1 - abs(z))


def hybrid_gradient(inputs, of_spikes, slope, threshold=1.0, leak=1.0):
    """Return dL/dx of one neuron, given dL/do of its spikes.

    ``slope`` takes z and the steps waited; nothing flows through the reset.
    """
    _, potentials, waited = hybrid_neuron(inputs, threshold, leak)
    before = [0.0, *potentials[:-1]]
    of_inputs = [0.0] * len(inputs)
    of_u = 0.0
    for t in range(len(inputs) - 1, -1, -1):
        of_inputs[t] = of_u
        z = before[t] / threshold - 1
        of_u = leak * of_u + of_spikes[t] * slope(z, waited[t]) / threshold
    return of_inputs


def hybrid_network(weights, thresholds, inputs, leak=1.0):
    """Return the accumulated output of a chain of dense layers: all layers in order, each step.

    ``weights`` are lists of rows, ``inputs`` one list of numbers for each step.
    """
    hidden = [[0.0] * len(rows) for rows in weights[:-1]]
    output = [0.0] * len(weights[-1])
    for x in inputs:
        signal = x
        for rows, potentials, threshold in zip(weights[:-1], hidden, thresholds, strict=True):
            fired = [1.0 if u / threshold - 1 > 0 else 0.0 for u in potentials]
            for i, row in enumerate(rows):
                current = sum(w * s for w, s in zip(row, signal, strict=True))
                potentials[i] = leak * potentials[i] + current - threshold * fired[i]
            signal = fired
        for i, row in enumerate(weights[-1]):
            output[i] += sum(w * s for w, s in zip(row, signal, strict=True))
    return output


def conventional_neuron(inputs, threshold=1.0, leak=1.0, initial=0.0, hard=False):
    """Return spikes of a neuron that integrates before it decides."""
    u, spikes = initial * threshold, []
    for x in inputs:
        u = leak * u + x
        o = 1.0 if u >= threshold else 0.0
        if o:
            u = 0.0 if hard else u - threshold
        spikes.append(o)
    return spikes


def max_pool(trains):
    """Return the train whose running count is the largest of several trains' running counts."""
    counts, most, pooled = [0.0] * len(trains), 0.0, []
    for step in zip(*trains, strict=True):
        counts = [c + s for c, s in zip(counts, step, strict=True)]
        pooled.append(max(counts) - most)
        most = max(counts)
    return pooled


def percentile(values, percent):
    """Return the smallest value that at most ``100 - percent`` percent of the values exceed."""
    ordered = sorted(values)
    for value in ordered:
        if sum(v > value for v in ordered) <= len(ordered) * (1 - percent / 100) + 1e-9:
            return value
    raise AssertionError


def several_spikes(inputs, threshold=1.0, initial=0.5, signed=False, burst=1):
    """Return the numbers of spikes of a neuron that may fire several, or take one back."""
    u, net, spikes = initial * threshold, 0, []
    for x in inputs:
        u += x
        o = min(math.floor(u / threshold), burst)
        o = max(o, -1 if signed and net > 0 else 0)
        u -= o * threshold
        net += o
        spikes.append(float(o))
    return spikes


def offset_start(inputs, threshold=1.0, initial=0.5, margin=1e-3):
    """Return the potential with which a neuron starts its second run, and its first spikes."""
    u, spikes, decided, left = initial * threshold, [], [], []
    for x in inputs:
        u += x
        decided.append(u)
        o = 1.0 if u >= threshold else 0.0
        u -= o * threshold
        spikes.append(o)
        left.append(u)
    start = initial * threshold
    if u < 0 and sum(spikes) > 0:
        smallest = min(v for v, o in zip(decided, spikes, strict=True) if o)
        start -= max(threshold, smallest - threshold + margin * threshold)
    elif u >= threshold and sum(spikes) < len(spikes):
        largest = max(v for v, o in zip(decided, spikes, strict=True) if not o)
        start += max(threshold, threshold + margin * threshold - largest)
    return start, spikes


def corrected_network(layers, x, steps, *, before=0, offsets=False, margin=1e-3):
    """Return the mean output of a chain of dense layers, corrected for one input.

    ``layers`` are (rows of weights, biases, threshold), the last without threshold. With
    ``before``, neurons are silent whose potential is not above 0 after so many steps.
    """

    def run(count, silent):
        trains, ends = [list(x)] * count, []
        for number, (rows, biases, threshold) in enumerate(layers):
            currents = [
                [sum(w * v for w, v in zip(row, step, strict=True)) + b
                 for row, b in zip(rows, biases, strict=True)]
                for step in trains
            ]  # fmt: skip
            if threshold is None:
                return [sum(column) / count for column in zip(*currents, strict=True)], ends
            found, end = [], []
            for i, inputs in enumerate(zip(*currents, strict=True)):
                start = 0.5
                if offsets:
                    start = offset_start(inputs, threshold)[0] / threshold
                spikes = conventional_neuron(inputs, threshold, initial=start)
                end.append(start * threshold + sum(inputs) - threshold * sum(spikes))
                speaks = silent is None or silent[number][i] > margin * threshold
                found.append([o * threshold * speaks for o in spikes])
            trains = [list(step) for step in zip(*found, strict=True)]
            ends.append(end)
        raise AssertionError

    return run(steps, run(before, None)[1] if before else None)[0]
