"""The modules of a converted network other than its synapses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikewvat.adapters.neurons import NeuronLayer, Part, Varied, in_units, longer
from spikewvat.conversion.qcfs import quantised
from spikewvat.spiking.stdb import Dynamics, State, initial_state, neurons


class Timed(nn.Module):
    """A module with memory between steps.

    The network passes the memory in and out and drops it after a pass: no module keeps state
    itself.
    """

    def steps(self, x: Tensor, time_steps: int, state: Any) -> tuple[Tensor, Any]:
        """Return the output over several steps [T, B, ...], and the new state.

        Args:
            x: Input [T, B, ...], or [1, B, ...] if it is the same in every step.
            time_steps: T.
            state: State after the preceding steps; None at the first step.
        """
        raise NotImplementedError

    def analog(self, x: Tensor) -> Tensor:
        """Return what the corresponding ANN layer computes from [B, ...]."""
        raise NotImplementedError


class Neurons(Timed):
    """Spiking neurons in place of a ReLU: map currents to spikes times their amplitude.

    Args:
        dynamics: How the neurons integrate and fire.
        leak: Share of the potential left after a step, in (0, 1].
        unit: Emit spikes of amplitude 1 instead of the threshold.
        ceiling: Largest activation of the ANN, 0-dim and above 0; ``None`` is unbounded.
        levels: Number of levels above 0 to which the ANN rounds activations, the highest of them
            being ``ceiling``, which is then the threshold; ``None`` if it rounds nothing.

    Attributes:
        threshold: Firing threshold, 0-dim or one for each channel; a parameter, fixed unless made
            learnable.
        leak: As given; a parameter, fixed unless made learnable.
        start: Potential before the first step, as a share of the threshold, 0-dim or one for each
            channel.
        bias: Added to the currents in every step, one for each channel; 0-dim if there is none.
        amplitude: Size of a spike. In units of the ANN's activations it equals the threshold, so
            that rate times amplitude is the activation, and weights and biases are those of the
            ANN.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        *,
        leak: float = 1.0,
        unit: bool = False,
        ceiling: Tensor | None = None,
        levels: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 < leak <= 1:
            raise ValueError(f"leak must lie in (0, 1], got {leak!r}. 1 is no leak.")
        self.dynamics, self.unit, self.levels = dynamics, unit, levels
        self.threshold = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.leak = nn.Parameter(torch.tensor(leak), requires_grad=False)
        self.start: Tensor
        self.register_buffer("start", torch.tensor(dynamics.initial))
        self.bias: Tensor
        self.register_buffer("bias", torch.tensor(0.0))
        self.amplitude: Tensor
        self.register_buffer("amplitude", torch.tensor(1.0))
        self.ceiling: Tensor | None
        self.register_buffer("ceiling", None if ceiling is None else ceiling.clone())
        self._leaky = leak < 1
        if levels is not None:
            assert ceiling is not None
            self.set_threshold(ceiling)

    def set_threshold(self, threshold: Tensor) -> None:
        """Set one threshold for all neurons (0-dim) or one for each channel [C], above 0."""
        threshold = threshold.detach().to(self.threshold)
        learns = self.threshold.requires_grad
        self.threshold = nn.Parameter(threshold.clone(), requires_grad=learns)
        self.amplitude = torch.ones_like(threshold) if self.unit else threshold.clone()

    def shape_like(self, state: dict[str, Any], prefix: str) -> None:
        """Take over the shapes of constants in a file, and complete a file of an earlier version.

        Args:
            state: Tensors by name.
            prefix: Of the names of this layer's tensors.
        """
        if isinstance(threshold := state.get(f"{prefix}threshold"), Tensor):
            self.set_threshold(torch.ones_like(threshold))
        for name in ("start", "bias"):  # earlier files lack them: the arguments say the start
            own: Tensor = getattr(self, name)
            found = state.setdefault(f"{prefix}{name}", own)
            if isinstance(found, Tensor):
                setattr(self, name, own.new_zeros(found.shape))

    def steps(self, x: Tensor, time_steps: int, state: State | None) -> tuple[Tensor, State]:
        """Return spikes times amplitude, and the potentials."""
        x = self.shifted(x)
        currents = x.expand(time_steps, *x.shape[1:])
        spikes, state = self.fire(currents, self.begin(x) if state is None else state)
        if self.unit:
            return spikes, state
        amplitude = _channels(self.amplitude, x.dim() - 3).to(spikes.dtype)
        if spikes.requires_grad:
            return spikes * amplitude, state
        return spikes.mul_(amplitude), state

    def shifted(self, x: Tensor) -> Tensor:
        """Return currents [T, B, ...] with the bias."""
        return x if self.bias.dim() == 0 else x + _channels(self.bias, x.dim() - 3)

    def level(self, x: Tensor) -> Tensor:
        """Return the thresholds, to broadcast against currents [T, B, ...] or one step of them."""
        return _channels(self.threshold, x.dim() - 3)

    def begin(self, x: Tensor) -> State:
        """Return the neurons before their first step with currents [T, B, ...]."""
        return initial_state(x[0], self.level(x), _channels(self.start, x.dim() - 3))

    def fire(self, currents: Tensor, state: State) -> tuple[Tensor, State]:
        """Return numbers of spikes in each step [T, B, ...], and the potentials."""
        leak = self.leak if self._leaky or self.leak.requires_grad else None
        return neurons(currents, self.level(currents), self.dynamics, leak=leak, state=state)

    def counts(self, output: Tensor) -> Tensor:
        """Return how many spikes an output [T, B, ...] holds, of either sign."""
        height = 1.0 if self.unit else _channels(self.amplitude.detach(), output.dim() - 3)
        return (output.detach() / height).abs().round()

    def neuron_layer(self, name: str) -> NeuronLayer:
        """Return the interface through which corruptions and observers access the neurons."""
        return _SeenNeurons(name, self)

    def analog(self, x: Tensor) -> Tensor:
        """Return the ANN's activations."""
        if self.levels is not None:
            assert self.ceiling is not None
            return quantised(x, self.ceiling, self.levels)
        return self.bounded(functional.relu(x))

    def bounded(self, values: Tensor) -> Tensor:
        """Return values, the largest activation in place of larger ones."""
        return values if self.ceiling is None else torch.minimum(values, self.ceiling)

    def extra_repr(self) -> str:
        """Return the constants."""
        level = self.threshold.detach()
        shown = f"{float(level):.4g}" if level.dim() == 0 else f"{len(level)} channels"
        start = f"{float(self.start):.4g}" if self.start.dim() == 0 else "channels"
        leak = f"{float(self.leak.detach()):.4g}"
        return f"threshold={shown}, start={start}, leak={leak}, {self.dynamics}"


class _SeenNeurons(NeuronLayer):
    """Converted neurons: everything except the amplitude scales with the threshold."""

    def __init__(self, name: str, module: Neurons) -> None:
        parts: set[Part] = {"spikes", "v_threshold"}
        if bool(module.leak < 1):
            parts.add("tau_mem")
        super().__init__(name, module, parts=parts, timed=True, method="steps")

    def _varied(self, x: Tensor, threshold: Tensor | None, tau: Tensor | None) -> Varied:
        module = self.module
        changed = [] if tau is None else [(module._parameters, "leak", longer(module.leak, tau))]
        return in_units(x, threshold), changed

    def _height(self, output: Tensor) -> Tensor | float:
        module = self.module
        return 1.0 if module.unit else _channels(module.amplitude.detach(), output.dim() - 3)


class MaxPool(Timed):
    r"""Max pooling of spike trains: the output has fired as often as its most active input.

    .. math:: o_t = \max_i N_{i,t} - \max_i N_{i,t-1}, \qquad N_{i,t} = \sum_{s \le t} x_{i,s}

    A count grows by at most one spike per step, and so does the maximum of several counts: the
    output is again a spike train, and at every step its rate is exactly the maximum of the input
    rates. Passing only the spikes of the most active input (Rueckauer et al., 2017) loses spikes
    that another input fired before it was overtaken.

    Args:
        pool: The ANN's layer, of any number of dimensions.
    """

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def steps(self, x: Tensor, time_steps: int, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the pooled spikes, and the counts."""
        x = x.expand(time_steps, *x.shape[1:])
        before = torch.zeros_like(x[0]) if state is None else state
        counts = torch.cat([before[None], x]).cumsum(0)
        most = fold(self.pool, counts)
        return most[1:] - most[:-1], counts[-1]

    def analog(self, x: Tensor) -> Tensor:
        """Return the maxima."""
        pooled: Tensor = self.pool(x)
        return pooled


class MeanPool(nn.AvgPool2d):
    """Average pooling, several times as fast on a CPU where windows lie side by side."""

    @classmethod
    def of(cls, pool: nn.AvgPool2d) -> MeanPool:
        """Return one with the arguments of a pool."""
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
        return cls(**{n: getattr(pool, n) for n in names}, divisor_override=pool.divisor_override)

    def forward(self, x: Tensor) -> Tensor:
        """Return the means [..., H', W'] of [..., H, W]."""
        (high, wide), stride, padding = (
            (value, value) if isinstance(value, int) else tuple(value)
            for value in (self.kernel_size, self.stride, self.padding)
        )
        apart = stride != (high, wide) or padding != (0, 0) or self.divisor_override is not None
        if apart or x.shape[-2] % high or x.shape[-1] % wide or x.device.type != "cpu":
            return super().forward(x)
        rows = _sum(torch.unflatten(x, -2, (-1, high)).unbind(-2))
        return _sum(torch.unflatten(rows, -1, (-1, wide)).unbind(-1)).div_(high * wide)


def _sum(parts: tuple[Tensor, ...]) -> Tensor:
    """Return the sum of tensors in one of its own."""
    total = parts[0] + parts[1] if len(parts) > 1 else parts[0].clone()
    for part in parts[2:]:
        total = total + part
    return total


class Dropout(Timed):
    """Dropout with one mask for all steps of a pass; inactive in evaluation mode.

    Args:
        p: Probability of dropping a value, in [0, 1].
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def steps(self, x: Tensor, time_steps: int, state: Tensor | None) -> tuple[Tensor, Any]:
        """Return the masked input, and the mask."""
        if not self.training or self.p == 0:
            return x, None
        if state is None:
            state = functional.dropout(torch.ones_like(x[0]), self.p)
        return x * state, state

    def analog(self, x: Tensor) -> Tensor:
        """Return dropout's output."""
        return functional.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"p={self.p}"


class Affine(nn.Module):
    """A scale and a shift: constants, or batch norm that no preceding layer can absorb.

    Args:
        scale: Factors; 0-dim, or of a shape that broadcasts against [B, C, ...].
        shift: Summands, as ``scale``.
        channels: Scale and shift are [C], for axis 1 of the input.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor, *, channels: bool = False) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("shift", shift.detach().clone())
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the input [B, C, ...], scaled and shifted."""
        if not self.channels:
            return x * self.scale + self.shift
        tail = x.dim() - 2
        return x * _channels(self.scale, tail) + _channels(self.shift, tail)


class Add(nn.Module):
    """The sum of two branches.

    Args:
        factor: Factor of the second branch; -1 for a difference.
    """

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the sum."""
        return torch.add(one, other, alpha=self.factor)

    def extra_repr(self) -> str:
        """Return the factor."""
        return "" if self.factor == 1 else f"factor={self.factor:g}"


class Concat(nn.Module):
    """Branches side by side.

    Args:
        dim: The axis of [B, ...], not that of the batch.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *branches: Tensor) -> Tensor:
        """Return the branches in one tensor."""
        return torch.cat(branches, self.dim)

    def extra_repr(self) -> str:
        """Return the axis."""
        return f"dim={self.dim}"


class Call(nn.Module):
    """A function without weights: slicing, padding, flattening, averages.

    Args:
        function: Function, called with the input first.
        *args: Its other arguments.
        **kwargs: Its named arguments.
    """

    def __init__(self, function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.function, self.args, self.kwargs = function, args, kwargs

    def forward(self, x: Tensor) -> Tensor:
        """Apply the function to [B, ...]."""
        return self.function(x, *self.args, **self.kwargs)

    def extra_repr(self) -> str:
        """Return the function's name."""
        return getattr(self.function, "__name__", repr(self.function))


def fold(module: nn.Module, *inputs: Tensor) -> Tensor:
    """Apply a module without memory to all steps at once, with time folded into the batch.

    Args:
        module: Takes as many tensors [B, ...].
        *inputs: [T, B, ...], or [1, B, ...] for what is the same in every step.
    """
    steps = max(len(x) for x in inputs)
    output: Tensor = module(*(x.expand(steps, *x.shape[1:]).flatten(0, 1) for x in inputs))
    return output.view(steps, inputs[0].shape[1], *output.shape[1:])


def _channels(values: Tensor, tail: int) -> Tensor:
    """Return per-channel values [C], reshaped to broadcast over the given number of axes."""
    return values if values.dim() == 0 else values.reshape(-1, *(1,) * max(tail, 0))
