"""A direction whose length is drawn anew in every step, or grows over the first ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator

from spikewvat.devices.base import check_probability, generator_device
from spikewvat.perturbations.base import Choosing, Direction
from spikewvat.weights import Weights


class _Of(Direction):
    """A direction that is made of one other."""

    direction: Direction

    @property
    def parts(self) -> tuple[Direction, ...]:
        """What is scaled."""
        return (self.direction,)


@dataclass(frozen=True)
class Drawn(_Of, Choosing):
    """A direction of random length: times a factor that is uniform around 1, one a step.

    Args:
        direction: What to scale.
        spread: Half the width of the factor's range, in [0, 1]; 1 draws it from 0 to 2.

    Raises:
        ValueError: If ``spread`` lies outside [0, 1].
    """

    direction: Direction
    spread: float = 1.0

    def __post_init__(self) -> None:
        check_probability("spread", self.spread)

    def pick(self, *, generator: Generator | None = None) -> Direction:
        """Draw the factor."""
        chosen = self.direction.pick(generator=generator)
        x = float(torch.rand((), generator=generator, device=generator_device(generator)))
        return _Scaled(chosen, 1 + self.spread * (2 * x - 1))


@dataclass(eq=False)
class Ramped(_Of, Choosing):
    """A direction that grows from nothing to its length over the first steps.

    Args:
        direction: What to scale.
        steps: Step, counted from 1, that is the first one of whole length; at least 1.

    Raises:
        ValueError: If ``steps`` is no whole number of at least 1.
    """

    direction: Direction
    steps: int
    _taken: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if type(self.steps) is not int or self.steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {self.steps!r}.")

    def pick(self, *, generator: Generator | None = None) -> Direction:
        """Take the next step of the ramp."""
        self._taken += 1
        chosen = self.direction.pick(generator=generator)
        return chosen if self._taken >= self.steps else _Scaled(chosen, self._taken / self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were taken."""
        return {**super().state_dict(), "taken": self._taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._taken = int(state["taken"])


@dataclass(frozen=True)
class _Scaled(_Of):
    direction: Direction
    factor: float

    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        delta = self.direction(weights, grads, generator=generator)
        torch._foreach_mul_(list(delta.values()), self.factor)
        return delta
