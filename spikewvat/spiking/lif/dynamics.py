"""Leaky integrate-and-fire neurons as one function of currents [T, B, ...], with its gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikewvat.spiking.lif.surrogates import ATAN, Surrogate


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
    time work in place, three operations a step forward and one backward.

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
    dtype = torch.promote_types(currents.dtype, torch.float32)
    decay = None if beta is None else beta.to(dtype).clamp(0, 1)
    spikes, left, _ = _Neurons.apply(currents, carry, decay, constants)  # type: ignore[no-untyped-call]
    return spikes, left


class _Neurons(torch.autograd.Function):
    """A layer over all steps as one node of the graph; returns the potentials to keep them."""

    @staticmethod
    def forward(
        currents: Tensor, carry: Tensor | None, beta: Tensor | None, constants: LIF
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = currents.to(torch.promote_types(currents.dtype, torch.float32))
        u, spikes = torch.empty_like(x), torch.empty_like(x)
        threshold, decay = constants.v_threshold, constants.beta if beta is None else beta
        after = held = torch.empty_like(x[0])
        steps = zip(x.unbind(), u.unbind(), spikes.unbind(), strict=True)
        for t, (current, potential, fired) in enumerate(steps):
            if t > 0:
                _plus(current, after, decay, potential)
                if constants.reset_after_decay:
                    potential.sub_(spikes[t - 1], alpha=threshold)
            elif carry is None:
                potential.copy_(current)
            else:
                torch.add(current, carry, out=potential)
            torch.ge(potential, threshold, out=fired)
            after = potential
            if not constants.reset_after_decay:
                after = _reset(potential, fired, constants, held)
        left = after * decay
        if constants.reset_after_decay:
            left.sub_(spikes[-1], alpha=threshold)
        return spikes.to(currents.dtype), left, u

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
        slope = constants.surrogate.slope_(torch.sub(u, constants.v_threshold))
        share: Tensor | float = decay  # of a carry's gradient that reaches the potential
        if constants.hard_reset:
            share = (u < constants.v_threshold).to(u.dtype).mul_(decay)
        if not constants.detach_reset:
            share = share - _reset_slope(u, slope, decay, constants)
        grad = slope.zero_() if of_spikes is None else slope.mul_(of_spikes)
        shares = [share] * len(u)
        if isinstance(share, Tensor) and (constants.hard_reset or not constants.detach_reset):
            shares = list(share.unbind())
        following = of_left
        for t in range(len(u) - 1, -1, -1):
            if following is not None:
                _add_product(grad[t], following, shares[t])
            following = grad[t]
        of_beta = None
        if ctx.needs_input_grad[2]:
            base = u
            if not constants.reset_after_decay:
                base = _reset(u, (u >= constants.v_threshold).to(u.dtype), constants, None)
            of_beta = (grad[1:] * base[:-1]).sum(0)
            if of_left is not None:
                of_beta += of_left * base[-1]
            of_beta = of_beta.sum_to_size(beta.shape)
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


def _plus(current: Tensor, after: Tensor, decay: Tensor | float, out: Tensor) -> None:
    """Write the current plus what decay leaves of a potential."""
    if isinstance(decay, Tensor):
        torch.addcmul(current, after, decay, out=out)
    else:
        torch.add(current, after, alpha=decay, out=out)


def _add_product(grad: Tensor, following: Tensor, share: Tensor | float) -> None:
    if isinstance(share, Tensor):
        grad.addcmul_(following, share)
    else:
        grad.add_(following, alpha=share)


def _reset(u: Tensor, spikes: Tensor, constants: LIF, out: Tensor | None) -> Tensor:
    """Return potentials after a reset, before they decay."""
    if constants.hard_reset:
        return torch.addcmul(u, u, spikes, value=-1, out=out)
    return torch.sub(u, spikes, alpha=constants.v_threshold, out=out)


def _reset_slope(u: Tensor, slope: Tensor, decay: Tensor | float, constants: LIF) -> Tensor:
    """Return how much a carry falls with the potential by the reset."""
    if constants.reset_after_decay:
        return slope * constants.v_threshold
    return slope * decay * (u if constants.hard_reset else constants.v_threshold)
