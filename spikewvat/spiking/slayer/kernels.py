"""Constants and kernels of the spike-response model, and the filter of post-synaptic potentials."""

from __future__ import annotations

import functools
import math
from dataclasses import astuple, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from spikewvat.spiking.layers import state_dtype

_SMALLEST = 0.01  # where the original cuts its kernels
_CHUNK = 24  # steps per matrix product: larger ones multiply more, smaller ones call more


@dataclass(frozen=True)
class SRM:
    r"""Constants of SLAYER's spike-response neurons; the defaults are those for N-MNIST.

    .. math::
        \varepsilon[k] = \frac{k\,dt}{\tau_{syn}} e^{1 - k\,dt/\tau_{syn}}, \qquad
        \nu[k] = -\text{scale}_{ref}\,\theta\,\frac{k\,dt}{\tau_{ref}} e^{1 - k\,dt/\tau_{ref}}

    Args:
        v_threshold: Firing threshold :math:`\theta` (model units; the original's ``theta``).
        tau_syn: Time constant of the response kernel, ms (``tauSr``).
        tau_ref: Time constant of the refractory kernel, ms (``tauRef``).
        scale_ref: Depth of the refractory kernel, in thresholds; 0 for none (``scaleRef``).
        tau_rho: Width of the surrogate, in thresholds (``tauRho``).
        scale_rho: Area factor of the surrogate (``scaleRho``).
        dt: Duration of a time step, ms (``Ts``). Spikes have the height 1/dt: 0 or 1 at 1 ms.
        cut_kernels: End both kernels behind their peak where they fall below 0.01, as the
            original does (77 and 11 taps by default). ``False`` takes the whole kernels, in
            exact recursive form.

    Raises:
        ValueError: If a constant is out of range or not finite.

    Example:
        >>> SRM(v_threshold=8.0).v_threshold
        8.0
    """

    v_threshold: float = 10.0
    tau_syn: float = 10.0
    tau_ref: float = 1.0
    scale_ref: float = 2.0
    tau_rho: float = 1.0
    scale_rho: float = 1.0
    dt: float = 1.0
    cut_kernels: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            none_is_fine = field.name == "scale_ref"
            if field.name == "cut_kernels" or (
                math.isfinite(value) and (value > 0 or (none_is_fine and value == 0))
            ):
                continue
            bound = "at least 0" if none_is_fine else "above 0"
            raise ValueError(
                f"{field.name} must be {bound} and finite, got {value!r}. "
                f"SLAYER was published with {field.default}."
            )

    @property
    def values(self) -> tuple[float | bool, ...]:
        """All constants in order, as the operators take them."""
        return astuple(self)

    @property
    def psp_taps(self) -> int | None:
        """Length of the response kernel in steps; None where it is not cut."""
        return _taps(self.tau_syn / self.dt, 1.0) if self.cut_kernels else None

    @property
    def ref_taps(self) -> int | None:
        """Length of the refractory kernel in steps; None where it is not cut."""
        depth = self.scale_ref * self.v_threshold
        return _taps(self.tau_ref / self.dt, depth) if self.cut_kernels else None


@functools.lru_cache(maxsize=64)
def _taps(tau: float, height: float) -> int:
    """Return the first step behind the peak where a kernel of this height is below the limit."""
    k = math.floor(tau) + 1
    while height * k / tau * math.exp(1 - k / tau) >= _SMALLEST:
        k += 1
    return k


def psp(x: Tensor, constants: SRM = SRM()) -> Tensor:
    r"""Filter a signal with the response kernel: post-synaptic potentials.

    .. math:: a[n] = dt \sum_k \varepsilon[k]\, x[n-k]

    The filter is linear and the same for all neurons, so it commutes with dense, convolutional
    and pooling synapses: apply it on the side that has fewer neurons. Its gradient is its exact
    adjoint, the same filter backward in time.

    Technique: time runs in chunks of a few dozen steps, each one product of a triangular Toeplitz
    matrix with all neurons at once, instead of a step at a time. What earlier chunks leave to
    later ones are the kernel's two states :math:`P = \sum_k r^k x[n-k]` and
    :math:`Q = \sum_k k r^k x[n-k]` with :math:`r = e^{-dt/\tau}`; a cut kernel meets the steps
    at its end in a second matrix. Memory beside input and output does not grow with time.

    Args:
        x: Spikes of height 1/dt, or real-valued currents ``[T, B, ...]``.
        constants: Of the kernel.

    Returns:
        Potentials, shape and dtype of ``x``; computed in float32 at least.

    Raises:
        ValueError: If there is no time step or no sample.

    References:
        SLAYER (Shrestha & Orchard, 2018), section 3.1; official code.

    Example:
        >>> a = psp(torch.tensor([[0.0], [1.0], [0.0], [0.0]]))
        >>> [round(value, 4) for value in a[:, 0].tolist()]
        [0.0, 0.0, 0.246, 0.4451]
    """
    check_not_empty(x)
    potentials: Tensor = _psp(x, *constants.values, False)
    return potentials


SCHEMA = ", ".join(f"{field.type} {field.name}" for field in fields(SRM))
"""The constants in an operator's signature."""


@torch.library.custom_op(
    "spikewvat::slayer_psp", mutates_args=(), schema=f"(Tensor x, {SCHEMA}, bool adjoint) -> Tensor"
)
def _psp(x: Tensor, *constants: Any) -> Tensor:
    """Filter forward or backward in time: an operator, so that no compiler unrolls its loop."""
    *values, adjoint = constants
    return filtered(x, SRM(*values), adjoint=adjoint).to(x.dtype)


@_psp.register_fake
def _(x: Tensor, *constants: Any) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.constants, ctx.adjoint = inputs[1:-1], inputs[-1]


def _psp_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return _psp(grad, *ctx.constants, not ctx.adjoint), *[None] * (len(ctx.constants) + 1)


_psp.register_autograd(_psp_backward, setup_context=_keep)


def filtered(x: Tensor, constants: SRM, *, adjoint: bool = False) -> Tensor:
    """Return the filtered signal in a new tensor, float32 at least.

    Args:
        x: A signal ``[T, ...]``.
        constants: Of the kernel.
        adjoint: Run from the last step to the first.
    """
    flat = x.to(state_dtype(x)).reshape(len(x), -1)
    with torch.autocast(x.device.type, enabled=False):
        run = _whole if constants.psp_taps is None else _cut
        return run(flat, constants, adjoint).view(x.shape)


def _cut(x: Tensor, constants: SRM, adjoint: bool) -> Tensor:
    """Apply the kernel up to its last tap.

    A chunk of steps meets itself, and the edge where the kernel ends, through matrices; of the
    chunks between, which all its steps see whole, it needs the two states only.
    """
    steps = len(x)
    reach = min(constants.psp_taps or steps, steps) - 1  # the largest lag
    chunk = min(_CHUNK, steps)
    between = max((reach + 1) // chunk - 1, 0)
    # Row i of the band is step i of a chunk, column j step j - reach of the same count.
    lags = torch.arange(chunk)[:, None] - torch.arange(-reach, chunk)[None]
    band = torch.where((lags >= 0) & (lags <= reach), _kernel(lags, constants), 0.0)
    edge, inside = band[:, : reach - between * chunk], band[:, reach:]
    onto, into, keep = _states(constants, chunk)
    if adjoint:  # the same kernel with time reversed
        edge, inside, onto, into = edge.flip(0, 1), inside.flip(0, 1), onto.flip(0), into.flip(1)
    edge, inside, onto, into, keep = (m.to(x) for m in (edge, inside, onto, into, keep))

    def span(first: int, last: int) -> slice:
        """Return where steps lie that are counted in the direction of the filter."""
        return slice(steps - last, steps - first) if adjoint else slice(first, last)

    y = torch.empty_like(x)
    left: list[Tensor] = []  # states that each chunk leaves, the latest one last
    for start in range(0, steps, chunk):
        rows = min(chunk, steps - start)
        here, these = span(start, start + rows), slice(-rows, None) if adjoint else slice(rows)
        torch.mm(inside[these, these], x[here], out=y[here])
        if left:
            state = left[0]
            for later in left[1:]:
                state = torch.addmm(later, keep, state)
            y[here].addmm_(onto[these], state)
        first, last = max(start - reach, 0), start - between * chunk
        if first < last:
            seen_edge = edge[:, : last - first] if adjoint else edge[:, first - last :]
            y[here].addmm_(seen_edge[these], x[span(first, last)])
        if between and rows == chunk:
            left.append(into @ x[here])
            del left[:-between]
    return y


def _whole(x: Tensor, constants: SRM, adjoint: bool) -> Tensor:
    """Apply the untruncated kernel: two states carry over from chunk to chunk."""
    steps = len(x)
    chunk = min(_CHUNK, steps)
    k = torch.arange(chunk)
    lags = k[:, None] - k[None]
    inside = torch.where(lags >= 0, _kernel(lags, constants), 0.0)
    onto, into, keep = _states(constants, chunk)
    if adjoint:  # the same kernel with time reversed
        inside, onto, into = inside.T, onto.flip(0), into.flip(1)
    inside, onto, into, keep = (m.to(x) for m in (inside, onto, into, keep))
    y, state = torch.empty_like(x), x.new_zeros(2, x.shape[1])
    for start in range(0, steps, chunk):
        rows = min(chunk, steps - start)
        here = slice(steps - start - rows, steps - start) if adjoint else slice(start, start + rows)
        torch.mm(inside[:rows, :rows], x[here], out=y[here])
        y[here].addmm_(onto[-rows:] if adjoint else onto[:rows], state)
        if rows == chunk:
            state = torch.addmm(keep @ state, into, x[here])
    return y


def _states(constants: SRM, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return, in float64, from states to a chunk's potentials, from its inputs to states, decay.

    States are P and Q of :func:`psp` at the end of a chunk.
    """
    r = math.exp(-constants.dt / constants.tau_syn)
    k = torch.arange(chunk, dtype=torch.float64)
    later = k + 1  # steps since the end of the chunk before
    gain = math.e * constants.dt**2 / constants.tau_syn
    onto = gain * torch.stack([later * r**later, r**later], 1)
    age = k.flip(0)
    into = torch.stack([r**age, age * r**age])
    keep = torch.tensor([[1.0, 0.0], [chunk, 1.0]], dtype=torch.float64) * r**chunk
    return onto, into, keep


def _kernel(lags: Tensor, constants: SRM) -> Tensor:
    """Return dt times the response kernel at these steps, in float64."""
    u = lags.double() * (constants.dt / constants.tau_syn)
    return constants.dt * u * torch.exp(1 - u)


def check_not_empty(x: Tensor) -> None:
    """Raise a ValueError that names the shape if a signal has no time step or no sample."""
    if x.dim() == 0 or 0 in x.shape[:2]:
        raise ValueError(
            f"input has shape {tuple(x.shape)}: expected at least one time step and one sample, "
            "[T, B, ...]. Leave empty recordings out."
        )
