"""The gradient at displaced weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from spikewvat.perturbations import Direction
from spikewvat.training.base import Backward, Closure, GradientMethod
from spikewvat.weights import Displace, Weights


class PerturbedGradient(GradientMethod):
    """Takes the training gradient at displaced weights; the weights themselves stay.

    ``backward`` runs the user's closure once, or twice where the direction needs the clean
    gradient first (see :class:`GradientMethod`). Running statistics of batch norm change on the
    displaced pass.

    In a distributed run all ranks choose the same kind of step, because the clean pass is a
    collective operation, and each draws its own noise, which averages several draws in one
    step. The worst direction uses the gradient that ``backward`` has reduced over all ranks.

    Args:
        model: The model that the closure calls, or what it wraps.
        direction: Where to displace the weights to.
        **options: ``p``, ``weights``, ``adapter``, ``reset_state``, ``ignore``, ``generator``,
            ``same_noise_on_all_ranks`` and ``warn_after`` of :class:`GradientMethod`.

    Raises:
        ValueError: If ``p`` lies outside [0, 1].
        UnsupportedModelError: If the model has no synaptic weights or unknown state.

    Example:
        >>> import torch
        >>> from spikewvat.devices import Gaussian
        >>> from spikewvat.perturbations import HSV
        >>> model = nn.Linear(3, 2)
        >>> noisy = PerturbedGradient(model, HSV(Gaussian(sigma=0.1)))
        >>> loss = noisy.backward(lambda: model(torch.ones(4, 3)).square().mean())
        >>> model.weight.grad.shape
        torch.Size([2, 3])
    """

    def __init__(self, model: nn.Module, direction: Direction, **options: Any) -> None:
        super().__init__(model, **options)
        self.direction = direction

    def state_dict(self) -> dict[str, Any]:
        """Return generators, counters and what the direction remembers."""
        return {**super().state_dict(), "direction": self.direction.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        super().load_state_dict(state)
        self.direction.load_state_dict(state.get("direction", {}))

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        direction = self.direction.pick(generator=self._choices)
        loss = self._pass(closure, backward, self._displacement(direction, closure, backward))
        if self.direction.remembers:
            self.direction.note(self._weight_gradients())
        return loss

    def _displacement(self, direction: Direction, closure: Closure, backward: Backward) -> Displace:
        """Return what goes there."""
        grads = self._clean_gradients(closure, backward) if direction.needs_gradient else None
        return direction.plan(self.weights, grads, generator=self._noise)

    def _clean_gradients(self, closure: Closure, backward: Backward) -> Weights:
        """Return the gradients at the undisplaced weights and leave no other trace."""
        with self._on_the_side():
            self._pass(closure, backward)
            return self._weight_gradients()
