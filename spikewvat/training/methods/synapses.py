"""Synaptic layers in a forward pass: what goes through them, and what other weights would make."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd

from spikewvat.devices.base import DeviceModel, check_device
from spikewvat.errors import UnsupportedModelError
from spikewvat.weights import Weights, refuse_computed

Hook = Callable[[nn.Module, Tensor, Tensor], Tensor | None]
"""From a layer, its input and its output to another output, or None for the same."""
InputHook = Callable[[nn.Module, Tensor], Tensor | None]
"""From a layer and its input to another input, or None for the same."""
Moments = dict[str, tuple[Tensor, Tensor]]
"""Mean and variance of each weight over chips."""

_TINY = 1e-12  # the root of a variance of 0 has no gradient


def synaptic_layers(model: nn.Module, weights: Weights) -> dict[nn.Module, str]:
    """Return the linear and convolutional layers that hold the weights, with the weight's name.

    Args:
        model: The model.
        weights: Its synaptic weights by name.

    Raises:
        UnsupportedModelError: If a weight belongs to a layer of another kind, or is computed.
    """
    refuse_computed(weights, "used by this method, which needs what goes into each layer")
    holders = {id(p): module for module in model.modules() for p in module._parameters.values()}
    layers: dict[nn.Module, str] = {}
    for name, weight in weights.items():
        layer = holders.get(id(weight))
        if not isinstance(layer, nn.Linear | _ConvNd) or layer.weight is not weight:
            raise UnsupportedModelError(
                f"weight {name!r} belongs to {type(layer).__name__}, expected a linear or "
                "convolutional layer: this method needs what goes into each layer of synapses. "
                "Take a method that perturbs weights, such as WVAT."
            )
        layers[layer] = name
    return layers


def moments_of(device: DeviceModel, weights: Weights) -> Moments:
    """Return mean and variance of each weight over chips.

    Args:
        device: The device model.
        weights: Live weights by name.

    Raises:
        TypeError: If it is no device model.
        ValueError: If the device has no closed form of them.
    """
    check_device(device)
    moments = device.moments(weights)
    if moments is None:
        raise ValueError(
            f"device must be one whose mean and variance are known, got {device!r}. "
            "Take additive noise such as Gaussian, or Lognormal."
        )
    return moments


def weighed(layer: nn.Module, weight: Tensor, inputs: Tensor, *, bias: bool = False) -> Tensor:
    """Return what a layer makes of its input with another weight.

    Args:
        layer: A linear or convolutional layer.
        weight: Stands in for its weight.
        inputs: Input of the layer, any shape that it takes.
        bias: Whether to add the layer's bias.
    """
    values: dict[str, Tensor] = {"weight": weight}
    if not bias and isinstance(layer.bias, Tensor):
        values["bias"] = torch.zeros_like(layer.bias)
    output: Tensor = functional_call(layer, values, (inputs,))
    return output


def spread_of(layer: nn.Module, variance: Tensor, inputs: Tensor) -> Tensor:
    r"""Return the variance :math:`\sum_j \mathrm{Var}[w_{ij}] h_j^2` of a layer's output.

    Args:
        layer: A linear or convolutional layer.
        variance: Of each weight.
        inputs: Input h of the layer.
    """
    return weighed(layer, variance, inputs * inputs)


def root(variance: Tensor) -> Tensor:
    """Return the standard deviation; its gradient is 0 where next to nothing varies."""
    return variance.clamp_min(_TINY).sqrt()


@contextmanager
def hooked(layers: Iterable[nn.Module], hook: Hook) -> Iterator[None]:
    """Call a hook after each layer's forward pass, but not from within itself.

    Args:
        layers: Layers to watch.
        hook: May return another output; what it computes with the layers is not hooked.
    """
    busy = False

    def guarded(layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        nonlocal busy
        if busy:
            return None
        busy = True
        try:
            return hook(layer, args[0], output)
        finally:
            busy = False

    handles = [layer.register_forward_hook(guarded) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def hooked_inputs(layers: Iterable[nn.Module], hook: InputHook) -> Iterator[None]:
    """Call a hook before each layer's forward pass.

    Args:
        layers: Layers to watch.
        hook: May return another input.
    """

    def before(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        changed = hook(layer, args[0])
        return None if changed is None else (changed, *args[1:])

    handles = [layer.register_forward_pre_hook(before) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
