"""Networks for ImageNet from torchvision: the only file that imports it."""

from __future__ import annotations

import sys
import urllib.error
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.errors import DataError, require

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")
_definitions: list[Any] = []
"""Kept: an operator is gone with the object that has defined it."""


def _library() -> Any:
    """Import torchvision's models, also beside a torch of another build.

    The wheel belongs to one build of torch. Beside another, such as a CPU one, its compiled
    operators are not loaded, and importing stops where Python code is attached to two of them;
    networks need none, so declaring those two is enough.
    """
    options = {"extra": "vision", "purpose": "a network of torchvision"}
    try:
        return require("torchvision.models", **options)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # what has been imported half
    definitions: Any = torch.library
    library = definitions.Library("torchvision", "DEF")
    for name in _OPERATORS:
        library.define(name + _SCHEMA)
    _definitions.append(library)
    return require("torchvision.models", **options)


torchvision_models = _library()
"""``torchvision.models``."""


def resnet34(*, classes: int = 1000) -> nn.Module:
    """Make torchvision's ResNet-34: 21 797 672 parameters; images [B, 3, H, W] to [B, classes].

    Args:
        classes: Number of scores.

    References:
        Deep Residual Learning for Image Recognition (He et al., 2016),
        https://arxiv.org/abs/1512.03385
    """
    return _made("resnet34", num_classes=classes)


def mobilenet_v2(*, classes: int = 1000, width: float = 1.0, dropout: float = 0.2) -> nn.Module:
    """Make torchvision's MobileNetV2: 3 504 872 parameters; images [B, 3, H, W] to [B, classes].

    Args:
        classes: Number of scores.
        width: Factor of the channels.
        dropout: Probability of silencing a feature in front of the dense layer.

    References:
        MobileNetV2: Inverted Residuals and Linear Bottlenecks (Sandler et al., 2018),
        https://arxiv.org/abs/1801.04381
    """
    return _made("mobilenet_v2", num_classes=classes, width_mult=width, dropout=dropout)


def efficientnet_b0(
    *, classes: int = 1000, dropout: float = 0.2, stochastic_depth: float = 0.2
) -> nn.Module:
    """Make torchvision's EfficientNet-B0: 5 288 548 parameters; [B, 3, H, W] to [B, classes].

    Args:
        classes: Number of scores.
        dropout: Probability of silencing a feature in front of the dense layer.
        stochastic_depth: Probability of skipping the last block in training, less for others.

    References:
        EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks (Tan & Le, 2019),
        https://arxiv.org/abs/1905.11946
    """
    return _made(
        "efficientnet_b0",
        num_classes=classes,
        dropout=dropout,
        stochastic_depth_prob=stochastic_depth,
    )


def _made(name: str, **options: Any) -> nn.Module:
    for key in ("num_classes", "width_mult"):
        if key in options and not options[key] > 0:
            word = {"num_classes": "classes", "width_mult": "width"}[key]
            raise ValueError(f"{word} must be above 0, got {options[key]!r}.")
    model: nn.Module = torchvision_models.get_model(name, weights=None, **options)
    return model


def published_weights(network: str, name: str) -> dict[str, Tensor]:
    """Return trained weights as torchvision publishes them, downloaded once into torch's cache.

    Args:
        network: Name of the network in torchvision.
        name: Of the weights, such as ``"IMAGENET1K_V1"``.

    Returns:
        Tensors by name.

    Raises:
        DataError: If there are no such weights, or they cannot be downloaded.
    """
    known = {weights.name: weights for weights in torchvision_models.get_model_weights(network)}
    if name not in known:
        raise DataError(
            f"torchvision publishes no weights {name!r} of {network} (it has: "
            f"{', '.join(known)}). Choose one of them, or pass the path of a file."
        )
    weights = known[name]
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise DataError(
            f"cannot download {weights.url}: {error}. Check the network, or fetch the file "
            "elsewhere and pass its path as training.start."
        ) from error
    return state


Published = Callable[[str], dict[str, Tensor]]
resnet34_weights: Published = partial(published_weights, "resnet34")
mobilenet_v2_weights: Published = partial(published_weights, "mobilenet_v2")
efficientnet_b0_weights: Published = partial(published_weights, "efficientnet_b0")
