"""A spiking residual network written in SpikingJelly: spike-element-wise blocks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from spikewvat.adapters.spikingjelly import layer
from spikewvat.lab.models.layout import check_sizes
from spikewvat.lab.models.residual import check_channels, initialise_convolutions, stages
from spikewvat.lab.models.spikingjelly import Neurons, Stepwise, convolution

Connect = Literal["add", "and", "iand"]


class SEWBlock(nn.Module):
    r"""Two spiking convolutions, and an operation on their spikes and those of the shortcut.

    With spikes :math:`a` of the convolutions and :math:`s` of the shortcut, the output is
    :math:`a + s` (0, 1 or 2 at an input of spikes), :math:`a s`, or :math:`(1 - a)\,s`. Each
    convolution is 3 x 3 with batch norm over batch and time, then neurons. Where the shape
    changes, the shortcut is a 1 x 1 convolution with batch norm and neurons.

    Args:
        channels: Of the input.
        following: Channels of the output.
        stride: Of the first convolution.
        neurons: Makes neurons.
        connect: The operation.
    """

    def __init__(
        self, channels: int, following: int, stride: int, *, neurons: Neurons, connect: Connect
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *spiking_convolution(channels, following, 3, stride, neurons),
            *spiking_convolution(following, following, 3, 1, neurons),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != following:
            short = spiking_convolution(channels, following, 1, stride, neurons)
            self.shortcut = nn.Sequential(*short)
        self._connect = connect

    def forward(self, spikes: Tensor) -> Tensor:
        """Return [..., following, H / stride, W / stride] of spikes [..., channels, H, W]."""
        a, s = self.layers(spikes), self.shortcut(spikes)
        if self._connect == "add":
            output: Tensor = a + s
        elif self._connect == "and":
            output = a * s
        else:
            output = (1 - a) * s
        return output


class SEWResNet(Stepwise):
    """Spiking residual network of leaky integrate-and-fire neurons for event data.

    A spiking convolution, stages of :class:`SEWBlock`, the mean over all pixels, and a dense
    layer of neurons that reads out. Convolutions and the dense layer have no bias. With channels
    (64, 128, 256, 512), two blocks a stage and 1000 classes it is SEW-ResNet-18 with the stem of
    CIFAR. Initial convolutions are normal with variance 2 / (k² C_out).

    Args:
        input_shape: Channels, height and width of the input.
        classes: Number of output neurons.
        channels: Channels of each stage, rising; every stage but the first halves the sides.
        blocks: Blocks of each stage.
        stride: Of the first convolution.
        connect: ``"add"`` sums the spikes of block and shortcut, ``"and"`` and ``"iand"`` keep
            them 0 or 1.
        beta: Decay of the membrane potential per step, in (0, 1).
        threshold: Firing threshold (model units).
        slope: Slope of the arctangent surrogate.
        step_mode: ``"m"`` runs a layer over all time steps at once, ``"s"`` the network over
            one step after the other; batch norm in training then sees one step at a time.

    Raises:
        ValueError: If an option is impossible.

    References:
        Deep Residual Learning in Spiking Neural Networks (Fang et al., 2021),
        https://arxiv.org/abs/2102.04159
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (2, 34, 34),
        classes: int = 10,
        channels: Sequence[int] = (16, 32, 64),
        blocks: int = 1,
        stride: int = 1,
        connect: Connect = "add",
        beta: float = 0.9,
        threshold: float = 1.0,
        slope: float = 2.0,
        step_mode: str = "m",
    ) -> None:
        if connect not in ("add", "and", "iand"):
            raise ValueError(f"connect must be 'add', 'and' or 'iand', got {connect!r}.")
        check_sizes(input_shape, classes=classes, blocks=blocks, stride=stride)
        check_channels(channels)
        neurons = Neurons(beta, threshold, slope, step_mode)
        block = partial(SEWBlock, neurons=neurons, connect=connect)
        layers = (
            *spiking_convolution(input_shape[0], channels[0], 3, stride, neurons),
            *stages(block, channels[0], channels, [blocks] * len(channels)),
            layer.AdaptiveAvgPool2d(1, step_mode=step_mode),
            layer.Flatten(step_mode=step_mode),
            layer.Linear(channels[-1], classes, bias=False, step_mode=step_mode),
            neurons(),
        )
        super().__init__(layers, step_mode)
        initialise_convolutions(self)


def spiking_convolution(
    channels: int, following: int, kernel_size: int, stride: int, neurons: Neurons
) -> list[Any]:
    """Return a convolution without a bias, padded by half its kernel, batch norm and neurons.

    Args:
        channels: Of the input.
        following: Channels of the output.
        kernel_size: Side of the kernels.
        stride: Of the convolution.
        neurons: Makes neurons.
    """
    conv = convolution(channels, following, kernel_size, stride, neurons.step_mode)
    return [conv, layer.BatchNorm2d(following, step_mode=neurons.step_mode), neurons()]
