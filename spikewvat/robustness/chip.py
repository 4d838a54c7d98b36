"""A whole chip: weights, neurons, faults and the crossbar around them, all from one seed."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from torch import Generator

from spikewvat.devices import DeviceModel, Ideal, Verified
from spikewvat.devices.base import check_at_least_zero, check_device, nested
from spikewvat.devices.reading import apart
from spikewvat.robustness.corruptions import (
    Corruption,
    LeakMismatch,
    NeuronCorruption,
    ReadNoise,
    ThresholdMismatch,
)
from spikewvat.robustness.crossbar import Crossbar
from spikewvat.weights import Weights


@dataclass(frozen=True)
class Chip(DeviceModel):
    """A device that also varies neurons, has faults, and stands in a crossbar.

    On the chips of an :class:`~spikewvat.Evaluator` everything acts together, and all of it comes
    from the chip's seed. As a device of training it is what it does to the weights; see
    :class:`~spikewvat.training.neurons.NeuronVariation` for training under mismatch of neurons, and
    :meth:`~spikewvat.robustness.crossbar.Crossbar.around` for training in a crossbar.

    Args:
        weights: What happens to the weights; a ``ReadNoise`` at the end acts in every step.
        thresholds: Relative standard deviation of thresholds from neuron to neuron (lognormal).
        time_constants: The same of membrane time constants.
        faults: Devices that act on the weights last, such as a ``FaultMap`` or ``StuckAt``, and
            corruptions of neurons, such as ``DeadNeurons``.
        crossbar: What computes with the weights: tiles, wires and converters. Chips are calibrated
            with it, too.

    Raises:
        ValueError: If a spread is negative.
        TypeError: If ``weights`` is no device, a fault neither a device nor a corruption of
            neurons, or ``crossbar`` none.

    Example:
        >>> from spikewvat.devices import Gaussian
        >>> from spikewvat.robustness.corruptions import DeadNeurons
        >>> chip = Chip(Gaussian(0.05), thresholds=0.1, faults=[DeadNeurons(0.01)])
    """

    weights: DeviceModel = field(default_factory=Ideal)
    thresholds: float = 0.0
    time_constants: float = 0.0
    faults: tuple[DeviceModel | NeuronCorruption, ...] = ()
    crossbar: Crossbar | None = None

    def __post_init__(self) -> None:
        check_device(self.weights)
        check_at_least_zero("thresholds", self.thresholds)
        check_at_least_zero("time_constants", self.time_constants)
        given = self.faults if isinstance(self.faults, Iterable) else (self.faults,)
        object.__setattr__(self, "faults", tuple(given))
        for fault in self.faults:
            if not isinstance(fault, DeviceModel | NeuronCorruption):
                raise TypeError(
                    f"faults must be devices such as FaultMap.from_csv(...) or corruptions of "
                    f"neurons such as DeadNeurons(0.01), got {fault!r}."
                )
        if self.crossbar is not None and not isinstance(self.crossbar, Crossbar):
            raise TypeError(
                f"crossbar must be one such as Crossbar(rows=128), got {self.crossbar!r}."
            )

    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip (see :meth:`DeviceModel.program`)."""
        stages = [self.weights, *(f for f in self.faults if isinstance(f, DeviceModel))]
        for stage in stages:
            weights = stage.program(weights, generator=generator)
        return weights


def taken_apart(
    device: DeviceModel,
) -> tuple[DeviceModel, Corruption | None, Crossbar | None]:
    """Return what a device does once to the weights of a chip, and what happens while it runs.

    Returns:
        What it does once, what it does to spikes, neurons and readings, and the crossbar.

    Raises:
        ValueError: If reading noise or a whole chip stands where it could not act.
    """
    if isinstance(device, Verified):
        once, happens, crossbar = taken_apart(device.device)
        return replace(device, device=once), happens, crossbar
    happening: list[Corruption] = []
    crossbar = device.crossbar if isinstance(device, Chip) else None
    if isinstance(device, Chip):
        once, reads = apart(device.weights)
        faults = tuple(f for f in device.faults if isinstance(f, DeviceModel))
        happening += [f for f in device.faults if isinstance(f, NeuronCorruption)]
        happening += [ThresholdMismatch(device.thresholds)] if device.thresholds else []
        happening += [LeakMismatch(device.time_constants)] if device.time_constants else []
        once = Chip(once, faults=faults) if faults else once
    else:
        if any(isinstance(part, Chip) for part in nested(device)):
            raise ValueError(
                f"{device!r} holds a Chip, whose neurons would not be varied. Put what acts on the "
                "weights into the Chip: Chip(Gaussian(0.05) >> Drift(...), thresholds=0.1)."
            )
        once, reads = apart(device)
    happening += [ReadNoise(noise.sigma, noise.range) for noise in reads if noise.sigma]
    return once, functools.reduce(operator.rshift, happening) if happening else None, crossbar
