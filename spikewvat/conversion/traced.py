"""What single nodes of a traced network are."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from spikewvat.errors import UnsupportedModelError


def nodes(node: fx.Node) -> list[fx.Node]:
    """Return the arguments that are nodes."""
    return [argument for argument in node.args if isinstance(argument, fx.Node)]


def is_shape(node: fx.Node) -> bool:
    """Return whether a node only asks for a shape."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    if node.op == "call_function" and node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and is_shape(node.args[0])
    return False


def is_flatten(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether a call keeps the batch and flattens all that follows."""
    if name == "flatten":
        start = args[0] if args else kwargs.get("start_dim", 0)
        end = args[1] if len(args) > 1 else kwargs.get("end_dim", -1)
        return bool(start == 1 and end == -1)
    shape = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
    return len(shape) == 2 and (isinstance(shape[0], fx.Node) or shape[0] == -1)


def is_max_pool(node: fx.Node) -> bool:
    """Return whether a call is two-dimensional max pooling without indices."""
    return node.target in (functional.max_pool2d, torch.max_pool2d)


def keeps_batch(args: tuple[Any, ...]) -> bool:
    """Return whether an index takes slices of axes after the batch."""
    index = args[0] if isinstance(args[0], tuple) else (args[0],)
    return index[0] in (slice(None), Ellipsis) and all(
        isinstance(i, slice) or i is Ellipsis for i in index
    )


def folded(path: str, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a batch norm in evaluation."""
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
