"""Directions along an optimizer's momentum: no pass of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from spikewvat.devices.base import DeviceModel, check_at_least_zero
from spikewvat.perturbations.base import Planned, along_globally
from spikewvat.perturbations.variation import AsLongAsVariation
from spikewvat.weights import Displace, Weights, refuse_computed

Sign: TypeAlias = Literal["ahead", "back"]
"""``"ahead"`` goes on along the last steps' descent, ``"back"`` returns against it."""

_BUFFERS = ("momentum_buffer", "exp_avg")  # SGD and RMSprop; Adam and its relatives


@dataclass(frozen=True)
class MomentumVariation(AsLongAsVariation):
    r"""As long as a device's variation, along the optimizer's momentum: WVAT without extra passes.

    .. math:: v_l = \mp \alpha \, \lVert \Delta_l \rVert_2 \,
              \frac{m_l}{\lVert m_l \rVert_2 + \epsilon}

    :math:`m` is the running average of gradients that the optimizer keeps, so that a descent step
    moves along :math:`-m`. ``sign="ahead"`` (the minus sign, that of Momentum-SAM) displaces to
    where momentum carries the weights next. Along directions that are so curved that steps
    overshoot, this is uphill, and the gradient taken there brakes; along others it looks ahead as
    Nesterov's gradient does. ``sign="back"`` (plus) goes up the averaged gradient, as GAV goes up
    that of the minibatch. It feeds momentum with a gradient from behind, which speeds up what is
    already fast; on a curved loss it can diverge, so take it for studies.

    Nothing is displaced before the optimizer has made its first step.

    Args:
        device: What the chip does to weights; its displacement sets the length.
        optimizer: Whose momentum to follow; it has to hold the displaced weights.
        gamma: Scale of the displacement (dimensionless), at least 0.
        alpha: Share of an HSV draw's length (dimensionless), at least 0.
        sign: ``"ahead"`` or ``"back"``.
        per_tensor: Normalise each tensor on its own; otherwise one norm over all tensors.
        draw_length: Take the length of an actual draw instead of the closed form.

    Raises:
        ValueError: If ``gamma`` or ``alpha`` is negative or not finite, the optimizer has no
            momentum, or ``sign`` is unknown; in a step, if it holds none of the weights.

    References:
        Momentum-SAM (Becker et al., 2024), https://arxiv.org/abs/2401.12033, for the direction;
        the length per tensor is ours, that of GAV.
    """

    device: DeviceModel
    optimizer: Optimizer
    gamma: float = 1.0
    alpha: float = 0.1
    sign: Sign = "ahead"
    per_tensor: bool = True
    draw_length: bool = False

    def __post_init__(self) -> None:
        check_at_least_zero("gamma", self.gamma)
        check_at_least_zero("alpha", self.alpha)
        _check(self.optimizer, self.sign)

    @property
    def needs_gradient(self) -> bool:
        """False: the optimizer has kept the gradients of earlier steps."""
        return False

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Take the displacement (see :meth:`Direction.plan`)."""
        factor = factor_of(self.sign)
        return self._stretched(_momenta(weights, self.optimizer), weights, generator, factor=factor)


@dataclass(frozen=True)
class MomentumSAM(Planned):
    r"""Momentum-SAM: one global step of length rho along the optimizer's momentum.

    .. math:: e = \mp \rho \, m / (\lVert m \rVert_2 + \epsilon)

    Minus, ``sign="ahead"``, is the published sign: on along the last steps' descent (see
    :class:`MomentumVariation` for what that does). The original takes the norm over all
    parameters; pass ``weights=`` with all of them for that.

    Args:
        optimizer: Whose momentum to follow; it has to hold the displaced weights.
        rho: Radius (L2, absolute), at least 0.
        sign: ``"ahead"`` or ``"back"``.

    Raises:
        ValueError: If ``rho`` is negative or not finite, the optimizer has no momentum, or
            ``sign`` is unknown.

    References:
        Momentum-SAM (Becker et al., 2024), https://arxiv.org/abs/2401.12033
    """

    optimizer: Optimizer
    rho: float = 0.3
    sign: Sign = "ahead"

    def __post_init__(self) -> None:
        check_at_least_zero("rho", self.rho)
        _check(self.optimizer, self.sign)

    @property
    def needs_gradient(self) -> bool:
        """False: the optimizer has kept the gradients of earlier steps."""
        return False

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Take the step (see :meth:`Direction.plan`)."""
        momenta = _momenta(weights, self.optimizer)
        return along_globally(momenta, momenta, factor_of(self.sign) * self.rho)


def factor_of(sign: Sign) -> int:
    """Return -1 to go on along the descent, 1 to go up the gradient.

    Raises:
        ValueError: If the sign is unknown.
    """
    if sign not in get_args(Sign):
        raise ValueError(f"sign must be 'ahead' or 'back', got {sign!r}.")
    return -1 if sign == "ahead" else 1


def _check(optimizer: Optimizer, sign: Sign) -> None:
    factor_of(sign)
    groups = getattr(optimizer, "param_groups", [])
    if not any(group.get("momentum") or any(group.get("betas", ())[:1]) for group in groups):
        name = type(optimizer).__name__
        raise ValueError(
            f"optimizer must keep a momentum, got {name} without one. "
            "Use Adam, or SGD with momentum=0.9."
        )


def _momenta(weights: Weights, optimizer: Optimizer) -> Weights:
    """Return the momentum of each weight, zeros where there is none yet."""
    refuse_computed(weights, "moved along the optimizer's momentum, which is the parameters'")
    momenta = {name: _momentum(weight, optimizer) for name, weight in weights.items()}
    if all(momentum is None for momentum in momenta.values()):
        held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        if not any(id(weight) in held for weight in weights.values()):
            names = ", ".join(repr(name) for name in weights)
            raise ValueError(
                f"optimizer holds none of the displaced weights ({names}). "
                "Pass the optimizer that steps this model."
            )
    return {
        name: torch.zeros_like(weights[name]).detach() if momentum is None else momentum
        for name, momentum in momenta.items()
    }


def _momentum(weight: Tensor, optimizer: Optimizer) -> Tensor | None:
    # Looked up anew in every step: loading a checkpoint replaces the optimizer's state.
    state = optimizer.state.get(weight, {})
    for key in _BUFFERS:
        momentum = state.get(key)
        if isinstance(momentum, Tensor):
            return momentum.detach()
    return None
