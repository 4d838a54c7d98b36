"""What residual networks of all families share: stages, the head, checks, initial weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from spikewvat.lab.models.layout import Layered

MakeBlock = Callable[[int, int, int], nn.Module]
"""From channels of the input, channels of the output and stride to a block."""


class ResidualNetwork(Layered):
    """Layers, the mean over all pixels, and a dense layer with a bias.

    Images [B, C, H, W] give scores [B, classes].

    Args:
        layers: From images to maps.
        channels: Of the last maps.
        classes: Number of scores.
    """

    def __init__(self, layers: Sequence[nn.Module], channels: int, classes: int) -> None:
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
        super().__init__((*layers, *head))


class AddingBlock(Layered):
    """Layers, and their untouched input added; where the shape changes, a 1 x 1 convolution of it.

    Maps [B, channels, H, W] give maps [B, following, H / stride, W / stride].

    Args:
        layers: From input to output.
        channels: Of the input.
        following: Channels of the output.
        stride: Of the layers.
        bias: Whether the convolution of the shortcut has biases.
    """

    def __init__(
        self, layers: Sequence[nn.Module], channels: int, following: int, stride: int, *, bias: bool
    ) -> None:
        super().__init__(layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or channels != following:
            self.shortcut = nn.Conv2d(channels, following, 1, stride=stride, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return the sum of both."""
        output: Tensor = self.layers(input) + self.shortcut(input)
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
