"""Integrate-and-fire neurons of converted networks, and the surrogates that fine-tune them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikewvat.spiking.lif.surrogates import check_positive

_NEVER = 999.0  # steps since the last spike of a neuron that has not fired, at the first step


@dataclass(frozen=True)
class SpikeTime:
    r"""Spike-time-dependent surrogate: the longer a neuron has been silent, the less it learns.

    .. math:: \frac{\partial o_t}{\partial z_t} = a\, e^{-b\, \Delta t}

    with :math:`\Delta t` the steps since the neuron's last spike. The closed form is evaluated; the
    official code computes :math:`(e^{-\Delta t})^b`, which is 0 in float32 for
    :math:`\Delta t > 103`.

    Args:
        a: Slope right after a spike, above 0.
        b: Decay per step, at least 0.
        silent: Whether neurons that never fired learn, with :math:`\Delta t \approx 1000`;
            ``False`` is the official code's underflow.

    Raises:
        ValueError: If a constant is out of range.

    References:
        Enabling Deep Spiking Neural Networks with Hybrid Conversion and Spike Timing Dependent
        Backpropagation (Rathi et al., 2020), Eq. (8), https://arxiv.org/abs/2005.01807
    """

    a: float = 0.3
    b: float = 0.01
    silent: bool = True

    def __post_init__(self) -> None:
        check_positive("a", self.a)
        if not 0 <= self.b < math.inf:
            raise ValueError(f"b must be finite and at least 0, got {self.b!r}.")

    def slope(self, z: Tensor, since: Tensor) -> Tensor:
        """Return the slope at relative potential z, so many steps after the last spike."""
        slope = torch.exp(since * -self.b).mul_(self.a)
        return slope if self.silent else slope.mul_(since < _NEVER)


@dataclass(frozen=True)
class Triangle:
    r"""Linear surrogate: highest at the threshold, 0 at rest and at twice the threshold.

    .. math:: \frac{\partial o_t}{\partial z_t} = a \max(0, 1 - |z_t|)

    Args:
        a: Slope at the threshold, above 0.

    Raises:
        ValueError: If ``a`` is out of range.

    References:
        Long short-term memory and learning-to-learn in networks of spiking neurons (Bellec et
        al., 2018), https://arxiv.org/abs/1803.09574
    """

    a: float = 0.3

    def __post_init__(self) -> None:
        check_positive("a", self.a)

    def slope(self, z: Tensor, since: Tensor) -> Tensor:
        """Return the slope at relative potential z; the time since the last spike is ignored."""
        return z.abs().neg_().add_(1).clamp_(min=0).mul_(self.a)


Surrogate: TypeAlias = SpikeTime | Triangle
"""What stands in for a spike's derivative."""


@dataclass(frozen=True)
class Dynamics:
    r"""How neurons integrate, fire and learn.

    .. math::
        v_t = \lambda u_{t-1} + I_t, \quad o_t = [v_t \ge \theta], \quad u_t = v_t - \theta o_t

    and with ``delayed=True``, as in hybrid conversion, the spike is that of the step before:

    .. math::
        o_t = [u_{t-1} > \theta], \quad u_t = \lambda u_{t-1} + I_t - \theta o_t

    Args:
        delayed: Decide on a spike before the step's current arrives.
        hard_reset: Set the potential to 0 after a spike instead of subtracting the threshold.
        initial: Potential before the first step, as a share of the threshold, in [0, 1). Half a
            threshold rounds a rate to the nearest one that T steps can tell; 0 rounds it down, so
            that every neuron loses half a spike on average, more with every layer.
        surrogate: Stands in for the derivative of a spike.
        signed: Let neurons take spikes back: one that has fired more often than not sends a
            negative spike as soon as its potential is below 0. A chip needs a second threshold and
            synapses for both signs.
        burst: Largest number of spikes :math:`\Gamma` of a neuron in one step. A chip needs as many
            spikes' time in every step, and the highest rates cost as many times more spikes.

    With ``signed`` or ``burst`` above 1, N being a neuron's spikes so far,

    .. math:: o_t = \mathrm{clip}(\lfloor v_t / \theta \rfloor, -[N > 0], \Gamma)

    Raises:
        ValueError: If an argument is out of range, or ``signed`` or ``burst`` meets ``delayed`` or
            ``hard_reset``.

    References:
        Rathi et al., 2020 (delayed); Optimal Conversion of Conventional Artificial Neural Networks
        to Spiking Neural Networks (Deng & Gu, 2021), https://arxiv.org/abs/2103.00476 (half a
        threshold); Efficient and Accurate Conversion of Spiking Neural Network with Burst Spikes
        (Li & Zeng, 2022), https://arxiv.org/abs/2204.13271.
    """

    delayed: bool = False
    hard_reset: bool = False
    initial: float = 0.5
    surrogate: Surrogate = Triangle()
    signed: bool = False
    burst: int = 1

    def __post_init__(self) -> None:
        check_start(self.initial)
        if not isinstance(self.burst, int) or self.burst < 1:
            raise ValueError(
                f"burst must be a whole number of spikes, at least 1, got {self.burst!r}."
            )
        if self.several and (self.delayed or self.hard_reset):
            raise ValueError(
                "signed=True and burst above 1 need a decision after the step's current and a "
                "reset by subtraction. Leave delayed=False and hard_reset=False."
            )

    @property
    def several(self) -> bool:
        """Whether a step may hold other than 0 or 1 spikes."""
        return self.signed or self.burst > 1


def check_start(initial: float) -> None:
    """Raise a ValueError unless potentials can start at this share of the threshold."""
    if not 0 <= initial < 1:
        raise ValueError(
            f"initial must lie in [0, 1), got {initial!r}. It is a share of the threshold; 0.5 "
            "rounds rates to the nearest."
        )


class State(NamedTuple):
    """A layer of neurons between two steps.

    Args:
        v: Potentials.
        since: Steps since the last spike.
        net: Spikes so far, negative ones subtracted, if they matter.
    """

    v: Tensor
    since: Tensor
    net: Tensor | None = None


def initial_state(like: Tensor, threshold: Tensor, start: float | Tensor) -> State:
    """Return neurons before their first step.

    Args:
        like: Currents of one step ``[B, ...]``.
        threshold: Broadcasts against ``like``.
        start: Potential as a share of the threshold; broadcasts against ``like``.

    Returns:
        The state, potentials at least in float32.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    v = (threshold.detach().to(dtype) * start).expand_as(like).clone()
    return State(v, torch.full_like(v, _NEVER))


def neurons(
    currents: Tensor,
    threshold: Tensor,
    dynamics: Dynamics = Dynamics(),
    *,
    leak: Tensor | None = None,
    state: State | None = None,
) -> tuple[Tensor, State]:
    r"""Run neurons over the steps of their currents (equations at :class:`Dynamics`).

    With :math:`z = v/\theta - 1`, gradients flow through time by the leak and through spikes by
    the surrogate over the threshold; none passes from a spike to the potential through the reset.
    A learnable threshold gets its share of both places where it stands.

    Args:
        currents: Weighted input I ``[T, B, ...]``.
        threshold: Firing thresholds above 0, broadcasting against ``[B, ...]``.
        dynamics: The variant.
        leak: Share of the potential that is left after a step, 0-dim; ``None`` is 1, no leak.
        state: Where an earlier call ended; ``None`` starts anew.

    Returns:
        Spikes 0/1 ``[T, B, ...]`` in the dtype of the currents, or numbers of spikes if the
        dynamics allow several, and the state after the last step.

    Raises:
        ValueError: If a gradient is asked for of neurons that fire several spikes.

    References:
        Rathi et al., 2020, Eqs. (1)-(8), https://arxiv.org/abs/2005.01807

    Example:
        >>> weighted = 0.6 * torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0])
        >>> spikes, state = neurons(
        ...     weighted, torch.tensor(1.0), Dynamics(delayed=True, initial=0.0),
        ...     leak=torch.tensor(0.9))
        >>> spikes.tolist()
        [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]
        >>> round(state.v.item(), 6)
        0.036413
    """
    if state is None:
        state = initial_state(currents[0], threshold, dynamics.initial)
    if dynamics.several:
        return _several(currents, threshold, dynamics, leak, state)
    spikes, v, since = _Neurons.apply(  # type: ignore[no-untyped-call]
        currents, state.v, state.since, threshold, leak, dynamics
    )
    return spikes, State(v, since)


def _several(
    currents: Tensor, threshold: Tensor, dynamics: Dynamics, leak: Tensor | None, state: State
) -> tuple[Tensor, State]:
    """Run neurons that may fire several spikes in a step, or take one back."""
    given, (currents, threshold) = currents, (currents.detach(), threshold.detach())
    u, level = state.v.clone(), threshold.to(state.v.dtype)
    decay = None if leak is None else leak.detach().to(u.dtype)
    net = torch.zeros_like(u) if state.net is None else state.net.clone()
    since, spikes = state.since, torch.empty_like(currents, memory_format=torch.contiguous_format)
    for t, current in enumerate(currents):
        u = _leaky(u, decay).add_(current)
        o = (u / level).floor_().clamp_(max=dynamics.burst)
        o = torch.maximum(o, -(net > 0).to(o.dtype)) if dynamics.signed else o.clamp_(min=0)
        u.addcmul_(o, level, value=-1)
        net += o
        since = torch.where(o != 0, 1.0, since + 1)
        spikes[t] = o
    spikes = _Untrained.apply(given, spikes)  # type: ignore[no-untyped-call]
    return spikes, State(u, since, net)


class _Untrained(torch.autograd.Function):
    """Spikes that may be looked at, but not trained through."""

    @staticmethod
    def forward(ctx: Any, currents: Tensor, spikes: Tensor) -> Tensor:
        return spikes.view_as(spikes)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        raise ValueError(
            "signed=True and burst above 1 have no surrogate gradient: surrogates stand for a "
            "single threshold. Fine-tune with plain Dynamics() first, then convert with these."
        )


class _Neurons(torch.autograd.Function):
    """A layer over all steps as one node of the graph; potentials at each decision are kept."""

    @staticmethod
    def forward(
        ctx: Any,
        currents: Tensor,
        v: Tensor,
        since: Tensor,
        threshold: Tensor,
        leak: Tensor | None,
        dynamics: Dynamics,
    ) -> tuple[Tensor, Tensor, Tensor]:
        u, level = v.clone(), threshold.to(v.dtype)
        decay = None if leak is None else leak.to(v.dtype)
        learns = any(ctx.needs_input_grad)
        timed = learns and isinstance(dynamics.surrogate, SpikeTime)
        spikes = torch.empty_like(currents, memory_format=torch.contiguous_format)
        decided = torch.empty_like(spikes, dtype=v.dtype) if learns else None
        waited = torch.empty_like(spikes, dtype=v.dtype) if timed else None
        fire = torch.gt if dynamics.delayed else torch.ge
        direct = spikes.dtype == u.dtype
        o = torch.empty_like(u)
        for t, current in enumerate(currents):
            o = spikes[t] if direct else o
            if not dynamics.delayed:
                u = _leaky(u, decay).add_(current)
            if decided is not None:
                decided[t] = u
            fire(u, level, out=o)
            if dynamics.hard_reset:
                u.addcmul_(u, o, value=-1)
                if dynamics.delayed:
                    u = _leaky(u, decay).add_(current)
            elif dynamics.delayed:
                u = _leaky(u, decay).addcmul_(o, level, value=-1).add_(current)
            else:
                u.addcmul_(o, level, value=-1)
            if waited is not None:
                waited[t] = since
                since = torch.addcmul(since, since, o, value=-1).add_(1)
            if not direct:
                spikes[t] = o
        if learns:
            ctx.save_for_backward(decided, waited, v, threshold, leak)
        ctx.dynamics = dynamics
        ctx.mark_non_differentiable(since)
        return spikes, u, since.clone() if not timed else since

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_end: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        decided, waited, v, threshold, leak = ctx.saved_tensors
        dynamics: Dynamics = ctx.dynamics
        level = threshold.to(v.dtype)
        decay = None if leak is None else leak.to(v.dtype)
        g = grad_end.to(v.dtype).clone()  # with respect to the potential after step t
        result = torch.empty_like(decided)
        of_level = torch.zeros_like(g) if ctx.needs_input_grad[3] else None
        of_decay = torch.zeros_like(g) if ctx.needs_input_grad[4] else None
        fire = torch.gt if dynamics.delayed else torch.ge
        for t in range(len(decided) - 1, -1, -1):
            u = decided[t]
            o = fire(u, level).to(u.dtype)
            z = u / level - 1
            slope = dynamics.surrogate.slope(z, z if waited is None else waited[t])
            through_spike = slope.mul_(grad[t]).div_(level)
            if of_level is not None:
                if not dynamics.hard_reset:
                    of_level.addcmul_(o, g, value=-1)
                of_level.addcmul_(through_spike, u / level, value=-1)
            if dynamics.delayed:
                result[t] = g
                if dynamics.hard_reset:
                    g = g - g * o
                    u = u - u * o
                if of_decay is not None:
                    of_decay.addcmul_(g, u)
                g = (g if decay is None else g * decay) + through_spike
            else:
                g = (g - g * o if dynamics.hard_reset else g) + through_spike
                result[t] = g
                if of_decay is not None:
                    of_decay.addcmul_(g, _after(decided, t, v, level, dynamics))
                g = g if decay is None else g * decay
        return (
            result.to(grad.dtype),
            g if ctx.needs_input_grad[1] else None,
            None,
            None if of_level is None else of_level.sum_to_size(threshold.shape).to(threshold.dtype),
            None if of_decay is None else of_decay.sum_to_size(leak.shape).to(leak.dtype),
            None,
        )


def _after(decided: Tensor, t: int, v: Tensor, level: Tensor, dynamics: Dynamics) -> Tensor:
    """Return the potential before step t, reset included."""
    if t == 0:
        return v
    before = decided[t - 1]
    o = (before >= level).to(before.dtype)
    return before - before * o if dynamics.hard_reset else before - level * o


def _leaky(u: Tensor, decay: Tensor | None) -> Tensor:
    return u if decay is None else u.mul_(decay)
