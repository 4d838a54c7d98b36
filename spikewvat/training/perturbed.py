"""The gradient at perturbed weights."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.perturbations import Perturbation
from spikewvat.training.base import Backward, Closure, GradientMethod
from spikewvat.training.trims import Trims
from spikewvat.weights import Weights, taken


class PerturbedGradient(GradientMethod):
    """Takes the training gradient at perturbed weights; the weights themselves stay.

    ``backward`` runs the user's closure once, or twice where the perturbation needs the gradient
    at the unperturbed weights first (see :class:`GradientMethod`). Running statistics of batch
    norm change on the perturbed pass.

    In a distributed run all ranks choose the same kind of step, because the first pass is a
    collective operation, and each draws its own noise, which averages several draws in one
    step. The worst perturbation uses the gradient that ``backward`` has reduced over all ranks.

    Args:
        model: The model that the closure calls, or what it wraps.
        perturbation: What is added to the weights.
        trim: Train for chips whose currents are trimmed after programming, as
            :class:`~spikewvat.robustness.calibration.BiasTrim` does: at the perturbed weights every
            output channel gets the offset, a constant for the gradient, that gives its mean over
            the batch back. It takes a pass more, and another one for each layer that the network
            calls step by step.
        **options: ``p``, ``weights``, ``adapter``, ``reset_state``, ``ignore``, ``generator``,
            ``same_noise_on_all_ranks`` and ``warn_after`` of :class:`GradientMethod`.

    Raises:
        TypeError: If ``perturbation`` is none, or an option is unknown.
        ValueError: If ``p`` lies outside [0, 1].
        UnsupportedModelError: If the model has no synaptic weights or unknown state, or a layer
            that cannot be trimmed.

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

    def __init__(
        self, model: nn.Module, perturbation: Perturbation, *, trim: bool = False, **options: Any
    ) -> None:
        super().__init__(model, **options)
        if not isinstance(perturbation, Perturbation):
            raise TypeError(
                f"perturbation must be a Perturbation, got {perturbation!r}. "
                "Write HSV(device) for a device's noise."
            )
        self.perturbation = perturbation
        self.trim = trim
        self._trims = Trims(self.model, self.weights) if trim else None

    def state_dict(self) -> dict[str, Any]:
        """Return generators, counters and what the perturbation remembers."""
        return {**super().state_dict(), "perturbation": self.perturbation.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`."""
        super().load_state_dict(state)
        self.perturbation.load_state_dict(state["perturbation"])

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        chosen = self.perturbation.pick(generator=self._choices)
        perturb = chosen.plan(
            self.weights,
            # Not kept here: their memory is used again where nobody else holds them.
            self._unperturbed_gradients(closure, backward) if chosen.needs_gradient else None,
            generator=self._noise,
        )
        loss = self._pass(closure, backward, perturb, self._trimmed(closure))
        if self.perturbation.remembers:
            self.perturbation.note(self._weight_gradients())
        return loss

    def _trimmed(self, closure: Closure) -> AbstractContextManager[object]:
        """Return a context, for the perturbed pass, in which offsets act if they are wanted."""
        if self._trims is None:
            return nullcontext()

        def run() -> None:
            with torch.no_grad(), self._on_the_side():
                self._run(closure)

        with taken(self.weights):
            self._trims.look(run)
        return self._trims.applied(run)

    def _on_change(self) -> None:
        if self.trim:
            self._trims = Trims(self.model, self.weights)

    def _unperturbed_gradients(self, closure: Closure, backward: Backward) -> Weights:
        """Return the gradients at the weights as they are, and leave no other trace."""
        with self._on_the_side():
            self._pass(closure, backward)
            return self._weight_gradients()
