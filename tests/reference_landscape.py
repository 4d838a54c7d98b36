"""Literal landscapes: copy the network, overwrite its weights, run all images at once."""

from __future__ import annotations

import copy

import torch

from spikewvat.devices.normal import standard_normal


def evaluated(model, batch, loss, values, *, reset):
    """Return accuracy and loss of a copy that holds other values."""
    inputs, labels = batch
    reset(model)
    other = copy.deepcopy(model).eval()
    for name, value in values.items():
        other.get_parameter(name).data.copy_(value)
    with torch.no_grad():
        out = other(inputs)
        scores = out.sum(0) if out.dim() == 3 else out
        right = sum(int(row.argmax()) == int(label) for row, label in zip(scores, labels))
        return right / len(labels), float(loss(out, labels))


def along(weights, steps):
    """Return weights plus a sum of scaled directions, entry by entry."""
    found = {}
    for name, weight in weights.items():
        entries = []
        for index, entry in enumerate(weight.flatten().tolist()):
            for scale, direction in steps:
                entry += scale * float(direction[name].flatten()[index])
            entries.append(entry)
        found[name] = torch.tensor(entries, dtype=weight.dtype).reshape(weight.shape)
    return found


def filter_normalised(weights, seed):
    """Return a direction, filter by filter (Li et al., 2018)."""
    generator = torch.Generator().manual_seed(seed)
    direction = {}
    for name, weight in weights.items():
        drawn = standard_normal(weight.shape, generator=generator, dtype=weight.dtype)
        if weight.dim() <= 1:
            direction[name] = drawn / drawn.norm() * weight.norm()
            continue
        direction[name] = torch.stack([d / d.norm() * w.norm() for d, w in zip(drawn, weight)])
    return direction


def steepest(weights, gradients, lengths):
    """Return the direction of the gradient, as long as asked for in each tensor."""
    return {name: lengths[name] * gradients[name] / gradients[name].norm() for name in weights}
