"""How many synapses a spike reaches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_TORCH = "torch.nn.modules."
_HELD = ("weight", "bias", "forward")  # plain attributes, which would hide parameters


def fan_out(module: nn.Module, x: Tensor) -> Tensor:
    """Return how many synapses each input of a layer has, borders of images included.

    Args:
        module: A linear or convolutional layer.
        x: An input of some samples, without an axis of time.

    Returns:
        Counts, the shape of ``x``.

    Example:
        >>> fan_out(nn.Conv1d(1, 2, 3, padding=1), torch.zeros(1, 1, 4)).tolist()
        [[[4.0, 6.0, 6.0, 4.0]]]
    """
    with torch.enable_grad():
        probe = torch.ones_like(x, requires_grad=True)
        (counts,) = torch.autograd.grad(_with_ones(module, probe).sum(), probe)
    return counts


def _with_ones(module: nn.Module, x: Tensor) -> Tensor:
    """Run a layer as its kind in torch does, with ones for its weights."""
    # A layer may compute its weights (standardised, normalised, quantised ones), and ones in the
    # place of its parameters would come out as other numbers: nothing of its own may run.
    kinds: Any = type(module).__mro__
    kind = next(base for base in kinds if base.__module__.startswith(_TORCH))
    weight: Any = module.weight
    ones = torch.ones(weight.shape, dtype=x.dtype, device=x.device)
    if isinstance(mask := module._buffers.get("weight_mask"), Tensor):
        ones = mask.to(ones)  # pruned: no synapse is there
    bare: Any = kind.__new__(kind)
    own = {name: value for name, value in vars(module).items() if name not in _HELD}
    vars(bare).update(own, _parameters={"weight": ones, "bias": None})
    output: Tensor = kind.forward(bare, x)
    return output
