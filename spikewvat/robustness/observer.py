"""Count spikes and synaptic operations while a network runs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.adapters import Adapter, Tap
from spikewvat.adapters.currents import synapse_layers
from spikewvat.adapters.neurons import overridden
from spikewvat.adapters.ours import is_filter
from spikewvat.conversion.network import SpikingNetwork
from spikewvat.robustness.activity import Activity
from spikewvat.robustness.corruptions.context import batch_axis, is_late, known_neurons
from spikewvat.robustness.corruptions.synapses import flat_dims, steps_of
from spikewvat.spiking.fan_out import fan_out
from spikewvat.weights import Weights


class Observer:
    """Counts the spikes and synaptic operations of a network while it is watched.

    Args:
        model: Network, called with its input first.
        adapter: Finds its neurons.
        weights: Live synaptic weights.
        image_axis: Axis of the images in the input; default as for
            :func:`~spikewvat.robustness.corrupt`.

    Raises:
        UnsupportedModelError: If the adapter knows none of the layers of spiking neurons.
    """

    def __init__(
        self,
        model: nn.Module,
        adapter: Adapter,
        weights: Weights,
        image_axis: int | None = None,
    ) -> None:
        self._model, self._image_axis = model, image_axis
        self._neurons = known_neurons(model, adapter)
        layers = [(name, module) for name, module, _ in synapse_layers(model, weights)]
        self._synapses = [layer for layer in layers if flat_dims(layer[1]) is not None]
        self._sees_all = len(self._synapses) == len(layers)
        self._arriving = next(iter(self._neurons.values())).arriving
        self._fan_out: dict[tuple[str, torch.Size], Tensor] = {}
        self.forget()

    def forget(self) -> None:
        """Reset the counts."""
        self._images = 0
        self._fired = dict.fromkeys(self._neurons, 0.0)
        self._places = dict.fromkeys(self._neurons, 0)
        self._operations = 0.0

    def found(self) -> Activity:
        """Return the activity counted so far.

        Raises:
            ValueError: If no image was watched.
        """
        if self._images == 0:
            raise ValueError(
                "no image was watched, expected at least one pass. Call the model first."
            )
        return Activity(
            spikes=sum(self._fired.values()) / self._images,
            operations=self._operations / self._images if self._sees_all else math.nan,
            rates={
                name: self._fired[name] / places if places else 0.0
                for name, places in self._places.items()
            },
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count within a block; enter it inside the block that corrupts the network."""
        with ExitStack() as stack:
            stack.callback(self._model.register_forward_pre_hook(self._begin).remove)
            for name, layer in self._neurons.items():
                stack.enter_context(layer.tapped(Tap(spikes=functools.partial(self._saw, name))))
            for name, module in self._synapses:
                wrapper = functools.partial(self._reach, name, module)
                stack.enter_context(overridden(module, "forward", wrapper))
            for module in self._model.modules():
                if is_filter(module):
                    stack.enter_context(overridden(module, "forward", self._filter))
                elif isinstance(module, SpikingNetwork):
                    stack.callback(setattr, module, "every_step", module.every_step)
                    module.every_step = True
            yield

    def _begin(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        x: Tensor = args[0]
        axis = batch_axis(x, self._image_axis)
        self._batch = x.shape[axis]
        self._images += self._batch
        values = x.coalesce().values() if x.is_sparse else x
        spikes = bool(((values == 0) | (values == 1)).all())
        timed = axis == 1 or is_late(x, self._image_axis)
        self._analog_input = not (timed and spikes)
        self._analog: dict[str, bool] = {}
        self._seen_neurons = False
        self._filtered: tuple[Tensor, Tensor] | None = None

    def _saw(self, name: str, spikes: Tensor) -> Tensor:
        self._seen_neurons = True
        self._fired[name] += float(spikes.sum(dtype=torch.float64))
        self._places[name] += spikes.numel()
        return spikes

    def _filter(self, inner: Callable[..., Tensor], x: Tensor) -> Tensor:
        output = inner(x)
        self._filtered = (output, x)
        return output

    def _reach(
        self, name: str, module: nn.Module, inner: Callable[..., Any], x: Tensor, *args: Any
    ) -> Any:
        # What comes in before any neuron has fired is the input of the network.
        first = self._analog_input and not self._seen_neurons
        if not self._analog.setdefault(name, first):
            self._operations += self._count(name, module, x)
        return inner(x, *args)

    def _count(self, name: str, module: nn.Module, x: Tensor) -> float:
        """Return the number of synapses reached by the spikes of an input."""
        timed = x.dim() != flat_dims(module)
        sample = x.shape[2:] if timed else x.shape[1:]
        if (name, sample) not in self._fan_out:
            probe = torch.ones((1, *sample), device=next(module.parameters()).device)
            counted = fan_out(module, probe)
            self._fan_out[name, sample] = counted.flatten().to(torch.float32)
        reached = self._fan_out[name, sample]
        if x.is_sparse:
            x = x.to_dense()
        if self._filtered is not None and self._filtered[0] is x:
            events = self._filtered[1].ne(0)
        else:
            steps, _ = steps_of(module, x, self._batch)
            events = self._arriving(x.reshape(steps, -1, *sample))
        # Whole numbers, exact in float32 for one step of an image.
        sums = events.reshape(-1, len(reached)).to(torch.float32) @ reached
        return float(sums.sum(dtype=torch.float64))
