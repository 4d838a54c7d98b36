"""The TSSL-BP neuron and its synapse, as pure functions of [T, B, ...] with their own gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikewvat.spiking.layers import state_dtype

_STEEPEST = 8.0  # bound of the spike time's slope 1/d, and of the surrogate's argument
_WIDTH = 0.2  # of the surrogate, in units of the potential


def check_tau(name: str, tau: float) -> None:
    """Raise a ValueError unless a time constant is finite and longer than a step."""
    if not (tau > 1 and math.isfinite(tau)):
        raise ValueError(
            f"{name} must be finite and above 1 (in time steps), got {tau!r}. "
            "Divide a time constant in ms by the length of a step."
        )


def check_not_empty(x: Tensor) -> None:
    """Raise a ValueError unless there is a time step and a sample."""
    if x.dim() == 0 or x.numel() == 0:
        raise ValueError(
            f"input has shape {tuple(x.shape)}, expected [T, B, ...] with at least one time step "
            "and one sample. Leave empty batches and recordings out."
        )


@dataclass(frozen=True)
class TSSL:
    """Constants of TSSL-BP neurons; the defaults are those of the still-image networks.

    Args:
        tau_mem: Time constant of the membrane, in time steps, above 1.
        tau_syn: Time constant of the synapse, in time steps, above 1.
        v_threshold: Firing threshold (model units), above 0.

    Raises:
        ValueError: If a constant is out of range or not finite.
    """

    tau_mem: float = 5.0
    tau_syn: float = 3.0
    v_threshold: float = 1.0

    def __post_init__(self) -> None:
        check_tau("tau_mem", self.tau_mem)
        check_tau("tau_syn", self.tau_syn)
        if not (self.v_threshold > 0 and math.isfinite(self.v_threshold)):
            raise ValueError(
                f"v_threshold must be above 0 and finite, got {self.v_threshold!r}. "
                "TSSL-BP was published with 1."
            )


def psp(x: Tensor, tau_syn: float) -> Tensor:
    r"""Filter a signal through the first-order synapse.

    .. math:: a_t = a_{t-1} + \frac{x_t - a_{t-1}}{\tau_s}, \qquad a_{-1} = 0

    The filter is linear and the same everywhere, so it may be applied before or after a
    convolution or a dense layer; its gradient is its exact adjoint, the same filter run backward.

    Args:
        x: Spikes or real-valued currents ``[T, ...]``.
        tau_syn: Time constant in time steps, above 1.

    Returns:
        Post-synaptic currents, shape and dtype of ``x``.

    Raises:
        ValueError: If ``tau_syn`` is out of range, or there is no time step or no sample.

    References:
        TSSL-BP (Zhang & Li, 2020), official code.

    Example:
        >>> [round(a, 4) for a in psp(torch.tensor([0.0, 1.0, 1.0]), 3.0).tolist()]
        [0.0, 0.3333, 0.5556]
    """
    check_tau("tau_syn", tau_syn)
    check_not_empty(x)
    filtered: Tensor = _Psp.apply(x, tau_syn)  # type: ignore[no-untyped-call]
    return filtered


def neurons(currents: Tensor, constants: TSSL = TSSL(), *, leak: Tensor | None = None) -> Tensor:
    r"""Run TSSL-BP neurons over all time steps.

    .. math::
        u_t &= m_{t-1} + d_t, \qquad d_t = I_t - m_{t-1}/\tau_m \\
        s_t &= [u_t > \theta], \qquad m_t = u_t (1 - s_t) \\
        a_t &= a_{t-1} + (s_t - a_{t-1})/\tau_s

    The gradient follows spikes in time: how a current shifts a spike and with it the
    post-synaptic current (inter-neuron), and how that moves the next spike of the same neuron
    through the reset (intra-neuron). With :math:`R_t = \sum_j k_j\, \partial L/\partial a_{t+j}`,
    k the synapse's kernel, and :math:`h_T = 0`, backward in time:

    .. math::
        h_t = \begin{cases}
            \min(1/d_t, 8)\,(R_t + h_{t+1} u_t/\tau_m) & s_t = 1 \\
            h_{t+1} (1 - 1/\tau_m) & s_t = 0 \end{cases}
        \qquad \frac{\partial L}{\partial I_t} = \begin{cases}
            R_t f(u_t) & a_t < 1/(4\tau_s) \\ h_t & \text{else} \end{cases}

    where f, the derivative of a sigmoid of width 0.2 around the threshold, wakes neurons that
    have been silent for long.

    The potentials are held in float32 at least; output and gradient have the dtype of the input.

    Args:
        currents: Weighted post-synaptic currents I ``[T, B, ...]``.
        constants: Time constants and threshold.
        leak: 1 / tau_mem of each neuron, broadcasting against ``[B, ...]``; by default that of
            ``constants`` for all.

    Returns:
        Post-synaptic currents a of the neurons' spikes (not the spikes), shape of ``currents``.

    Raises:
        ValueError: If there is no time step or no sample.

    References:
        TSSL-BP (Zhang & Li, 2020); constants of the surrogate and of its condition, and the clip
        of the slope, are those of the official code.

    Example:
        >>> a = neurons(torch.tensor([0.6, 0.6, 0.3, 1.5, 0.2]))
        >>> [round(value, 6) for value in a.tolist()]
        [0.0, 0.333333, 0.222222, 0.481481, 0.320988]
    """
    check_not_empty(currents)
    psc: Tensor = _Neurons.apply(currents, constants, leak)  # type: ignore[no-untyped-call]
    return psc


class _Psp(torch.autograd.Function):
    """A first-order low-pass over the first axis, and its adjoint."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tau_syn: float) -> Tensor:
        ctx.tau_syn = tau_syn
        return _low_pass(x, tau_syn, range(len(x)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _low_pass(grad, ctx.tau_syn, range(len(grad) - 1, -1, -1)), None


class _Neurons(torch.autograd.Function):
    """A whole layer over all time steps: one node of the graph, buffers written in place.

    Masks are 0 and 1 in the potentials' dtype: on a CPU, selection by a boolean mask takes many
    times as long as interpolation, which is exact at both ends.
    """

    @staticmethod
    def forward(ctx: Any, currents: Tensor, constants: TSSL, leak: Tensor | None) -> Tensor:
        dtype = state_dtype(currents)
        own = None if leak is None else 1 - leak.to(dtype)
        u = torch.empty_like(currents, dtype=dtype)  # keeps the memory format
        psc = torch.empty_like(u)
        keep, pace = 1 - 1 / constants.tau_mem, 1 / constants.tau_syn
        m, a, spike = torch.zeros_like(u[0]), torch.zeros_like(u[0]), torch.empty_like(u[0])
        for current, u_t, psc_t in zip(currents, u, psc, strict=True):
            if own is None:
                torch.add(current, m, alpha=keep, out=u_t)
            else:
                torch.addcmul(current, m, own, out=u_t)
            torch.gt(u_t, constants.v_threshold, out=spike)
            torch.addcmul(u_t, u_t, spike, value=-1, out=m)
            a = torch.lerp(a, spike, pace, out=psc_t)
        ctx.constants = constants
        ctx.save_for_backward(u, psc, leak)
        return psc.to(currents.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        u, psc, own = ctx.saved_tensors
        constants: TSSL = ctx.constants
        leak: Any = 1 / constants.tau_mem if own is None else own.to(u.dtype)
        pace, threshold = 1 / constants.tau_syn, constants.v_threshold
        result = torch.empty_like(u)
        response, carry = torch.zeros_like(u[0]), torch.zeros_like(u[0])
        d, f, dead, silent, silent_before = (torch.empty_like(u[0]) for _ in range(5))
        level = u.new_tensor(-threshold / _WIDTH)
        torch.le(u[-1], threshold, out=silent)
        for t in range(len(u) - 1, -1, -1):
            response.lerp_(grad[t].to(u.dtype), pace)
            if t:
                torch.le(u[t - 1], threshold, out=silent_before)
                torch.addcmul(u[t], u[t - 1], silent_before, value=-1, out=d)
            else:
                d.copy_(u[0])
            # A spike implies d > 0, as what is left of the step before lies below the threshold:
            # the clip of the slope at 0 never acts, and h is also what is carried on.
            if own is None:
                h = torch.addcmul(response, carry, u[t], value=leak, out=result[t])
            else:
                h = torch.addcmul(response, carry * leak, u[t], out=result[t])
            h.div_(d.clamp_(min=1 / _STEEPEST))
            torch.lerp(h, carry.mul_(1 - leak), silent, out=carry)
            # The surrogate acts on silent neurons alone: its argument is bounded on one side.
            torch.add(level, u[t], alpha=1 / _WIDTH, out=f).clamp_(min=-_STEEPEST).sigmoid_()
            torch.ops.aten.sigmoid_backward(response, f, grad_input=f).mul_(1 / _WIDTH)
            torch.lt(psc[t], pace / 4, out=dead)
            torch.lerp(carry, f, dead, out=result[t])
            silent, silent_before = silent_before, silent
        return result.to(grad.dtype), None, None


def spikes_of(psc: Tensor, tau_syn: float) -> Tensor:
    r"""Return the spikes behind post-synaptic currents: the inverse of :func:`psp` on spikes.

    .. math:: x_t = \tau_s a_t - (\tau_s - 1) a_{t-1}

    Args:
        psc: Post-synaptic currents ``[T, ...]`` of spikes, or sums of such (pooling).
        tau_syn: Time constant of the synapse, in time steps.

    Returns:
        Spikes 0/1, the shape and dtype of ``psc``; of sums whether there was any.

    Example:
        >>> spikes_of(psp(torch.tensor([0.0, 1.0, 1.0, 0.0]), 3.0), 3.0).tolist()
        [0.0, 1.0, 1.0, 0.0]
    """
    check_tau("tau_syn", tau_syn)
    a = psc.detach().to(state_dtype(psc))
    before = torch.cat([torch.zeros_like(a[:1]), a[:-1]])
    # A spike adds 1 (a gain times that where sums are pooled); the rest is rounding.
    return (tau_syn * a - (tau_syn - 1) * before > 0.5).to(psc.dtype)


def _low_pass(x: Tensor, tau_syn: float, order: range) -> Tensor:
    """Return the exponential average of the steps of ``x`` in the given order."""
    dtype = state_dtype(x)
    y = torch.empty_like(x, dtype=dtype)
    state = torch.zeros_like(y[0])
    for t in order:
        state = torch.lerp(state, x[t].to(dtype), 1 / tau_syn, out=y[t])
    return y.to(x.dtype)
