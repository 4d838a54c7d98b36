"""Spiking networks written in SpikingJelly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.adapters.spikingjelly import layer, neuron, surrogate
from spikewvat.lab.models.layout import Layered, conv_features


@dataclass(frozen=True)
class Neurons:
    """Makes leaky integrate-and-fire neurons: soft reset, input not scaled by the decay.

    Args:
        beta: Decay of the membrane potential per step, in (0, 1).
        threshold: Firing threshold (model units).
        slope: Slope of the arctangent surrogate.
        step_mode: ``"m"`` over all time steps at once, ``"s"`` one step after the other.

    Raises:
        ValueError: If ``step_mode`` is neither.
    """

    beta: float
    threshold: float
    slope: float
    step_mode: str

    def __post_init__(self) -> None:
        if self.step_mode not in ("m", "s"):
            raise ValueError(f"step_mode must be 'm' or 's', got {self.step_mode!r}.")

    def __call__(self) -> Any:
        """Return a layer of neurons."""
        return neuron.LIFNode(
            tau=1 / (1 - self.beta),
            decay_input=False,
            v_threshold=self.threshold,
            v_reset=None,  # soft reset: the threshold is subtracted
            surrogate_function=surrogate.ATan(alpha=self.slope),
            detach_reset=True,
            step_mode=self.step_mode,
        )


class Stepwise(Layered):
    """Layers over all time steps at once, or all of them over one step after the other.

    Args:
        layers: From input to output.
        step_mode: ``"m"`` or ``"s"``, that of the layers.
    """

    def __init__(self, layers: Iterable[nn.Module], step_mode: str) -> None:
        super().__init__(layers)
        self.step_mode = step_mode

    def forward(self, input: Tensor) -> Tensor:
        """Return output spikes.

        Args:
            input: Input spikes [T, B, C, H, W].

        Returns:
            Output spikes [T, B, classes]; a class's score is its sum over time.
        """
        if self.step_mode == "s":
            return torch.stack([self.layers(step) for step in input])
        return super().forward(input)


class SpikingCNN(Stepwise):
    """Convolutional network of leaky integrate-and-fire neurons for event data.

    The twin of the snnTorch network: convolution, average pooling, neurons in each stage, a
    dense layer of neurons reads out; soft reset, input not scaled by the decay.

    Args:
        input_shape: Channels, height and width of the input.
        channels: Output channels of each convolution.
        kernel_size: Side of the kernels, padded by half.
        pool: Side of the average pooling after each convolution; 1 for none.
        stride: Stride of the convolutions.
        classes: Number of output neurons.
        beta: Decay of the membrane potential per step, in (0, 1).
        threshold: Firing threshold (model units).
        slope: Slope of the arctangent surrogate.
        dropout: Probability of dropping a feature in front of the dense layer, one mask for all
            time steps.
        batch_norm: Normalise after each convolution, over batch and time together.
        step_mode: ``"m"`` runs a layer over all time steps at once, ``"s"`` the network over
            one step after the other.

    Raises:
        ValueError: If pooling leaves nothing of the input, or ``step_mode`` is neither.
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
        slope: float = 2.0,
        dropout: float = 0.0,
        batch_norm: bool = False,
        step_mode: str = "m",
    ) -> None:
        features = conv_features(input_shape, channels, kernel_size, stride, pool)
        neurons = Neurons(beta, threshold, slope, step_mode)
        modules: list[nn.Module] = []
        for i, o in pairwise([input_shape[0], *channels]):
            modules.append(convolution(i, o, kernel_size, stride, step_mode))
            if batch_norm:
                modules.append(layer.BatchNorm2d(o, step_mode=step_mode))
            if pool > 1:
                modules.append(layer.AvgPool2d(pool, step_mode=step_mode))
            modules.append(neurons())
        modules.append(layer.Flatten(step_mode=step_mode))
        if dropout > 0:
            modules.append(layer.Dropout(dropout, step_mode=step_mode))
        modules.append(layer.Linear(features, classes, bias=False, step_mode=step_mode))
        super().__init__([*modules, neurons()], step_mode)


def convolution(channels: int, following: int, kernel: int, stride: int, step_mode: str) -> Any:
    """Return a convolution without a bias, padded by half its kernel.

    Args:
        channels: Of the input.
        following: Channels of the output.
        kernel: Side of the kernels.
        stride: Of the convolution.
        step_mode: See :class:`Neurons`.
    """
    options = {"padding": kernel // 2, "bias": False, "step_mode": step_mode}
    return layer.Conv2d(channels, following, kernel, stride, **options)
