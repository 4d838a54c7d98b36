"""VGG networks: three that are converted, one of them with batch norm, and one with biases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import ClassVar, Literal

from torch import nn

from spikewvat.conversion import QCFS
from spikewvat.lab.models.layout import check_sizes
from spikewvat.lab.models.residual import initialise_convolutions

Stages = Sequence[Sequence[int]]
"""Output channels of each convolution, stage by stage."""

_SIXTEEN = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_SIX = ((32, 32), (64, 64), (128, 128))
_HIDDEN = 4096
_Pool = type[nn.AvgPool2d] | type[nn.MaxPool2d]
_POOLS: dict[str, _Pool] = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


class VGG(nn.Sequential):
    r"""Stages of 3 x 3 convolutions, each followed by 2 x 2 pooling, and three dense layers.

    Nothing has a bias. Dropout follows every convolution that no pooling follows and, with
    probability 0.5, both hidden dense layers. Images [B, C, H, W] give scores [B, classes].
    Initial weights, with the paper's standard deviation 0.01 of dense layers at its width of 4096,
    and as large a gain at other widths (narrow networks did not begin to learn otherwise):

    .. math:: w_\text{conv} \sim \mathcal{N}\left(0, \frac{2}{k^2 C_\text{out}}\right), \qquad
        w_\text{dense} \sim \mathcal{N}\left(0, 0.01^2 \frac{4096}{\text{hidden}}\right)

    A subclass chooses the convolutions.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores.
        pool: ``"avg"`` or ``"max"``; spiking networks take means exactly, maxima only roughly.
        width: Factor of the convolutions' channels, rounded, at least one.
        hidden: Width of the two hidden dense layers.
        dropout: Probability of silencing a value after a convolution.
        dense_dropout: Probability of silencing a value behind a hidden dense layer.

    Attributes:
        stages: Output channels of each convolution, stage by stage.
        pool_last: Whether pooling follows the last stage too.

    Raises:
        ValueError: If an option is impossible, or pooling leaves nothing of the images.

    References:
        Enabling Deep Spiking Neural Networks with Hybrid Conversion and Spike Timing Dependent
        Backpropagation (Rathi et al., 2020), https://arxiv.org/abs/2005.01807
    """

    stages: ClassVar[Stages]
    pool_last: ClassVar[bool] = True

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        pool: Literal["avg", "max"] = "avg",
        width: float = 1.0,
        hidden: int = _HIDDEN,
        dropout: float = 0.2,
        dense_dropout: float = 0.5,
    ) -> None:
        if pool not in _POOLS:
            raise ValueError(f"pool must be 'avg' or 'max', got {pool!r}.")
        check_sizes(input_shape, width=width, hidden=hidden, classes=classes)
        pools = [_POOLS[pool]] * (len(self.stages) if self.pool_last else len(self.stages) - 1)
        layers, features = _convolutions(self.stages, input_shape, width, pools, dropout=dropout)
        for wide in (features, hidden):
            layers += [nn.Linear(wide, hidden, bias=False), nn.ReLU(), nn.Dropout(dense_dropout)]
        layers.append(nn.Linear(hidden, classes, bias=False))
        super().__init__(*layers)
        initialise_convolutions(self)
        for module in self:
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01 * math.sqrt(_HIDDEN / hidden))


class VGG5(VGG):
    """VGG-5 for CIFAR-10: 64-P-128-128-P-4096-4096-10, with 50 595 520 weights.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores.
        pool: ``"avg"`` or ``"max"``.
        width: Factor of the convolutions' channels.
        hidden: Width of the two hidden dense layers.
        dropout: Probability of silencing a value after a convolution that no pooling follows.
        dense_dropout: Probability of silencing a value behind a hidden dense layer.

    Raises:
        ValueError: If an option is impossible.

    References:
        Rathi et al., 2020, https://arxiv.org/abs/2005.01807
    """

    stages = ((64,), (128, 128))


class VGG16(VGG):
    """VGG-16 for CIFAR: 13 convolutions, four pools, 4096-4096-10; 39 917 248 weights.

    No pooling follows the last stage, so images of 32 x 32 end at 2 x 2.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores; 100 classes make 40 285 888 weights.
        pool: ``"avg"`` or ``"max"``.
        width: Factor of the convolutions' channels.
        hidden: Width of the two hidden dense layers.
        dropout: Probability of silencing a value after a convolution that no pooling follows.
        dense_dropout: Probability of silencing a value behind a hidden dense layer.

    Raises:
        ValueError: If an option is impossible.

    References:
        Rathi et al., 2020, https://arxiv.org/abs/2005.01807
    """

    stages = _SIXTEEN
    pool_last = False


class VGG16Bias(nn.Sequential):
    """VGG-16 for CIFAR with biases: 13 convolutions, five max-pools, 512-512-10.

    15 245 130 parameters. Dropout precedes the two hidden dense layers, and none is among the
    convolutions. Initial convolutions are normal with variance 2 / (k² C_out) and biases 0; the
    dense layers begin as torch's.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores; 100 classes make 15 291 300 parameters.
        width: Factor of the convolutions' channels, rounded, at least one.
        hidden: Width of the two hidden dense layers.
        dropout: Probability of silencing a value in front of a hidden dense layer.

    Raises:
        ValueError: If an option is impossible, or pooling leaves nothing of the images.

    References:
        Very Deep Convolutional Networks for Large-Scale Image Recognition (Simonyan & Zisserman,
        2015), https://arxiv.org/abs/1409.1556; this size is that of the code of Izmailov et al.,
        2018, https://arxiv.org/abs/1803.05407
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        width: float = 1.0,
        hidden: int = 512,
        dropout: float = 0.5,
    ) -> None:
        check_sizes(input_shape, width=width, hidden=hidden, classes=classes)
        pools = [nn.MaxPool2d] * len(_SIXTEEN)
        layers, features = _convolutions(_SIXTEEN, input_shape, width, pools, bias=True)
        for wide in (features, hidden):
            layers += [nn.Dropout(dropout), nn.Linear(wide, hidden), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden, classes))
        initialise_convolutions(self)
        for module in self:
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)


class VGG6(nn.Sequential):
    """Six convolutions with batch norm, in three stages with average pooling, and one dense layer.

    Small enough for a CPU, and deep enough to tell conversions apart: 32-32-P-64-64-P-128-128-P-10,
    307 946 parameters. Convolutions have no bias, the dense layer begins as torch's. Images
    [B, C, H, W] give scores [B, classes].

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores.
        width: Factor of the convolutions' channels, rounded, at least one.
        levels: Levels of QCFS in place of ReLU, for conversion at so many steps.

    Raises:
        ValueError: If an option is impossible, or pooling leaves nothing of the images.

    References:
        After Simonyan & Zisserman, 2015, https://arxiv.org/abs/1409.1556, with the batch norm of
        Ioffe & Szegedy, 2015, https://arxiv.org/abs/1502.03167
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        width: float = 1.0,
        levels: int | None = None,
    ) -> None:
        check_sizes(input_shape, width=width, classes=classes)

        def activation() -> nn.Module:
            # Behind batch norm, few activations are above 2 at the start.
            return nn.ReLU() if levels is None else QCFS(levels, threshold=2.0)

        pools = [nn.AvgPool2d] * len(_SIX)
        layers, features = _convolutions(
            _SIX, input_shape, width, pools, norm=True, activation=activation
        )
        super().__init__(*layers, nn.Linear(features, classes))
        initialise_convolutions(self)


def _convolutions(
    stages: Stages,
    input_shape: Sequence[int],
    width: float,
    pools: Sequence[_Pool],
    *,
    dropout: float | None = None,
    bias: bool = False,
    norm: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> tuple[list[nn.Module], int]:
    """Return the layers up to the flat features, and how many features those are."""
    channels, *sides = input_shape
    layers: list[nn.Module] = []
    for stage, pool in zip_longest(stages, pools):
        for place, wide in enumerate(stage, 1):
            following = max(1, round(width * wide))
            conv = nn.Conv2d(channels, following, 3, padding=1, bias=bias)
            layers += [conv, *([nn.BatchNorm2d(following)] if norm else []), activation()]
            channels = following
            if place == len(stage) and pool is not None:
                layers.append(pool(2))
                sides = [side // 2 for side in sides]
            elif dropout is not None:
                layers.append(nn.Dropout(dropout))
    if min(sides) < 1:
        raise ValueError(
            f"pooling leaves nothing of images of {input_shape[1]} x {input_shape[2]}. "
            "Use larger images or fewer stages."
        )
    return [*layers, nn.Flatten()], channels * math.prod(sides)
