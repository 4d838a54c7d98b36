"""Shared by lines and planes: positions, evaluation at perturbed weights, tables of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spikewvat.robustness.plan import Progress
from spikewvat.robustness.run import Run
from spikewvat.weights import Weights


class Surroundings:
    """Loss and accuracy around the weights of a network; the weights themselves are evaluated once.

    Args:
        run: Holds the network.
        points: Number of evaluations, for the progress.
        progress: Called after each one with the number done, the total, and the accuracy.
    """

    def __init__(self, run: Run, points: int, progress: Progress | None) -> None:
        self._run, self._points, self._progress = run, points, progress
        self._weights = {name: weight.clone() for name, weight in run.weights.items()}
        self._done = 0
        none = run.no_variation()
        self.accuracy, self.loss = none.accuracy, none.loss

    def at(self, steps: Sequence[tuple[float, Weights]], what: str) -> tuple[float, float]:
        """Return accuracy and loss at the weights plus the sum of the scaled perturbations."""
        found = self.accuracy, self.loss
        taken = [(scale, perturbation) for scale, perturbation in steps if scale != 0]
        if taken:
            there = {name: weight.clone() for name, weight in self._weights.items()}
            for scale, perturbation in taken:
                for name, weight in there.items():
                    weight.add_(perturbation[name].to(weight), alpha=scale)
            held = self._run.holding(there, what)
            found = held.accuracy, held.loss
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._points, found[0])
        return found


def positions(points: int) -> tuple[float, ...]:
    """Return evenly spaced numbers from -1 to 1, exact at both ends and in the middle.

    Raises:
        ValueError: If ``points`` is below 2.
    """
    if points < 2:
        raise ValueError(f"points must be at least 2, got {points!r}.")
    return tuple((2 * i - points + 1) / (points - 1) for i in range(points))


def table(values: Any) -> Tensor:
    """Return numbers as float64."""
    return torch.tensor(values, dtype=torch.float64)


def check_shapes(found: Any, first: int, second: int) -> None:
    """Raise ValueError unless losses and accuracies have the given shape."""
    for name in ("losses", "accuracies"):
        shape = tuple(getattr(found, name).shape)
        if shape != (first, second):
            raise ValueError(f"{name} have the shape {shape}, expected {(first, second)}.")
