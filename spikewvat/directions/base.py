"""What every direction is, and how gradients are stretched to a length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import norm_of
from spikewvat.weights import Weights, check_matching

EPSILON = 1e-12
"""Added to gradient norms before division (the value of Foret et al. 2021)."""


class Direction(ABC):
    """A displacement of the weights, at which the training gradient is then taken."""

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


class Choosing(Direction):
    """A direction that :meth:`pick` makes anew for every step."""

    @abstractmethod
    def pick(self, *, generator: Generator | None = None) -> Direction:
        """Return the direction to use in this step."""

    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        """Choose, then displace (see :meth:`Direction.__call__`)."""
        return self.pick(generator=generator)(weights, grads, generator=generator)


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


def along(grads: Weights, lengths: dict[str, Tensor]) -> Weights:
    """Return each gradient stretched to its length."""
    return {name: _stretched(g, norm_of(g), lengths[name]) for name, g in grads.items()}


def along_globally(ascent: Weights, measured: Weights, length: Tensor | float) -> Weights:
    """Return ``ascent`` times length over the global norm of ``measured``."""
    norm = total_norm([norm_of(tensor) for tensor in measured.values()])
    return {name: _stretched(g, norm, length) for name, g in ascent.items()}


def _stretched(grad: Tensor, norm: Tensor, length: Tensor | float) -> Tensor:
    """Return ``length * grad / (norm + epsilon)``, zero where the norm is not finite.

    Decided on the device: a comparison in Python would wait for a GPU at every step.
    """
    if isinstance(length, Tensor):
        length = length.to(norm.device)
    factor = torch.as_tensor(length / (norm + EPSILON)).to(device=grad.device, dtype=grad.dtype)
    finite = torch.isfinite(norm).to(grad.device)
    if grad.device.type == "cpu":
        return grad * factor if bool(finite) else torch.zeros_like(grad)
    return torch.where(finite, grad * factor, torch.zeros((), dtype=grad.dtype, device=grad.device))
