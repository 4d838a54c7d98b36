"""How many synapses a spike reaches."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from spikewvat.weights import call_with


def fan_out(module: nn.Module, x: Tensor) -> Tensor:
    """Return how many synapses each input of a layer has, borders of images included.

    Args:
        module: A linear or convolutional layer.
        x: An input of one sample (and step, where the layer takes several).

    Returns:
        Counts, the shape of ``x``.

    Example:
        >>> fan_out(nn.Conv1d(1, 2, 3, padding=1), torch.zeros(1, 1, 4)).tolist()
        [[[4.0, 6.0, 6.0, 4.0]]]
    """
    with torch.enable_grad():
        probe = torch.ones_like(x, requires_grad=True)
        ones = {name: torch.ones_like(p) for name, p in module.named_parameters()}
        # The class's own method: one that stands in front of it may do more than apply weights.
        forward = functools.partial(type(module).forward, module)
        total: Tensor = call_with(module, forward, ones, probe).sum()
        (counts,) = torch.autograd.grad(total, probe)
    return counts
