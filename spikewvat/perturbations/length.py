"""Perturbations whose length differs by layer, grows at first, or is random in steps or layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator

from spikewvat.devices.base import check_at_least_zero, check_probability, generator_device
from spikewvat.errors import UnsupportedModelError
from spikewvat.perturbations.base import Perturbation
from spikewvat.pieces import Changes, InPieces
from spikewvat.weights import Perturb, Weights, adding


class _Scaling(Perturbation):
    """A scaled perturbation."""

    perturbation: Perturbation

    @property
    def parts(self) -> tuple[Perturbation, ...]:
        """What is scaled."""
        return (self.perturbation,)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Choose the length, then perturb (see :meth:`Perturbation.plan`)."""
        return self.pick(generator=generator).plan(weights, grads, generator=generator)


@dataclass(frozen=True)
class RandomLength(_Scaling):
    """Scales a perturbation by a random factor, uniform around 1, drawn once per step.

    Args:
        perturbation: The perturbation to scale.
        spread: Half the width of the factor's range, in [0, 1]; 1 draws it from 0 to 2.

    Raises:
        ValueError: If ``spread`` lies outside [0, 1].
    """

    perturbation: Perturbation
    spread: float = 1.0

    def __post_init__(self) -> None:
        check_probability("spread", self.spread)

    def pick(self, *, generator: Generator | None = None) -> Perturbation:
        """Draw the factor."""
        chosen = self.perturbation.pick(generator=generator)
        x = float(torch.rand((), generator=generator, device=generator_device(generator)))
        return _Scaled(chosen, 1 + self.spread * (2 * x - 1))


@dataclass(frozen=True)
class RandomLayers(_Scaling):
    """Perturbs some layers only, drawn anew in every step.

    Args:
        perturbation: The perturbation; of the layers that are left out it keeps nothing.
        share: Probability of a layer to be perturbed, in [0, 1].

    Raises:
        ValueError: If ``share`` lies outside [0, 1].

    References:
        Our choice. Walking Noise (Borras et al., 2022), https://arxiv.org/abs/2212.10430, puts
        noise into one layer at a time to measure how robust it is.
    """

    perturbation: Perturbation
    share: float = 0.5

    def __post_init__(self) -> None:
        check_probability("share", self.share)

    def pick(self, *, generator: Generator | None = None) -> Perturbation:
        """Let the perturbation choose; layers are drawn with its noise."""
        return RandomLayers(self.perturbation.pick(generator=generator), self.share)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Perturb, then leave layers out (see :meth:`Perturbation.plan`)."""
        changes = self.perturbation(weights, grads, generator=generator)
        x = torch.rand(len(changes), generator=generator, device=generator_device(generator))
        left_out = [
            change for change, y in zip(changes.values(), x, strict=True) if y >= self.share
        ]
        if left_out:
            torch._foreach_zero_(left_out)
        return adding(changes)


@dataclass(frozen=True)
class LayerFactors(_Scaling):
    """Scales a perturbation by a factor for each layer; validation chips can tell which.

    Args:
        perturbation: The perturbation to scale.
        factors: One factor for each weight tensor, in the model's order; at least 0.

    Raises:
        TypeError: If ``factors`` is no list.
        ValueError: If a factor is below 0.
        UnsupportedModelError: At a step, if the model has another number of weight tensors.

    Example:
        >>> from spikewvat.devices import Gaussian
        >>> from spikewvat.perturbations import HSV
        >>> weights = {"0.weight": torch.randn(3, 4), "2.weight": torch.randn(2, 3)}
        >>> half = LayerFactors(HSV(Gaussian(sigma=0.1)), factors=[0.0, 0.5])
        >>> [bool(change.any()) for change in half(weights).values()]
        [False, True]
    """

    perturbation: Perturbation
    factors: Sequence[float]

    def __post_init__(self) -> None:
        if isinstance(self.factors, str) or not isinstance(self.factors, Sequence):
            raise TypeError(f"factors must be a list of numbers, got {self.factors!r}.")
        for factor in self.factors:
            check_at_least_zero("factors", factor)

    def pick(self, *, generator: Generator | None = None) -> Perturbation:
        """Let the perturbation choose."""
        return LayerFactors(self.perturbation.pick(generator=generator), self.factors)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Perturb, then scale each layer (see :meth:`Perturbation.plan`)."""
        if len(self.factors) != len(weights):
            raise UnsupportedModelError(
                f"factors has {len(self.factors)} numbers, but there are {len(weights)} weight "
                f"tensors: {', '.join(weights)}. Give one factor for each."
            )
        changes = self.perturbation(weights, grads, generator=generator)
        return Changes(changes, dict(zip(changes, self.factors, strict=True)))


@dataclass(eq=False)
class Warmup(_Scaling):
    """Scales a perturbation linearly from 0 to its full length over the first steps.

    Args:
        perturbation: The perturbation to scale.
        steps: Number, from 1, of the first step with full length; at least 1.

    Raises:
        ValueError: If ``steps`` is not a whole number of at least 1.
    """

    perturbation: Perturbation
    steps: int
    _taken: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if type(self.steps) is not int or self.steps < 1:
            raise ValueError(f"steps must be a whole number of at least 1, got {self.steps!r}.")

    def pick(self, *, generator: Generator | None = None) -> Perturbation:
        """Take the next step of the warmup."""
        self._taken += 1
        chosen = self.perturbation.pick(generator=generator)
        return chosen if self._taken >= self.steps else _Scaled(chosen, self._taken / self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps were taken."""
        return {**super().state_dict(), "taken": self._taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._taken = int(state["taken"])


@dataclass(frozen=True)
class _Scaled(_Scaling):
    perturbation: Perturbation
    factor: float

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        plan = self.perturbation.plan(weights, grads, generator=generator)
        if isinstance(plan, InPieces):
            return plan.times(self.factor)
        with torch.no_grad():
            changes = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            plan(changes)
        return adding(changes, scale=self.factor)
