"""Fully connected networks without time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


class FullyConnected(nn.Sequential):
    """ReLU network 784-400-200-10 of the MNIST rows: images [B, ...] to scores [B, classes].

    Args:
        sizes: Widths from input to output.
        bias: Whether layers have biases (never perturbed).

    Raises:
        ValueError: If fewer than two sizes are given.

    References:
        Weight-variation-aware training (WVAT), appendix A.2.
    """

    def __init__(self, *, sizes: Sequence[int] = (784, 400, 200, 10), bias: bool = True) -> None:
        if len(sizes) < 2:
            raise ValueError(f"sizes needs input and output width, got {tuple(sizes)}.")
        layers: list[nn.Module] = [nn.Flatten()]
        for width, following in pairwise(sizes):
            layers += [nn.Linear(width, following, bias=bias), nn.ReLU()]
        super().__init__(*layers[:-1])
