"""Sizes that the networks of several frameworks share."""

from __future__ import annotations

import math
from collections.abc import Sequence


def conv_features(
    input_shape: Sequence[int], channels: Sequence[int], kernel_size: int, stride: int, pool: int
) -> int:
    """Return how many features a chain of convolution and pooling leaves.

    Args:
        input_shape: Channels, height and width.
        channels: Output channels of each convolution, padded by half the kernel.
        kernel_size: Side of the kernels.
        stride: Stride of the convolutions.
        pool: Side and stride of the pooling after each convolution.

    Returns:
        Channels x height x width at the end.

    Raises:
        ValueError: If there is no convolution, or pooling leaves nothing of the input.
    """
    if len(input_shape) != 3 or not channels:
        raise ValueError(
            f"expected input_shape (channels, height, width) and at least one entry in channels, "
            f"got {tuple(input_shape)} and {tuple(channels)}."
        )
    _, height, width = input_shape
    for _ in channels:
        height, width = (
            ((side + 2 * (kernel_size // 2) - kernel_size) // stride + 1) // pool
            for side in (height, width)
        )
    if height < 1 or width < 1:
        raise ValueError(
            f"{len(channels)} stages of stride {stride} and pool {pool} leave nothing of an input "
            f"of {input_shape[1]} x {input_shape[2]}. Use fewer stages or a smaller pool."
        )
    return channels[-1] * height * width


def check_sizes(input_shape: Sequence[int], *, width: float = 1.0, **positive: int) -> None:
    """Raise for sizes that no network for images has.

    Args:
        input_shape: Must be channels, height and width.
        width: A factor of channels, must be above 0 and finite.
        **positive: What must be at least 1, by name.

    Raises:
        ValueError: Naming the size.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"input_shape must be (channels, height, width), got {tuple(input_shape)}."
        )
    if not (width > 0 and math.isfinite(width)):
        raise ValueError(f"width must be above 0, got {width!r}.")
    for name, value in positive.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}.")
