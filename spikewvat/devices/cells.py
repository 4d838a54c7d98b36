"""Weights as whole numbers, one bit in each memory cell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import (
    EachWeight,
    check_at_least_zero,
    check_bits,
    check_sigma,
    draw_dtype,
    norm_of,
)
from spikewvat.devices.normal import standard_normal
from spikewvat.weights import Weights


@dataclass(frozen=True)
class BinaryCells(EachWeight):
    r"""Dynamic fixed point in two's complement, with each bit b in its own binary cell.

    .. math:: q = \mathrm{clip}(\mathrm{round}(w \, 2^F), -2^{N-1}, 2^{N-1} - 1), \qquad
              F = N - 1 - \lceil \log_2 \max |w| \rceil

    .. math:: w' = 2^{-F} \sum_{i < N} c_i \left( b_i (1 + s \, \epsilon_i)
              + (1 - b_i) \, o \, \epsilon_i \right), \qquad
              c_i = 2^i, \; c_{N-1} = -2^{N-1}, \; \epsilon \sim N(0, 1)

    The scale is a power of two for each tensor, the largest that clips nothing but
    :math:`2^{N-1}` itself. The errors of a weight's cells are drawn together: one normal number of
    variance :math:`\sum_i c_i^2 (b_i s^2 + (1 - b_i) o^2)` has the same law.

    In training this is a straight-through estimator, as with any device model.

    Args:
        bits: Bits N of a weight, from 2 to 16.
        sigma: Standard deviation s of a cell that is on, as a share of its value, from 0 to 1.
        off_sigma: Standard deviation o of a cell that is off, as a share of one that is on.

    Raises:
        ValueError: If ``bits`` is not a whole number from 2 to 16, or a width is negative.

    References:
        Design of Reliable DNN Accelerator with Un-reliable ReRAM (Long et al., 2019). Only the
        abstract was at hand; number format and cells follow it, the law of the errors is ours.

    Example:
        >>> BinaryCells(bits=4, sigma=0.0).program({"fc": torch.tensor([0.9, -0.4])})["fc"].tolist()
        [0.875, -0.375]
    """

    bits: int = 8
    sigma: float = 0.1
    off_sigma: float = 0.0

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_sigma(self.sigma, most=1.0, more="No cell is read with an error above its value.")
        check_at_least_zero("off_sigma", self.off_sigma)

    def expected_norms(self, weights: Weights) -> dict[str, Tensor]:
        """Return the norms in closed form (see :meth:`DeviceModel.expected_norms`)."""
        norms = {}
        for name, weight in weights.items():
            step = self.step(weight)
            numbers = self.numbers(weight)
            rounding = norm_of(numbers * step - weight.detach().to(step.dtype))
            norms[name] = torch.hypot(rounding, norm_of(self.spread(numbers) * step))
        return norms

    def step(self, weight: Tensor) -> Tensor:
        """Return 2^-F, the value of the lowest bit, as a 0-dim tensor of the draw dtype."""
        detached = weight.detach().to(draw_dtype(weight))
        largest = detached.abs().amax() if weight.numel() else detached.new_zeros(())
        exponent = largest.masked_fill(largest == 0, 1).log2().ceil()
        return torch.exp2(exponent - (self.bits - 1))

    def numbers(self, weight: Tensor) -> Tensor:
        """Return the whole numbers q that are stored, in the draw dtype."""
        top = 2 ** (self.bits - 1)
        scaled: Tensor = weight.detach().to(draw_dtype(weight)) / self.step(weight)
        return scaled.round_().clamp_(-top, top - 1)

    def spread(self, numbers: Tensor) -> Tensor:
        """Return the standard deviation of what is read for each stored number, in steps."""
        stored = numbers.to(torch.int64)
        variance = torch.zeros_like(numbers)
        for bit in range(self.bits):  # two's complement: the sign squares away
            on = (stored >> bit).bitwise_and_(1).to(numbers.dtype)
            share = on * (self.sigma**2 - self.off_sigma**2) + self.off_sigma**2
            variance.add_(share, alpha=4.0**bit)
        return variance.sqrt_()

    def _program(self, weight: Tensor, generator: Generator | None) -> Tensor:
        numbers = self.numbers(weight)
        noise = standard_normal(weight.shape, dtype=numbers.dtype, generator=generator)
        found = noise.to(weight.device).mul_(self.spread(numbers)).add_(numbers)
        return found.mul_(self.step(weight)).to(weight.dtype)
