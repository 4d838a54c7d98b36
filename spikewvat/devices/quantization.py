"""Weights on the few levels that a device can hold."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from spikewvat.devices.base import EachWeight, check_bits, draw_dtype
from spikewvat.devices.ranges import AbsMax


@dataclass(frozen=True)
class Quantized(EachWeight):
    r"""Symmetric uniform quantisation, rounding half to even; zero stays zero.

    .. math:: s = \max|w| / (2^{b-1} - 1), \qquad w' = s \, \mathrm{round}(w / s)

    Trained under (as any device model is), this is quantisation-aware training with a
    straight-through estimator. It draws no random numbers.

    Args:
        bits: Bits b of a weight, from 2 to 16: 2^b - 1 levels.
        per_channel: One scale for each output channel instead of one for the tensor.

    Raises:
        ValueError: If ``bits`` is not a whole number from 2 to 16.

    References:
        Weight-variation-aware training (WVAT), appendix A.3; rounding and scale are our choice.

    Example:
        >>> import torch
        >>> Quantized(bits=2).program({"fc": torch.tensor([0.9, 0.2, -0.5])})["fc"].tolist()
        [0.8999999761581421, 0.0, -0.8999999761581421]
    """

    bits: int = 8
    per_channel: bool = False

    def __post_init__(self) -> None:
        check_bits(self.bits)

    def scale(self, weight: Tensor) -> Tensor:
        """Return the width s of one step, broadcastable against ``weight``; 1 where all is zero."""
        scale: Tensor = AbsMax(self.per_channel).size(weight) / (2 ** (self.bits - 1) - 1)
        return scale.masked_fill_(scale == 0, 1)

    def _program(self, weight: Tensor, generator: Generator | None) -> Tensor:
        scale = self.scale(weight)
        steps: Tensor = weight.detach().to(draw_dtype(weight)) / scale
        return steps.round_().mul_(scale).to(weight.dtype)
