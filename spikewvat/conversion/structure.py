"""Operations that move, average or repeat values within each sample: spiking networks keep them."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from spikewvat.conversion.layers import Call, MeanPool

_KEPT = (
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
)
_PIECES = ("chunk", "split", "tensor_split", "unbind")
_POOLS = {
    "avg_pool1d": nn.AvgPool1d,
    "avg_pool2d": nn.AvgPool2d,
    "avg_pool3d": nn.AvgPool3d,
    "adaptive_avg_pool1d": nn.AdaptiveAvgPool1d,
    "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d,
    "adaptive_avg_pool3d": nn.AdaptiveAvgPool3d,
}
_FUNCTIONS: dict[str, Any] = {
    "interpolate": functional.interpolate,
    "upsample": functional.interpolate,
    "pixel_shuffle": functional.pixel_shuffle,
    "pixel_unshuffle": functional.pixel_unshuffle,
    "channel_shuffle": functional.channel_shuffle,
}
FLATTEN = "Flatten only axes after the batch: flatten(x, 1)."


class Refused(Exception):
    """An operation mixes samples, or needs what is not known before it runs; says what to do."""


def kept_module(module: nn.Module) -> nn.Module | None:
    """Return a copy of a layer that works on each sample alone and is linear, else None.

    Raises:
        Refused: If it would be one with other arguments.
    """
    if isinstance(module, nn.Flatten | nn.Unflatten):
        axis = module.start_dim if isinstance(module, nn.Flatten) else module.dim
        if axis == 0:
            raise Refused(FLATTEN)
        return copy.deepcopy(module)
    if type(module) is nn.AvgPool2d:
        return MeanPool.of(module)
    return copy.deepcopy(module) if isinstance(module, _KEPT) else None


def kept_call(node: fx.Node) -> nn.Module | None:
    """Return a module for a call that works on each sample alone and is linear, else None.

    Args:
        node: A call of a function or of a tensor's method.

    Raises:
        Refused: If it would be one with other arguments.
    """
    name = called(node)
    args: tuple[Any, ...] = node.args[1:]
    kwargs: dict[str, Any] = {k: v for k, v in node.kwargs.items() if k != "input"}
    if name in ("view", "reshape"):
        return _reshaped(args, kwargs)
    if name in ("contiguous", "clone", "detach"):
        return nn.Identity()
    cut = node.args[0] if node.args else None
    if name == "getitem" and isinstance(cut, fx.Node) and is_pieces(cut):
        return _piece(cut, args[0])
    if any(isinstance(a, fx.Node) for a in (*args, *kwargs.values())):
        return None
    if name == "flatten":
        start = args[0] if args else kwargs.get("start_dim", 0)
        if start == 0:
            raise Refused(FLATTEN)
        return nn.Flatten(start, args[1] if len(args) > 1 else kwargs.get("end_dim", -1))
    if name in _POOLS:
        pool: Any = _POOLS[name]
        return kept_module(pool(*args, **kwargs))
    if name in _FUNCTIONS:
        return Call(_FUNCTIONS[name], *args, **kwargs)
    if name == "getitem":
        return Call(operator.getitem, *args) if _keeps_batch(args[0]) else None
    if name == "pad":
        if kwargs.get("value", args[2] if len(args) > 2 else None):
            raise Refused("Pad with zeros.")
        return Call(functional.pad, *args, **kwargs)
    if name in ("mean", "sum", "squeeze", "unsqueeze", "transpose", "permute", "movedim"):
        if not _leaves_batch(name, args, kwargs):
            raise Refused("Leave the axis of the batch as it is.")
        return Call(getattr(torch.Tensor, name), *args, **kwargs)
    return None


def called(node: fx.Node) -> str:
    """Return the name of the function or method that a node calls."""
    return node.target if isinstance(node.target, str) else node.target.__name__


def is_pieces(node: Any) -> bool:
    """Return whether a node cuts a tensor into several."""
    calls = isinstance(node, fx.Node) and node.op in ("call_function", "call_method")
    return calls and called(node) in _PIECES


def _piece(cut: fx.Node, index: Any) -> nn.Module | None:
    args, kwargs = cut.args[1:], dict(cut.kwargs)
    name = called(cut)
    axis = kwargs.get("dim", args[-1] if len(args) == (1 if name == "unbind" else 2) else 0)
    if axis == 0:
        raise Refused("Cut along another axis than that of the batch.")
    return Call(_cut, name, index, *args, **kwargs)


def _cut(x: Tensor, name: str, index: int, *args: Any, **kwargs: Any) -> Tensor:
    piece: Tensor = getattr(torch.Tensor, name)(x, *args, **kwargs)[index]
    return piece


def _reshaped(args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    """Return the module of a reshape that keeps the batch."""
    shape = args[0] if len(args) == 1 and isinstance(args[0], tuple | list) else args
    shape = kwargs.get("shape", shape)
    batch = bool(shape) and (isinstance(shape[0], fx.Node) or shape[0] == -1)
    if not batch or len(shape) < 2:
        raise Refused(FLATTEN)
    if len(shape) == 2:
        return nn.Flatten()
    if any(isinstance(size, fx.Node) for size in shape[1:]):
        raise Refused("Give all sizes but that of the batch as numbers.")
    return Call(_shaped, tuple(shape[1:]))


def _shaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x.reshape(len(x), *shape)


def _keeps_batch(index: Any) -> bool:
    """Return whether an index slices only axes after the batch."""
    index = index if isinstance(index, tuple) else (index,)
    return index[0] in (slice(None), Ellipsis) and all(
        isinstance(i, slice | int) or i in (Ellipsis, None) for i in index
    )


def _leaves_batch(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    given = [*args, *(v for k, v in kwargs.items() if k in ("dim", "dims", "dim0", "dim1"))]
    axes: list[Any] = []
    for value in given:
        axes += value if isinstance(value, tuple | list) else [value]
    axes = [a for a in axes if isinstance(a, int) and not isinstance(a, bool)]
    if name == "permute":
        return axes[:1] == [0]
    return bool(axes) and 0 not in axes
