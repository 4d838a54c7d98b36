"""VGG networks without biases and batch norm, made to be converted to spiking networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import nn

_HIDDEN = 4096
_POOLS = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}


class VGG(nn.Sequential):
    r"""Stages of 3 x 3 convolutions, each followed by 2 x 2 pooling, and three dense layers.

    Nothing has a bias. Dropout follows every convolution that no pooling follows and, with
    probability 0.5, both hidden dense layers. Images [B, C, H, W] give scores [B, classes].
    Initial weights, with the paper's standard deviation 0.01 of dense layers at its width of 4096,
    and as large a gain at other widths (narrow networks did not begin to learn otherwise):

    .. math:: w_\text{conv} \sim \mathcal{N}\left(0, \frac{2}{k^2 C_\text{out}}\right), \qquad
        w_\text{dense} \sim \mathcal{N}\left(0, 0.01^2 \frac{4096}{\text{hidden}}\right)

    Args:
        stages: Output channels of each convolution, stage by stage.
        pool_last: Whether pooling follows the last stage too.
        input_shape: Channels, height and width of the images.
        classes: Number of scores.
        pool: ``"avg"`` or ``"max"``; spiking networks take means exactly, maxima only roughly.
        width: Factor of the convolutions' channels, rounded, at least one.
        hidden: Width of the two hidden dense layers.
        dropout: Probability of silencing a value after a convolution.

    Raises:
        ValueError: If an option is impossible, or pooling leaves nothing of the images.

    References:
        Enabling Deep Spiking Neural Networks with Hybrid Conversion and Spike Timing Dependent
        Backpropagation (Rathi et al., 2020), https://arxiv.org/abs/2005.01807
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        *,
        pool_last: bool = True,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        pool: Literal["avg", "max"] = "avg",
        width: float = 1.0,
        hidden: int = _HIDDEN,
        dropout: float = 0.2,
    ) -> None:
        if pool not in _POOLS:
            raise ValueError(f"pool must be 'avg' or 'max', got {pool!r}.")
        if not (width > 0 and math.isfinite(width)):
            raise ValueError(f"width must be above 0, got {width!r}.")
        for name, value in (("hidden", hidden), ("classes", classes)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}.")
        if len(input_shape) != 3:
            raise ValueError(
                f"input_shape must be (channels, height, width), got {tuple(input_shape)}."
            )
        channels, *sides = input_shape
        layers: list[nn.Module] = []
        for number, stage in enumerate(stages, 1):
            for following in stage:
                following = max(1, round(width * following))
                conv = nn.Conv2d(channels, following, 3, padding=1, bias=False)
                layers += [conv, nn.ReLU(), nn.Dropout(dropout)]
                channels = following
            if number < len(stages) or pool_last:
                layers[-1] = _POOLS[pool](2)  # in place of the dropout
                sides = [side // 2 for side in sides]
        if min(sides) < 1:
            raise ValueError(
                f"pooling leaves nothing of images of {input_shape[1]} x {input_shape[2]}. "
                "Use larger images or fewer stages."
            )
        layers.append(nn.Flatten())
        features = channels * math.prod(sides)
        for wide in (features, hidden):
            layers += [nn.Linear(wide, hidden, bias=False), nn.ReLU(), nn.Dropout(0.5)]
        layers.append(nn.Linear(hidden, classes, bias=False))
        super().__init__(*layers)
        for module in self:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
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

    Raises:
        ValueError: If an option is impossible.

    References:
        Rathi et al., 2020, https://arxiv.org/abs/2005.01807
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        pool: Literal["avg", "max"] = "avg",
        width: float = 1.0,
        hidden: int = _HIDDEN,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(
            ((64,), (128, 128)),
            input_shape=input_shape,
            classes=classes,
            pool=pool,
            width=width,
            hidden=hidden,
            dropout=dropout,
        )


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

    Raises:
        ValueError: If an option is impossible.

    References:
        Rathi et al., 2020, https://arxiv.org/abs/2005.01807
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        pool: Literal["avg", "max"] = "avg",
        width: float = 1.0,
        hidden: int = _HIDDEN,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(
            ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
            pool_last=False,
            input_shape=input_shape,
            classes=classes,
            pool=pool,
            width=width,
            hidden=hidden,
            dropout=dropout,
        )
