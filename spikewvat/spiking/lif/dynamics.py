"""Leaky integrate-and-fire neurons as one function of currents [T, B, ...], with its gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikewvat.spiking.layers import state_dtype
from spikewvat.spiking.lif.surrogates import ATAN, Surrogate

_CACHED = 2**16  # values of a chunk of steps, few enough for a core's own cache


@dataclass(frozen=True)
class LIF:
    r"""How neurons integrate, fire and learn.

    .. math::
        u_t = c_{t-1} + I_t, \qquad s_t = [u_t \ge \theta], \qquad
        c_t = \begin{cases}
        \beta (u_t - \theta s_t) & \text{the threshold is subtracted} \\
        \beta u_t - \theta s_t & \text{the same, after the decay} \\
        \beta u_t (1 - s_t) & \text{hard reset} \end{cases}

    The first is SpikingJelly's ``LIFNode(decay_input=False, v_reset=None)``, the second snnTorch's
    ``Leaky``, the third the hard reset of both (``v_reset=0.0``, ``reset_mechanism="zero"``).
    snnTorch fires only above the threshold, not at it.

    Args:
        beta: Decay of the potential per step, in [0, 1].
        v_threshold: Firing threshold (model units), above 0.
        hard_reset: Set the potential to 0 after a spike instead of subtracting the threshold.
        reset_after_decay: Subtract the whole threshold from the decayed potential.
        detach_reset: Let no gradient pass through the reset, as snnTorch does.
        surrogate: Stands in for the derivative of a spike.

    Raises:
        ValueError: If a constant is out of range, or both kinds of reset are asked for.
    """

    beta: float = 0.9
    v_threshold: float = 1.0
    hard_reset: bool = False
    reset_after_decay: bool = False
    detach_reset: bool = True
    surrogate: Surrogate = ATAN

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError(
                f"beta must lie in [0, 1], got {self.beta!r}. It is the share that a step leaves."
            )
        if not 0 < self.v_threshold < math.inf:
            raise ValueError(f"v_threshold must be finite and above 0, got {self.v_threshold!r}.")
        if self.hard_reset and self.reset_after_decay:
            raise ValueError(
                "reset_after_decay says when the threshold is subtracted, and hard_reset that it "
                "is not. Choose one of them."
            )


def neurons(
    currents: Tensor,
    constants: LIF = LIF(),
    *,
    beta: Tensor | None = None,
    carry: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Run neurons over the steps of their currents (equations at :class:`LIF`).

    Gradients flow back through time by the decay and through spikes by the surrogate:

    .. math::
        \frac{\partial E}{\partial I_t} = \sigma'(u_t - \theta) \frac{\partial E}{\partial s_t} +
        \frac{\partial c_t}{\partial u_t} \frac{\partial E}{\partial I_{t+1}}

    Technique: one node of the graph for all steps, which keeps only the potentials; the loops over
    time work in place, three operations a step forward and one backward. On a CPU the surrogate is
    evaluated for as many steps at a time as fit into the cache.

    Args:
        currents: Weighted input I ``[T, B, ...]``.
        constants: The variant.
        beta: Decays that take the place of ``constants.beta``, broadcasting against ``[B, ...]``;
            clamped to [0, 1], their gradient too.
        carry: What an earlier call left of the potentials ``[B, ...]``; ``None`` starts anew.

    Returns:
        Spikes 0/1 ``[T, B, ...]`` in the dtype of the currents, and what is left of the potentials
        for the next step, at least in float32.

    Raises:
        ValueError: If there is no time step.

    Example:
        >>> currents = torch.tensor([0.6, 0.6, 0.0, 0.9, 0.0])[:, None]
        >>> spikes, carry = neurons(currents, LIF(beta=0.5))
        >>> spikes[:, 0].tolist(), round(carry.item(), 4)
        ([0.0, 0.0, 0.0, 1.0, 0.0], 0.0031)
    """
    if currents.dim() == 0 or len(currents) == 0:
        raise ValueError(
            f"currents have shape {tuple(currents.shape)}, expected [T, B, ...] with at least one "
            "time step."
        )
    decay = None if beta is None else beta.to(state_dtype(currents)).clamp(0, 1)
    spikes, left, _ = _Neurons.apply(currents, carry, decay, constants)  # type: ignore[no-untyped-call]
    return spikes, left


class _Neurons(torch.autograd.Function):
    """A layer over all steps as one node of the graph; returns the potentials to keep them."""

    @staticmethod
    def forward(
        currents: Tensor, carry: Tensor | None, beta: Tensor | None, constants: LIF
    ) -> tuple[Tensor, Tensor, Tensor]:
        u = torch.empty_like(currents, dtype=state_dtype(currents))
        spikes = torch.empty_like(currents)
        decay = constants.beta if beta is None else beta
        level = torch.tensor(constants.v_threshold, dtype=u.dtype)  # a number is wrapped each time
        after = held = torch.empty_like(u[0])
        steps = zip(currents.unbind(), u.unbind(), spikes.unbind(), strict=True)
        for t, (current, potential, fired) in enumerate(steps):
            if t > 0:
                plus(current, after, decay, potential)
                if constants.reset_after_decay:
                    potential.sub_(spikes[t - 1], alpha=constants.v_threshold)
            elif carry is None:
                potential.copy_(current)
            else:
                torch.add(current, carry, out=potential)
            torch.ge(potential, level, out=fired)
            after = potential
            if not constants.reset_after_decay:
                after = reset(potential, fired, constants, held)
        return spikes, carried(u[-1], spikes[-1], decay, constants, held), u

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        currents, _, beta, ctx.constants = inputs
        u = output[2]
        ctx.mark_non_differentiable(u)
        ctx.save_for_backward(u, beta)
        ctx.set_materialize_grads(False)
        ctx.dtype = currents.dtype

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_spikes: Tensor | None, of_left: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        u, beta = ctx.saved_tensors
        constants: LIF = ctx.constants
        decay = constants.beta if beta is None else beta
        grad = torch.empty_like(u)
        chunk = max(1, _CACHED // u[0].numel()) if u.device.type == "cpu" else len(u)
        following = of_left
        for end in range(len(u), 0, -chunk):
            part = slice(max(end - chunk, 0), end)
            inverse, shares = surrogate_of(u[part], decay, constants, out=grad[part])
            if of_spikes is None:
                inverse.zero_()
            else:
                torch.div(of_spikes[part], inverse, out=inverse)
            for of_current, share in zip(inverse.unbind()[::-1], shares[::-1], strict=True):
                if following is not None:
                    add_product(of_current, following, share)
                following = of_current
        of_beta = None
        if ctx.needs_input_grad[2]:
            of_beta = of_decay(u, grad, of_left, constants).sum_to_size(beta.shape)
        of_carry = grad[0] if ctx.needs_input_grad[1] else None
        return grad.to(ctx.dtype), of_carry, of_beta, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Run many at once: neurons do not see each other, so the new axis is one more of [B]."""
        currents, carry, beta, constants = inputs
        of_currents, of_carry, of_beta, _ = in_dims
        if of_currents is None:
            currents = currents.unsqueeze(1).expand(-1, info.batch_size, *currents.shape[1:])
        else:
            currents = currents.movedim(of_currents, 1)
        if of_beta is not None:
            beta = beta.movedim(of_beta, 0)
            missing = currents.dim() - 1 - beta.dim()  # one for each chip, in front of [B, ...]
            beta = beta.view(len(beta), *[1] * missing, *beta.shape[1:])
        if carry is not None and of_carry is not None:
            carry = carry.movedim(of_carry, 0)
        return _Neurons.apply(currents, carry, beta, constants), (1, 0, 1)  # type: ignore[no-untyped-call]


def plus(current: Tensor, after: Tensor, decay: Tensor | float, out: Tensor) -> None:
    """Write the current plus what decay leaves of a potential."""
    if isinstance(decay, Tensor):
        torch.addcmul(current, after, decay, out=out)
    else:
        torch.add(current, after, alpha=decay, out=out)


def add_product(grad: Tensor, following: Tensor, share: Tensor | float) -> None:
    """Add what reaches a potential through what it leaves to the next step."""
    if isinstance(share, Tensor):
        grad.addcmul_(following, share)
    else:
        grad.add_(following, alpha=share)


def reset(u: Tensor, spikes: Tensor, constants: LIF, out: Tensor | None = None) -> Tensor:
    """Return potentials after a reset, before they decay."""
    if constants.hard_reset:
        return torch.addcmul(u, u, spikes, value=-1, out=out)
    return torch.sub(u, spikes, alpha=constants.v_threshold, out=out)


def carried(
    u: Tensor, spikes: Tensor, decay: Tensor | float, constants: LIF, out: Tensor
) -> Tensor:
    """Return what a step leaves of its potentials, written to ``out``."""
    if constants.reset_after_decay:
        return torch.mul(u, decay, out=out).sub_(spikes, alpha=constants.v_threshold)
    return reset(u, spikes, constants, out).mul_(decay)


def surrogate_of(
    u: Tensor, decay: Tensor | float, constants: LIF, out: Tensor
) -> tuple[Tensor, list[Tensor | float]]:
    """Return 1 / slope of the surrogate at potentials ``[T, B, ...]``, and the carry's share.

    The share is what, of the gradient of what a step leaves, reaches its potential.
    """
    inverse = constants.surrogate.inverse_slope_(torch.sub(u, constants.v_threshold, out=out))
    share: Tensor | float = decay
    if constants.hard_reset:
        share = (u < constants.v_threshold).to(u.dtype).mul_(decay)
    if not constants.detach_reset:
        lost = constants.v_threshold if constants.reset_after_decay else _lost(u, decay, constants)
        share = share - lost / inverse
    alike = not constants.hard_reset and constants.detach_reset
    return inverse, [share] * len(u) if alike else list(share.unbind())  # type: ignore[union-attr]


def _lost(u: Tensor, decay: Tensor | float, constants: LIF) -> Tensor | float:
    """Return by how much the carry of a neuron that fires is less."""
    return decay * (u if constants.hard_reset else constants.v_threshold)


def of_decay(u: Tensor, grad: Tensor, of_left: Tensor | None, constants: LIF) -> Tensor:
    """Return the gradient of each neuron's decay ``[B, ...]`` from those of its potentials."""
    base = u
    if not constants.reset_after_decay:
        base = reset(u, (u >= constants.v_threshold).to(u.dtype), constants)
    found = (grad[1:] * base[:-1]).sum(0)
    return found if of_left is None else found + of_left * base[-1]
