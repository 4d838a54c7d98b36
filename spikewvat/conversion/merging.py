"""One synaptic layer for two that follow each other without an activation."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def merged(first: nn.Module, second: nn.Module) -> nn.Module | None:
    """Return the layer that computes ``second(first(x))``, or None if none of its kind does.

    Dense layers merge with dense ones, and convolutions if one of them looks at single places. A
    bias of the first layer would be missing in the zeros with which the second one pads.

    Args:
        first: A synaptic layer as :func:`~spikewvat.conversion.traced.plain_copy` returns it.
        second: Another one.
    """
    one: Any = first
    other: Any = second
    if isinstance(first, nn.Linear) and isinstance(second, nn.Linear):
        dense = nn.Linear(first.in_features, second.out_features)
        return _layer(dense, _product("om,mi->oi", second.weight, first.weight), first, second)
    same = type(first) is type(second) and isinstance(first, _CONVOLUTIONS)
    if not same or one.groups != 1 or other.groups != 1:
        return None
    if prod(other.kernel_size) == 1 and _unpadded(other):
        weight = _product("om,mik->oik", other.weight.flatten(1), one.weight.flatten(2))
        wide, stride = one, tuple(a * b for a, b in zip(one.stride, other.stride, strict=True))
    elif prod(one.kernel_size) == 1 and _unpadded(one) and prod(one.stride) == 1:
        lost = one.bias is not None and bool((one.bias != 0).any())
        if lost and not _unpadded(other) and other.padding_mode == "zeros":
            return None
        weight = _product("omk,mi->oik", other.weight.flatten(2), one.weight.flatten(1))
        wide, stride = other, other.stride
    else:
        return None
    like = {n: getattr(wide, n) for n in ("padding", "dilation", "padding_mode")}
    kind: Any = type(first)
    made: nn.Module = kind(one.in_channels, other.out_channels, wide.kernel_size, stride, **like)
    return _layer(made, weight, first, second)


def _unpadded(convolution: Any) -> bool:
    padding = convolution.padding
    return padding == "valid" or (not isinstance(padding, str) and not any(padding))


def _product(equation: str, second: Any, first: Any) -> Tensor:
    return torch.einsum(equation, second.detach().double(), first.detach().double())


def _layer(made: nn.Module, weight: Tensor, first: Any, second: Any) -> nn.Module:
    """Fill a layer with the weight and the bias of both, with the precision of the second."""
    bias = torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)
    if first.bias is not None:
        by_input = second.weight.view(len(weight), len(first.weight), -1)
        bias += _product("omk,m->o", by_input, first.bias)
    if second.bias is not None:
        bias += second.bias.detach()
    learns = first.weight.requires_grad or second.weight.requires_grad
    for name, value in (("weight", weight), ("bias", bias)):
        shape = getattr(made, name).shape
        setattr(made, name, nn.Parameter(value.view(shape).to(second.weight), learns))
    return made.eval()
