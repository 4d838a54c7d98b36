"""Measures by layer and channel: one factor a layer, offsets, gains and thresholds."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from spikewvat.adapters import Tap
from spikewvat.adapters.currents import Moments, SynapseLayer
from spikewvat.devices.base import check_at_least_zero, check_bits
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness.calibration.bench import Bench
from spikewvat.robustness.calibration.measure import Correction, LayerMeasure, NetworkMeasure
from spikewvat.robustness.cost import Cost
from spikewvat.weights import replaced

_HALVINGS = 10  # of the interval that an offset is searched in
_REACH = 4.0  # its half width, in standard deviations of the current


def check_samples(samples: int) -> None:
    """Raise ValueError unless there is at least one sample."""
    if type(samples) is not int or samples < 1:
        raise ValueError(f"samples must be a whole number of at least 1, got {samples!r}.")


@dataclass(frozen=True)
class Scale(NetworkMeasure):
    r"""Give each layer's weights the size that they were programmed with: one factor a layer.

    .. math:: w' = s \tilde w, \qquad s = \frac{\langle w, w \rangle}{\langle w, \tilde w \rangle}

    The factor is what a drifting layer has lost; errors that are independent of the weights do
    not bias it. Put it before every trim if the device drifts.

    Args:
        samples: Take the ratio of mean absolute currents over so many calibration samples instead,
            for chips whose cells cannot be read; random errors make that ratio too small.

    Raises:
        ValueError: If ``samples`` is negative.

    References:
        Global drift compensation of Joshi et al., 2020, https://doi.org/10.1038/s41467-020-16108-9
    """

    samples: int = 0
    SCALES: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.samples:
            check_samples(self.samples)

    def fit(self, bench: Bench) -> Correction:
        """Return the factors of all weights (see :meth:`NetworkMeasure.fit`)."""
        factors = {name: 1 / kept if kept else 1.0 for name, kept in bench.shrinkage().items()}
        if self.samples:
            factors |= self._by_currents(bench)
        numbers = {
            f"{name}.scale": torch.tensor([f], dtype=torch.float64) for name, f in factors.items()
        }
        return Correction(numbers, functools.partial(_scaled, bench, factors))

    def cost(self, bench: Bench) -> Cost:
        """Return what it costs (see :meth:`Measure.cost`)."""
        numbers = len(bench.live)
        if self.samples:
            return Cost(samples=self.samples, passes=len(bench.layers), numbers=numbers)
        return Cost(numbers=numbers, reads=sum(weight.numel() for weight in bench.live.values()))

    def _by_currents(self, bench: Bench) -> dict[str, float]:
        names = {id(weight): name for name, weight in bench.live.items()}
        factors: dict[str, float] = {}
        for layer in bench.layers:
            with _scaled(bench, factors):
                now = bench.moments(self.samples, [layer])[layer.name]
            ideal = bench.ideal(self.samples, layer)
            for key in layer.parameters:
                name = names.get(id(layer.module._parameters[key]))
                if name is not None:
                    factors[name] = ideal.size / now.size if now.size else 1.0
        return factors


@contextmanager
def _scaled(bench: Bench, factors: dict[str, float]) -> Iterator[None]:
    values = {name: w.detach() * factors.get(name, 1.0) for name, w in bench.live.items()}
    with replaced(bench.live, values):
        yield


@dataclass(frozen=True)
class Trim(LayerMeasure):
    """Numbers for each channel of a layer from samples without labels: the base of what follows.

    Args:
        samples: Number of unlabelled calibration samples.
        check: Whether to compare their class probabilities with those of the ideal network: where
            they do not come closer, nothing is changed and nothing stored.

    Raises:
        ValueError: If ``samples`` is below 1, or ``check`` no truth value.
    """

    samples: int = 64
    check: bool = True
    TRIMS: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_samples(self.samples)
        if type(self.check) is not bool:
            raise ValueError(f"check must be True or False, got {self.check!r}.")


@dataclass(frozen=True)
class BiasTrim(Trim):
    r"""Match each output channel to the ideal network with an offset of its current.

    .. math:: y' = y + b, \qquad b = \bar y_{ideal} - \bar y_{chip}

    Args:
        samples: Number of unlabelled calibration samples.
        check: Whether to undo it where it does not help (see :class:`Trim`).
        by: Match mean ``"currents"``, or mean ``"rates"`` of the spikes that follow where no
            current can be read: the offset is found by halving an interval. Read-outs without
            neurons are matched by their currents in either case.
        bits: Resolution of the converter that makes the offsets, symmetric over a layer's largest;
            None for exact ones.
        noise: Standard deviation of one reading of a channel, in standard deviations of its
            current; it averages over samples. Currents only.

    Raises:
        ValueError: If an argument is out of range.

    Note:
        Means of currents say little where those that never fire a neuron are far larger than those
        that do; the check then undoes the trim. ``by="rates"`` matches what fires.
    """

    by: Literal["currents", "rates"] = "currents"
    bits: int | None = None
    noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_zero("noise", self.noise)
        if self.by not in ("currents", "rates"):
            raise ValueError(f"by must be 'currents' or 'rates', got {self.by!r}.")
        if self.bits is not None:
            check_bits(self.bits)

    def fit_layer(self, bench: Bench, layer: SynapseLayer) -> Correction:
        """Return the offsets of a layer (see :meth:`LayerMeasure.fit_layer`)."""
        fed = bench.fed(layer)
        if self.by == "rates" and fed is not None:
            offset = self._by_rates(bench, layer, fed)
        else:
            now = read(bench, layer, self.samples, self.noise)
            offset = bench.ideal(self.samples, layer).mean - now.mean
        if self.bits is not None:
            offset = quantised(offset, self.bits)
        return _offset(layer, offset)

    def cost(self, bench: Bench) -> Cost:
        """Return what it costs (see :meth:`Measure.cost`)."""
        each = [
            _HALVINGS if self.by == "rates" and bench.fed(layer) is not None else 1
            for layer in bench.layers
        ]
        return Cost(samples=self.samples, passes=sum(each), numbers=channels(bench, self.samples))

    def _by_rates(self, bench: Bench, layer: SynapseLayer, fed: str) -> Tensor:
        wanted = bench.ideal_rates(self.samples)[fed]
        ideal = bench.ideal(self.samples, layer)
        if len(wanted) != len(ideal.mean):
            raise UnsupportedModelError(
                f"layer {layer.name!r} has {len(ideal.mean)} output channels and the neurons "
                f"{fed!r} behind it {len(wanted)}, so that rates cannot be matched channel by "
                "channel. Use BiasTrim(by='currents')."
            )
        high = _REACH * ideal.std.clamp(min=float(ideal.std.mean()))
        low = -high
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            with _offset(layer, middle).applied():
                rates = bench.rates(self.samples, [fed])[fed]
            short = rates < wanted
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return (low + high) / 2


@dataclass(frozen=True)
class GainTrim(Trim):
    r"""Match the spread of each output channel's current with a factor; trim offsets afterwards.

    .. math:: y' = a y, \qquad a = \mathrm{std}(y_{ideal}) / \mathrm{std}(y_{chip})

    Args:
        samples: Number of unlabelled calibration samples.
        check: Whether to undo it where it does not help (see :class:`Trim`).

    Raises:
        ValueError: If ``samples`` is below 1.
    """

    def fit_layer(self, bench: Bench, layer: SynapseLayer) -> Correction:
        """Return the gains of a layer (see :meth:`LayerMeasure.fit_layer`)."""
        gain = _gain(bench, layer, self.samples)

        def change(y: Tensor) -> Tensor:
            return y * layer.shaped(gain).to(y)

        return Correction({f"{layer.name}.gain": gain}, lambda: layer.changed(change))

    def cost(self, bench: Bench) -> Cost:
        """Return what it costs (see :meth:`Measure.cost`)."""
        numbers = channels(bench, self.samples)
        return Cost(samples=self.samples, passes=len(bench.layers), numbers=numbers)


@dataclass(frozen=True)
class ThresholdTrim(Trim):
    r"""Match the spread of each channel's current with a factor of its neurons' thresholds.

    .. math:: \theta' = \theta \, \mathrm{std}(y_{chip}) / \mathrm{std}(y_{ideal})

    Where a spike subtracts the threshold it does what :class:`GainTrim` does. A read-out without
    neurons has no threshold and stays as it is. Trim offsets afterwards.

    Args:
        samples: Number of unlabelled calibration samples.
        check: Whether to undo it where it does not help (see :class:`Trim`).

    Raises:
        ValueError: If ``samples`` is below 1.
    """

    def fit_layer(self, bench: Bench, layer: SynapseLayer) -> Correction:
        """Return the factors behind a layer (see :meth:`LayerMeasure.fit_layer`)."""
        fed = bench.fed(layer)
        if fed is None:
            return Correction({}, lambda: layer.changed(_same))
        neurons, others = bench.neurons[fed], bench.sharing(layer)
        if "v_threshold" not in neurons.parts or others:
            why = f"are fed by {others[0]!r} too" if others else "share one threshold"
            raise UnsupportedModelError(
                f"neurons {fed!r} behind layer {layer.name!r} {why}, so that their thresholds "
                "cannot be trimmed for it. Use GainTrim()."
            )
        factor = 1 / _gain(bench, layer, self.samples)
        bench.units[layer.name] = factor

        def factors(shape: torch.Size) -> Tensor:
            return factor.view(-1, *(1,) * (len(shape) - 1)).expand(shape)

        numbers = {f"{fed}.threshold": factor}
        return Correction(numbers, lambda: neurons.tapped(Tap(v_threshold=factors)))

    def cost(self, bench: Bench) -> Cost:
        """Return what it costs (see :meth:`Measure.cost`)."""
        fed = [layer for layer in bench.layers if bench.fed(layer) is not None]
        numbers = sum(len(bench.ideal(self.samples, layer).mean) for layer in fed)
        return Cost(samples=self.samples, passes=len(fed), numbers=numbers)


def read(bench: Bench, layer: SynapseLayer, samples: int, noise: float = 0.0) -> Moments:
    """Return the currents of a layer of the present chip, as a noisy tester reads them."""
    found = bench.moments(samples, [layer])[layer.name]
    if noise == 0:
        return found
    drawn = torch.randn(found.mean.shape, dtype=torch.float64, generator=bench.generator)
    error = drawn.to(found.std.device) * found.std * (noise / samples**0.5)
    return Moments(found.mean + error, found.std, found.size)


def quantised(offset: Tensor, bits: int) -> Tensor:
    """Return offsets as a converter makes them, symmetric over the largest of a layer."""
    largest = offset.abs().max()
    step = largest.masked_fill(largest == 0, 1) / (2 ** (bits - 1) - 1)
    rounded: Tensor = (offset / step).round() * step
    return rounded


def channels(bench: Bench, samples: int) -> int:
    """Return the number of output channels of all layers."""
    return sum(len(bench.ideal(samples, layer).mean) for layer in bench.layers)


def _gain(bench: Bench, layer: SynapseLayer, samples: int) -> Tensor:
    ideal, now = bench.ideal(samples, layer).std, read(bench, layer, samples).std
    silent = (ideal == 0) | (now == 0)  # of a channel that never changes, nothing is known
    gain: Tensor = ideal / now.masked_fill(silent, 1.0)
    return gain.masked_fill(silent, 1.0)


def _offset(layer: SynapseLayer, offset: Tensor) -> Correction:
    def change(y: Tensor) -> Tensor:
        return y + layer.shaped(offset).to(y)

    return Correction({f"{layer.name}.offset": offset}, lambda: layer.changed(change))


def _same(y: Tensor) -> Tensor:
    return y
