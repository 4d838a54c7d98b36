"""What stands in for the derivative of a spike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless a value is finite and above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be finite and above 0, got {value!r}.")


@dataclass(frozen=True)
class ATan:
    r"""Arctangent surrogate, SpikingJelly's and snnTorch's ``ATan``.

    .. math:: \sigma'(x) = \frac{\alpha / 2}{1 + (\pi \alpha x / 2)^2}

    Args:
        alpha: Sharpness, above 0.

    Raises:
        ValueError: If ``alpha`` is out of range.

    References:
        Incorporating Learnable Membrane Time Constant to Enhance Learning of Spiking Neural
        Networks (Fang et al., 2021), https://arxiv.org/abs/2007.05785
    """

    alpha: float = 2.0

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha)

    def inverse_slope_(self, x: Tensor) -> Tensor:
        """Return 1 / slope at distances x from the threshold, written over them."""
        flat = x.new_tensor(2 / self.alpha)
        return torch.addcmul(flat, x, x, value=math.pi**2 * self.alpha / 2, out=x)


@dataclass(frozen=True)
class FastSigmoid:
    r"""Fast-sigmoid surrogate, snnTorch's ``FastSigmoid``.

    .. math:: \sigma'(x) = \frac{1}{(1 + k |x|)^2}

    Args:
        slope: Sharpness k, above 0.

    Raises:
        ValueError: If ``slope`` is out of range.

    References:
        SuperSpike: Supervised Learning in Multilayer Spiking Neural Networks (Zenke & Ganguli,
        2018), https://arxiv.org/abs/1705.11146
    """

    slope: float = 25.0

    def __post_init__(self) -> None:
        check_positive("slope", self.slope)

    def inverse_slope_(self, x: Tensor) -> Tensor:
        """Return 1 / slope at distances x from the threshold, written over them."""
        return torch.add(x.new_tensor(1.0), x.abs_(), alpha=self.slope, out=x).square_()


Surrogate: TypeAlias = ATan | FastSigmoid
"""A surrogate of a spike's derivative."""

ATAN = ATan()
