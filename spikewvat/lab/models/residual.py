"""What residual networks of all families share: stages, the head, checks, initial weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

MakeBlock = Callable[[int, int, int], nn.Module]
"""From channels of the input, channels of the output and stride to a block."""


class ResidualNetwork(nn.Module):
    """Layers one after the other, the mean over all pixels, and a dense layer with a bias.

    Args:
        layers: From images to maps.
        channels: Of the last maps.
        classes: Number of scores.
    """

    def __init__(self, layers: Sequence[nn.Module], channels: int, classes: int) -> None:
        super().__init__()
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
        self.layers = nn.Sequential(*layers, *head)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [B, classes] of images [B, C, H, W]."""
        output: Tensor = self.layers(images)
        return output


def stages(
    block: MakeBlock, wide: int, channels: Sequence[int], blocks: Sequence[int]
) -> list[nn.Module]:
    """Return the blocks of all stages; every stage but the first begins with stride 2.

    Args:
        block: Makes one.
        wide: Channels of the input.
        channels: Output channels of each stage.
        blocks: How many blocks each stage has.
    """
    made = []
    for stage, (following, count) in enumerate(zip(channels, blocks, strict=True)):
        for number in range(count):
            made.append(block(wide, following, 2 if stage and not number else 1))
            wide = following
    return made


def check_channels(channels: Sequence[int]) -> None:
    """Raise unless the channels of the stages rise from at least 1.

    Raises:
        ValueError: Naming them.
    """
    if not channels or list(channels) != sorted(channels) or channels[0] < 1:
        raise ValueError(f"channels must rise from at least 1, got {tuple(channels)}.")


def initialise_convolutions(model: nn.Module) -> None:
    """Draw the weights of convolutions from a normal of variance 2 / (k² C_out)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
