"""Gradients at displaced weights, for any training loop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn

from spikewvat.adapters import Adapter, ResetState, adapter_for
from spikewvat.adapters.torch import running_statistics
from spikewvat.devices.base import DeviceModel, check_at_least_zero, check_probability
from spikewvat.directions import GAV, HSV, Direction, Mixture
from spikewvat.errors import TrainingStalledWarning
from spikewvat.weights import Weights, perturbed

Closure = Callable[[], Tensor]
Backward = Callable[[Tensor], object]

_WINDOW = 20  # steps between two looks at the loss: a look waits for the GPU


class PerturbedGradient:
    """Takes the training gradient at displaced weights; the weights themselves stay.

    ``backward`` runs the user's closure once, or twice where the direction needs the clean
    gradient first, resets neuron state before every pass, leaves the gradients in ``.grad``
    (added to what is there, as ``loss.backward()`` does) and puts the weights back bit for bit,
    whatever is raised. Clipping, accumulation, loss scaling, schedulers and any optimizer work
    as in plain training.

    Running statistics of batch norm change once a step, on the displaced pass.

    In a distributed run all ranks choose the same kind of step, because the clean pass is a
    collective operation, and each draws its own noise, which averages several draws in one
    step. The worst direction uses the gradient that ``backward`` has reduced over all ranks.

    Args:
        model: The model that the closure calls, or what it wraps.
        direction: Where to displace the weights to.
        p: Probability of displacing in a step; otherwise the step is a plain one.
        weights: Parameters to displace by name; by default the model's synaptic weights.
        adapter: By default the one for the model's framework.
        reset_state: Resets layers that no adapter knows (see :func:`adapter_for`).
        generator: Source of randomness; a seed is drawn from it here, and noise is drawn on its
            device. ``None`` uses torch's global one.
        same_noise_on_all_ranks: Draw the same noise on every rank of a distributed run.
        warn_after: Warn once when the loss has not fallen after so many displaced steps, or is
            not finite; ``None`` never warns.

    Raises:
        ValueError: If ``p`` lies outside [0, 1].
        UnsupportedModelError: If the model has no synaptic weights or unknown state.

    Example:
        >>> from spikewvat.devices import Gaussian
        >>> model = nn.Linear(3, 2)
        >>> noisy = PerturbedGradient(model, HSV(Gaussian(sigma=0.1)))
        >>> loss = noisy.backward(lambda: model(torch.ones(4, 3)).square().mean())
        >>> model.weight.grad.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        model: nn.Module,
        direction: Direction,
        *,
        p: float = 1.0,
        weights: Mapping[str, nn.Parameter] | None = None,
        adapter: Adapter | None = None,
        reset_state: ResetState | None = None,
        generator: Generator | None = None,
        same_noise_on_all_ranks: bool = False,
        warn_after: int | None = 300,
    ) -> None:
        check_probability("p", p)
        self.model = model
        self.direction = direction
        self.p = p
        self.adapter = adapter or adapter_for(model, reset_state=reset_state)
        self.weights: Weights = (
            self.adapter.synaptic_weights(model) if weights is None else dict(weights)
        )
        self.steps = 0
        self._scratch: list[Tensor] = []
        self._choices, self._noise = _generators(generator, same_noise_on_all_ranks)
        self._watch = _LossWatch(warn_after)

    def backward(self, closure: Closure, *, backward: Backward = torch.Tensor.backward) -> Tensor:
        """Leave the gradients of the loss at displaced weights in ``.grad``.

        Args:
            closure: Runs the forward pass and returns the loss (a scalar with a graph). It is
                called once or twice; encode inputs outside so that both calls see the same.
            backward: What to do with the loss: ``lambda l: scaler.scale(l).backward()`` for a
                loss scaler, ``fabric.backward`` for Fabric.

        Returns:
            The loss at the displaced weights, detached.

        Raises:
            UnsupportedModelError: If a layer turns out to keep state that nothing can reset.
        """
        direction = self._pick()
        delta = None if direction is None else self._displacement(direction, closure, backward)
        self.adapter.reset_state(self.model)
        if delta is None:
            loss = closure()
            backward(loss)
        else:
            with perturbed(self.weights, delta, scratch=self._scratch):
                loss = closure()
                backward(loss)
        self.steps += 1
        loss = loss.detach()
        if delta is not None:
            self._watch.note_loss(loss)
        return loss

    def note_accuracy(self, accuracy: float, *, classes: int) -> None:
        """Warn once if a trained epoch's accuracy is no better than chance.

        Args:
            accuracy: Training accuracy of the epoch, as a fraction.
            classes: Number of classes.
        """
        self._watch.note_accuracy(accuracy, classes)

    def state_dict(self) -> dict[str, Any]:
        """Return generators and counters, so that a resumed run draws the same noise."""
        return {
            "steps": self.steps,
            "choices": self._choices.get_state(),
            "noise": self._noise.get_state(),
            "watch": self._watch.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.steps = int(state["steps"])
        self._choices.set_state(state["choices"].cpu())
        self._noise.set_state(state["noise"].cpu())
        self._watch.load_state_dict(state["watch"])

    def _pick(self) -> Direction | None:
        """Choose this step's direction; None is a plain step."""
        if self.p < 1 and float(torch.rand((), generator=self._choices)) >= self.p:
            return None
        return self.direction.pick(generator=self._choices)

    def _displacement(self, direction: Direction, closure: Closure, backward: Backward) -> Weights:
        """Return where to go; the clean gradients are freed before the second pass."""
        grads = self._clean_gradients(closure, backward) if direction.needs_gradient else None
        return direction(self.weights, grads, generator=self._noise)

    def _clean_gradients(self, closure: Closure, backward: Backward) -> Weights:
        """Return the gradients at the undisplaced weights and leave no other trace."""
        parameters = list(
            {id(p): p for p in [*self.model.parameters(), *self._parameters()]}.values()
        )
        stashed = [parameter.grad for parameter in parameters]
        if dist.is_available() and dist.is_initialized():
            # Accumulated gradients may be views of buckets, which this pass overwrites.
            stashed = [None if grad is None else grad.clone() for grad in stashed]
        try:
            for parameter in parameters:
                parameter.grad = None
            self.adapter.reset_state(self.model)
            with _unchanged_statistics(self.model):
                backward(closure())
            grads = {
                name: torch.zeros_like(weight) if weight.grad is None else weight.grad
                for name, weight in self.weights.items()
            }
        finally:
            for parameter, grad in zip(parameters, stashed, strict=True):
                parameter.grad = grad
        return grads

    def _parameters(self) -> Iterator[nn.Parameter]:
        for weight in self.weights.values():
            if isinstance(weight, nn.Parameter):
                yield weight


class WVAT(PerturbedGradient):
    r"""Weight-variation-aware training: minimise the loss at weights as a chip would hold them.

    .. math:: \min_w L(w + w_v)

    In each step :math:`w_v` is either a draw of the device's variation (HSV, with probability
    ``1 - w_th``) or the worst direction (GAV, ``w_th``), and the gradient taken there is applied
    to the undisplaced weights. Averaging (:class:`spikewvat.SWA`) runs on top.

    Args:
        model: The model that the closure calls.
        device: What the chip does to weights.
        p: Probability of displacing in a step.
        w_th: Share of steps that use the worst direction; 0 is noise only.
        gamma: Scale of the displacement: 1 trains at the width that is tested, 0.5 at half.
        alpha: Length of the worst direction as a share of a noise draw's length.
        per_tensor: Normalise the worst direction per tensor instead of globally.
        draw_length: Take the length of an actual draw instead of the closed form.
        **options: ``weights``, ``adapter``, ``reset_state``, ``generator``,
            ``same_noise_on_all_ranks`` and ``warn_after`` of :class:`PerturbedGradient`.

    Raises:
        ValueError: If a parameter is out of its range.
        UnsupportedModelError: If the model has no synaptic weights or unknown state.

    References:
        Weight-variation-aware training (WVAT), sections 3.1-3.3. Where text and equation of the
        paper differ (``w_th``, ``alpha``), the text and its experiments are followed.

    Example:
        >>> from spikewvat.devices import Gaussian
        >>> model = nn.Linear(3, 2)
        >>> wvat = WVAT(model, Gaussian(sigma=0.1))
        >>> before = model.weight.clone()
        >>> _ = wvat.backward(lambda: model(torch.ones(4, 3)).square().mean())
        >>> torch.equal(model.weight, before)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        device: DeviceModel,
        *,
        p: float = 1.0,
        w_th: float = 0.5,
        gamma: float = 0.5,
        alpha: float = 0.1,
        per_tensor: bool = True,
        draw_length: bool = False,
        **options: Any,
    ) -> None:
        # Checked first, so that the message names the argument that was passed here.
        check_probability("w_th", w_th)
        check_at_least_zero("gamma", gamma)
        check_at_least_zero("alpha", alpha)
        ascent = GAV(device, gamma, alpha, per_tensor=per_tensor, draw_length=draw_length)
        super().__init__(model, Mixture(HSV(device, gamma), ascent, w_th), p=p, **options)


def _generators(generator: Generator | None, same_noise: bool) -> tuple[Generator, Generator]:
    """Return one generator for choices, equal on all ranks, and one for noise."""
    device = torch.device("cpu") if generator is None else generator.device
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    rank = 0
    if dist.is_available() and dist.is_initialized():
        box = [seed]
        dist.broadcast_object_list(box, src=0)
        seed = box[0]
        rank = 0 if same_noise else dist.get_rank()
    choices = torch.Generator().manual_seed(seed)
    noise = torch.Generator(device=device).manual_seed(seed + 1 + rank)
    return choices, noise


@contextmanager
def _unchanged_statistics(model: nn.Module) -> Iterator[None]:
    """Put back the running statistics that a forward pass in training mode changes."""
    live = running_statistics(model)
    saved = [statistic.clone() for statistic in live]
    try:
        yield
    finally:
        with torch.no_grad():
            for statistic, value in zip(live, saved, strict=True):
                statistic.copy_(value)


class _LossWatch:
    """Warns once when training under variation does not learn."""

    def __init__(self, warn_after: int | None) -> None:
        self._warn_after = math.inf if warn_after is None else max(warn_after, 2 * _WINDOW)
        self._enabled = warn_after is not None
        self._sum: Tensor | float = 0.0
        self._steps = 0
        self._first: float | None = None
        self._best = math.inf

    def note_loss(self, loss: Tensor) -> None:
        if not self._enabled:
            return
        self._sum = self._sum + loss.float()
        self._steps += 1
        if self._steps % _WINDOW:
            return
        mean = float(self._sum) / _WINDOW
        self._sum = 0.0
        if not math.isfinite(mean):
            self._warn("the loss at displaced weights is not finite.")
            return
        self._first = mean if self._first is None else self._first
        self._best = min(self._best, mean)
        if self._steps >= self._warn_after and self._best > 0.97 * self._first:
            self._warn(
                f"the loss at displaced weights has not fallen in {self._steps} steps "
                f"(first {_WINDOW}: {self._first:.4g}, best {_WINDOW}: {self._best:.4g})."
            )

    def note_accuracy(self, accuracy: float, classes: int) -> None:
        if self._enabled and self._steps >= self._warn_after and accuracy < 1.5 / classes:
            self._warn(
                f"training accuracy is {100 * accuracy:.1f} % after {self._steps} steps, "
                f"chance for {classes} classes."
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "enabled": self._enabled,
            "sum": float(self._sum),
            "steps": self._steps,
            "first": self._first,
            "best": self._best,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._enabled = bool(state["enabled"])
        self._sum = float(state["sum"])
        self._steps = int(state["steps"])
        self._first = None if state["first"] is None else float(state["first"])
        self._best = float(state["best"])

    def _warn(self, what: str) -> None:
        self._enabled = False
        warnings.warn(
            f"Training under variation does not learn: {what} "
            "Lower alpha (0.01 is gentle), then gamma (0.5 displaces by half the tested width), "
            "or start from weights trained without variation.",
            TrainingStalledWarning,
            stacklevel=4,
        )
