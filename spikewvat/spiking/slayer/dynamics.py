"""SLAYER's spiking neuron as pure functions of [T, B, ...] with their own gradient."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from spikewvat.spiking.layers import state_dtype
from spikewvat.spiking.slayer.kernels import SCHEMA, SRM, check_not_empty, filtered

_DENSE = torch.contiguous_format
_CACHED = 2**16  # values of a chunk of steps, few enough for a core's own cache


def neurons(currents: Tensor, constants: SRM = SRM()) -> Tensor:  # noqa: B008 -- frozen
    r"""Filter currents and let neurons fire, over all time steps.

    .. math::
        a[n] &= dt \sum_k \varepsilon[k]\, I[n-k] \\
        u[n] &= a[n] + \sum_{n' < n,\ s[n'] > 0} \nu[n-n'] \\
        s[n] &= \tfrac{1}{dt} [u[n] \ge \theta]

    The gradient passes each spike through a surrogate at its potential and then backward through
    the filter; none passes through the refractory response:

    .. math::
        \rho(u) = \frac{\text{scale}_\rho}{\tau_\rho\theta} e^{-|u-\theta|/(\tau_\rho\theta)},
        \qquad \frac{\partial E}{\partial I[m]} =
        dt \sum_k \varepsilon[k]\, \rho(u[m+k])\, \frac{\partial E}{\partial s[m+k]}

    Technique: one node of the graph for filter and neuron, which keeps only the potentials; the
    loop over time works in place on all neurons of the layer, and the refractory response is two
    states per neuron, not a buffer of kernel taps: four operations per step, six for a cut kernel,
    whatever its length.

    Args:
        currents: Weighted input spikes ``[T, B, ...]``.
        constants: Kernels, threshold and surrogate.

    Returns:
        Spikes, 0 or 1/dt, shape and dtype of ``currents``; potentials are float32 at least.

    Raises:
        ValueError: If there is no time step or no sample.

    References:
        SLAYER (Shrestha & Orchard, 2018), Eqs. (1)-(4) and section 3.2; official code.

    Example:
        >>> currents = torch.zeros(12, 1)
        >>> currents[2:5] = 12.0
        >>> neurons(currents)[:, 0].nonzero().flatten().tolist()
        [5, 7, 9, 11]
    """
    check_not_empty(currents)
    spikes: Tensor = _neurons(currents, *constants.values, True)[0]
    return spikes


def spike(potentials: Tensor, constants: SRM = SRM()) -> Tensor:  # noqa: B008 -- frozen
    """Let neurons fire whose potentials are filtered already: :func:`neurons` without the filter.

    Args:
        potentials: Post-synaptic potentials a ``[T, B, ...]``, refractory response not included;
            read, never modified.
        constants: Refractory kernel, threshold and surrogate.

    Returns:
        Spikes, 0 or 1/dt, shape and dtype of ``potentials``.

    Raises:
        ValueError: If there is no time step or no sample.

    Example:
        >>> spike(torch.full((6, 1), 12.0))[:, 0].tolist()
        [1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    check_not_empty(potentials)
    spikes: Tensor = _neurons(potentials, *constants.values, False)[0]
    return spikes


@torch.library.custom_op(
    "spikewvat::slayer_neurons",
    mutates_args=(),
    schema=f"(Tensor x, {SCHEMA}, bool filter_input) -> (Tensor, Tensor)",
)
def _neurons(x: Tensor, *constants: Any) -> tuple[Tensor, Tensor]:
    """Return spikes, and potentials for the backward pass; buffers are written in place."""
    *values, filter_input = constants
    srm = SRM(*values)
    a = filtered(x, srm) if filter_input else x
    u = a if filter_input else torch.empty_like(x, dtype=state_dtype(x), memory_format=_DENSE)
    spikes = _fire(a.reshape(len(a), -1), u.view(len(u), -1), srm)
    return spikes.view(x.shape).to(x.dtype), u


@torch.library.custom_op(
    "spikewvat::slayer_neurons_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor u, {SCHEMA}, bool filter_input) -> Tensor",
)
def _neurons_backward(grad: Tensor, u: Tensor, *constants: Any) -> Tensor:
    """Return the gradient of the input: surrogate, then the adjoint of the filter."""
    *values, filter_input = constants
    srm = SRM(*values)
    grad_a = torch.empty_like(u)
    steps = max(1, _CACHED // u[0].numel()) if u.device.type == "cpu" else len(u)
    for start in range(0, len(u), steps):
        part = slice(start, start + steps)
        _surrogate(u[part], srm, out=grad_a[part]).mul_(grad[part])
    return (filtered(grad_a, srm, adjoint=True) if filter_input else grad_a).to(grad.dtype)


def _surrogate(u: Tensor, constants: SRM, out: Tensor) -> Tensor:
    """Write the surrogate at potentials to ``out``."""
    width = constants.tau_rho * constants.v_threshold
    peak = math.log(constants.scale_rho / width)
    # Numbers below the smallest normal one would take thirty times as long.
    far = width * (peak - math.log(torch.finfo(u.dtype).tiny) - 1)
    distance = torch.sub(u, constants.v_threshold, out=out).abs_().clamp_(max=far)
    return torch.add(u.new_tensor(peak), distance, alpha=-1 / width, out=out).exp_()


@_neurons.register_fake
def _(x: Tensor, *constants: Any) -> tuple[Tensor, Tensor]:
    spikes = torch.empty_like(x, memory_format=torch.contiguous_format)
    return spikes, torch.empty_like(spikes, dtype=state_dtype(x))


@_neurons.register_vmap
def _(info: Any, dims: tuple[Any, ...], x: Tensor, *constants: Any) -> tuple[Any, tuple[int, int]]:
    # Time stays in front; to the neurons, what is stacked is more samples.
    return _neurons(x.movedim(dims[0], 1), *constants), (1, 1)


@_neurons_backward.register_fake
def _(grad: Tensor, u: Tensor, *constants: Any) -> Tensor:
    return torch.empty_like(u, dtype=grad.dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.constants = inputs[1:]
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)  # nothing flows into the potentials


def _backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    nothing = [None] * len(ctx.constants)
    if grad is None:
        return None, *nothing
    return _neurons_backward(grad, *ctx.saved_tensors, *ctx.constants), *nothing


_neurons.register_autograd(_backward, setup_context=_keep)


def _fire(a: Tensor, u: Tensor, constants: SRM) -> Tensor:
    r"""Turn filtered currents [T, N] into spikes; write potentials to u, which may be the currents.

    With :math:`r = e^{-dt/\tau}` the states are :math:`P = \sum_k r^k s[n-k]` and
    :math:`Q = \sum_k k r^{k-1} s[n-k]`, over k below the kernel's length.
    """
    r = math.exp(-constants.dt / constants.tau_ref)
    depth = constants.scale_ref * constants.v_threshold * constants.dt / constants.tau_ref
    gain = -depth * math.e * r * constants.dt  # dt: the response to a spike of height 1/dt
    taps = constants.ref_taps
    threshold = torch.tensor(constants.v_threshold, dtype=u.dtype)  # a number is wrapped each time
    spikes = torch.empty_like(u)
    p, q = torch.zeros_like(u[0]), torch.zeros_like(u[0])
    steps = zip(a.unbind(), u.unbind(), spikes.unbind(), strict=True)
    for n, (filtered_current, potential, fired) in enumerate(steps):
        torch.add(p, q, alpha=r, out=q)
        if taps is not None and n >= taps:
            q.sub_(spikes[n - taps], alpha=taps * r ** (taps - 1))
        torch.add(filtered_current, q, alpha=gain, out=potential)
        torch.ge(potential, threshold, out=fired)
        if constants.dt != 1:
            fired /= constants.dt
        torch.add(fired, p, alpha=r, out=p)
        if taps is not None and n >= taps:
            p.sub_(spikes[n - taps], alpha=r**taps)
    return spikes
