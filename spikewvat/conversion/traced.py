"""Classify single nodes of a traced network."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from spikewvat.errors import UnsupportedModelError


def nodes(node: fx.Node) -> list[fx.Node]:
    """Return the arguments that are nodes."""
    return [argument for argument in node.args if isinstance(argument, fx.Node)]


def is_shape(node: fx.Node) -> bool:
    """Return whether a node only queries a shape."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    if node.op == "call_function" and node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and is_shape(node.args[0])
    return False


def is_flatten(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a call keeps the batch axis and flattens all others."""
    if name == "flatten":
        start = args[0] if args else kwargs.get("start_dim", 0)
        end = args[1] if len(args) > 1 else kwargs.get("end_dim", -1)
        return bool(start == 1 and end == -1)
    shape = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
    return len(shape) == 2 and (isinstance(shape[0], fx.Node) or shape[0] == -1)


def is_max_pool(node: fx.Node) -> bool:
    """Return whether a call is two-dimensional max pooling without indices."""
    return node.target in (functional.max_pool2d, torch.max_pool2d)


_SUMS = {"add", "add_", "iadd"}
_DIFFERENCES = {"sub", "sub_", "isub", "subtract", "subtract_"}
_PRODUCTS = {"mul", "mul_", "imul", "multiply", "multiply_"}
_QUOTIENTS = {"truediv", "itruediv", "div", "div_", "divide", "divide_"}


def affine(node: fx.Node) -> tuple[fx.Node, float, float] | None:
    """Return input, scale and shift of an affine operation of a tensor and a number, else None.

    Args:
        node: A call of a function or of a tensor's method.
    """
    name = node.target if isinstance(node.target, str) else node.target.__name__
    if len(node.args) != 2 or node.kwargs:
        return None
    one, other = node.args
    if isinstance(one, fx.Node) and _is_number(other):
        x, number = one, float(other)  # type: ignore[arg-type]
        found = {
            **dict.fromkeys(_SUMS, (1.0, number)),
            **dict.fromkeys(_DIFFERENCES, (1.0, -number)),
            **dict.fromkeys(_PRODUCTS, (number, 0.0)),
            **(dict.fromkeys(_QUOTIENTS, (1 / number, 0.0)) if number else {}),
        }.get(name)
    elif isinstance(other, fx.Node) and _is_number(one):
        x, number = other, float(one)  # type: ignore[arg-type]
        found = {
            **dict.fromkeys(_SUMS, (1.0, number)),
            **dict.fromkeys(_DIFFERENCES, (-1.0, number)),
            **dict.fromkeys(_PRODUCTS, (number, 0.0)),
        }.get(name)
    else:
        return None
    return None if found is None else (x, *found)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def plain_copy(module: nn.Module) -> nn.Module:
    """Return an equivalent layer without hooks or parametrizations.

    Its weight and bias are the effective ones in evaluation mode: pruned, normalised, parametrized.

    Args:
        module: A linear or convolutional layer in evaluation mode; it is not changed.
    """
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod | WeightNorm | SpectralNorm):
            hook(module, ())  # computes the weight anew from its parts
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    like: dict[str, Any] = {"bias": bias is not None, "device": weight.device}
    like["dtype"] = weight.dtype
    if isinstance(module, nn.Linear):
        plain: nn.Module = nn.Linear(module.in_features, module.out_features, **like)
    else:
        assert isinstance(module, nn.Conv1d | nn.Conv2d)
        for name in ("stride", "padding", "dilation", "groups", "padding_mode"):
            like[name] = getattr(module, name)
        kind: Any = nn.Conv1d if isinstance(module, nn.Conv1d) else nn.Conv2d
        plain = kind(module.in_channels, module.out_channels, module.kernel_size, **like)
    with torch.no_grad():
        for name, value in (("weight", weight), ("bias", bias)):
            if isinstance(value, Tensor):
                getattr(plain, name).copy_(value)
    for name, parameter in plain.named_parameters():
        own = getattr(module, name)
        parameter.requires_grad_(not isinstance(own, nn.Parameter) or own.requires_grad)
    return plain.eval()


def keeps_batch(args: tuple[Any, ...]) -> bool:
    """Return whether an index slices only axes after the batch."""
    index = args[0] if isinstance(args[0], tuple) else (args[0],)
    return index[0] in (slice(None), Ellipsis) and all(
        isinstance(i, slice) or i is Ellipsis for i in index
    )


def folded(path: str, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the scale and shift of a batch norm in evaluation mode."""
    mean, variance, seen = norm.running_mean, norm.running_var, norm.num_batches_tracked
    if mean is None or variance is None or (seen is not None and int(seen) == 0):
        raise UnsupportedModelError(
            f"batch norm {path!r} has no statistics of its input (batches seen: "
            f"{'none kept' if mean is None else 0}), expected running_mean and running_var. "
            "Train the model, or run refresh_batch_norm(model, loader)."
        )
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach()
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach()
    return scale, shift
