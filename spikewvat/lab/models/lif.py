"""Networks of the package's own leaky integrate-and-fire neurons."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.lab.models.layout import Layered, check_sizes, conv_features, dense_layers
from spikewvat.spiking.layers import Dropout, Linear
from spikewvat.spiking.lif import LIF, Neurons
from spikewvat.spiking.pooled import PooledConv2d


class FullyConnected(Layered):
    """Dense network, 2312-400-200-10 for N-MNIST: spikes to output spikes.

    Every layer runs over all time steps at once. Input spikes [T, B, C, H, W] or [T, B, N], dense
    or sparse, give output spikes [T, B, classes]; a class's score is its sum over time.

    Args:
        sizes: Widths from input to output.
        dropout: Probability of silencing a neuron of a hidden layer, one mask for all steps.
        constants: Of all neurons.
        learn_beta: Learn the decay of each layer.

    Attributes:
        layers: Synapses and neurons in turn; the first synapses are event-driven where the
            spikes are sparse.

    Raises:
        ValueError: If fewer than two sizes are given, or the input does not fit them.
    """

    def __init__(
        self,
        *,
        sizes: Sequence[int] = (2312, 400, 200, 10),
        dropout: float = 0.0,
        constants: LIF = LIF(),  # noqa: B008 -- frozen
        learn_beta: bool = False,
    ) -> None:
        neurons = partial(Neurons, constants, learn_beta=learn_beta)
        super().__init__(dense_layers(sizes, Linear, neurons, dropout=dropout))


class CNN(nn.Module):
    """Convolutional network for event data: 12C5-P2-32C5-P2-10 by default.

    The twin of the snnTorch and SpikingJelly networks: convolution, average pooling, neurons in
    each stage, a dense layer of neurons reads out. Convolution and pooling are one operation
    (:class:`~spikewvat.spiking.pooled.PooledConv2d`).

    Args:
        input_shape: Channels, height and width of the input.
        channels: Output channels of each convolution.
        kernel_size: Side of the kernels, padded by half.
        pool: Side of the average pooling after each convolution; 1 for none.
        stride: Stride of the convolutions.
        classes: Number of output neurons.
        dropout: Probability of dropping a feature in front of the dense layer, one mask for all
            time steps.
        constants: Of all neurons.
        learn_beta: Learn the decay of each layer.
        chunk: Time steps that go through the stages before the next ones do; ``None`` takes all.
            The result is the same; fewer at once take less memory in an evaluation, and more time.

    Raises:
        ValueError: If pooling leaves nothing of the input, or ``chunk`` is below 1.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (2, 34, 34),
        channels: Sequence[int] = (12, 32),
        kernel_size: int = 5,
        pool: int = 2,
        stride: int = 1,
        classes: int = 10,
        dropout: float = 0.0,
        constants: LIF = LIF(),  # noqa: B008 -- frozen
        learn_beta: bool = False,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        check_sizes(input_shape, chunk=1 if chunk is None else chunk)
        features = conv_features(input_shape, channels, kernel_size, stride, pool)
        self.convs = nn.ModuleList(
            PooledConv2d(i, o, kernel_size, pool=pool, stride=stride, padding=kernel_size // 2)
            for i, o in pairwise([input_shape[0], *channels])
        )
        self.neurons = nn.ModuleList(Neurons(constants, learn_beta=learn_beta) for _ in channels)
        self.dropout = Dropout(dropout)
        self.readout = Linear(features, classes)
        self.output = Neurons(constants, learn_beta=learn_beta)
        self.chunk = chunk

    def forward(self, spikes: Tensor) -> Tensor:
        """Return output spikes.

        Args:
            spikes: Input spikes [T, B, C, H, W], dense or sparse.

        Returns:
            Output spikes [T, B, classes]; a class's score is its sum over time.
        """
        stages: list[tuple[nn.Module, Any]] = list(zip(self.convs, self.neurons, strict=True))
        carries: list[Tensor | None] = [None] * len(stages)
        first = spikes.is_sparse  # events are added up for all steps at once
        x = self.convs[0](spikes) if first else spikes
        parts = []
        for part in x.split(self.chunk or len(x)):
            for number, (conv, lif) in enumerate(stages):
                currents = part if first and number == 0 else conv(part)
                part, carries[number] = lif.steps(currents, carries[number])
            parts.append(part.flatten(2))
        output: Tensor = self.output(self.readout(self.dropout(torch.cat(parts))))
        return output
