"""Classify single nodes of a traced network."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeAlias

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
    """Return whether a node only queries a shape, or calculates with sizes."""
    if node.op == "call_method":
        return node.target in ("size", "dim")
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] in ("shape", "ndim")
    if node.op == "call_function" and node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and is_shape(node.args[0])
    given = node.all_input_nodes
    sizes = node.op == "call_function" and node.target in _OF_SIZES
    return sizes and bool(given) and all(is_shape(n) for n in given)


_MAX_POOLS: dict[Any, type[nn.Module]] = {
    functional.max_pool1d: nn.MaxPool1d,
    functional.max_pool2d: nn.MaxPool2d,
    functional.max_pool3d: nn.MaxPool3d,
    torch.max_pool1d: nn.MaxPool1d,
    torch.max_pool2d: nn.MaxPool2d,
    torch.max_pool3d: nn.MaxPool3d,
    functional.adaptive_max_pool1d: nn.AdaptiveMaxPool1d,
    functional.adaptive_max_pool2d: nn.AdaptiveMaxPool2d,
    functional.adaptive_max_pool3d: nn.AdaptiveMaxPool3d,
}
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SYNAPSES = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)
Constant: TypeAlias = float | Tensor
_OF_CONVOLUTIONS = ("stride", "padding", "dilation", "groups", "padding_mode")
_OF_SIZES = (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod)
_SUMS = {"add", "add_", "iadd"}
_DIFFERENCES = {"sub", "sub_", "isub", "subtract", "subtract_"}
_PRODUCTS = {"mul", "mul_", "imul", "multiply", "multiply_"}
_QUOTIENTS = {"truediv", "itruediv", "div", "div_", "divide", "divide_"}


def max_pool(node: fx.Node) -> type[nn.Module] | None:
    """Return the layer of a call that pools maxima, else None."""
    return None if isinstance(node.target, str) else _MAX_POOLS.get(node.target)


def affine(
    node: fx.Node, constants: Mapping[fx.Node, Any]
) -> tuple[fx.Node, Constant, Constant] | None:
    """Return input, scale and shift of an affine operation of a tensor and a constant, else None.

    Args:
        node: A call of a function or of a tensor's method.
        constants: Values of the nodes that do not depend on the images.
    """
    name = node.target if isinstance(node.target, str) else node.target.__name__
    if name == "neg" and isinstance(node.args[0], fx.Node):
        return node.args[0], -1.0, 0.0
    if len(node.args) != 2 or node.kwargs:
        return None
    x, other = node.args
    number = _constant(other, constants)
    if number is not None and isinstance(x, fx.Node):
        if name in _QUOTIENTS and bool((torch.as_tensor(number) == 0).any()):
            return None
        found: dict[str, tuple[Constant, Constant]] = {
            **dict.fromkeys(_SUMS, (1.0, number)),
            **dict.fromkeys(_DIFFERENCES, (1.0, -number)),
            **dict.fromkeys(_PRODUCTS, (number, 0.0)),
            **(dict.fromkeys(_QUOTIENTS, (1 / number, 0.0)) if name in _QUOTIENTS else {}),
        }
        return (x, *found[name]) if name in found else None
    number = _constant(x, constants)
    if number is not None and isinstance(other, fx.Node):
        found = {
            **dict.fromkeys(_SUMS, (1.0, number)),
            **dict.fromkeys(_DIFFERENCES, (-1.0, number)),
            **dict.fromkeys(_PRODUCTS, (number, 0.0)),
        }
        return (other, *found[name]) if name in found else None
    return None


def _constant(value: object, constants: Mapping[fx.Node, Any]) -> Constant | None:
    if isinstance(value, fx.Node):
        value = constants.get(value)
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    return None


def joined(node: fx.Node) -> float | None:
    """Return the factor of the second of two branches that are added or subtracted, else None."""
    name = node.target if isinstance(node.target, str) else node.target.__name__
    if len(node.args) != 2 or set(node.kwargs) - {"alpha"}:
        return None
    factor = node.kwargs.get("alpha", 1.0)
    if not isinstance(factor, Real):
        return None
    return {
        **dict.fromkeys(_SUMS, float(factor)),
        **dict.fromkeys(_DIFFERENCES, -float(factor)),
    }.get(name)


def evaluated(node: fx.Node, constants: Mapping[fx.Node, Any]) -> Any:
    """Return the value of a call whose arguments are constants."""

    def known(argument: fx.Node) -> Any:
        return constants[argument]

    args = fx.node.map_arg(node.args, known)
    kwargs = fx.node.map_arg(node.kwargs, known)
    with torch.no_grad():
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)


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
    kind: Any = next(kind for kind in SYNAPSES if isinstance(module, kind))
    if isinstance(module, nn.Linear):
        plain: nn.Module = nn.Linear(module.in_features, module.out_features, **like)
    else:
        convolution: Any = module
        for name in _OF_CONVOLUTIONS:
            like[name] = getattr(convolution, name)
        if isinstance(module, TRANSPOSED):
            like["output_padding"] = convolution.output_padding
        plain = kind(
            convolution.in_channels, convolution.out_channels, convolution.kernel_size, **like
        )
    with torch.no_grad():
        for name, value in (("weight", weight), ("bias", bias)):
            if isinstance(value, Tensor):
                getattr(plain, name).copy_(value)
    for name, parameter in plain.named_parameters():
        own = getattr(module, name)
        parameter.requires_grad_(not isinstance(own, nn.Parameter) or own.requires_grad)
    return plain.eval()


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


def scale_outputs(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Scale and shift the output channels of a synaptic layer by changing its weight and bias."""
    synapses: Any = layer
    weight = synapses.weight
    if isinstance(layer, TRANSPOSED):
        # [in, out / groups, ...]: inputs of a group lie side by side
        factors = scale.view(synapses.groups, 1, -1, *(1,) * (weight.dim() - 2))
        grouped = weight.view(synapses.groups, -1, *weight.shape[1:])
    else:
        factors, grouped = scale.reshape(-1, *(1,) * (weight.dim() - 1)), weight
    with torch.no_grad():
        bias = torch.zeros_like(shift) if synapses.bias is None else synapses.bias
        synapses.bias = nn.Parameter(bias * scale + shift)
        grouped.mul_(factors)
