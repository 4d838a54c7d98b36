"""Mean and variance of activations through a chain of layers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from spikewvat.training.methods.synapses import Moments, weighed

_TINY = 1e-12
_POOLS = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}
"""Average pooling, and over how many axes."""


def chain_of(model: nn.Module) -> list[nn.Module] | None:
    """Return the layers of a model one after the other, None where moments cannot go through.

    Args:
        model: A sequential model of linear and convolutional layers, ReLU, average pooling
            without padding, flattening, dropout, and sequential models of these.
    """
    if type(model).forward is nn.Sequential.forward:
        parts = [chain_of(part) for part in model.children()]
        return None if None in parts else [layer for part in parts if part for layer in part]
    if type(model) in _POOLS:
        padding = model.padding
        padded = any(padding) if isinstance(padding, tuple) else padding
        return None if padded or model.ceil_mode else [model]
    plain = (nn.ReLU, nn.Flatten, nn.Identity, nn.Dropout)
    return [model] if type(model) in plain or isinstance(model, nn.Linear | _ConvNd) else None


def through(
    layers: list[nn.Module], inputs: Tensor, moments: Moments, names: dict[nn.Module, str]
) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the output of a chain of layers.

    Activations of one layer are taken as independent of each other.

    Args:
        layers: As :func:`chain_of` returns them.
        inputs: Input of the first one, without variance.
        moments: Mean and variance of each weight.
        names: Name of the weight of each layer that has one.
    """
    mean, variance = inputs, torch.zeros_like(inputs)
    for layer in layers:
        if layer in names:
            weight, spread = moments[names[layer]]
            square = mean.square()
            spreads = weighed(layer, spread, square + variance)
            spreads = spreads + weighed(layer, weight.square(), variance)
            mean, variance = weighed(layer, weight, mean, bias=True), spreads
        elif isinstance(layer, nn.ReLU):
            mean, variance = relu(mean, variance)
        elif isinstance(layer, nn.Dropout):
            mask = functional.dropout(torch.ones_like(mean), layer.p, layer.training)
            mean, variance = mean * mask, variance * mask.square()
        elif type(layer) in _POOLS:
            mean, variance = layer(mean), layer(variance) / _size(layer)
        else:  # moved or left alone
            mean, variance = layer(mean), layer(variance)
    return mean, variance


def relu(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return mean and variance of a rectified normal variable.

    .. math:: E = m \Phi(q) + \sqrt{v} \varphi(q), \quad
              E_2 = (m^2 + v) \Phi(q) + m \sqrt{v} \varphi(q), \quad
              V = E_2 - E^2, \quad q = m / \sqrt{v}

    Args:
        mean: Mean m before it is rectified.
        variance: Variance v before it is rectified, at least 0.

    Example:
        >>> mean, variance = relu(torch.tensor(0.3), torch.tensor(0.25))
        >>> round(mean.item(), 4), round(variance.item(), 4)
        (0.3843, 0.149)
    """
    std = variance.clamp_min(_TINY).sqrt()
    q = mean / std
    below = torch.special.ndtr(q)
    density = torch.exp(-q.square() / 2) / math.sqrt(2 * math.pi)
    expected = mean * below + std * density
    square = (mean.square() + std.square()) * below + mean * std * density
    return expected, (square - expected.square()).clamp_min(0)


def moderated(mean: Tensor, variance: Tensor) -> Tensor:
    r"""Return scores whose softmax is about that of the mean over chips.

    .. math:: m / \sqrt{1 + \pi v / 8}

    Args:
        mean: Mean score m of each class.
        variance: Its variance v.
    """
    return mean / (1 + math.pi / 8 * variance).sqrt()


def _size(layer: Any) -> int:
    """Return how many values an average is taken of."""
    kernel = layer.kernel_size
    return math.prod(kernel) if isinstance(kernel, tuple) else kernel ** _POOLS[type(layer)]
