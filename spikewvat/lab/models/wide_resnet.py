"""Wide residual networks for CIFAR."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from spikewvat.lab.models.layout import check_sizes
from spikewvat.lab.models.residual import AddingBlock, ResidualNetwork, stages

_CHANNELS = (16, 32, 64)


class WideBlock(AddingBlock):
    """Two 3 x 3 convolutions, each behind batch norm and ReLU, and the untouched input added.

    Convolutions have biases, and the second one has the stride. Where the shape changes, the
    shortcut is a 1 x 1 convolution of the input.

    Args:
        channels: Of the input.
        following: Channels of the output.
        stride: Of the second convolution.
        dropout: Probability of silencing a value between the convolutions.
    """

    def __init__(self, channels: int, following: int, stride: int, *, dropout: float) -> None:
        layers = (
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, following, 3, padding=1),
            nn.Dropout(dropout),
            nn.BatchNorm2d(following),
            nn.ReLU(),
            nn.Conv2d(following, following, 3, stride=stride, padding=1),
        )
        super().__init__(layers, channels, following, stride, bias=True)


class WideResNet(ResidualNetwork):
    """WRN-28-10 for CIFAR: 160, 320 and 640 channels, four blocks each; 36 489 290 parameters.

    Convolutions have biases; the last batch norm has a momentum of 0.9. The initial weights are
    those of torch, as in the code of Izmailov et al., 2018.

    Args:
        depth: 6 n + 4 convolutions, those of shortcuts among them, with n blocks a stage.
        width: Factor of the stages' 16, 32 and 64 channels.
        input_shape: Channels, height and width of the images.
        classes: Number of scores; 100 classes make 36 546 980 parameters.
        dropout: Probability of silencing a value between the convolutions of a block.

    Raises:
        ValueError: If an option is impossible.

    References:
        Wide Residual Networks (Zagoruyko & Komodakis, 2016), https://arxiv.org/abs/1605.07146
    """

    def __init__(
        self,
        *,
        depth: int = 28,
        width: int = 10,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth must be 6 n + 4, such as 10 or 28, got {depth!r}.")
        check_sizes(input_shape, width=width, classes=classes)
        channels = [width * wide for wide in _CHANNELS]
        block = partial(WideBlock, dropout=dropout)
        layers = [
            nn.Conv2d(input_shape[0], _CHANNELS[0], 3, padding=1),
            *stages(block, _CHANNELS[0], channels, [blocks] * len(channels)),
            nn.BatchNorm2d(channels[-1], momentum=0.9),
            nn.ReLU(),
        ]
        super().__init__(layers, channels[-1], classes)
