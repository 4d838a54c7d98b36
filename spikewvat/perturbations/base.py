"""Base class of all perturbations, and how they are scaled to a given length."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import Derived, norm_of
from spikewvat.pieces import Changes
from spikewvat.weights import Perturb, Weights

EPSILON = 1e-12
"""Added to gradient norms before division (the value of Foret et al. 2021)."""


class Part:
    """A part of a training step that may need gradients and remember earlier steps."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of this one, which determine what it needs, remembers and saves."""
        return ()

    @property
    def needs_gradient(self) -> bool:
        """Whether it needs gradients from a pass at the unperturbed weights."""
        return any(part.needs_gradient for part in self.parts)

    @property
    def remembers(self) -> bool:
        """Whether :meth:`note` wants the gradient of every step."""
        return any(part.remembers for part in self.parts)

    def note(self, grads: Weights) -> None:
        """Record the gradients of a step; copy anything that must be kept.

        Args:
            grads: Gradients of the weights by name, taken at the perturbed weights.
        """
        for part in self.parts:
            part.note(grads)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for resuming a run; usually empty."""
        states = [part.state_dict() for part in self.parts]
        return {"parts": states} if any(states) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`."""
        for part, saved in zip(self.parts, state.get("parts", ()), strict=False):
            part.load_state_dict(saved)


class Perturbation(Part, Derived, ABC):
    """A change of the weights; training takes the gradient at the perturbed weights.

    A subclass implements :meth:`plan`, which determines the change. If it needs gradients at the
    unperturbed weights, it sets ``needs_gradient = True``.

    Example:
        >>> from spikewvat.weights import adding
        >>> class Shift(Perturbation):
        ...     def plan(self, weights, grads=None, *, generator=None):
        ...         return adding({name: 0.1 * w.detach().abs() for name, w in weights.items()})
        >>> Shift()({"fc": torch.tensor([10.0, -20.0])})["fc"].tolist()
        [1.0, 2.0]
    """

    def pick(self, *, generator: Generator | None = None) -> Perturbation:
        """Return the perturbation for this step; those that choose return one of several."""
        return self

    @abstractmethod
    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Return a function that adds the perturbation to the weights in place.

        Weights and gradients are looked at now; what is returned may be called once other
        perturbations have been added to the weights.

        Args:
            weights: Synaptic weights by name, any shapes; read, never modified.
            grads: Gradients at the unperturbed weights, equal keys and shapes; needed where
                ``needs_gradient`` is true.
            generator: Source of randomness; ``None`` uses torch's global one.

        Raises:
            ValueError: If gradients are needed and missing, or do not fit.
        """

    @final
    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        """Return the perturbation itself.

        Args:
            weights: As for :meth:`plan`, this and what follows.
            grads: Gradients at the unperturbed weights.
            generator: Source of randomness.

        Returns:
            Changes with the keys, shapes, dtypes and devices of ``weights``.
        """
        add = self.plan(weights, grads, generator=generator)
        with torch.no_grad():
            changes = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            add(changes)
        return changes


def total_norm(norms: list[Tensor]) -> Tensor:
    """Return the norm over all tensors from the norm of each, on the first one's device."""
    together = torch.stack([norm.to(norms[0].device) for norm in norms])
    total: Tensor = torch.linalg.vector_norm(together)
    return total


def along(direction: Weights, lengths: Mapping[str, Tensor], scale: float = 1.0) -> Perturb:
    """Return what adds each tensor, stretched to its length times a factor."""
    factors = {name: _factor(norm_of(g), lengths[name], scale) for name, g in direction.items()}
    return _adding_times(direction, factors)


def along_globally(
    direction: Weights, measured: Weights, length: Tensor | float, scale: float = 1.0
) -> Perturb:
    """Return what adds a direction times length times a factor over the norm of ``measured``."""
    norm = total_norm([norm_of(tensor) for tensor in measured.values()])
    factor = _factor(norm, length, scale)
    return _adding_times(direction, dict.fromkeys(direction, factor))


def _factor(norm: Tensor, length: Tensor | float, scale: float) -> Tensor | float:
    """Return ``scale * length / (norm + epsilon)``, zero where the norm is zero or not finite.

    On a GPU it stays there: a comparison in Python would wait for it at every step.
    """
    if norm.device.type == "cpu":
        size = float(norm)
        return scale * float(length) / (size + EPSILON) if 0 < size < math.inf else 0.0
    if isinstance(length, Tensor):
        length = length.to(norm.device)
    factor = scale * length / (norm + EPSILON)
    return torch.where(torch.isfinite(norm), factor, torch.zeros_like(norm))


def _adding_times(direction: Weights, factors: Mapping[str, Tensor | float]) -> Perturb:
    """Return what adds each tensor times its factor; a factor of zero adds nothing."""
    numbers = {name: factor for name, factor in factors.items() if isinstance(factor, float)}
    if len(numbers) == len(factors):
        # In a dictionary of its own, so that what the source keeps is held twice.
        return Changes(dict(direction), numbers, own=True)

    def add(weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            towards = direction[name].to(weight.device)
            factor = torch.as_tensor(factors[name], device=towards.device, dtype=towards.dtype)
            change = towards * factor
            weight.add_(torch.where(factor != 0, change, torch.zeros_like(change)))

    return add
