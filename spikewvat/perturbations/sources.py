"""Sources of the worst perturbation: the minibatch, the optimizer or earlier steps."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from spikewvat.devices.base import norm_of
from spikewvat.errors import TrainingStalledWarning
from spikewvat.perturbations.base import Part
from spikewvat.weights import Weights, check_matching, refuse_computed

Sign: TypeAlias = Literal["ahead", "back"]
"""``"ahead"`` continues the descent of the last steps, ``"back"`` reverses it."""

_BUFFERS = ("momentum_buffer", "exp_avg")  # SGD and RMSprop; Adam and its relatives
# Where wrappers keep what they wrap.
_WRAPPED = ("optimizer", "_optimizer", "optim", "base_optimizer", "inner_optimizer")


class Source(Part, ABC):
    """Source of the worst perturbation; a subclass implements :meth:`direction`."""

    @property
    def factor(self) -> int:
        """1 to go along the direction, -1 to go against it."""
        return 1

    @abstractmethod
    def direction(self, weights: Weights, grads: Weights) -> Weights:
        """Return a direction of any length.

        Args:
            weights: Synaptic weights by name.
            grads: Gradients at the unperturbed weights; empty unless ``needs_gradient``.

        Returns:
            Detached tensors with the keys and shapes of ``weights``.
        """


@dataclass(frozen=True)
class Gradient(Source):
    """The gradient of the minibatch: the steepest ascent, at the cost of a second pass."""

    @property
    def needs_gradient(self) -> bool:
        """True."""
        return True

    def direction(self, weights: Weights, grads: Weights) -> Weights:
        """Return the gradients (see :meth:`Source.direction`)."""
        return {name: grads[name].detach() for name in weights}


GRADIENT = Gradient()
"""The paper's source, the default everywhere."""


@dataclass(frozen=True)
class Momentum(Source):
    r"""The momentum :math:`m` of the optimizer, without an extra pass.

    The running average of gradients that the optimizer keeps, so that a descent step moves along
    :math:`-m`. ``sign="ahead"`` (minus, the sign of Momentum-SAM) perturbs towards where momentum
    carries the weights next. Along directions that are so curved that steps overshoot, this is
    uphill, and the gradient taken there brakes; along others it looks ahead as Nesterov's gradient
    does. ``sign="back"`` (plus) goes up the averaged gradient, as :class:`Gradient` goes up that
    of the minibatch. It feeds momentum with a gradient from behind, which speeds up what is
    already fast; on a curved loss it can diverge, so take it for studies.

    Nothing is perturbed before the optimizer has made its first step. Momentum is found inside
    wrappers (Lookahead, ZeroRedundancyOptimizer, those of Fabric, Lightning and accelerate) too.

    Args:
        optimizer: Whose momentum to follow; it has to hold the perturbed weights.
        sign: ``"ahead"`` or ``"back"``.

    Raises:
        ValueError: If the optimizer has no momentum, or ``sign`` is unknown; in a step, if the
            optimizer holds none of the weights, or has made steps and keeps no momentum of any.

    References:
        Momentum-SAM (Becker et al., 2024), https://arxiv.org/abs/2401.12033
    """

    optimizer: Optimizer
    sign: Sign = "ahead"
    _told: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _factor_of(self.sign)
        groups = [g for one in _nested(self.optimizer) for g in getattr(one, "param_groups", [])]
        if not any(group.get("momentum") or any(group.get("betas", ())[:1]) for group in groups):
            name = type(self.optimizer).__name__
            raise ValueError(
                f"optimizer must keep a momentum, got {name} without one. "
                "Use Adam, or SGD with momentum=0.9."
            )

    @property
    def factor(self) -> int:
        """-1 ahead, 1 back."""
        return _factor_of(self.sign)

    def direction(self, weights: Weights, grads: Weights) -> Weights:
        """Return the momentum of each weight, zeros where there is none yet."""
        refuse_computed(weights, "moved along the optimizer's momentum, which is the parameters'")
        # Looked up anew in every step: loading a checkpoint replaces the optimizer's state.
        nested = _nested(self.optimizer)
        momenta = {name: _momentum(nested, weight) for name, weight in weights.items()}
        missing = [name for name, momentum in momenta.items() if momentum is None]
        if missing and nested[-1].state:  # a wrapper's own says nothing of steps
            self._complain(nested, weights, missing)
        elif len(missing) == len(weights):
            self._check_holds(nested, weights)
        return {
            name: _nothing(weights[name]) if momentum is None else momentum
            for name, momentum in momenta.items()
        }

    def _check_holds(self, nested: list[Any], weights: Weights) -> None:
        held = {id(w) for one in nested for g in one.param_groups for w in g["params"]}
        if not any(id(weight) in held for weight in weights.values()):
            names = ", ".join(repr(name) for name in weights)
            raise ValueError(
                f"optimizer holds none of the perturbed weights ({names}). "
                "Pass the optimizer that steps this model."
            )

    def _complain(self, nested: list[Any], weights: Weights, missing: list[str]) -> None:
        """Raise where the optimizer keeps no momentum at all, tell once where some is missing."""
        kind = type(self.optimizer).__name__
        if len(missing) == len(weights):
            self._check_holds(nested, weights)
            raise ValueError(
                f"optimizer {kind} has made steps and keeps no momentum of the perturbed weights "
                f"under {' or '.join(map(repr, _BUFFERS))}. Pass the optimizer that steps them "
                "inside of its wrapper, or take worst=Past(), which needs none."
            )
        trained = [name for name in missing if weights[name].requires_grad]
        if trained and not self._told:
            self._told.extend(trained)
            warnings.warn(
                f"optimizer {kind} keeps no momentum of weights {', '.join(map(repr, trained))}: "
                "they are not moved along it. Take worst=Past() if that is not meant.",
                TrainingStalledWarning,
                stacklevel=2,
            )


def _nested(optimizer: Any) -> list[Any]:
    """Return an optimizer and those that it wraps, the outermost first."""
    found: list[Any] = []
    ahead = [optimizer]
    while ahead:
        one = ahead.pop(0)
        if one is None or any(one is other for other in found):
            continue
        if not hasattr(one, "param_groups"):
            continue
        found.append(one)
        ahead += [getattr(one, name, None) for name in _WRAPPED]
    return found


def _momentum(nested: list[Any], weight: Tensor) -> Tensor | None:
    for optimizer in nested:
        state = optimizer.state.get(weight, {}) if isinstance(optimizer.state, Mapping) else {}
        for key in _BUFFERS:
            momentum = state.get(key)
            if isinstance(momentum, Tensor) and momentum.shape == weight.shape:
                return momentum.detach()
    return None


@dataclass(eq=False)
class Past(Source):
    r"""The gradients of earlier steps, without an extra pass and for any optimizer.

    .. math:: a \leftarrow d \, a + (1 - d) \, g

    :math:`g` is the gradient that a step has left in ``.grad``, taken at perturbed weights, so
    that :math:`a` averages over perturbed points too; with ``decay=0`` it is that of the last
    step. :class:`Momentum` is the same with the optimizer's own average, and needs no copy of the
    gradients. Nothing is perturbed in the first step.

    Args:
        decay: Share d of the average that a step leaves, in [0, 1).
        sign: ``"ahead"`` goes on along the descent, ``"back"`` up the gradient.

    Raises:
        ValueError: If ``decay`` lies outside [0, 1), or ``sign`` is unknown.

    References:
        LookSAM (Liu et al., 2022), https://arxiv.org/abs/2203.02714, for a direction that serves
        later steps.
    """

    decay: float = 0.0
    sign: Sign = "ahead"
    _average: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {self.decay!r}. 0 keeps one gradient.")
        _factor_of(self.sign)

    @property
    def factor(self) -> int:
        """-1 ahead, 1 back."""
        return _factor_of(self.sign)

    @property
    def remembers(self) -> bool:
        """True."""
        return True

    def note(self, grads: Weights) -> None:
        """Add the step's gradients to the average; one that is not finite changes nothing."""
        for name, grad in grads.items():
            kept = self._average.get(name)
            if kept is None:
                kept = self._average[name] = torch.zeros_like(grad)
                share = 1.0
            else:
                share = 1 - self.decay
            grad, norm = grad.detach(), norm_of(grad)
            if grad.device.type == "cpu":
                if math.isfinite(float(norm)):
                    kept.lerp_(grad, share)
            else:  # decided on the device: a comparison in Python would wait for it
                kept.lerp_(torch.where(torch.isfinite(norm), grad, kept), share)

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return {"average": {name: kept.clone() for name, kept in self._average.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a saved average."""
        self._average = {name: kept.clone() for name, kept in state["average"].items()}

    def direction(self, weights: Weights, grads: Weights) -> Weights:
        """Return the average, zeros before the first step (see :meth:`Source.direction`)."""
        average = {}
        for name, weight in weights.items():
            kept = self._average.get(name)
            average[name] = _nothing(weight) if kept is None else kept.to(weight.device)
        check_matching(weights, average, what="gradients of earlier steps")
        return {name: kept.detach() for name, kept in average.items()}


def _nothing(weight: Tensor) -> Tensor:
    """Return zeros of a weight's shape that take no memory; not to be written to."""
    return weight.detach().new_zeros(()).expand(weight.shape)


def _factor_of(sign: Sign) -> int:
    if sign not in get_args(Sign):
        raise ValueError(f"sign must be 'ahead' or 'back', got {sign!r}.")
    return -1 if sign == "ahead" else 1


def check_source(name: str, value: Source) -> None:
    """Raise ValueError unless ``value`` is a source of the worst perturbation."""
    if not isinstance(value, Source):
        raise ValueError(
            f"{name} must be a source of the worst perturbation: Gradient(), Momentum(optimizer) "
            f"or Past(), got {value!r}."
        )
