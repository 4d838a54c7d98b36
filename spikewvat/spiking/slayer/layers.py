"""Layers of a SLAYER network: synapses without bias, neurons, and axons with learnable delays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spikewvat.spiking import layers
from spikewvat.spiking.slayer.dynamics import neurons, spike
from spikewvat.spiking.slayer.kernels import SRM, check_not_empty, psp


class Psp(nn.Module):
    """The response kernel alone: spikes [T, B, ...] to post-synaptic potentials, same shape.

    Args:
        constants: Of the kernel.
    """

    def __init__(self, constants: SRM = SRM()) -> None:  # noqa: B008 -- frozen
        super().__init__()
        self.constants = constants

    def forward(self, input: Tensor) -> Tensor:
        """Return :func:`psp` of the input."""
        return psp(input, self.constants)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return repr(self.constants)


class Neurons(Psp):
    """Filter and neurons: weighted spikes [T, B, ...] to output spikes, same shape.

    Keeps no state between passes.

    Args:
        constants: Kernels, threshold and surrogate.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return :func:`neurons` of the input."""
        return neurons(input, self.constants)


class Spike(Psp):
    """Neurons behind synapses that were given filtered spikes: potentials to spikes.

    Args:
        constants: Refractory kernel, threshold and surrogate.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return :func:`spike` of the input."""
        return spike(input, self.constants)


class Linear(layers.Linear):
    """Dense synapses: [T, B, N] to [T, B, N'], 10 times torch's initial weights.

    They start uniform within ``scale`` / sqrt(N). Takes the arguments of
    :class:`spikewvat.spiking.layers.Linear`.

    Raises:
        ValueError: If the input has another shape.

    References:
        SLAYER (Shrestha & Orchard, 2018), official code.
    """

    initial_scale = 10.0


class Conv2d(layers.Conv2d):
    """Convolution: [T, B, C, H, W] to [T, B, C', H', W'], 100 times torch's initial weights.

    Takes the arguments of :class:`spikewvat.spiking.layers.Conv2d`.

    Raises:
        ValueError: If the input has no time axis.

    References:
        SLAYER (Shrestha & Orchard, 2018), official code.
    """

    initial_scale = 100.0


class Delay(nn.Module):
    r"""Learnable delays of axons: every neuron's spikes come later by a time of its own.

    .. math:: y[n] = s[n - \lfloor d/dt \rfloor], \qquad
        \frac{\partial E}{\partial d} = -\sum_n \frac{\partial E}{\partial y[n]}
        \frac{y[n] - y[n-1]}{dt}

    Delays are no synaptic weights: variation never displaces them. They stay usable whatever the
    optimizer does: below 0 they act as 0, and nothing pushes them further down.

    Args:
        *shape: Of the delays, as that of one sample's spikes; size 1 shares a delay along an
            axis.
        constants: For the time step.

    Attributes:
        delay: Delays, ms; uniform below 1 ms at first.

    Raises:
        ValueError: If there is no time step or no sample, or the input does not fit ``shape``.

    References:
        SLAYER (Shrestha & Orchard, 2018), Eq. (15); official code.

    Example:
        >>> layer = Delay(2)
        >>> _ = layer.delay.data.copy_(torch.tensor([0.5, 2.0]))
        >>> layer(torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]], [[0.0, 0.0]]])).tolist()
        [[[1.0, 0.0]], [[0.0, 0.0]], [[0.0, 1.0]]]
    """

    def __init__(self, *shape: int, constants: SRM = SRM()) -> None:  # noqa: B008 -- frozen
        super().__init__()
        self.delay = nn.Parameter(torch.rand(shape))
        self.dt = constants.dt

    def forward(self, input: Tensor) -> Tensor:
        """Return the delayed spikes, same shape."""
        check_not_empty(input)
        own, other = tuple(self.delay.shape), tuple(input.shape[2:])
        fits = len(own) == len(other) and all(a in (1, b) for a, b in zip(own, other, strict=True))
        if not fits:
            raise ValueError(
                f"input has shape {tuple(input.shape)}, expected [T, B, ...] with one sample's "
                f"shape {own}, that of the delays. Make the layer with Delay(*spikes.shape[2:])."
            )
        delayed: Tensor = _Delay.apply(input, self.delay.expand(other), self.dt)  # type: ignore[no-untyped-call]
        return delayed

    def extra_repr(self) -> str:
        """Return the arguments."""
        return ", ".join(map(str, self.delay.shape))


class _Delay(torch.autograd.Function):
    """A shift along time by neuron, its adjoint, and the finite difference for the delays."""

    @staticmethod
    def forward(ctx: Any, spikes: Tensor, delay: Tensor, dt: float) -> Tensor:
        steps = (delay / dt).floor().clamp(0, len(spikes)).long()
        delayed = _shifted(spikes, steps)
        ctx.dt = dt
        ctx.save_for_backward(delayed, delay, steps)
        return delayed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        delayed, delay, steps = ctx.saved_tensors
        grad_delay = None
        if ctx.needs_input_grad[1]:
            difference = delayed.clone()
            difference[1:] -= delayed[:-1]
            grad_delay = -(grad * difference).sum((0, 1)).to(delay.dtype) / ctx.dt
            grad_delay = grad_delay.masked_fill((delay <= 0) & (grad_delay > 0), 0.0)
        return _shifted(grad, -steps), grad_delay, None


def _shifted(x: Tensor, steps: Tensor) -> Tensor:
    """Return x [T, B, ...] later by a number of steps for each neuron, zeros coming in."""
    n = torch.arange(len(x), device=x.device).view(-1, *[1] * steps.dim()) - steps
    inside = ((n >= 0) & (n < len(x)))[:, None]
    index = n.clamp(0, len(x) - 1)[:, None].expand_as(x)
    return x.gather(0, index).masked_fill(~inside, 0.0)
