"""What every direction is, and how gradients are stretched to a length."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import norm_of
from spikewvat.weights import Displace, Weights, adding, check_matching

EPSILON = 1e-12
"""Added to gradient norms before division (the value of Foret et al. 2021)."""


class Direction(ABC):
    """A displacement of the weights, at which the training gradient is then taken."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__call__" in vars(cls) and "plan" not in vars(cls):
            # What a subclass says of the displacement holds in training steps as well.
            cls.plan = Direction.plan  # type: ignore[method-assign]

    @property
    def parts(self) -> tuple[Direction, ...]:
        """Directions that this one is made of."""
        return ()

    @property
    def needs_gradient(self) -> bool:
        """Whether a clean pass has to bring the gradients first; of parts, whether any asks."""
        return any(part.needs_gradient for part in self.parts) if self.parts else True

    @property
    def remembers(self) -> bool:
        """Whether :meth:`note` wants the gradient of every step."""
        return any(part.remembers for part in self.parts)

    def pick(self, *, generator: Generator | None = None) -> Direction:
        """Return the direction to use in this step; only mixtures choose."""
        return self

    def note(self, grads: Weights) -> None:
        """Take notice of the gradients that a step has left; copy what is to be kept.

        Args:
            grads: Gradients of the weights by name, taken at the displaced weights.
        """
        for part in self.parts:
            part.note(grads)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run has to know; mostly nothing."""
        states = [part.state_dict() for part in self.parts]
        return {"parts": states} if any(states) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        for part, saved in zip(self.parts, state.get("parts", ()), strict=False):
            part.load_state_dict(saved)

    @abstractmethod
    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        """Return the displacement.

        Args:
            weights: Synaptic weights by name, any shapes; read, never modified.
            grads: Gradients of the clean loss, equal keys and shapes; needed where
                ``needs_gradient`` is true.
            generator: Source of randomness; ``None`` uses torch's global one.

        Returns:
            Changes with the keys, shapes, dtypes and devices of ``weights``.

        Raises:
            ValueError: If gradients are needed and missing, or do not fit.
        """

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Return what adds the displacement to the weights in place, for a training step.

        Weights and gradients are looked at now; what is returned may be called once others have
        displaced the weights already. Arguments and errors are those of a call.
        """
        return adding(self(weights, grads, generator=generator))


class Planned(Direction):
    """A direction that is added in place, and never held where that can be saved."""

    @abstractmethod
    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Return what adds the displacement to the weights in place."""

    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        """Return the displacement (see :meth:`Direction.__call__`)."""
        displace = self.plan(weights, grads, generator=generator)
        with torch.no_grad():
            delta = {name: torch.zeros_like(weight) for name, weight in weights.items()}
            displace(delta)
        return delta


class Choosing(Planned):
    """A direction that :meth:`pick` makes anew for every step."""

    @abstractmethod
    def pick(self, *, generator: Generator | None = None) -> Direction:
        """Return the direction to use in this step."""

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Choose, then displace (see :meth:`Direction.plan`)."""
        return self.pick(generator=generator).plan(weights, grads, generator=generator)


def checked_gradients(weights: Weights, grads: Weights | None, direction: Direction) -> Weights:
    """Return the detached gradients; raise where they are missing or do not fit."""
    if grads is None:
        raise ValueError(
            f"{type(direction).__name__} needs the gradients of a clean pass, got none. "
            "Pass grads={name: gradient}."
        )
    check_matching(weights, grads, what="grads")
    return {name: grads[name].detach() for name in weights}


def total_norm(norms: list[Tensor]) -> Tensor:
    """Return the norm over all tensors from the norm of each, on the first one's device."""
    together = torch.stack([norm.to(norms[0].device) for norm in norms])
    total: Tensor = torch.linalg.vector_norm(together)
    return total


def along(grads: Weights, lengths: Mapping[str, Tensor], scale: float = 1.0) -> Displace:
    """Return what adds each gradient, stretched to its length times a factor."""
    factors = {name: _factor(norm_of(g), lengths[name], scale) for name, g in grads.items()}
    return _adding_times(grads, factors)


def along_globally(
    ascent: Weights, measured: Weights, length: Tensor | float, scale: float = 1.0
) -> Displace:
    """Return what adds ``ascent`` times length times a factor over the norm of ``measured``."""
    norm = total_norm([norm_of(tensor) for tensor in measured.values()])
    factor = _factor(norm, length, scale)
    return _adding_times(ascent, dict.fromkeys(ascent, factor))


def _factor(norm: Tensor, length: Tensor | float, scale: float) -> Tensor | float:
    """Return ``scale * length / (norm + epsilon)``, zero where the norm is not finite.

    On a GPU it stays there: a comparison in Python would wait for it at every step.
    """
    if norm.device.type == "cpu":
        size = float(norm)
        return scale * float(length) / (size + EPSILON) if math.isfinite(size) else 0.0
    if isinstance(length, Tensor):
        length = length.to(norm.device)
    factor = scale * length / (norm + EPSILON)
    return torch.where(torch.isfinite(norm), factor, torch.zeros_like(norm))


def _adding_times(grads: Weights, factors: Mapping[str, Tensor | float]) -> Displace:
    """Return what adds each gradient times its factor; a factor of zero adds nothing."""

    def add(weights: Mapping[str, Tensor]) -> None:
        for name, weight in weights.items():
            grad, factor = grads[name].to(weight.device), factors[name]
            if isinstance(factor, float):
                if factor != 0:
                    weight.add_(grad, alpha=factor)
            else:
                factor = factor.to(device=grad.device, dtype=grad.dtype)
                change = grad * factor
                weight.add_(torch.where(factor != 0, change, torch.zeros_like(change)))

    return add
