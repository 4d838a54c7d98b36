"""The residual networks of He et al.: ResNet-20 for CIFAR, ResNet-18 and ResNet-34."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from spikewvat.lab.models.layout import check_sizes
from spikewvat.lab.models.residual import (
    ResidualNetwork,
    check_channels,
    initialise_convolutions,
    stages,
)


class Block(nn.Module):
    """Two 3 x 3 convolutions with batch norm, and the input added before the last ReLU.

    Where the shape changes, the shortcut either takes every second pixel and fills the new
    channels with zeros, without parameters (option A of the paper), or is a 1 x 1 convolution
    with batch norm (option B).

    Args:
        channels: Of the input.
        following: Channels of the output, with zeros at least as many.
        stride: Of the first convolution.
        project: Whether the shortcut is a convolution where the shape changes.
    """

    def __init__(
        self, channels: int, following: int, stride: int, *, project: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, following, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(following)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(following, following, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(following)
        self.relu2 = nn.ReLU()
        self._stride, self._new = stride, following - channels
        self.shortcut: nn.Module | None = None
        if project and (stride > 1 or self._new):
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, following, 1, stride=stride, bias=False),
                nn.BatchNorm2d(following),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, following, H / stride, W / stride] of x [B, channels, H, W]."""
        y = self.norm2(self.conv2(self.relu1(self.norm1(self.conv1(x)))))
        output: Tensor = self.relu2(y + self._short(x))
        return output

    def _short(self, x: Tensor) -> Tensor:
        if self.shortcut is not None:
            projected: Tensor = self.shortcut(x)
            return projected
        if self._stride > 1:
            x = x[:, :, :: self._stride, :: self._stride]
        if self._new:
            x = functional.pad(x, (0, 0, 0, 0, self._new // 2, self._new - self._new // 2))
        return x


class ResNet20(ResidualNetwork):
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
        check_sizes(input_shape, blocks=blocks, classes=classes)
        check_channels(channels)
        wide = channels[0]
        layers = [
            nn.Conv2d(input_shape[0], wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            *stages(Block, wide, channels, [blocks] * len(channels)),
        ]
        super().__init__(layers, channels[-1], classes)
        initialise_convolutions(self)


class ResNet(ResidualNetwork):
    """Four stages of basic blocks whose shortcuts are 1 x 1 convolutions where shapes change.

    Convolutions have no bias, each has a batch norm; the dense layer behind the mean over all
    pixels has a bias. Initial convolutions are normal with variance 2 / (k² C_out).

    A subclass chooses the blocks.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores.
        stem: ``"cifar"`` begins with a 3 x 3 convolution, ``"imagenet"`` with one of 7 x 7 and
            stride 2 and 3 x 3 max-pooling with stride 2.
        channels: Channels of each stage, rising; every stage but the first halves the sides.

    Attributes:
        blocks: Blocks of each stage.

    Raises:
        ValueError: If an option is impossible.

    References:
        Deep Residual Learning for Image Recognition (He et al., 2016), table 1,
        https://arxiv.org/abs/1512.03385
    """

    blocks: ClassVar[Sequence[int]]

    def __init__(
        self,
        *,
        input_shape: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        stem: Literal["cifar", "imagenet"] = "cifar",
        channels: Sequence[int] = (64, 128, 256, 512),
    ) -> None:
        if stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem must be 'cifar' or 'imagenet', got {stem!r}.")
        if len(channels) != len(self.blocks):
            raise ValueError(
                f"channels must have {len(self.blocks)} entries, got {tuple(channels)}."
            )
        check_sizes(input_shape, classes=classes)
        check_channels(channels)
        wide, large = channels[0], stem == "imagenet"
        kernel, stride = (7, 2) if large else (3, 1)
        conv = nn.Conv2d(input_shape[0], wide, kernel, stride, padding=kernel // 2, bias=False)
        layers: list[nn.Module] = [conv, nn.BatchNorm2d(wide), nn.ReLU()]
        if large:
            layers.append(nn.MaxPool2d(3, stride=2, padding=1))
        layers += stages(partial(Block, project=True), wide, channels, self.blocks)
        super().__init__(layers, channels[-1], classes)
        initialise_convolutions(self)


class ResNet18(ResNet):
    """ResNet-18: two blocks a stage; 11 173 962 parameters for CIFAR-10.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores; 1000 and ``stem="imagenet"`` make 11 689 512 parameters.
        stem: See :class:`ResNet`.
        channels: Channels of the four stages, rising.

    Raises:
        ValueError: If an option is impossible.

    References:
        He et al., 2016, https://arxiv.org/abs/1512.03385
    """

    blocks = (2, 2, 2, 2)


class ResNet34(ResNet):
    """ResNet-34: 3, 4, 6 and 3 blocks; 21 282 122 parameters for CIFAR-10.

    Args:
        input_shape: Channels, height and width of the images.
        classes: Number of scores; 1000 and ``stem="imagenet"`` make 21 797 672 parameters.
        stem: See :class:`ResNet`.
        channels: Channels of the four stages, rising.

    Raises:
        ValueError: If an option is impossible.

    References:
        He et al., 2016, https://arxiv.org/abs/1512.03385
    """

    blocks = (3, 4, 6, 3)
