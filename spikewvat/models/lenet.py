"""A LeNet without biases, made to be converted to a spiking network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from spikewvat.models.layout import conv_features


class LeNet(nn.Sequential):
    """5 x 5 convolutions, each followed by ReLU and 2 x 2 pooling, and two dense layers.

    Nothing has a bias. Images [B, C, H, W] give scores [B, classes]; the initial weights are
    those of torch.

    Args:
        input_shape: Channels, height and width of the images.
        channels: Output channels of each convolution, padded by two pixels.
        hidden: Width of the hidden dense layer.
        classes: Number of scores.
        pool: ``"avg"`` or ``"max"``; spiking networks take means exactly, maxima only roughly.
        dropout: Probability of silencing a value of the hidden dense layer.

    Raises:
        ValueError: If an option is impossible, or pooling leaves nothing of the images.

    References:
        Gradient-Based Learning Applied to Document Recognition (LeCun et al., 1998),
        https://doi.org/10.1109/5.726791
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (1, 28, 28),
        channels: Sequence[int] = (16, 32),
        hidden: int = 256,
        classes: int = 10,
        pool: Literal["avg", "max"] = "avg",
        dropout: float = 0.5,
    ) -> None:
        if pool not in ("avg", "max"):
            raise ValueError(f"pool must be 'avg' or 'max', got {pool!r}.")
        features = conv_features(input_shape, channels, kernel_size=5, stride=1, pool=2)
        layers: list[nn.Module] = []
        wide = input_shape[0]
        for following in channels:
            conv = nn.Conv2d(wide, following, 5, padding=2, bias=False)
            layers += [conv, nn.ReLU(), nn.AvgPool2d(2) if pool == "avg" else nn.MaxPool2d(2)]
            wide = following
        super().__init__(
            *layers,
            nn.Flatten(),
            nn.Linear(features, hidden, bias=False),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes, bias=False),
        )
