"""Threshold balancing: layer by layer from the input, for one chip or many."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn

from spikewvat import files
from spikewvat.adapters import adapter_for
from spikewvat.adapters.modes import evaluating
from spikewvat.conversion.graph import Node
from spikewvat.conversion.layers import Neurons
from spikewvat.conversion.network import SpikingNetwork
from spikewvat.conversion.quantiles import Quantiles
from spikewvat.devices.base import DeviceModel
from spikewvat.weights import replaced

_SEEDS = 2**32
NO_BATCH = "the loader yields no batch, expected calibration images."
_SMALLEST = 1e-3  # threshold of silent neurons, as a share of their layer's largest one


@dataclass(frozen=True)
class Balancing:
    r"""How thresholds are chosen.

    Args:
        statistic: ``"activations"`` uses the currents of the ANN, all layers in one pass;
            ``"steps"`` uses the currents of every time step, layer by layer, while the layers below
            spike with their new thresholds (hybrid conversion). Single steps are far more extreme
            than their mean, so ``"steps"`` gives higher thresholds and slower networks.
        percentile: Percentile of all currents (images, neurons, steps) that becomes the threshold;
            100 is the maximum, 99.9 ignores outliers. ``None`` selects the threshold whose spike
            counts over the network's T steps represent the ANN's activations with the least squared
            error.
        scaling: Factor applied to every threshold at the end; hybrid conversion uses 0.7.
        per_channel: One threshold for each channel instead of each layer.
        chips: Number of chips to program and measure; 1 without ``variation``.
        quantile: Quantile of the chips' thresholds to use, in [0, 1]; 1, the largest, clips no
            chip's activations.
        learned: Also choose the thresholds that the ANN has learned (QCFS), which are left as they
            are otherwise.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Rathi et al., 2020, Algorithm 1, https://arxiv.org/abs/2005.01807
    """

    statistic: Literal["activations", "steps"] = "activations"
    percentile: float | None = None
    scaling: float = 1.0
    per_channel: bool = True
    chips: int = 8
    quantile: float = 1.0
    learned: bool = False

    def __post_init__(self) -> None:
        if self.statistic not in ("activations", "steps"):
            raise ValueError(f"statistic must be 'activations' or 'steps', got {self.statistic!r}.")
        if self.percentile is not None and not 0 < self.percentile <= 100:
            raise ValueError(
                f"percentile must lie in (0, 100], got {self.percentile!r}. 100 is the maximum; "
                "99.9 ignores outliers."
            )
        if self.percentile is None and self.statistic == "steps":
            raise ValueError(
                "percentile=None fits spike counts to activations, but statistic is 'steps'. "
                "Pass a percentile, or statistic='activations'."
            )
        if not 0 < self.scaling < float("inf"):
            raise ValueError(f"scaling must be finite and above 0, got {self.scaling!r}.")
        if self.chips < 1:
            raise ValueError(f"chips must be at least 1, got {self.chips!r}.")
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile must lie in [0, 1], got {self.quantile!r}.")


class Balancer:
    """Balances the thresholds of a network; can be interrupted and resumed between batches.

    A resumed run gives the same thresholds as an uninterrupted one, bit for bit.

    Args:
        snn: The network; its thresholds are replaced, its weights are not changed.
        balancing: How thresholds are chosen.
        variation: Device model; each threshold is then a quantile over chips of the chips' own
            thresholds. ``None`` uses no variation.
        generator: Source of the seeds of chips and coding; ``None`` uses torch's global one.

    Raises:
        ValueError: If ANN activations are requested for unit spikes, which carry no scale.
    """

    def __init__(
        self,
        snn: SpikingNetwork,
        balancing: Balancing = Balancing(),
        *,
        variation: DeviceModel | None = None,
        generator: Generator | None = None,
    ) -> None:
        if balancing.statistic == "activations" and any(n.unit for n in snn.neurons().values()):
            raise ValueError(
                "statistic='activations' needs spikes in units of the ANN, but unit_spikes=True. "
                "Use statistic='steps', or unit_spikes=False."
            )
        self.snn, self.balancing, self.variation = snn, balancing, variation
        chips = balancing.chips if variation is not None else 1
        device = torch.device("cpu") if generator is None else generator.device
        draw = torch.randint(_SEEDS, (chips + 1,), generator=generator, device=device)
        self._seeds = [int(seed) for seed in draw]  # of the coding, and of each chip
        self._done: dict[str, Tensor] = {}
        self._batches = 0
        self._seen: dict[str, list[Quantiles]] = {}

    def run(
        self, loader: Iterable[Any], *, on_batch: Callable[[Balancer], object] | None = None
    ) -> dict[str, Tensor]:
        """Measure all batches and set the network's thresholds.

        Args:
            loader: Calibration images, ``[B, ...]`` or a tuple that starts with them; yields the
                same batches in every pass. ``"steps"`` makes one pass per layer of neurons.
            on_batch: Called after each batch; save :meth:`state_dict` here.

        Returns:
            Scaled thresholds by layer of neurons, learned ones as they are.

        Raises:
            ValueError: If there are no images, they are not finite, do not fit the network, or
                leave a layer without any current above 0.
            TypeError: If a batch holds no tensor.
        """
        layers = self._layers()
        together = [list(layers)] if layers else []
        stages = [[n] for n in layers] if self.balancing.statistic == "steps" else together
        with evaluating(self.snn), torch.no_grad():
            if not stages:  # nothing is measured, but images are checked
                _first(loader)
            for stage in stages:
                if stage[-1] not in self._done:
                    self._stage(stage, layers, loader, on_batch)
        scaled = {name: t * self.balancing.scaling for name, t in self._done.items()}
        self.snn.set_thresholds(self.snn.thresholds() | scaled)
        fits = self.balancing.percentile is None and bool(layers)
        self.snn.fitted_steps = self.snn.time_steps if fits else None
        return self.snn.thresholds()

    def state_dict(self) -> dict[str, Any]:
        """Return the thresholds so far, the histograms of the current layer, and the seeds."""
        return {
            "done": dict(self._done),
            "batches": self._batches,
            "seeds": list(self._seeds),
            "seen": {name: [q.state_dict() for q in found] for name, found in self._seen.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`, with the same loader and arguments."""
        self._seeds = list(state["seeds"])
        self._batches = int(state["batches"])
        self._seen = {}
        for name, found in state["seen"].items():
            self._seen[name] = [self._quantiles() for _ in found]
            for quantiles, kept in zip(self._seen[name], found, strict=True):
                quantiles.load_state_dict(kept)
        self._done = dict(state["done"])
        layers = self.snn.neurons()
        for name, threshold in self._done.items():
            layers[name].set_threshold(threshold)

    def _layers(self) -> dict[str, Neurons]:
        """Return the layers whose thresholds are to be chosen."""
        return {
            name: neurons
            for name, neurons in self.snn.neurons().items()
            if neurons.levels is None or self.balancing.learned
        }

    def _quantiles(self) -> Quantiles:
        return Quantiles(per_channel=self.balancing.per_channel)

    def _stage(
        self,
        stage: list[str],
        layers: dict[str, Neurons],
        loader: Iterable[Any],
        on_batch: Callable[[Balancer], object] | None,
    ) -> None:
        """Find the thresholds of layers that are measured in one pass over the data."""
        chips = len(self._seeds) - 1
        if not self._seen:
            self._seen = {name: [self._quantiles() for _ in range(chips)] for name in stage}
        count = -1
        for count, batch in enumerate(loader):
            if count < self._batches:
                continue
            images = images_of(batch, self.snn)
            for chip in range(chips):
                with self._programmed(chip):
                    self._look(images, stage, chip, count)
            self._batches += 1
            if on_batch is not None:
                on_batch(self)
        if count < 0:
            raise ValueError(NO_BATCH)
        for name in stage:
            found = torch.stack([self._threshold(q, layers[name]) for q in self._seen[name]])
            level = _above_zero(name, found.quantile(self.balancing.quantile, dim=0))
            self._done[name] = layers[name].bounded(level)
            layers[name].set_threshold(self._done[name])
        self._seen, self._batches = {}, 0

    def _threshold(self, seen: Quantiles, neurons: Neurons) -> Tensor:
        if self.balancing.percentile is not None:
            return seen.percentile(self.balancing.percentile)
        return seen.least_error(self.snn.time_steps, neurons.start, burst=neurons.dynamics.burst)

    def _look(self, images: Tensor, stage: list[str], chip: int, batch: int) -> None:
        """Add the currents of a batch to the histograms of a chip."""

        def observe(node: Node, inputs: tuple[Tensor, ...], output: Tensor | None) -> None:
            if node.name in self._seen:
                neurons = self.snn.layers.get_submodule(node.path)
                assert isinstance(neurons, Neurons)
                analog = self.balancing.statistic == "activations"
                self._seen[node.name][chip].add(neurons.bounded(inputs[0]) if analog else inputs[0])

        try:
            if self.balancing.statistic == "activations":
                self.snn.analog(images, observe)
                return
            with torch.random.fork_rng(devices=[]):
                # Equal spikes for every layer and chip, whether the run was resumed or not.
                torch.manual_seed((self._seeds[0] + batch) % _SEEDS)
                self.snn.observe(images, observe, until=stage[-1])
        except RuntimeError as error:
            raise ValueError(
                f"calibration images of shape {tuple(images.shape)} do not fit the model: {error} "
                "Pass batches [B, ...] as the ANN takes them."
            ) from error

    def _programmed(self, chip: int) -> contextlib.AbstractContextManager[None]:
        """Hold the weights of a chip within a block."""
        if self.variation is None:
            return contextlib.nullcontext()
        live = adapter_for(self.snn).synaptic_weights(self.snn)
        clean = {name: weight.detach() for name, weight in live.items()}
        seed = Generator().manual_seed(self._seeds[1 + chip])
        return replaced(live, self.variation.program(clean, generator=seed))


def balance(
    snn: SpikingNetwork,
    loader: Iterable[Any],
    balancing: Balancing = Balancing(),
    *,
    variation: DeviceModel | None = None,
    checkpoint: Path | str | None = None,
    generator: Generator | None = None,
) -> dict[str, Tensor]:
    """Set a network's thresholds from calibration images, with its present weights.

    To calibrate a single chip, call it while the network holds that chip's weights
    (:func:`spikewvat.weights.replaced`): ``with replaced(weights, chip): balance(snn, loader)``.

    Args:
        snn: The network.
        loader: See :meth:`Balancer.run`.
        balancing: How thresholds are chosen.
        variation: See :class:`Balancer`.
        checkpoint: File for intermediate results, saved after each batch; if it exists, balancing
            resumes from it. Delete it to start over.
        generator: See :class:`Balancer`.

    Returns:
        Thresholds by layer of neurons.

    Raises:
        ValueError: As :class:`Balancer` and :meth:`Balancer.run`.
        TypeError: As :meth:`Balancer.run`.
    """
    balancer = Balancer(snn, balancing, variation=variation, generator=generator)
    if checkpoint is None:
        return balancer.run(loader)
    path = Path(checkpoint)
    if path.is_file():
        balancer.load_state_dict(files.load(path))
    return balancer.run(loader, on_batch=lambda b: files.save(path, b.state_dict()))


def _first(loader: Iterable[Any]) -> None:
    for _ in loader:
        return
    raise ValueError(NO_BATCH)


def images_of(batch: Any, model: nn.Module) -> Tensor:
    """Return the images of a batch on the model's device.

    Raises:
        TypeError: If the batch holds no tensor.
        ValueError: If an image is not finite.
    """
    images = batch[0] if isinstance(batch, tuple | list) and batch else batch
    if not isinstance(images, Tensor):
        raise TypeError(
            f"a batch is a {type(batch).__name__}, expected images [B, ...] or a tuple that starts "
            "with them."
        )
    if not bool(torch.isfinite(images).all()):
        raise ValueError("a batch holds a value that is not finite. Check the data.")
    device = next(model.parameters()).device
    return images.to(device)


def held_out(
    loader: Iterable[Any], model: nn.Module, one_of: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the images of each batch in two parts: to use, and to check with, one of so many.

    Raises:
        TypeError, ValueError: As :func:`images_of`.
    """
    seen = 0
    for batch in loader:
        images = images_of(batch, model)
        checks = torch.arange(seen, seen + len(images), device=images.device) % one_of == 0
        seen += len(images)
        yield images[~checks], images[checks]


class Used:
    """The images of :func:`held_out` that are used, batch by batch, in every pass."""

    def __init__(self, loader: Iterable[Any], model: nn.Module, one_of: int) -> None:
        self._loader, self._model, self._one_of = loader, model, one_of

    def __iter__(self) -> Iterator[Tensor]:
        parts = held_out(self._loader, self._model, self._one_of)
        return (used for used, _ in parts if len(used))


def _above_zero(name: str, threshold: Tensor) -> Tensor:
    """Raise the thresholds of silent channels above 0; a silent layer is an error."""
    largest = threshold.max()
    if not bool(largest > 0):
        raise ValueError(
            f"no current of layer {name!r} is above 0 on the calibration images at this "
            "percentile, so it would never spike. Raise percentile, or check the weights and "
            "images."
        )
    return threshold.clamp(min=float(largest) * _SMALLEST)
