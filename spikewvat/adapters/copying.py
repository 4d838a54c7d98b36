"""Copy live networks."""

from __future__ import annotations

import copy

from torch import Tensor, nn


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy of a network whose neuron state has been reset.

    Tensors that layers compute from their parameters and keep as attributes, as pruning and the
    older weight normalisation do, are copied without their graph, on which :func:`copy.deepcopy`
    raises. The next forward pass of the copy computes them again.

    Args:
        model: The network; it is not changed.

    Example:
        >>> import torch
        >>> from torch.nn.utils import prune
        >>> layer = prune.l1_unstructured(nn.Linear(2, 2), "weight", amount=0.5)
        >>> _ = layer(torch.ones(2))
        >>> copied(layer).weight.requires_grad
        False
    """
    computed: dict[int, object] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                computed[id(value)] = value.detach().clone()
    return copy.deepcopy(model, computed)
