"""Small networks of many kinds: what conversion is asked for, with the word of a refusal if any.

Every entry takes images [B, 2, 8, 8] (those of one dimension read them as [B, 2, 64]) and returns
[B, 3]. ``refused`` is a part of the error that names the layer or operation; None: it converts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikewvat.conversion import QCFS


@dataclass(frozen=True)
class Case:
    """A network and what becomes of it.

    Args:
        make: Makes it.
        refused: Part of the error, if it is refused.
        options: Arguments of ``convert``.
    """

    make: Callable[[], nn.Module]
    refused: str | None = None
    options: tuple[tuple[str, object], ...] = ()


class Written(nn.Module):
    """Two convolutions and a dense layer, applied as a function says."""

    def __init__(self, forward: Callable[..., Tensor], **more: nn.Module) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
        self.relu, self.other = nn.ReLU(), nn.ReLU()
        self.scale = nn.Parameter(torch.tensor([0.5, 1.0, 1.5, 2.0]).view(4, 1, 1))
        self.register_buffer("mean", torch.tensor([0.4, 0.5]).view(1, 2, 1, 1))
        for name, module in more.items():
            self.add_module(name, module)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


def images(*middle: nn.Module, channels: int = 4, size: int = 8) -> nn.Sequential:
    """Return a convolution, the layers asked for, and a head."""
    head = (nn.Flatten(), nn.Linear(channels * size * size, 3))
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), *middle, *head)


def signals(*middle: nn.Module, channels: int = 4, size: int = 64) -> nn.Sequential:
    """Return a network of one dimension, as :func:`images`."""
    head = (nn.Flatten(), nn.Linear(channels * size, 3))
    return nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 4, 3, padding=1), *middle, *head)


def dense() -> nn.Sequential:
    """Return dense layers, two of them without an activation in between."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(128, 8), nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    )


class OfficialIF(nn.Module):
    """The published QCFS module's parameter names, and its forward pass of an ANN."""

    def __init__(self, levels: int = 8, threshold: float = 2.0) -> None:
        super().__init__()
        self.thresh = nn.Parameter(torch.tensor([threshold]))
        self.L, self.T = levels, 0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.clamp(x / self.thresh, 0, 1)
        return torch.floor(x * self.L + 0.5) / self.L * self.thresh


class OfficialUp(nn.Module):
    """As the code that followed it names them."""

    def __init__(self, levels: int = 8, threshold: float = 2.0) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.tensor([threshold]))
        self.t = levels

    def forward(self, x: Tensor) -> Tensor:
        x = torch.floor(x / self.up * self.t + 0.5) / self.t
        return torch.clamp(x, 0, 1) * self.up


class Bottleneck(nn.Module):
    """Inverted residual with a linear projection, as in MobileNetV2."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU6, wide: int = 8) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *(nn.Conv2d(4, wide, 1, bias=False), nn.BatchNorm2d(wide), activation(inplace=True)),
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            *(nn.BatchNorm2d(wide), activation(inplace=True)),
            *(nn.Conv2d(wide, 4, 1, bias=False), nn.BatchNorm2d(4)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class DenseLayer(nn.Module):
    """Norm, ReLU, convolution of all that came before, as in DenseNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, parts: list[Tensor]) -> Tensor:
        return self.conv(self.relu(self.norm(torch.cat(parts, 1))))


class DenseBlock(nn.ModuleDict):
    """Three such layers."""

    def __init__(self) -> None:
        super().__init__({f"layer{i}": DenseLayer(4 + 4 * i) for i in range(3)})

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for layer in self.values():
            parts.append(layer(parts))
        return torch.cat(parts, 1)


class Shuffled(nn.Module):
    """Half of the channels passes, all are shuffled, as in ShuffleNetV2."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, dim=1)
        x = torch.cat((one, self.branch(two)), dim=1)
        x = x.view(x.size(0), 2, 2, 8, 8)
        return x.transpose(1, 2).contiguous().view(-1, 4, 8, 8)


class SqueezeExcite(nn.Module):
    """A gate for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1)))
        return x * functional.hardsigmoid(self.excite(gate))


class Attends(nn.Module):
    """Self-attention over places."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)
        return self.attention(x, x, x)[0]


def _relu(s: Written, x: Tensor) -> Tensor:
    return s.head(functional.relu(s.b(torch.relu(s.a(x)))))


def _two_branches(s: Written, x: Tensor) -> Tensor:
    h = s.relu(s.a(x))
    return s.head(torch.cat([h, s.other(s.b(h))], dim=1)[:, 2:6])


def _sum_and_difference(s: Written, x: Tensor) -> Tensor:
    h = s.relu(s.a(x))
    return s.head(s.other(torch.sub(s.b(h), h, alpha=0.5)))


def _standardised(s: Written, x: Tensor) -> Tensor:
    return s.head(s.relu(s.a((x - s.mean) / 0.3) * s.scale))


def _interpolated(s: Written, x: Tensor) -> Tensor:
    return s.head(s.relu(functional.interpolate(s.a(x), scale_factor=2, mode="nearest")))


def _multiplied(s: Written, x: Tensor) -> Tensor:
    return s.head(s.relu(s.a(x)) * s.other(s.b(s.a(x).relu())))


def _dot_product(s: Written, x: Tensor) -> Tensor:
    h = s.relu(s.a(x)).flatten(2)
    h = functional.scaled_dot_product_attention(h, h, h)
    return s.head(h.unflatten(2, (8, 8)))


def _mixed_samples(s: Written, x: Tensor) -> Tensor:
    return s.head(s.relu(s.a(x)).flatten(0, 1).view(-1, 4, 8, 8))


def _mean(s: Written, x: Tensor) -> Tensor:
    h = s.other(s.a(x)).mean((2, 3))
    return h.mean(-2, keepdim=True)


def _activation(function: Callable[[Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: Written(lambda s, x: s.head(function(s.a(x))))


def _layer(*middle: Callable[[], nn.Module], **sizes: int) -> Callable[[], nn.Module]:
    return lambda: images(*(make() for make in middle), **sizes)


_ANALOG = (("analog", True),)
_SMOOTH = "Train the model with nn.ReLU"
_NORM = "batch norm, whose statistics are constants"

NETWORKS: dict[str, Case] = {
    "relu": Case(lambda: Written(_relu)),
    "relu6": Case(_layer(nn.ReLU6)),
    "relu6 function": Case(_activation(functional.relu6)),
    "hardtanh of two signs": Case(_layer(nn.Hardtanh)),
    "hardtanh": Case(_layer(lambda: nn.Hardtanh(0.0, 2.0))),
    "hardtanh function": Case(_activation(lambda x: functional.hardtanh(x, -0.5, 0.5))),
    "clamp": Case(_activation(lambda x: x.clamp(0, 1))),
    "clamp from below": Case(_activation(lambda x: torch.clamp(x, min=0))),
    "qcfs": Case(_layer(lambda: QCFS(256, 2.0))),
    "qcfs official": Case(_layer(lambda: OfficialIF(256))),
    "qcfs official, other names": Case(_layer(lambda: OfficialUp(256))),
    "batch norm": Case(_layer(lambda: nn.BatchNorm2d(4), nn.ReLU)),
    "batch norm behind": Case(_layer(nn.ReLU, lambda: nn.BatchNorm2d(4))),
    "batch norm of one dimension": Case(
        lambda: images(nn.ReLU(), nn.Flatten(), nn.Linear(256, 6), nn.BatchNorm1d(6), nn.ReLU(),
                       nn.Unflatten(1, (6, 1, 1)), channels=6, size=1)
    ),
    "max pool": Case(_layer(nn.ReLU, lambda: nn.MaxPool2d(2), size=4)),
    "max pool before relu": Case(_layer(lambda: nn.MaxPool2d(2), nn.ReLU, size=4)),
    "max pool before relu6": Case(_layer(lambda: nn.MaxPool2d(2), nn.ReLU6, size=4)),
    "max pool, overlapping": Case(_layer(nn.ReLU, lambda: nn.MaxPool2d(3, 2, 1), size=4)),
    "max pool, ceil": Case(_layer(nn.ReLU, lambda: nn.MaxPool2d(3, ceil_mode=True), size=3)),
    "max pool, adaptive": Case(_layer(nn.ReLU, lambda: nn.AdaptiveMaxPool2d(3), size=3)),
    "max pool behind hardtanh": Case(_layer(nn.Hardtanh, lambda: nn.MaxPool2d(2), size=4)),
    "average pool": Case(_layer(nn.ReLU, lambda: nn.AvgPool2d(2), size=4)),
    "average pool, padded": Case(
        _layer(nn.ReLU, lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), size=4)
    ),
    "average pool before relu": Case(_layer(lambda: nn.AvgPool2d(2), nn.ReLU, size=4)),
    "average pool, adaptive": Case(_layer(nn.ReLU, lambda: nn.AdaptiveAvgPool2d(3), size=3)),
    "dropout": Case(_layer(nn.ReLU, nn.Dropout)),
    "strided, dilated, grouped": Case(
        _layer(nn.ReLU, lambda: nn.Conv2d(4, 4, 3, 2, 2, dilation=2, groups=2), nn.ReLU, size=4)
    ),
    "reflected padding": Case(
        _layer(nn.ReLU, lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.ReLU)
    ),
    "transposed": Case(_layer(nn.ReLU, lambda: nn.ConvTranspose2d(4, 2, 2, 2), nn.ReLU,
                              channels=2, size=16)),
    "transposed, grouped, norm": Case(
        _layer(nn.ReLU, lambda: nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2, bias=False),
               lambda: nn.BatchNorm2d(6), nn.ReLU, channels=6, size=16)
    ),
    "upsampling": Case(_layer(nn.ReLU, lambda: nn.Upsample(scale_factor=2), size=16)),
    "bilinear upsampling": Case(
        _layer(nn.ReLU, lambda: nn.Upsample(scale_factor=2, mode="bilinear"), size=16)
    ),
    "interpolation": Case(lambda: Written(_interpolated)),
    "pixel shuffle": Case(_layer(nn.ReLU, lambda: nn.PixelShuffle(2), channels=1, size=16)),
    "zero padding": Case(_layer(nn.ReLU, lambda: nn.ZeroPad2d(1), size=10)),
    "concatenation": Case(lambda: Written(_two_branches)),
    "difference": Case(lambda: Written(_sum_and_difference)),
    "constants": Case(lambda: Written(_standardised)),
    "dense block": Case(
        _layer(nn.ReLU, DenseBlock, lambda: nn.BatchNorm2d(16), nn.ReLU, channels=16)
    ),
    "shuffled": Case(_layer(nn.ReLU, Shuffled)),
    "linear bottleneck": Case(_layer(nn.ReLU, Bottleneck, Bottleneck), None, _ANALOG),
    "linear bottleneck, relu": Case(
        _layer(nn.ReLU, lambda: Bottleneck(nn.ReLU)), None, _ANALOG
    ),
    "linear after linear": Case(dense),
    "linear after linear, analog": Case(dense, None, _ANALOG),
    "pointwise after convolution": Case(
        _layer(lambda: nn.BatchNorm2d(4), lambda: nn.Conv2d(4, 6, 1, bias=False),
               lambda: nn.BatchNorm2d(6), nn.ReLU, channels=6)
    ),
    "convolution after pointwise": Case(
        _layer(nn.ReLU, lambda: nn.Conv2d(4, 2, 1), lambda: nn.Conv2d(2, 6, 3), nn.ReLU,
               channels=6, size=6)
    ),
    "one dimension": Case(lambda: signals(nn.ReLU(), nn.MaxPool1d(2), size=32)),
    "one dimension, norm, pool": Case(
        lambda: signals(nn.BatchNorm1d(4), nn.ReLU(), nn.AvgPool1d(4), size=16)
    ),
    "one dimension, transposed": Case(
        lambda: signals(nn.ReLU(), nn.ConvTranspose1d(4, 2, 2, 2), nn.ReLU(), channels=2, size=128)
    ),
    "three dimensions": Case(
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 3, 2), nn.BatchNorm3d(3), nn.ReLU(),
            nn.AvgPool3d((1, 2, 2)), nn.Flatten(), nn.Linear(27, 3),
        )
    ),
    "functions for places": Case(
        lambda: Written(lambda s, x: s.head(
            functional.pad(s.relu(s.a(x)).transpose(2, 3).squeeze(-1), (1, 1))
            .permute(0, 1, 3, 2)[:, :, 1:]
        ))
    ),
    "mean over places": Case(
        lambda: Written(lambda s, x: s.last(s.relu(s.a(x)).mean((2, 3))),
                        last=nn.Linear(4, 3))
    ),
    "rectified at the end": Case(lambda: Written(lambda s, x: s.relu(_two_branches(s, x)))),
    # Refused by name.
    "linear bottleneck, refused": Case(
        _layer(nn.ReLU, Bottleneck, Bottleneck), "without a ReLU", (("analog", False),)
    ),
    "group norm": Case(_layer(lambda: nn.GroupNorm(2, 4), nn.ReLU), _NORM),
    "layer norm": Case(_layer(nn.ReLU, lambda: nn.LayerNorm(8)), _NORM),
    "instance norm": Case(_layer(lambda: nn.InstanceNorm2d(4), nn.ReLU), _NORM),
    "leaky relu": Case(_layer(nn.LeakyReLU), _SMOOTH),
    "leaky relu function": Case(_activation(functional.leaky_relu), _SMOOTH),
    "silu": Case(_layer(nn.SiLU), _SMOOTH),
    "gelu": Case(_layer(nn.GELU), _SMOOTH),
    "gelu function": Case(_activation(functional.gelu), _SMOOTH),
    "sigmoid": Case(_layer(nn.Sigmoid), _SMOOTH),
    "softmax": Case(lambda: nn.Sequential(*images(nn.ReLU()), nn.Softmax(1)), "Leave it out"),
    "attention": Case(
        _layer(nn.ReLU, Attends, size=8), "Attention multiplies activations with each other"
    ),
    "attention function": Case(lambda: Written(_dot_product), "Attention multiplies"),
    "squeeze and excite": Case(_layer(nn.ReLU, SqueezeExcite), _SMOOTH),
    "product of branches": Case(lambda: Written(_multiplied), "product of two activations"),
    "maxima of currents": Case(
        _layer(lambda: nn.MaxPool2d(2), lambda: nn.Conv2d(4, 4, 1), nn.ReLU, size=4),
        "takes maxima of the currents",
    ),
    "norm without statistics": Case(
        _layer(lambda: nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU), "has no statistics"
    ),
    "mean over samples": Case(
        lambda: Written(lambda s, x: s.last(s.relu(s.a(x)).mean((2, 3)) * 1.5 - _mean(s, x)),
                        last=nn.Linear(4, 3)),
        "depend on the other images",
    ),
    "mixed samples": Case(
        lambda: Written(_mixed_samples),
        "Flatten only axes after the batch",
    ),
}  # fmt: skip


def made(name: str, seed: int = 0) -> nn.Module:
    """Return a network whose batch norm has seen images, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NETWORKS[name].make()
        for _ in range(3):
            network(torch.rand(16, 2, 8, 8))
    return network.eval()
