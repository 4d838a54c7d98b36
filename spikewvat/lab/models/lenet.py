"""A LeNet without biases, made to be converted to a spiking network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from spikewvat.conversion import QCFS


class LeNet(nn.Sequential):
    """5 x 5 convolutions, each followed by ReLU and 2 x 2 pooling, and two dense layers.

    Only the first convolution is padded, as LeNet-5 pads its images to 32 x 32. Nothing has a
    bias. Images [B, C, H, W] give scores [B, classes]; the initial weights are those of torch.

    Args:
        input_shape: Channels, height and width of the images.
        channels: Output channels of each convolution.
        hidden: Width of the hidden dense layer.
        classes: Number of scores.
        pool: ``"avg"`` or ``"max"``; spiking networks take means exactly, maxima only roughly.
        dropout: Probability of silencing a value of the hidden dense layer.
        levels: Levels of QCFS in place of ReLU, for conversion at so many steps.

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
        levels: int | None = None,
    ) -> None:
        if pool not in ("avg", "max"):
            raise ValueError(f"pool must be 'avg' or 'max', got {pool!r}.")
        if len(input_shape) != 3 or not channels:
            raise ValueError(
                "expected input_shape (channels, height, width) and at least one entry in "
                f"channels, got {tuple(input_shape)} and {tuple(channels)}."
            )

        def activation() -> nn.Module:
            # Activations begin below 1 here: of a larger threshold, most would round to 0.
            return nn.ReLU() if levels is None else QCFS(levels, threshold=1.0)

        layers: list[nn.Module] = []
        wide, height, width = input_shape
        for number, following in enumerate(channels):
            padding = 0 if number else 2
            conv = nn.Conv2d(wide, following, 5, padding=padding, bias=False)
            layers += [conv, activation(), nn.AvgPool2d(2) if pool == "avg" else nn.MaxPool2d(2)]
            wide = following
            height, width = ((side + 2 * padding - 4) // 2 for side in (height, width))
        if min(height, width) < 1:
            raise ValueError(
                f"{len(channels)} stages leave nothing of images of {input_shape[1]} x "
                f"{input_shape[2]}. Use fewer channels or larger images."
            )
        super().__init__(
            *layers,
            nn.Flatten(),
            nn.Linear(wide * height * width, hidden, bias=False),
            activation(),
            nn.Dropout(dropout),
            nn.Linear(hidden, classes, bias=False),
        )
