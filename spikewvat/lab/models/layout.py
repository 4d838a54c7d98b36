"""Layers and sizes that the networks of several families share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from spikewvat.spiking.events import EventLinear
from spikewvat.spiking.layers import Dropout, Linear


class Layered(nn.Module):
    """Layers one after the other.

    Args:
        layers: From input to output.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, input: Tensor) -> Tensor:
        """Return what the last layer returns."""
        output: Tensor = self.layers(input)
        return output


def dense_layers(
    sizes: Sequence[int],
    linear: type[Linear],
    neurons: Callable[[], nn.Module],
    *,
    dropout: float,
    scale: float = 1.0,
) -> list[nn.Module]:
    """Return dense synapses and spiking neurons in turn.

    Args:
        sizes: Widths from input to output.
        linear: Class of the synapses behind the first ones, which are event-driven.
        neurons: Makes a layer of neurons.
        dropout: Probability of silencing a neuron of a hidden layer, one mask for all steps.
        scale: Factor of torch's initial weights.

    Raises:
        ValueError: If fewer than two sizes are given.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes needs input and output width, got {tuple(sizes)}.")
    layers: list[nn.Module] = []
    for width, following in pairwise(sizes):
        if layers and dropout > 0:
            layers.append(Dropout(dropout))
        # Both start alike; the first one takes sparse spikes too.
        make = linear if layers else EventLinear
        layers += [make(width, following, scale=scale), neurons()]
    return layers


def conv_features(
    input_shape: Sequence[int], channels: Sequence[int], kernel_size: int, stride: int, pool: int
) -> int:
    """Return how many features a chain of convolution and pooling leaves.

    Args:
        input_shape: Channels, height and width.
        channels: Output channels of each convolution, padded by half the kernel.
        kernel_size: Side of the kernels.
        stride: Stride of the convolutions.
        pool: Side and stride of the pooling after each convolution.

    Returns:
        Channels x height x width at the end.

    Raises:
        ValueError: If there is no convolution, or pooling leaves nothing of the input.
    """
    if len(input_shape) != 3 or not channels:
        raise ValueError(
            f"expected input_shape (channels, height, width) and at least one entry in channels, "
            f"got {tuple(input_shape)} and {tuple(channels)}."
        )
    _, height, width = input_shape
    for _ in channels:
        height, width = (
            ((side + 2 * (kernel_size // 2) - kernel_size) // stride + 1) // pool
            for side in (height, width)
        )
    if height < 1 or width < 1:
        raise ValueError(
            f"{len(channels)} stages of stride {stride} and pool {pool} leave nothing of an input "
            f"of {input_shape[1]} x {input_shape[2]}. Use fewer stages or a smaller pool."
        )
    return channels[-1] * height * width


def check_sizes(input_shape: Sequence[int], *, width: float = 1.0, **positive: int) -> None:
    """Raise for sizes that no network for images has.

    Args:
        input_shape: Must be channels, height and width.
        width: A factor of channels, must be above 0 and finite.
        **positive: What must be at least 1, by name.

    Raises:
        ValueError: Naming the size.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"input_shape must be (channels, height, width), got {tuple(input_shape)}."
        )
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"width must be above 0, got {width!r}.")
    for name, value in positive.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}.")
