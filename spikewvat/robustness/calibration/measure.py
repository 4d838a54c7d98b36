"""What a measure after programming is, and what it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from spikewvat.adapters.currents import SynapseLayer
from spikewvat.robustness.calibration.bench import Bench
from spikewvat.robustness.cost import Cost


@dataclass(frozen=True)
class Correction:
    """What a measure found for one chip.

    Args:
        numbers: What is stored for the chip, by name.
        applied: Makes a context in which it acts.
        kept: False if a check found that it does not help, so that it changes nothing.
    """

    numbers: dict[str, Tensor]
    applied: Callable[[], AbstractContextManager[object]]
    kept: bool = True


class Measure(ABC):
    """Something that is done to a chip after programming.

    A subclass is a frozen dataclass of one of the two kinds below. It finds corrections for the
    chip that the network holds at the time and writes nothing to the network: a correction acts
    within a context, and then everything is as before.

    Attributes:
        samples: Number of calibration samples, 0 for none.
        check: Whether its corrections are kept only if the network's answers to these samples come
            closer to the ideal ones. Neighbours that work layer by layer are checked together.
        TRIMS: Whether it matches currents or rates, which needs weights of the right size.
        SCALES: Whether it gives weights their size back.
    """

    samples: int = 0
    check: bool = False
    TRIMS: ClassVar[bool] = False
    SCALES: ClassVar[bool] = False

    @abstractmethod
    def cost(self, bench: Bench) -> Cost:
        """Return what it costs for one chip of a network."""


class NetworkMeasure(Measure):
    """A measure that corrects the whole network at once."""

    @abstractmethod
    def fit(self, bench: Bench) -> Correction:
        """Return what corrects the present chip."""


class LayerMeasure(Measure):
    """A measure that works layer by layer, earlier ones being corrected already."""

    @abstractmethod
    def fit_layer(self, bench: Bench, layer: SynapseLayer) -> Correction:
        """Return what corrects a layer of the present chip."""
