"""LIF neurons that hear one another: recurrent synapses inside of the loop over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikewvat.spiking.layers import state_dtype
from spikewvat.spiking.lif.dynamics import (
    LIF,
    add_product,
    carried,
    neurons,
    of_decay,
    surrogate_of,
)


class State(NamedTuple):
    """What a layer leaves for its next step, all [B, N].

    Args:
        left: Of the potentials.
        sent: Spikes of the last step.
        flow: Synaptic currents; None where they do not last.
    """

    left: Tensor
    sent: Tensor
    flow: Tensor | None = None


def recurrent(
    currents: Tensor,
    weight: Tensor,
    constants: LIF = LIF(),  # noqa: B008 -- frozen
    *,
    alpha: float = 0.0,
    beta: Tensor | None = None,
    state: State | None = None,
) -> tuple[Tensor, State]:
    r"""Run neurons that also receive the layer's spikes of the step before.

    .. math::
        i_t = \alpha i_{t-1} + I_t + W s_{t-1}, \qquad u_t = c_{t-1} + i_t

    with spikes and what is left as in :class:`LIF`: snnTorch's ``RLeaky`` and, with
    :math:`\alpha > 0`, ``RSynaptic``; SpikingJelly's ``LinearRecurrentContainer`` around a
    ``LIFNode`` behind weights of its own. With :math:`g_t = \partial E / \partial i_t`,

    .. math::
        \frac{\partial E}{\partial u_t} = \sigma'(u_t - \theta)
        \left(\frac{\partial E}{\partial s_t} + W^\top g_{t+1}\right) +
        \frac{\partial c_t}{\partial u_t} \frac{\partial E}{\partial u_{t+1}}, \qquad
        g_t = \frac{\partial E}{\partial u_t} + \alpha g_{t+1}, \qquad
        \frac{\partial E}{\partial W} = \sum_t g_t s_{t-1}^\top

    Technique: one node of the graph for all steps, which keeps potentials and spikes. Each step has
    a product with the weights in either direction, but their gradient is one product of all steps,
    where a loop in the graph makes one for each step and adds them up.

    Args:
        currents: Weighted input I ``[T, B, N]``.
        weight: Recurrent weights W ``[N, N]``, from the second axis to the first.
        constants: The variant.
        alpha: Share of a synaptic current that a step leaves, in [0, 1].
        beta: Decays that take the place of ``constants.beta``, as in :func:`neurons`.
        state: What an earlier call left; ``None`` starts at rest.

    Returns:
        Spikes 0/1 ``[T, B, N]`` in the dtype of the currents, and what is left for the next step.

    Raises:
        ValueError: If a shape does not fit, there is no time step, or ``alpha`` is out of range.

    References:
        snnTorch (Eshraghian et al., 2023), https://arxiv.org/abs/2109.12894

    Example:
        >>> pulse = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]])
        >>> spikes, _ = recurrent(pulse, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        >>> spikes[:, 0].tolist()
        [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    """
    features = currents.shape[-1] if currents.dim() == 3 and len(currents) else None
    if features is None or tuple(weight.shape) != (features, features):
        raise ValueError(
            f"currents have shape {tuple(currents.shape)} and weight {tuple(weight.shape)}, "
            "expected [T, B, N] with at least one time step, and [N, N]."
        )
    check_alpha(alpha)
    decay = None if beta is None else beta.to(state_dtype(currents)).clamp(0, 1)
    left, sent, flow = (None, None, None) if state is None else state
    spikes, left, flow, _ = _Recurrent.apply(  # type: ignore[no-untyped-call]
        currents, weight, decay, left, sent, flow, constants, alpha
    )
    return spikes, State(left, spikes[-1], flow)


def stepwise(
    currents: Tensor,
    synapses: Callable[[Tensor], Tensor],
    constants: LIF,
    *,
    alpha: float,
    beta: Tensor | None,
    state: State | None,
) -> tuple[Tensor, State]:
    """Return the same with a call of the synapses, spikes [1, B, N] to currents, in each step."""
    left, sent, flow = (None, torch.zeros_like(currents[0]), None) if state is None else state
    fired = []
    for current in currents:
        current = current + synapses(sent[None])[0]
        if alpha:
            flow = current if flow is None else current + alpha * flow
            current = flow
        spikes, left = neurons(current[None], constants, beta=beta, carry=left)
        sent = spikes[0]
        fired.append(sent)
    return torch.stack(fired), State(left, sent, flow)  # type: ignore[arg-type]


def check_alpha(alpha: float) -> None:
    """Raise a ValueError unless a step leaves a share in [0, 1] of a synaptic current."""
    if not 0 <= alpha <= 1:
        raise ValueError(
            f"alpha must lie in [0, 1], got {alpha!r}. It is the share of a synaptic current that "
            "a step leaves; 0 for currents of one step."
        )


class _Recurrent(torch.autograd.Function):
    """A recurrent layer over all steps as one node of the graph; returns the potentials too."""

    @staticmethod
    def forward(
        currents: Tensor,
        weight: Tensor,
        beta: Tensor | None,
        left: Tensor | None,
        sent: Tensor | None,
        flow: Tensor | None,
        constants: LIF,
        alpha: float,
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        u = torch.empty_like(currents, dtype=state_dtype(currents))
        spikes = torch.empty_like(u)
        decay = constants.beta if beta is None else beta
        onto, held = weight.to(u.dtype).mT, torch.empty_like(u[0])
        for current, potential, fired in zip(currents, u, spikes, strict=True):
            if sent is not None:
                current = current + _product(sent.to(u.dtype), onto)
            if alpha:
                flow = current.to(u.dtype) if flow is None else current + alpha * flow
                current = flow
            if left is None:
                potential.copy_(current)
            else:
                torch.add(current, left, out=potential)
            torch.ge(potential, constants.v_threshold, out=fired)
            left, sent = carried(potential, fired, decay, constants, held), fired
        return spikes.to(currents.dtype), left, flow, u  # type: ignore[return-value]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        currents, weight, beta, _, sent, _, ctx.constants, ctx.alpha = inputs
        spikes, _, _, u = output
        ctx.mark_non_differentiable(u)
        ctx.save_for_backward(u, spikes, weight, beta, sent)
        ctx.set_materialize_grads(False)
        ctx.dtype = currents.dtype

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,
        of_spikes: Tensor | None,
        of_left: Tensor | None,
        of_flow: Tensor | None,
        _: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        u, spikes, weight, beta, sent = ctx.saved_tensors
        constants: LIF = ctx.constants
        decay = constants.beta if beta is None else beta
        back, alpha = weight.to(u.dtype), ctx.alpha
        inverse, shares = surrogate_of(u, decay, constants, out=torch.empty_like(u))
        of_u = inverse  # step by step, written over it
        of_currents = torch.empty_like(u) if alpha else of_u
        following, later = of_left, of_flow  # gradients from the step behind
        heard: Tensor | None = None  # of this step's spikes, from recurrent synapses
        for t in range(len(u) - 1, -1, -1):
            total = heard
            if of_spikes is not None:
                total = of_spikes[t] if heard is None else of_spikes[t] + heard
            if total is None:
                of_u[t].zero_()
            else:
                torch.div(total, inverse[t], out=of_u[t])
            if following is not None:
                add_product(of_u[t], following, shares[t])
            following = of_u[t]
            if alpha:
                of_currents[t] = following if later is None else following + later
                later = alpha * of_currents[t]
            heard = _product(of_currents[t], back)
        _, needs_weight, needs_beta, needs_left, needs_sent, needs_flow, *_ = ctx.needs_input_grad
        of_weight = of_beta = None
        if needs_weight:
            of_weight = _outer(of_currents[1:], spikes[:-1].to(u.dtype))
            if sent is not None:
                of_weight = of_weight + _outer(of_currents[:1], sent[None].to(u.dtype))
            of_weight = of_weight.sum_to_size(weight.shape).to(weight.dtype)
        if needs_beta:
            of_beta = of_decay(u, of_u, of_left, constants).sum_to_size(beta.shape)
        return (
            of_currents.to(ctx.dtype),
            of_weight,
            of_beta,
            of_u[0] if needs_left else None,
            heard.to(sent.dtype) if needs_sent else None,  # type: ignore[union-attr]
            later if needs_flow else None,
            None,
            None,
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Any
    ) -> tuple[tuple[Tensor | None, ...], tuple[int | None, ...]]:
        """Run many at once: their axis comes in front of the samples."""
        currents, *states, constants, alpha = inputs
        if in_dims[0] is None:
            currents = currents.unsqueeze(1).expand(-1, info.batch_size, *currents.shape[1:])
        else:
            currents = currents.movedim(in_dims[0], 1)
        moved = [
            state if dim is None else state.movedim(dim, 0)
            for state, dim in zip(states, in_dims[1:], strict=False)
        ]
        if in_dims[2] is not None:  # decays broadcast against [chips, B, N]
            moved[1] = moved[1].view(
                len(moved[1]), *[1] * (3 - moved[1].dim()), *moved[1].shape[1:]
            )
        found = _Recurrent.apply(currents, *moved, constants, alpha)  # type: ignore[no-untyped-call]
        return found, (1, 0, None if found[2] is None else 0, 1)


def _product(spikes: Tensor, weight: Tensor) -> Tensor:
    """Return spikes x weight as precise as they are: potentials are never in half precision."""
    with torch.autocast(spikes.device.type, enabled=False):
        return spikes @ weight


def _outer(of_currents: Tensor, sent: Tensor) -> Tensor:
    """Return the gradient of weights from all steps [t, ..., B, N] in one product, [..., N, N]."""
    if of_currents.dim() == 3:
        return _product(of_currents.flatten(0, 1).mT, sent.flatten(0, 1))
    return torch.einsum("t...bi,t...bj->...ij", of_currents, sent)
