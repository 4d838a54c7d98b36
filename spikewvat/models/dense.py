"""Fully connected networks without time."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class FullyConnected(nn.Sequential):
    """ReLU network 784-400-200-10 of the MNIST rows.

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
        for width, following in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(width, following, bias=bias), nn.ReLU()]
        super().__init__(*layers[:-1])

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores.

        Args:
            images: Images [B, ...], flattened here; with a leading time axis of one step too.

        Returns:
            Scores [B, classes].
        """
        scores: Tensor = super().forward(images)
        return scores
