"""The external interface of spiking layers: their spikes, thresholds and time constants."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

Part: TypeAlias = Literal["spikes", "v_threshold", "tau_mem"]
"""What can be changed from outside: spikes on their way out, a constant of each neuron."""

Factors: TypeAlias = Callable[[torch.Size], Tensor]
"""From the shape of one sample's neurons to a factor above 0 for each of them."""

Entry: TypeAlias = tuple[dict[str, Any], str, Any]
"""A dictionary (of parameters, buffers, attributes), a key, and another value for it."""

Varied: TypeAlias = tuple[Tensor, list[Entry]]
"""The input of varied neurons, and what is exchanged while they run."""


@dataclass(frozen=True)
class Tap:
    """What to do to a layer of neurons while it is tapped.

    Args:
        v_threshold: Factors of the thresholds.
        tau_mem: Factors of the membrane's time constants: the decay beta of a step becomes
            beta ** (1 / factor).
        spikes: From spikes 0/1 ``[t, B, ...]`` of the next t steps to the spikes that leave.
    """

    v_threshold: Factors | None = None
    tau_mem: Factors | None = None
    spikes: Callable[[Tensor], Tensor] | None = None


class NeuronLayer:
    """A layer of spiking neurons in some model.

    A subclass says how a framework's neurons are varied (:meth:`_varied`) and how the spikes of
    an output are found and replaced (:meth:`_spikes`, :meth:`_with_spikes`).

    Args:
        name: Name of the module in its model.
        module: The neurons.
        parts: What can be changed.
        timed: Whether a call runs over time, ``[T, B, ...]``, or one step, ``[B, ...]``.
        method: The method that runs the neurons, input first.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        *,
        parts: Collection[Part],
        timed: bool,
        method: str = "forward",
    ) -> None:
        self.name = name
        self.module: Any = module
        self.parts, self.timed, self.method = frozenset(parts), timed, method

    @contextmanager
    def tapped(self, tap: Tap) -> Iterator[None]:
        """Let a tap act on every call; afterwards the module is as before.

        Taps nest: the inner one sees what the outer one makes of the spikes.
        """
        with overridden(self.module, self.method, functools.partial(self._call, tap)):
            yield

    def arriving(self, x: Tensor) -> Tensor:
        """Return where spikes of such neurons arrive, 0/1, in an input of the synapses behind."""
        return x.ne(0)

    def _call(self, tap: Tap, inner: Callable[..., Any], x: Tensor, *args: Any, **kw: Any) -> Any:
        shape = x.shape[2 if self.timed else 1 :]
        threshold, tau = _factors(tap.v_threshold, shape, x), _factors(tap.tau_mem, shape, x)
        constant = threshold is None and tau is None
        x, entries = (x, []) if constant else self._varied(x, threshold, tau)
        with exchanged_entries(*entries):
            output = inner(x, *args, **kw)
        if tap.spikes is None:
            return output
        found = self._spikes(output)
        spikes = found if self.timed else found[None]
        changed = tap.spikes(spikes)
        if torch.equal(changed, spikes):
            return output
        return self._with_spikes(output, found, changed if self.timed else changed[0])

    def _varied(self, x: Tensor, threshold: Tensor | None, tau: Tensor | None) -> Varied:
        """Return what makes factors of the constants act, not both None, in a call with input x."""
        raise NotImplementedError

    def _spikes(self, output: Any) -> Tensor:
        """Return the spikes 0/1 of an output."""
        first = sent(output)
        return first.detach().ne(0).to(first.dtype)

    def _with_spikes(self, output: Any, spikes: Tensor, changed: Tensor) -> Any:
        """Return the output with other spikes."""
        first = sent(output)
        first = exchanged(first, spikes, changed, self._height(first))
        return (first, *output[1:]) if isinstance(output, tuple) else first

    def _height(self, output: Tensor) -> Tensor | float:
        """Return the size of a spike, broadcasting against an output."""
        return 1.0


@runtime_checkable
class KnowsNeurons(Protocol):
    """An adapter that finds layers of spiking neurons."""

    def neuron_layers(self, model: nn.Module) -> dict[str, NeuronLayer]:
        """Return the layers of spiking neurons by name."""
        ...


@runtime_checkable
class HasNeurons(Protocol):
    """A module that is a layer of spiking neurons and says so itself."""

    def neuron_layer(self, name: str) -> NeuronLayer:
        """Return how to see it from outside.

        Args:
            name: Name of the module in its model.
        """
        ...


def sent(output: Any) -> Tensor:
    """Return the first of several outputs, or the only one."""
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first


def exchanged(output: Tensor, spikes: Tensor, changed: Tensor, height: Tensor | float) -> Tensor:
    """Return an output with other spikes; gradients flow where they have not changed."""
    return torch.where(changed == spikes, output, (changed * height).to(output.dtype))


def in_units(x: Tensor, threshold: Tensor | None) -> Tensor:
    """Return an input in units of varied thresholds; all else that neurons do scales with them."""
    return x if threshold is None else (x / threshold).to(x.dtype)


def longer(beta: Tensor, factor: Tensor) -> Tensor:
    """Return the decay per step after multiplying the time constant by a factor.

    Example:
        >>> longer(torch.tensor([0.25, 0.9]), torch.tensor([2.0, 1.0])).tolist()
        [0.5, 0.8999999761581421]
    """
    # A power of 1 is not the same number on every processor.
    return torch.where(factor == 1, beta, beta ** (1 / factor))


@contextmanager
def overridden(module: nn.Module, method: str, wrapper: Callable[..., Any]) -> Iterator[None]:
    """Put a function in front of a module's method within a block.

    Args:
        module: Whose method.
        method: Its name.
        wrapper: Called with the method as it was before, and then with the call's arguments.
    """
    before = module.__dict__.get(method)
    stand_in: Any = functools.partial(wrapper, getattr(module, method))
    # A module whose forward somebody else has replaced may compute with other weights than its
    # class says; ours goes on to call it.
    stand_in.calls_what_was_there = before is None or getattr(before, "calls_what_was_there", False)
    object.__setattr__(module, method, stand_in)
    try:
        yield
    finally:
        if before is None:
            object.__delattr__(module, method)
        else:
            object.__setattr__(module, method, before)


@contextmanager
def exchanged_entries(*entries: Entry) -> Iterator[None]:
    """Hold other values in dictionaries (of parameters, buffers, attributes) within a block."""
    before = [(table, key, table[key]) for table, key, _ in entries]
    try:
        for table, key, value in entries:
            table[key] = value
        yield
    finally:
        for table, key, value in before:
            table[key] = value


def _factors(factors: Factors | None, shape: torch.Size, like: Tensor) -> Tensor | None:
    """Return the factors of a layer where the tensor is; None where all are 1."""
    found = None if factors is None else factors(shape)
    if found is None or (not found.requires_grad and bool((found == 1).all())):
        return None
    dtype = torch.promote_types(like.dtype, torch.float32)
    return found.to(device=like.device, dtype=dtype)
