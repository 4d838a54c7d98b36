"""Spiking networks written in snnTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.adapters.snntorch import snn, surrogate
from spikewvat.lab.models.layout import conv_features


class SpikingCNN(nn.Module):
    """Convolutional network of leaky integrate-and-fire neurons for event data.

    Each stage is convolution, average pooling, neurons; a dense layer of neurons reads out.
    Convolutions run over all time steps at once; only the neurons loop over time.

    Args:
        input_shape: Channels, height and width of the input.
        channels: Output channels of each convolution.
        kernel_size: Side of the kernels, padded by half.
        pool: Side of the average pooling after each convolution; 1 for none.
        stride: Stride of the convolutions.
        classes: Number of output neurons.
        beta: Decay of the membrane potential per step, in (0, 1).
        threshold: Firing threshold (model units).
        slope: Slope of the fast-sigmoid surrogate.
        dropout: Probability of dropping a feature in front of the dense layer.
        batch_norm: Normalise after each convolution, over batch and time together.

    Raises:
        ValueError: If pooling leaves nothing of the input.
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
        beta: float = 0.9,
        threshold: float = 1.0,
        slope: float = 25.0,
        dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        features = conv_features(input_shape, channels, kernel_size, stride, pool)
        gradient = surrogate.fast_sigmoid(slope=slope)
        neurons = partial(snn.Leaky, beta=beta, threshold=threshold, spike_grad=gradient)
        self.convs = nn.ModuleList(
            nn.Conv2d(i, o, kernel_size, stride=stride, padding=kernel_size // 2, bias=False)
            for i, o in pairwise([input_shape[0], *channels])
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(o) if batch_norm else nn.Identity() for o in channels
        )
        self.pool = nn.AvgPool2d(pool) if pool > 1 else nn.Identity()
        self.neurons = nn.ModuleList(neurons() for _ in channels)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(features, classes, bias=False)
        self.output = neurons()

    def forward(self, spikes: Tensor) -> Tensor:
        """Return output spikes.

        Args:
            spikes: Input spikes [T, B, C, H, W].

        Returns:
            Output spikes [T, B, classes]; a class's score is its sum over time.
        """
        x = spikes
        for conv, norm, lif in zip(self.convs, self.norms, self.neurons, strict=True):
            stage = nn.Sequential(conv, norm, self.pool)
            x = _over_time(lif, folded(stage, x))
        x = self.dropout(x.flatten(2))
        return _over_time(self.output, folded(self.readout, x))


class Recurrent(nn.Module):
    """Dense network with a layer of recurrent leaky integrate-and-fire neurons for event data.

    Args:
        input_shape: Channels, height and width of the input.
        hidden: Number of recurrent neurons, each with synapses from all of them.
        classes: Number of output neurons.
        beta: Decay of the membrane potential per step, in (0, 1).
        threshold: Firing threshold (model units).
        slope: Slope of the fast-sigmoid surrogate.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (2, 34, 34),
        hidden: int = 128,
        classes: int = 10,
        beta: float = 0.9,
        threshold: float = 1.0,
        slope: float = 25.0,
    ) -> None:
        super().__init__()
        gradient = surrogate.fast_sigmoid(slope=slope)
        neurons: dict[str, Any] = {"beta": beta, "threshold": threshold, "spike_grad": gradient}
        self.synapses = nn.Linear(math.prod(input_shape), hidden, bias=False)
        self.hidden = snn.RLeaky(**neurons, linear_features=hidden)
        self.readout = nn.Linear(hidden, classes, bias=False)
        self.output = snn.Leaky(**neurons)

    def forward(self, spikes: Tensor) -> Tensor:
        """Return output spikes.

        Args:
            spikes: Input spikes [T, B, C, H, W].

        Returns:
            Output spikes [T, B, classes]; a class's score is its sum over time.
        """
        spike, mem = self.hidden.reset_mem()
        hidden = []
        for current in folded(self.synapses, spikes.flatten(2)):
            spike, mem = self.hidden(current, spike, mem)
            hidden.append(spike)
        return _over_time(self.output, folded(self.readout, torch.stack(hidden)))


def folded(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of [B, ...] to [T, B, ...] in one call, time folded into the batch."""
    y = function(x.flatten(0, 1))
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _over_time(lif: Any, currents: Tensor) -> Tensor:
    """Run neurons over currents [T, B, ...]; return their spikes, same shape."""
    mem = lif.reset_mem()
    spikes = []
    for current in currents:
        spike, mem = lif(current, mem)
        spikes.append(spike.to(currents.dtype))  # snnTorch's are float32 whatever comes in
    return torch.stack(spikes)
