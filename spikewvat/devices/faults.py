"""Faulty memory cells, which ignore programming."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import (
    DeviceModel,
    EachWeight,
    check_probability,
    draw_dtype,
    uniform,
)
from spikewvat.devices.ranges import RangeRule, SixSigma, check_range
from spikewvat.errors import DataError
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


Fault: TypeAlias = tuple[str, int, float | str]
"""Name of a weight, place of the entry in it, and what it is: "low", "high" or a number."""


@dataclass(frozen=True)
class FaultMap(DeviceModel):
    """Cells of a real chip that are known to be stuck, the same on every simulated one.

    Inside a :class:`~spikewvat.devices.DifferentialPair` or a
    :class:`~spikewvat.devices.SingleCell` the cells of weight ``fc`` are called ``fc/0``, ``fc/1``
    and so on, g+ first, and numbers are conductances.

    Args:
        faults: Weight, place in it (of its flattened entries) and value of each faulty cell;
            ``"low"`` and ``"high"`` are the bounds of the layer's range.
        range: Bounds of each layer's range.

    Raises:
        ValueError: If a place is negative, a value neither a number nor one of the two words, or,
            when programming, a weight or place does not exist.

    Example:
        >>> broken = FaultMap((("fc", 1, 0.0),))
        >>> broken.program({"fc": torch.tensor([0.2, 0.3])})["fc"].tolist()
        [0.20000000298023224, 0.0]
    """

    faults: tuple[Fault, ...]
    range: RangeRule = field(default_factory=SixSigma)

    def __post_init__(self) -> None:
        object.__setattr__(self, "faults", tuple(map(tuple, self.faults)))
        check_range(self.range)
        for name, place, value in self.faults:
            known = value in ("low", "high") if isinstance(value, str) else math.isfinite(value)
            if type(place) is not int or place < 0 or not known:
                raise ValueError(
                    f"a fault of weight {name!r} is {place!r}, {value!r}: expected a place from 0 "
                    "and 'low', 'high' or a number."
                )

    @classmethod
    def from_csv(cls, path: Path | str) -> FaultMap:
        """Read a map with the columns ``weight``, ``index`` and ``value``.

        Raises:
            DataError: If the file is missing or malformed.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            return cls(
                tuple(
                    (row["weight"], int(row["index"]), _value(row["value"]))
                    for row in csv.DictReader(text.splitlines())
                )
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{str(path)!r} is no map of faults ({error!r}). Expected CSV with the columns "
                "weight, index, value, such as: fc1.weight,17,low."
            ) from error

    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip; nothing is drawn (see :meth:`DeviceModel.program`)."""
        chip = {name: weight.detach().clone() for name, weight in weights.items()}
        for name, place, value in self.faults:
            if name not in chip or place >= chip[name].numel():
                sizes = ", ".join(f"{n!r} ({w.numel()})" for n, w in chip.items())
                raise ValueError(
                    f"the map has a fault at entry {place} of {name!r}, which does not exist "
                    f"(weights and their sizes: {sizes}). Use the map of this network's chip."
                )
            found = value
            if isinstance(found, str):
                low, high = self.range.bounds(weights[name])
                bound = (low if found == "low" else high).expand_as(chip[name])
                found = float(bound.reshape(-1)[place])
            cell = torch.unravel_index(torch.tensor(place), chip[name].shape)
            chip[name][cell] = found
        return chip

    def __repr__(self) -> str:
        return f"FaultMap({len(self.faults)} cells, range={self.range!r})"


def fault_map(table: str) -> FaultMap:
    """Return :meth:`FaultMap.from_csv` of a file, for recipes and the command line.

    Args:
        table: The file.

    Raises:
        DataError: If the file is missing or malformed.
    """
    return FaultMap.from_csv(table)


def _value(text: str) -> float | str:
    word = text.strip().lower()
    return word if word in ("low", "high") else float(word)
