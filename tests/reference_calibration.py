"""Slow, literal versions of what is done to a chip: one channel after the other, plain loops."""

from __future__ import annotations

import math

import torch


def currents(model, batches, layer, changes):
    """Return all currents of each output channel of a layer, as lists.

    ``changes`` maps layers to (gain, offset) by channel, which act on their outputs. Channels are
    the second axis of 4-dimensional outputs [B, C, H, W] and the last of all others.
    """
    found: dict[int, list[float]] = {}

    def hook(module, args, output):
        axis = output.dim() - 3 if output.dim() >= 4 else output.dim() - 1
        changed = output.clone()
        if module in changes:
            gain, offset = changes[module]
            for channel in range(output.shape[axis]):
                part = changed.select(axis, channel)
                part.mul_(gain[channel]).add_(offset[channel])
        if module is layer:
            for channel in range(output.shape[axis]):
                found.setdefault(channel, []).extend(
                    changed.select(axis, channel).flatten().tolist()
                )
        return changed

    modules = {layer, *changes}
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        with torch.no_grad():
            for inputs, _ in batches:
                model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [found[channel] for channel in sorted(found)]


def mean(values):
    return math.fsum(values) / len(values)


def std(values):
    average = mean(values)
    return math.sqrt(math.fsum((v - average) ** 2 for v in values) / len(values))


def trimmed(ideal, chip, batches, layers, *, gains):
    """Return (gain, offset) by layer, found one layer after the other.

    ``ideal`` and ``chip`` are two networks of one architecture, ``layers`` a list of pairs of their
    layers in the order of a pass.
    """
    changes = {}
    for own, other in layers:
        wanted = currents(ideal, batches, own, {})
        gain = [1.0] * len(wanted)
        if gains:
            now = currents(chip, batches, other, changes)
            gain = [std(w) / std(n) for w, n in zip(wanted, now, strict=True)]
        now = currents(chip, batches, other, {**changes, other: (gain, [0.0] * len(wanted))})
        offset = [mean(w) - mean(n) for w, n in zip(wanted, now, strict=True)]
        changes[other] = gain, offset
    return changes


def scale(ideal, chip):
    """Return the factor of a layer from its weights, two flat lists."""
    square = math.fsum(w * w for w in ideal)
    return square / math.fsum(w * c for w, c in zip(ideal, chip, strict=True))
