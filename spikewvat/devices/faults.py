"""Faulty memory cells, which ignore programming."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import EachWeight, check_probability, draw_dtype, uniform
from spikewvat.devices.ranges import RangeRule, SixSigma, check_range
from spikewvat.weights import Weights


@dataclass(frozen=True)
class StuckAt(EachWeight):
    """Each cell is stuck at the lowest or the highest value of its range with some probability.

    Args:
        low: Probability that a cell is stuck at the range's lower bound.
        high: Probability that it is stuck at the upper bound; ``low + high`` is at most 1.
        range: Bounds of each layer's range.

    Raises:
        ValueError: If a probability lies outside [0, 1], their sum exceeds 1, or ``range`` is no
            range rule.

    Example:
        >>> from spikewvat.devices import Fixed
        >>> broken = StuckAt(low=1.0, range=Fixed(-1.0, 1.0))
        >>> broken.program({"fc": torch.tensor([0.2, 0.3])})["fc"].tolist()
        [-1.0, -1.0]
    """

    low: float = 0.0
    high: float = 0.0
    range: RangeRule = field(default_factory=SixSigma)

    def __post_init__(self) -> None:
        check_probability("low", self.low)
        check_probability("high", self.high)
        if self.low + self.high > 1 + 1e-12:
            raise ValueError(
                f"low + high must be at most 1, got {self.low!r} + {self.high!r}: "
                "a cell is stuck at one end only."
            )
        check_range(self.range)

    def expected_norms(self, weights: Weights) -> dict[str, Tensor]:
        """Return the norms in closed form (see :meth:`DeviceModel.expected_norms`).

        Where few cells are stuck the norm of a draw scatters around this root mean square.
        """
        norms = {}
        for name, weight in weights.items():
            ideal = weight.detach().to(draw_dtype(weight))
            bounds = zip((self.low, self.high), self.range.bounds(weight), strict=True)
            squares = [share * (bound - ideal).square_().sum() for share, bound in bounds]
            norms[name] = (squares[0] + squares[1]).sqrt_()
        return norms

    def _program(self, weight: Tensor, generator: Generator | None) -> Tensor:
        u = uniform(weight.shape, draw_dtype(weight), generator).to(weight.device)
        low, high = (bound.to(weight.dtype) for bound in self.range.bounds(weight))
        chip = torch.where(u < self.low, low, weight.detach())
        return torch.where((u >= self.low) & (u < self.low + self.high), high, chip)
