"""Base classes of corruptions, and their composition."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from spikewvat.adapters.neurons import Part
from spikewvat.devices.base import check_at_least_zero, check_probability


class Corruption(ABC):
    """A corruption of a network's spikes, whose size is called its severity.

    A subclass is a frozen dataclass with a field ``severity`` in a natural unit; severity 0
    changes nothing. Corruptions compose with ``>>``.

    Attributes:
        UNIT: The quantity that severity measures.
        LEVELS: Severities of levels 1 to 5.
    """

    UNIT: ClassVar[str] = "severity"
    LEVELS: ClassVar[tuple[float, ...]] = ()
    severity: float

    @property
    def name(self) -> str:
        """Name of the class in words, such as ``"dead neurons"``."""
        return re.sub(r"(?<!^)(?=[A-Z])", " ", type(self).__name__).lower()

    @property
    def unit(self) -> str:
        """The quantity that severity measures."""
        return self.UNIT

    @property
    def stages(self) -> tuple[Corruption, ...]:
        """The corruptions that make up this one, in order; just itself unless composed."""
        return (self,)

    @property
    def active(self) -> bool:
        """Whether the corruption changes anything."""
        return self.severity > 0

    @classmethod
    def at_level(cls, level: int) -> Corruption:
        """Return this corruption at one of its five levels.

        Args:
            level: 1 (mild) to 5 (severe).

        Raises:
            ValueError: If there is no such level.
        """
        if level not in range(1, len(cls.LEVELS) + 1):
            raise ValueError(
                f"{cls.__name__} has no level {level!r}, expected one of 1 to {len(cls.LEVELS)}."
            )
        return cls(cls.LEVELS[level - 1])  # type: ignore[call-arg]

    def __rshift__(self, other: Corruption) -> Composed:
        if not isinstance(other, Corruption):
            return NotImplemented
        return Composed((*self.stages, *other.stages))


@dataclass(frozen=True)
class Composed(Corruption):
    """Several corruptions at once; those of events act in the given order.

    Args:
        parts: At least one corruption, each with its own severity.

    Raises:
        ValueError: If there are no parts.
    """

    parts: tuple[Corruption, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("there is nothing to compose, expected at least one corruption.")

    @property
    def severity(self) -> float:  # type: ignore[override]
        """The largest severity of the parts; a sweep reports its own."""
        return max(part.severity for part in self.parts)

    @property
    def name(self) -> str:
        """The names of all parts."""
        return " >> ".join(part.name for part in self.parts)

    @property
    def unit(self) -> str:
        """The quantity that severity measures, if it is the same for all parts."""
        units = {part.unit for part in self.parts}
        return units.pop() if len(units) == 1 else self.UNIT

    @property
    def stages(self) -> tuple[Corruption, ...]:
        """The parts."""
        return self.parts

    def __repr__(self) -> str:
        return " >> ".join(repr(part) for part in self.parts)


@dataclass(frozen=True)
class EventCorruption(Corruption):
    """Changes the events that go into a network: a pure function of spikes.

    Args:
        severity: Size, in the unit of the class.

    Attributes:
        STATIC: Whether it is drawn once per chip and holds for all of its images, as a broken pixel
            does; otherwise it is drawn anew for each image.
    """

    severity: float
    STATIC: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return changed spikes.

        Args:
            spikes: 0/1, ``[T, B, C, H, W]`` or ``[T, B, N]``; read, never modified.
            generator: Source of randomness; ``None`` uses torch's global one. Static draws depend
                on it and on the shape of one step of one image, not on B or T.

        Returns:
            Spikes 0/1 of the same shape, dtype and device.

        Raises:
            ValueError: If the input has an unexpected shape or unexpected values.
        """


@dataclass(frozen=True)
class NeuronCorruption(Corruption):
    """Acts on every layer of neurons.

    Args:
        severity: Size, in the unit of the class.

    Attributes:
        PART: The part of a neuron that it changes: ``"spikes"`` as they leave (the corruption is
            then called with the spikes ``[t, B, ...]`` of a layer), or a constant,
            ``"v_threshold"`` or ``"tau_mem"`` (it then implements :meth:`factors`).
        STATIC: Whether it is drawn once for each layer of a chip; otherwise it is drawn anew for
            each pass and step.
    """

    severity: float
    PART: ClassVar[Part] = "spikes"
    STATIC: ClassVar[bool] = True

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return changed spikes 0/1 of a layer ``[t, B, ...]``."""
        raise NotImplementedError(f"{self!r} does not act on spikes.")

    def factors(self, shape: torch.Size, *, generator: Generator | None = None) -> Tensor:
        """Return a factor of the constant of each neuron, on the generator's device."""
        raise NotImplementedError(f"{self!r} does not act on constants of neurons.")


@dataclass(frozen=True)
class SynapseCorruption(Corruption):
    """Acts on the weights of every layer of synapses, drawn anew in every step.

    Args:
        severity: Size, in the unit of the class.
    """

    severity: float

    @abstractmethod
    def read(self, weight: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the weights of a layer as the chip reads them in one step."""


def check_share(severity: float) -> None:
    """Raise a ValueError unless a severity is a probability or share."""
    check_probability("severity", severity)


def check_size(severity: float) -> None:
    """Raise a ValueError unless a severity is finite and at least 0."""
    check_at_least_zero("severity", severity)


def check_spikes(spikes: Tensor, what: object) -> None:
    """Raise a ValueError unless there is a time axis, a batch and neurons, and all are 0 or 1."""
    if spikes.dim() not in (3, 5):
        raise ValueError(
            f"{what!r} got an input of shape {tuple(spikes.shape)}, expected spikes "
            "[T, B, C, H, W] or [T, B, N], time first. Encode still images as spikes, or use a "
            "corruption inside the network."
        )
    if not bool(((spikes == 0) | (spikes == 1)).all()):
        raise ValueError(
            f"{what!r} got values from {float(spikes.min()):.4g} to {float(spikes.max()):.4g}, "
            'expected spikes 0 or 1. Bin events with reduce="or", or encode images as spikes.'
        )
