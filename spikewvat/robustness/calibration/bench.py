"""The bench of a tester: a chip, samples for it, and what the ideal network does with them."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from spikewvat.adapters import Adapter, KnowsNeurons, NeuronLayer, Tap
from spikewvat.errors import DataError, UnsupportedModelError
from spikewvat.robustness.calibration.layers import (
    Moments,
    SynapseLayer,
    layers_of,
    noting_order,
    watching,
)
from spikewvat.robustness.cost import Cost
from spikewvat.robustness.draws import Draws, derived
from spikewvat.robustness.images import Batch, Images
from spikewvat.robustness.run import Run
from spikewvat.spiking.losses import rate_cross_entropy
from spikewvat.weights import Weights

_FIRED = "neurons/"  # no module's name has a slash

_DRIFTED = 0.2
"""Share of a layer's size that may be lost before trims need a scale first."""


@dataclass(frozen=True)
class Correction:
    """What a measure found for one chip.

    Args:
        numbers: What is stored for the chip, by name.
        applied: Makes a context in which it acts.
    """

    numbers: dict[str, Tensor]
    applied: Callable[[], AbstractContextManager[object]]


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
        self._warned = False

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
            taken.append((inputs.narrow(axis, 0, few), labels[:few].to(device)))
            left -= few
        return taken

    def singles(self, samples: int) -> Iterator[Batch]:
        """Yield the first calibration samples one by one."""
        for inputs, labels in self.batches(samples):
            axis = self._axis(inputs, labels)
            for place in range(len(labels)):
                yield inputs.narrow(axis, place, 1), labels[place : place + 1]

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

    def prepare(self, measures: Sequence[Measure]) -> None:
        """Look at the ideal network, while it holds its ideal weights, as measures need it."""
        for samples in {measure.samples for measure in measures} - {0}:
            if samples in self._ideal:
                continue
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

    @contextmanager
    def calibrated(
        self, measures: Sequence[Measure], seed: int
    ) -> Iterator[tuple[list[Correction], Cost]]:
        """Calibrate the chip that the network holds now, for a block.

        Args:
            measures: In the order in which they are applied; neighbours that work layer by layer
                are applied together, one layer after the other.
            seed: Seed of the chip.

        Yields:
            What was found, in order, and what it cost.
        """
        self.generator.manual_seed(derived(seed, "calibration"))
        self.units.clear()
        self._warn(measures)
        found: list[Correction] = []
        with ExitStack() as stack:
            for work in _in_order(measures, self):
                correction = work(self)
                stack.enter_context(correction.applied())
                found.append(correction)
            cost = sum((measure.cost(self) for measure in measures), Cost())
            yield found, cost

    def shrinkage(self) -> dict[str, float]:
        """Return how much of its size each weight tensor has kept: 1 without drift.

        It is the projection of the chip's weights on the ideal ones, which random errors do not
        bias.
        """
        kept = {}
        for name, ideal in self.ideal_weights.items():
            square = float(ideal.double().square().sum())
            chip = self.live[name].detach()
            kept[name] = float((ideal.double() * chip.double()).sum()) / square if square else 1.0
        return kept

    def _warn(self, measures: Sequence[Measure]) -> None:
        trims = [n for n, measure in enumerate(measures) if measure.is_trim]
        scales = [n for n, measure in enumerate(measures) if measure.is_scale]
        if not trims or self._warned or (scales and scales[0] < trims[0]):
            return
        if scales:
            self._warned = True
            warnings.warn(
                f"{measures[trims[0]]!r} comes before {measures[scales[0]]!r}: what a trim has "
                "matched is scaled away again. Put the scale first.",
                stacklevel=2,
            )
            return
        for name, kept in self.shrinkage().items():
            if abs(kept - 1) > _DRIFTED:
                self._warned = True
                warnings.warn(
                    f"weights {name!r} are {100 * kept:.0f} % of their size on this chip, and "
                    f"{measures[trims[0]]!r} alone cannot mend that: it may do harm. Put Scale() "
                    "first.",
                    stacklevel=2,
                )
                return

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


_Work = Callable[[Bench], Correction]


def _in_order(measures: Sequence[Measure], bench: Bench) -> Iterator[_Work]:
    """Yield the single steps of a calibration."""
    for by_layer, group in itertools.groupby(measures, lambda m: isinstance(m, LayerMeasure)):
        if not by_layer:
            yield from (measure.fit for measure in group)
            continue
        own = list(group)
        for layer in bench.layers:
            for measure in own:
                assert isinstance(measure, LayerMeasure)
                yield functools.partial(measure.fit_layer, layer=layer)


@dataclass(frozen=True)
class Repair:
    """What is done to every chip of a report.

    Args:
        bench: The network and its samples.
        measures: The measures, in order.
    """

    bench: Bench
    measures: tuple[Measure, ...]

    @classmethod
    def of(
        cls, run: Run, measures: Sequence[Measure], loader: Iterable[Any] | None
    ) -> Repair | None:
        """Prepare measures while the network holds its ideal weights; None without any.

        Raises:
            ValueError: If there are measures and no samples, or the other way round.
            TypeError: If one is no measure.
        """
        for measure in measures:
            if not isinstance(measure, Measure):
                raise TypeError(
                    f"calibrate must hold measures such as BiasTrim(), got {measure!r}. They are "
                    "in spikewvat.robustness.calibration."
                )
        if bool(measures) != (loader is not None):
            missing = "calibration" if measures else "calibrate"
            raise ValueError(
                f"{missing} is missing. Pass both: calibrate=[Scale(), BiasTrim()] and "
                "calibration=loader, samples that are not those of the test."
            )
        if loader is None:
            return None
        bench = Bench(run, loader)
        bench.prepare(measures)
        return cls(bench, tuple(measures))

    def calibrated(self, seed: int) -> AbstractContextManager[tuple[list[Correction], Cost]]:
        """Calibrate the chip that the network holds now, for a block."""
        return self.bench.calibrated(self.measures, seed)


class Measure:
    """Something that is done to a chip after programming.

    A subclass is a frozen dataclass that says in :meth:`fit` what it finds for the chip that the
    network holds at the time. Nothing is written to the network: a correction acts within a
    context, and then everything is as before.

    Attributes:
        samples: Number of calibration samples, 0 for none.
        is_trim: Whether it matches currents or rates, which needs weights of the right size.
        is_scale: Whether it gives weights their size back.
    """

    samples: int = 0
    is_trim = False
    is_scale = False

    def fit(self, bench: Bench) -> Correction:
        """Return what corrects the present chip."""
        raise NotImplementedError(f"{type(self).__name__} has no fit.")

    def cost(self, bench: Bench) -> Cost:
        """Return what it costs for one chip of a network."""
        raise NotImplementedError(f"{type(self).__name__} has no cost.")


class LayerMeasure(Measure):
    """A measure that works layer by layer, earlier ones being corrected already."""

    def fit_layer(self, bench: Bench, layer: SynapseLayer) -> Correction:
        """Return what corrects a layer of the present chip."""
        raise NotImplementedError(f"{type(self).__name__} has no fit_layer.")
