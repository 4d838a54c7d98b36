"""Layers of synapses: their weights, and the currents that leave each output channel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.adapters.neurons import overridden
from spikewvat.errors import UnsupportedModelError
from spikewvat.weights import EffectiveWeight, Weights

_CHANNELS = {  # axis of the output channels, counted from the end
    nn.Linear: -1,
    nn.Bilinear: -1,
    nn.Conv1d: -2,
    nn.ConvTranspose1d: -2,
    nn.Conv2d: -3,
    nn.ConvTranspose2d: -3,
    nn.Conv3d: -4,
    nn.ConvTranspose3d: -4,
}


@dataclass(frozen=True, eq=False)
class SynapseLayer:
    """A layer of synapses.

    Args:
        name: Name of its module.
        module: The module; its outputs are currents.
        axis: Axis of the output channels, counted from the end.
        parameters: The names of its synaptic parameters in the module.
    """

    name: str
    module: nn.Module
    axis: int
    parameters: tuple[str, ...]

    def changed(self, change: Callable[[Tensor], Tensor]) -> AbstractContextManager[None]:
        """Let every output pass through a function within a block."""

        def call(inner: Callable[..., Tensor], *args: Any, **kw: Any) -> Tensor:
            return change(inner(*args, **kw))

        return overridden(self.module, "forward", call)

    def shaped(self, by_channel: Tensor) -> Tensor:
        """Return numbers of the channels so that they broadcast against an output."""
        return by_channel.view(-1, *(1,) * (-self.axis - 1))


def synapse_layers(
    model: nn.Module, weights: Weights
) -> Iterator[tuple[str, nn.Module, dict[str, nn.Parameter]]]:
    """Yield the modules that hold synaptic weights directly; tied weights appear in each of them.

    A layer that computes its weight is yielded with those of its own parameters that the weight is
    computed from, if any.
    """
    live = {id(weight) for weight in weights.values()}
    computed = [w for w in weights.values() if isinstance(w, EffectiveWeight)]
    computing = {id(w.layer): {id(part) for part in w.parts} for w in computed}
    for name, module in model.named_modules():
        own, ids = module._parameters.items(), live | computing.get(id(module), set())
        owned = {key: p for key, p in own if p is not None and id(p) in ids}
        if owned or id(module) in computing:
            yield name, module, owned


def layers_of(model: nn.Module, live: Weights) -> list[SynapseLayer]:
    """Return all layers of synapses, in the order of the model's modules.

    Raises:
        UnsupportedModelError: If it is not known where a layer's output channels are.
    """
    found = []
    for name, module, owned in synapse_layers(model, live):
        inside = {id(p) for part in module.modules() if part is not module for p in _own(part)}
        if owned and all(id(parameter) in inside for parameter in owned.values()):
            continue  # registered again on a module around it
        if not owned:
            raise UnsupportedModelError(
                f"layer {name!r} computes its weight by a parametrization, so that its currents "
                "cannot be calibrated. Call parametrize.remove_parametrizations first."
            )
        axis = next((axis for kind, axis in _CHANNELS.items() if isinstance(module, kind)), None)
        if axis is None and all(parameter.dim() <= 1 for parameter in owned.values()):
            axis = -1  # one synapse for each neuron
        if axis is None:
            raise UnsupportedModelError(
                f"layer {name!r} ({type(module).__name__}) does not say which axis of its output "
                "holds the channels, so that its currents cannot be calibrated. Build it of "
                "linear and convolutional layers, or use measures of the whole network."
            )
        found.append(SynapseLayer(name, module, axis, tuple(owned)))
    return found


def _own(module: nn.Module) -> Iterator[nn.Parameter]:
    return module.parameters(recurse=False)


@dataclass(frozen=True)
class Moments:
    """Currents of a layer over calibration samples, by output channel.

    Every element counts, whatever the number of calls: a network may fold time into the batch.

    Args:
        mean: Mean current of each channel, float64.
        std: Population standard deviation of each channel, float64.
        size: Mean absolute current of the layer's synapses, without a digital bias.
    """

    mean: Tensor
    std: Tensor
    size: float


class _Sums:
    """Adds up the outputs of a layer."""

    def __init__(self, layer: SynapseLayer) -> None:
        self._layer, self._count = layer, 0
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0
        self._size = 0.0

    def add(self, output: Tensor) -> Tensor:
        channels = output.detach().movedim(self._layer.axis, 0).flatten(1).double()
        self._count += channels.shape[1]
        self._sum = self._sum + channels.sum(1)
        self._squares = self._squares + channels.square().sum(1)
        bias = self._layer.module._parameters.get("bias")
        own = channels if bias is None else channels - bias.detach().double()[:, None]
        self._size += float(own.abs().sum())
        return output

    def moments(self) -> Moments:
        mean = torch.as_tensor(self._sum) / self._count
        variance = torch.as_tensor(self._squares) / self._count - mean.square()
        size = self._size / (self._count * len(mean))
        return Moments(mean, variance.clamp_(min=0).sqrt(), size)

    @property
    def seen(self) -> bool:
        return self._count > 0


@contextmanager
def watching(layers: Iterable[SynapseLayer]) -> Iterator[Callable[[], dict[str, Moments]]]:
    """Watch the currents of layers within a block; yields a function that says what was seen."""
    sums = {layer.name: (layer, _Sums(layer)) for layer in layers}
    with ExitStack() as stack:
        for layer, own in sums.values():
            stack.enter_context(layer.changed(own.add))

        def seen() -> dict[str, Moments]:
            for name, (_, own) in sums.items():
                if not own.seen:
                    raise UnsupportedModelError(
                        f"layer {name!r} was never called while the network ran, so its currents "
                        "are unknown. Leave it out of the network, or pass weights=."
                    )
            return {name: own.moments() for name, (_, own) in sums.items()}

        yield seen


@contextmanager
def noting_order(layers: Iterable[SynapseLayer], noted: list[str]) -> Iterator[None]:
    """Append a layer's name to a list at each of its calls within a block."""

    def note(name: str, output: Tensor) -> Tensor:
        noted.append(name)
        return output

    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(layer.changed(functools.partial(note, layer.name)))
        yield
