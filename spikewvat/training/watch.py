"""Warns once when training under variation does not learn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from spikewvat.errors import TrainingStalledWarning

_WINDOW = 20  # steps between two looks at the loss: a look waits for the GPU


class LossWatch:
    """Looks at the losses and accuracies that it is told.

    Args:
        warn_after: Steps after which the loss must have fallen; ``None`` never warns.
    """

    def __init__(self, warn_after: int | None) -> None:
        self._warn_after = math.inf if warn_after is None else max(warn_after, 2 * _WINDOW)
        self._enabled = warn_after is not None
        self._sum: Tensor | float = 0.0
        self._steps = 0
        self._first: float | None = None
        self._best = math.inf

    def note_loss(self, loss: Tensor) -> None:
        """Take the loss of one perturbed step."""
        if not self._enabled:
            return
        self._sum = self._sum + loss.float()
        self._steps += 1
        if self._steps % _WINDOW:
            return
        mean = float(self._sum) / _WINDOW
        self._sum = 0.0
        if not math.isfinite(mean):
            self._warn("the loss at perturbed weights is not finite.")
            return
        self._first = mean if self._first is None else self._first
        self._best = min(self._best, mean)
        if self._steps >= self._warn_after and self._best > 0.97 * self._first:
            self._warn(
                f"the loss at perturbed weights has not fallen in {self._steps} steps "
                f"(first {_WINDOW}: {self._first:.4g}, best {_WINDOW}: {self._best:.4g})."
            )

    def note_accuracy(self, accuracy: float, classes: int) -> None:
        """Take the training accuracy of one epoch, as a fraction."""
        if self._enabled and self._steps >= self._warn_after and accuracy < 1.5 / classes:
            self._warn(
                f"training accuracy is {100 * accuracy:.1f} % after {self._steps} steps, "
                f"chance for {classes} classes."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what has been seen."""
        return {
            "enabled": self._enabled,
            "sum": float(self._sum),
            "steps": self._steps,
            "first": self._first,
            "best": self._best,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`."""
        self._enabled = bool(state["enabled"])
        self._sum = float(state["sum"])
        self._steps = int(state["steps"])
        self._first = None if state["first"] is None else float(state["first"])
        self._best = float(state["best"])

    def _warn(self, what: str) -> None:
        self._enabled = False
        warnings.warn(
            f"Training under variation does not learn: {what} "
            "Lower alpha (0.01 is gentle), then gamma (0.5 perturbs by half the tested width), "
            "or start from weights trained without variation.",
            TrainingStalledWarning,
            stacklevel=4,
        )
