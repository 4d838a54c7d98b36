"""An AlexNet for CIFAR."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from spikewvat.lab.models.layout import check_sizes

_CONVOLUTIONS = ((64, 2, True), (192, 1, True), (384, 1, False), (256, 1, False), (256, 1, True))
"""Channels, stride, and whether pooling follows."""


class AlexNet(nn.Sequential):
    """AlexNet for CIFAR: 64C3/2-P2-192C3-P2-384C3-256C3-256C3-P2-1024-10; 3 311 434 parameters.

    Five 3 x 3 convolutions with 2 x 2 max-pooling and two dense layers, all with biases. ReLU
    follows every layer but the last, and dropout precedes both dense layers. The initial weights
    are those of torch. Images [B, C, H, W] give scores [B, classes].

    The paper on ImageNet does not say how to make its network smaller; this size is ours.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores.
        width: Factor of the convolutions' channels, rounded, at least one.
        hidden: Width of the hidden dense layer.
        dropout: Probability of silencing a value in front of a dense layer.

    Raises:
        ValueError: If an option is impossible, or pooling leaves nothing of the images.

    References:
        ImageNet Classification with Deep Convolutional Neural Networks (Krizhevsky et al., 2012),
        https://papers.nips.cc/paper/4824
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        width: float = 1.0,
        hidden: int = 1024,
        dropout: float = 0.5,
    ) -> None:
        check_sizes(input_shape, width=width, hidden=hidden, classes=classes)
        wide, *sides = input_shape
        layers: list[nn.Module] = []
        for channels, stride, pooled in _CONVOLUTIONS:
            following = max(1, round(width * channels))
            layers += [nn.Conv2d(wide, following, 3, stride=stride, padding=1), nn.ReLU()]
            wide = following
            sides = [(side + stride - 1) // stride for side in sides]
            if pooled:
                layers.append(nn.MaxPool2d(2))
                sides = [side // 2 for side in sides]
        if min(sides) < 1:
            raise ValueError(
                f"pooling leaves nothing of images of {input_shape[1]} x {input_shape[2]}. "
                "Use images of at least 15 x 15."
            )
        super().__init__(
            *layers,
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(wide * math.prod(sides), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes),
        )
