"""The bench of a tester: a chip, samples for it, and what the ideal network does with them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from spikewvat.adapters import Adapter, KnowsNeurons, NeuronLayer, Tap
from spikewvat.adapters.currents import (
    Moments,
    SynapseLayer,
    layers_of,
    noting_order,
    watching,
)
from spikewvat.devices.aging import kept_share
from spikewvat.errors import DataError, UnsupportedModelError
from spikewvat.robustness.draws import Draws
from spikewvat.robustness.images import Batch, Images
from spikewvat.robustness.run import Run
from spikewvat.spiking.losses import rate_cross_entropy
from spikewvat.weights import Weights

_FIRED = "neurons/"  # no module's name has a slash


class Bench:
    """A network in evaluation mode, and samples to calibrate its chips with.

    Args:
        run: Holds the network.
        loader: Batches of calibration samples, from which the first ones are taken.
    """

    def __init__(self, run: Run, loader: Iterable[Any]) -> None:
        self.model: nn.Module = run.model
        self.adapter: Adapter = run.adapter
        self.live: Weights = run.live
        self.ideal_weights: Weights = {n: w.detach().clone() for n, w in run.live.items()}
        self.scores: Callable[[Any], Tensor] = run.test.class_scores
        self.loss: Callable[[Any, Tensor], Tensor] = run.test.loss or rate_cross_entropy
        self.generator = Generator()
        """Source of what measures draw; seeded by the chip."""
        self.units: dict[str, Tensor] = {}
        """Factors of the ideal currents of a layer whose thresholds were trimmed."""
        self._run, self._images = run, Images(loader, 0)
        self._kept: list[Batch] = []
        self._source: Iterator[Batch] | None = None
        self._draws = Draws()
        self._ideal: dict[int, dict[str, Moments]] = {}
        self._rates: dict[int, dict[str, Tensor]] = {}
        self._outputs: dict[int, list[Tensor]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: the samples that have been taken, and no more."""
        return {**vars(self), "_source": None, "_images": Images((), 0)}

    @functools.cached_property
    def layers(self) -> list[SynapseLayer]:
        """The layers of synapses, in the order in which the network calls them.

        Raises:
            UnsupportedModelError: If it is not known where a layer's output channels are.
        """
        found = {layer.name: layer for layer in layers_of(self.model, self.live)}
        order = dict.fromkeys(call for call in self._calls(found.values()) if call in found)
        missing = [name for name in found if name not in order]
        if missing:
            raise UnsupportedModelError(
                f"layer {missing[0]!r} is not called when the network runs, so that its currents "
                "cannot be calibrated. Call it as a module, or pass weights= without it."
            )
        return [found[name] for name in order]

    @functools.cached_property
    def _feeds(self) -> dict[str, str]:
        """The neurons that each layer feeds, by name; none for read-outs."""
        calls = self._calls(self.layers)
        names, feeds = {layer.name for layer in self.layers}, {}
        for name in names:
            first = calls.index(name)
            fed = _next_neurons(calls[first + 1 :], names, set(calls[: first + 1]))
            if fed is not None:
                feeds[name] = fed
        return feeds

    def batches(self, samples: int) -> list[Batch]:
        """Return the first calibration samples.

        Raises:
            DataError: If there are fewer.
        """
        device = next(iter(self.live.values())).device
        if self._source is None:
            self._source = self._images.batches(device)
        while sum(len(labels) for _, labels in self._kept) < samples:
            batch = next(self._source, None)
            if batch is None:
                found = sum(len(labels) for _, labels in self._kept)
                raise DataError(
                    f"there are {found} calibration samples, expected at least {samples}. Pass a "
                    "larger loader as calibration=, or a measure that takes fewer samples."
                )
            self._kept.append(batch)
        taken, left = [], samples
        for inputs, labels in self._kept:
            if left <= 0:
                break
            few = min(left, len(labels))
            axis = self._axis(inputs, labels)
            taken.append((_some(inputs, axis, 0, few), labels[:few].to(device)))
            left -= few
        return taken

    def singles(self, samples: int) -> Iterator[Batch]:
        """Yield the first calibration samples one by one."""
        for inputs, labels in self.batches(samples):
            axis = self._axis(inputs, labels)
            for place in range(len(labels)):
                yield _some(inputs, axis, place, 1), labels[place : place + 1]

    def _axis(self, inputs: Tensor, labels: Tensor) -> int:
        known = self._run.image_axis
        return int(inputs.shape[0] != len(labels)) if known is None else known

    def outputs(self, samples: int) -> Iterator[tuple[Any, Tensor]]:
        """Run the network over calibration samples; yield its output and the labels."""
        with self.undrawn():
            for index, (inputs, labels) in enumerate(self.batches(samples)):
                yield self.output(inputs, index), labels
        self.adapter.reset_state(self.model)

    @contextmanager
    def undrawn(self) -> Iterator[None]:
        """Put the global generators back after a block that calls :meth:`output`."""
        with self._draws.forked([next(iter(self.live.values())).device]):
            yield

    def output(self, inputs: Tensor, index: int) -> Any:
        """Run the network over one batch, with the random numbers of that batch."""
        self.adapter.reset_state(self.model)
        with self._draws.of(0, index, [inputs.device]):
            return self.model(inputs)

    def moments(self, samples: int, layers: Iterable[SynapseLayer]) -> dict[str, Moments]:
        """Return the currents of layers with the weights that the network holds now."""
        with watching(layers) as seen:
            for _ in self.outputs(samples):
                pass
            return seen()

    def ideal(self, samples: int, layer: SynapseLayer) -> Moments:
        """Return the currents of a layer in the ideal network, once known for all layers."""
        found = self._ideal[samples][layer.name]
        unit = self.units.get(layer.name)
        return found if unit is None else Moments(found.mean * unit, found.std * unit, found.size)

    def rates(self, samples: int, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the spikes of each channel of neurons per step and place."""
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}

        def see(name: str, spikes: Tensor) -> Tensor:
            channels = spikes.detach().movedim(2, 0).flatten(1)
            sums[name] = sums.get(name, 0) + channels.sum(1, dtype=torch.float64)
            counts[name] = counts.get(name, 0) + channels.shape[1]
            return spikes

        with ExitStack() as stack:
            for name in names:
                tap = Tap(spikes=functools.partial(see, name))
                stack.enter_context(self.neurons[name].tapped(tap))
            for _ in self.outputs(samples):
                pass
        return {name: total / counts[name] for name, total in sums.items()}

    def ideal_rates(self, samples: int) -> dict[str, Tensor]:
        """Return the rates of the ideal network by layer of neurons."""
        return self._rates[samples]

    def ideal_scores(self, samples: int) -> list[Tensor]:
        """Return the class scores of the ideal network, batch by batch."""
        return self._outputs[samples]

    @functools.cached_property
    def neurons(self) -> dict[str, NeuronLayer]:
        """The layers of spiking neurons by name; none where no adapter knows any."""
        if not isinstance(self.adapter, KnowsNeurons):
            return {}
        try:
            return self.adapter.neuron_layers(self.model)
        except UnsupportedModelError:
            return {}

    def fed(self, layer: SynapseLayer) -> str | None:
        """Return the layer of neurons that a layer of synapses feeds, None for a read-out."""
        return self._feeds.get(layer.name)

    def sharing(self, layer: SynapseLayer) -> list[str]:
        """Return the other layers of synapses that feed the same neurons."""
        own = self.fed(layer)
        return [n for n, fed in self._feeds.items() if fed == own and n != layer.name]

    @torch.no_grad()
    def distance(self, samples: int) -> float:
        """Return how far the answers are from the ideal network's, as a cross-entropy."""
        scores = torch.cat([self.scores(output) for output, _ in self.outputs(samples)])
        ideal = torch.cat(self.ideal_scores(samples))
        return float(functional.cross_entropy(scores.double(), ideal.double().softmax(1)))

    def look(self, samples: int) -> None:
        """Look at what the network does with so many samples, while it holds its ideal weights."""
        if samples and samples not in self._ideal:
            self._ideal[samples] = self.moments(samples, self.layers)
            self._rates[samples] = self.rates(samples, self.neurons)
            with torch.no_grad():
                self._outputs[samples] = [self.scores(out) for out, _ in self.outputs(samples)]
            self._check_classes(samples)

    def _check_classes(self, samples: int) -> None:
        """Warn where samples are of few classes: a trim for one class spoils the others."""
        classes = self._outputs[samples][0].shape[1]
        labels = {int(label) for _, labels in self.batches(samples) for label in labels}
        if 2 * len(labels) < min(classes, samples):
            warnings.warn(
                f"the {samples} calibration samples are of {len(labels)} of {classes} classes, for "
                "which the chip will then be trimmed. Pass a shuffled loader as calibration=.",
                stacklevel=2,
            )

    def shrinkage(self) -> dict[str, float]:
        """Return how much of its size each weight tensor has kept: 1 without drift.

        It is the projection of the chip's weights on the ideal ones, which random errors do not
        bias.
        """
        return {name: kept_share(self.live[name], w) for name, w in self.ideal_weights.items()}

    def _calls(self, layers: Iterable[SynapseLayer]) -> list[str]:
        """Return which layers run and which neurons fire, one after the other."""
        calls: list[str] = []

        def fired(name: str, spikes: Tensor) -> Tensor:
            calls.append(_FIRED + name)
            return spikes

        with ExitStack() as stack:
            stack.enter_context(noting_order(layers, calls))
            for name, neurons in self.neurons.items():
                stack.enter_context(neurons.tapped(Tap(spikes=functools.partial(fired, name))))
            inputs, _ = self.batches(1)[0]
            stack.enter_context(self.undrawn())
            self.output(inputs, 0)
            self.adapter.reset_state(self.model)
        return calls


def _some(inputs: Tensor, axis: int, first: int, count: int) -> Tensor:
    """Return neighbouring samples of a batch, which may be sparse."""
    if not inputs.is_sparse:
        return inputs.narrow(axis, first, count)
    return inputs.index_select(axis, torch.arange(first, first + count, device=inputs.device))


def _next_neurons(calls: Sequence[str], layers: set[str], before: set[str]) -> str | None:
    """Return the neurons that fire next after a layer, None if a new step begins before.

    Args:
        calls: What is called after the layer.
        layers: All layers of synapses.
        before: What was called up to the layer: a new step calls it again.
    """
    for call in calls:
        if call in before:
            return None
        if call not in layers:
            return call.removeprefix(_FIRED)
    return None
