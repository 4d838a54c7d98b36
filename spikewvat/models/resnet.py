"""The residual networks of He et al. for CIFAR."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and the input added before the last ReLU.

    Where the shape changes, the shortcut takes every second pixel and fills the new channels
    with zeros; it has no parameters (option A of the paper).

    Args:
        channels: Of the input.
        following: Channels of the output, at least as many.
        stride: Of the first convolution.
    """

    def __init__(self, channels: int, following: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, following, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(following)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(following, following, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(following)
        self.relu2 = nn.ReLU()
        self._stride, self._new = stride, following - channels

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, following, H / stride, W / stride] of x [B, channels, H, W]."""
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        if self._stride > 1:
            x = x[:, :, :: self._stride, :: self._stride]
        if self._new:
            x = functional.pad(x, (0, 0, 0, 0, self._new // 2, self._new - self._new // 2))
        output: Tensor = self.relu2(y + x)
        return output


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR: 16, 32 and 64 channels, three blocks each; 269 722 parameters.

    Convolutions have no bias, each has a batch norm; the dense layer behind the mean over all
    pixels has a bias. Initial convolutions are normal with variance 2 / (k² C_out).

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores.
        channels: Channels of each stage, rising; every stage but the first halves the sides.
        blocks: Blocks of a stage; three make 20 layers.

    Raises:
        ValueError: If an option is impossible.

    References:
        Deep Residual Learning for Image Recognition (He et al., 2016), section 4.2,
        https://arxiv.org/abs/1512.03385
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        channels: Sequence[int] = (16, 32, 64),
        blocks: int = 3,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(
                f"input_shape must be (channels, height, width), got {tuple(input_shape)}."
            )
        if not channels or list(channels) != sorted(channels) or channels[0] < 1:
            raise ValueError(f"channels must rise from at least 1, got {tuple(channels)}.")
        for name, value in (("blocks", blocks), ("classes", classes)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}.")
        wide = channels[0]
        layers: list[nn.Module] = [
            nn.Conv2d(input_shape[0], wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
        ]
        for stage, following in enumerate(channels):
            for number in range(blocks):
                layers.append(Block(wide, following, 2 if stage and not number else 1))
                wide = following
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(wide, classes)]
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return scores [B, classes] of images [B, C, H, W]."""
        output: Tensor = self.layers(images)
        return output
