"""Residual networks with batch norm and ReLU in front of each convolution, for CIFAR."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from torch import nn

from spikewvat.lab.models.layout import check_sizes
from spikewvat.lab.models.residual import (
    AddingBlock,
    ResidualNetwork,
    check_channels,
    initialise_convolutions,
    stages,
)

_EXPANSION = 4
_BOTTLENECK_FROM = 44


class PreBlock(AddingBlock):
    """Convolutions, each behind batch norm and ReLU, and the untouched input added.

    Where the shape changes, the shortcut is a bare 1 x 1 convolution of the input.

    Args:
        channels: Of the input.
        following: Channels of the output.
        stride: Of the first 3 x 3 convolution.
        bottleneck: 1 x 1, 3 x 3 and 1 x 1 convolutions through a quarter of the channels,
            instead of two of 3 x 3.
    """

    def __init__(self, channels: int, following: int, stride: int, *, bottleneck: bool) -> None:
        narrow = following // _EXPANSION if bottleneck else following
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        outputs = (narrow, narrow, following) if bottleneck else (narrow, following)
        strided = 1 if bottleneck else 0
        layers: list[nn.Module] = []
        wide = channels
        for number, (kernel, output) in enumerate(zip(kernels, outputs, strict=True)):
            step = stride if number == strided else 1
            conv = nn.Conv2d(wide, output, kernel, stride=step, padding=kernel // 2, bias=False)
            layers += [nn.BatchNorm2d(wide), nn.ReLU(), conv]
            wide = output
        super().__init__(layers, channels, following, stride, bias=False)


class PreResNet(ResidualNetwork):
    """Three stages of pre-activation blocks; bottlenecks from a depth of 44 on.

    Convolutions have no bias; batch norm and ReLU follow the last block, then the mean over all
    pixels and a dense layer with a bias. Initial convolutions are normal with variance
    2 / (k² C_out).

    A subclass chooses the depth.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores.
        channels: Channels of each stage, rising; four times as many leave a bottleneck. Every
            stage but the first halves the sides.

    Attributes:
        depth: Layers on the longest path: 6 n + 2 below 44, 9 n + 2 from 44 on, with n blocks a
            stage.

    Raises:
        ValueError: If an option is impossible.

    References:
        Identity Mappings in Deep Residual Networks (He et al., 2016),
        https://arxiv.org/abs/1603.05027; sizes as Izmailov et al., 2018, train them,
        https://arxiv.org/abs/1803.05407
    """

    depth: ClassVar[int]

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        channels: Sequence[int] = (16, 32, 64),
    ) -> None:
        bottleneck = self.depth >= _BOTTLENECK_FROM
        blocks, rest = divmod(self.depth - 2, 9 if bottleneck else 6)
        if rest or blocks < 1:
            raise ValueError(
                f"depth must be 6 n + 2 below {_BOTTLENECK_FROM} and 9 n + 2 from there on, "
                f"got {self.depth!r}."
            )
        check_sizes(input_shape, classes=classes)
        check_channels(channels)
        outputs = [_EXPANSION * wide if bottleneck else wide for wide in channels]
        block = partial(PreBlock, bottleneck=bottleneck)
        layers = [
            nn.Conv2d(input_shape[0], channels[0], 3, padding=1, bias=False),
            *stages(block, channels[0], outputs, [blocks] * len(outputs)),
            nn.BatchNorm2d(outputs[-1]),
            nn.ReLU(),
        ]
        super().__init__(layers, outputs[-1], classes)
        initialise_convolutions(self)


class PreResNet20(PreResNet):
    """PreResNet-20: three basic blocks a stage; 272 282 parameters.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores.
        channels: Channels of each stage, rising.

    Raises:
        ValueError: If an option is impossible.

    References:
        He et al., 2016, https://arxiv.org/abs/1603.05027
    """

    depth = 20


class PreResNet110(PreResNet):
    """PreResNet-110: twelve bottlenecks a stage; 1 146 842 parameters.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores; 100 classes make 1 169 972 parameters.
        channels: Channels inside the bottlenecks of each stage, rising.

    Raises:
        ValueError: If an option is impossible.

    References:
        He et al., 2016, https://arxiv.org/abs/1603.05027
    """

    depth = 110
