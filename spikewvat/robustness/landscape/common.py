"""What lines and planes share: positions, a network held beside its weights, tables of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spikewvat.robustness.bench import Bench
from spikewvat.weights import Weights


class Surroundings:
    """Loss and accuracy beside the ideal weights; these are evaluated once.

    Args:
        bench: Holds the network.
        points: How many evaluations there will be, for the progress.
        progress: Called after each with the number done, the number of all, and the accuracy.
    """

    def __init__(self, bench: Bench, points: int, progress: Any) -> None:
        self._bench, self._points, self._progress = bench, points, progress
        self._weights = {name: weight.clone() for name, weight in bench.weights.items()}
        self._done = 0
        self.clean_accuracy, self.clean_loss = _both(bench.clean())

    def at(self, steps: Sequence[tuple[float, Weights]], what: str) -> tuple[float, float]:
        """Return accuracy and loss at the ideal weights plus a sum of scaled directions."""
        found = self.clean_accuracy, self.clean_loss
        taken = [(scale, direction) for scale, direction in steps if scale != 0]
        if taken:
            there = {name: weight.clone() for name, weight in self._weights.items()}
            for scale, direction in taken:
                for name, weight in there.items():
                    weight.add_(direction[name].to(weight), alpha=scale)
            found = _both(self._bench.holding(there, what))
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._points, found[0])
        return found


def positions(points: int) -> tuple[float, ...]:
    """Return evenly spaced numbers from -1 to 1, exact at the ends and in the middle.

    Raises:
        ValueError: If there are fewer than two.
    """
    if points < 2:
        raise ValueError(f"points must be at least 2, got {points!r}.")
    return tuple((2 * i - points + 1) / (points - 1) for i in range(points))


def table(values: Any) -> Tensor:
    """Return numbers as float64."""
    return torch.tensor(values, dtype=torch.float64)


def check_shapes(found: Any, first: int, second: int) -> None:
    """Raise ValueError unless losses and accuracies are tables of so many places."""
    for name in ("losses", "accuracies"):
        shape = tuple(getattr(found, name).shape)
        if shape != (first, second):
            raise ValueError(f"{name} have the shape {shape}, expected {(first, second)}.")


def _both(found: tuple[float, float | None]) -> tuple[float, float]:
    accuracy, loss = found
    if loss is None:
        raise ValueError("loss is None, expected a function of output and labels.")
    return accuracy, loss
