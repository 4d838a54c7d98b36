"""SLAYER networks for N-MNIST: fully connected and convolutional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from spikewvat.lab.models.layout import Layered, dense_layers
from spikewvat.spiking.layers import Dropout, SumPool2d, check_time_first
from spikewvat.spiking.slayer import SRM, Conv2d, Linear, Neurons, Psp, Spike


class FullyConnected(Layered):
    """Dense SLAYER network, 2312-400-200-10 in the paper: spikes to output spikes.

    Input spikes [T, B, C, H, W] or [T, B, N], dense or sparse, give output spikes
    [T, B, classes]; a class's score is its sum over time.

    Args:
        sizes: Widths from input to output.
        dropout: Probability of silencing a neuron of a hidden layer, one mask for all steps.
        constants: Of all neurons.

    Attributes:
        layers: Synapses and neurons in turn; the first synapses are event-driven where the
            spikes are sparse.

    Raises:
        ValueError: If fewer than two sizes are given, or the input does not fit them.

    References:
        Weight-variation-aware training (WVAT), appendix A.2; SLAYER (Shrestha & Orchard, 2018).
    """

    def __init__(
        self,
        *,
        sizes: Sequence[int] = (2312, 400, 200, 10),
        dropout: float = 0.0,
        constants: SRM = SRM(),  # noqa: B008 -- frozen
    ) -> None:
        neurons = partial(Neurons, constants)
        super().__init__(dense_layers(sizes, Linear, neurons, dropout=dropout, scale=10.0))


class CNN(Layered):
    """Convolutional SLAYER network: 16C5-P2-32C3-P2-64C3-10 for N-MNIST.

    Convolutions are padded by one pixel, pooling sums spikes with a fixed weight of 1.1
    thresholds, and every layer, pooling too, has neurons of its own. The response kernel is
    applied in front of a convolution and behind a pooling or dense layer, where there are fewer
    neurons; the result is the same.

    Args:
        input_shape: Channels, height and width of the input.
        channels: Output channels of each convolution.
        kernel_sizes: Sides of their kernels.
        pool: Side of the pooling between convolutions.
        classes: Number of output neurons.
        dropout: Probability of silencing a feature in front of the dense layer, one mask for
            all steps.
        constants: Of all neurons.

    Raises:
        ValueError: If a size is impossible, or the input has another shape.

    References:
        SLAYER (Shrestha & Orchard, 2018), official N-MNIST example.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (2, 34, 34),
        channels: Sequence[int] = (16, 32, 64),
        kernel_sizes: Sequence[int] = (5, 3, 3),
        pool: int = 2,
        classes: int = 10,
        dropout: float = 0.0,
        constants: SRM = SRM(),  # noqa: B008 -- frozen
    ) -> None:
        if len(channels) != len(kernel_sizes) or not channels or len(input_shape) != 3:
            raise ValueError(
                "expected input_shape (channels, height, width) and one kernel size for each of "
                f"channels, got {tuple(input_shape)}, {tuple(channels)}, {tuple(kernel_sizes)}."
            )
        layers: list[nn.Module] = []
        width, *sides = input_shape
        for number, (following, kernel) in enumerate(zip(channels, kernel_sizes, strict=True)):
            if number:
                gain = 1.1 * constants.v_threshold
                layers += [SumPool2d(pool, gain=gain, pad=True), Neurons(constants)]
                sides = [math.ceil(side / pool) for side in sides]
            conv = Conv2d(width, following, kernel, padding=1)
            layers += [Psp(constants), conv, Spike(constants)]
            width, sides = following, [side + 3 - kernel for side in sides]
            if min(sides) < 1:
                raise ValueError(
                    f"convolution {number + 1} leaves nothing of an input of {input_shape[1]} x "
                    f"{input_shape[2]}. Use fewer stages, smaller kernels or a smaller pool."
                )
        layers.append(nn.Flatten(2))
        if dropout > 0:
            layers.append(Dropout(dropout))
        layers += [Linear(width * math.prod(sides), classes), Neurons(constants)]
        super().__init__(layers)
        self.input_shape = tuple(input_shape)

    def forward(self, spikes: Tensor) -> Tensor:
        """Return output spikes.

        Args:
            spikes: Input spikes [T, B, C, H, W].

        Returns:
            Output spikes [T, B, classes]; a class's score is its sum over time.
        """
        check_time_first(spikes, 5, "[T, B, C, H, W]")
        if tuple(spikes.shape[2:]) != self.input_shape:
            raise ValueError(
                f"input has shape {tuple(spikes.shape)}, expected [T, B, ...] with samples of "
                f"{self.input_shape}. Pass input_shape=, or bring time in front with "
                "movedim(-1, 0)."
            )
        return super().forward(spikes)
