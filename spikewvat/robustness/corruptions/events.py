"""Corruptions of the events that go into a network: pure functions of [T, B, C, H, W]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import generator_device
from spikewvat.robustness.corruptions.base import (
    EventCorruption,
    check_share,
    check_size,
    check_spikes,
)

_POLARITIES = 2


@dataclass(frozen=True)
class Deletion(EventCorruption):
    """Each event is lost with probability p.

    Args:
        severity: p, a share of the events.

    Raises:
        ValueError: If ``severity`` is no probability.
    """

    UNIT: ClassVar[str] = "share of events lost"
    LEVELS: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.2, 0.4, 0.6)

    def __post_init__(self) -> None:
        check_share(self.severity)

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the remaining events: one draw for each event, in the order of ``nonzero``."""
        check_spikes(spikes, self)
        return lost(spikes, self.severity, generator)


@dataclass(frozen=True)
class Insertion(EventCorruption):
    """Background activity: events appear where there are none.

    Args:
        severity: Probability of an event at each address in each time step. A rate of r events
            per second and address is r times the duration of a step.

    Raises:
        ValueError: If ``severity`` is no probability.
    """

    UNIT: ClassVar[str] = "events per address and step"
    LEVELS: ClassVar[tuple[float, ...]] = (0.001, 0.003, 0.01, 0.02, 0.05)

    def __post_init__(self) -> None:
        check_share(self.severity)

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the events and the background; where they coincide, one event remains."""
        check_spikes(spikes, self)
        background = uniform(spikes.shape, generator) < self.severity
        return spikes.masked_fill(background.to(spikes.device), 1)


@dataclass(frozen=True)
class Jitter(EventCorruption):
    r"""Each event moves in time by a normal number of steps, rounded.

    .. math:: t' = t + \mathrm{round}(\sigma\, \epsilon), \qquad \epsilon \sim N(0, 1)

    Events that leave the recording are lost; events that coincide at one address become one.

    Args:
        severity: Standard deviation :math:`\sigma`, in time steps.

    Raises:
        ValueError: If ``severity`` is negative or not finite.
    """

    UNIT: ClassVar[str] = "standard deviation in steps"
    LEVELS: ClassVar[tuple[float, ...]] = (0.5, 1.0, 2.0, 4.0, 8.0)

    def __post_init__(self) -> None:
        check_size(self.severity)

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the moved events: one draw for each, in the order of ``nonzero``."""
        check_spikes(spikes, self)
        step, *address = spikes.nonzero().unbind(1)
        device = generator_device(generator)
        epsilon = torch.randn(len(step), generator=generator, device=device, dtype=torch.float32)
        step = step + (self.severity * epsilon).round().long().to(step.device)
        inside = (step >= 0) & (step < len(spikes))
        moved = torch.zeros_like(spikes)
        moved[(step[inside], *(a[inside] for a in address))] = 1
        return moved


@dataclass(frozen=True)
class PolarityFlip(EventCorruption):
    """Each event changes its polarity with probability p.

    Args:
        severity: p, a share of the events.

    Raises:
        ValueError: If ``severity`` is no probability.
    """

    UNIT: ClassVar[str] = "share of events flipped"
    LEVELS: ClassVar[tuple[float, ...]] = (0.02, 0.05, 0.1, 0.2, 0.5)

    def __post_init__(self) -> None:
        check_share(self.severity)

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the events: one draw for each, in the order of ``nonzero``.

        Raises:
            ValueError: If there are not two channels, one for each polarity.
        """
        check_spikes(spikes, self)
        if spikes.dim() != 5 or spikes.shape[2] != _POLARITIES:
            raise ValueError(
                f"{self!r} got spikes of shape {tuple(spikes.shape)}, expected two polarities "
                "[T, B, 2, H, W]. Use another corruption for data with one channel."
            )
        step, image, polarity, *pixel = spikes.nonzero().unbind(1)
        flipped = uniform(torch.Size([len(step)]), generator) < self.severity
        polarity = torch.where(flipped.to(polarity.device), 1 - polarity, polarity)
        found = torch.zeros_like(spikes)
        found[(step, image, polarity, *pixel)] = 1
        return found


@dataclass(frozen=True)
class DroppedBins(EventCorruption):
    """Each time step of a recording is lost as a whole with probability p.

    Args:
        severity: p, a share of the steps.

    Raises:
        ValueError: If ``severity`` is no probability.
    """

    UNIT: ClassVar[str] = "share of time steps lost"
    LEVELS: ClassVar[tuple[float, ...]] = (0.05, 0.1, 0.2, 0.4, 0.6)

    def __post_init__(self) -> None:
        check_share(self.severity)

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the remaining events: one draw for each step and image."""
        check_spikes(spikes, self)
        gone = uniform(spikes.shape[:2], generator) < self.severity
        gone = gone.view(*gone.shape, *(1,) * (spikes.dim() - 2))
        return spikes.masked_fill(gone.to(spikes.device), 0)


@dataclass(frozen=True)
class DeadPixels(EventCorruption):
    """Each pixel of the sensor is dead with probability p: it sends nothing in any image.

    Args:
        severity: p, a share of the pixels (of the inputs if they are not images).

    Raises:
        ValueError: If ``severity`` is no probability.
    """

    UNIT: ClassVar[str] = "share of pixels dead"
    LEVELS: ClassVar[tuple[float, ...]] = (0.02, 0.05, 0.1, 0.2, 0.4)
    STATIC: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_share(self.severity)

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the events of the other pixels: one draw for each pixel."""
        check_spikes(spikes, self)
        dead = uniform(_pixels(spikes), generator) < self.severity
        return spikes.masked_fill(dead.to(spikes.device), 0)


@dataclass(frozen=True)
class HotPixels(EventCorruption):
    """Each pixel of the sensor is hot with probability p: it fires all the time, in every image.

    With several channels (polarities), a hot pixel fires in one of them, drawn once.

    Args:
        severity: p, a share of the pixels (of the inputs if they are not images).
        period: Steps between the spikes of a hot pixel, whose phase is drawn once; 1 for a spike
            in every step.

    Raises:
        ValueError: If ``severity`` is no probability or ``period`` is below 1.
    """

    UNIT: ClassVar[str] = "share of pixels hot"
    LEVELS: ClassVar[tuple[float, ...]] = (0.001, 0.003, 0.01, 0.03, 0.1)
    STATIC: ClassVar[bool] = True
    period: int = 1

    def __post_init__(self) -> None:
        check_share(self.severity)
        if self.period < 1:
            raise ValueError(f"period must be at least 1 step, got {self.period!r}.")

    def __call__(self, spikes: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return the events and those of hot pixels: three draws for each pixel."""
        check_spikes(spikes, self)
        pixels = _pixels(spikes)
        hot = uniform(pixels, generator) < self.severity
        phase = (uniform(pixels, generator) * self.period).long()
        channels = spikes.shape[2] if spikes.dim() == 5 else 1
        channel = (uniform(pixels, generator) * channels).long()
        steps = torch.arange(len(spikes), device=hot.device).view(-1, *(1,) * hot.dim())
        firing = hot & (steps % self.period == phase)  # [T, pixels]
        if spikes.dim() == 5:
            own = torch.arange(channels, device=hot.device).view(-1, 1, 1) == channel
            firing = firing[:, None] & own
        return spikes.masked_fill(firing[:, None].to(spikes.device), 1)


def lost(spikes: Tensor, share: float, generator: Generator | None) -> Tensor:
    """Drop each spike with the same probability: one draw for each of them."""
    places = spikes.nonzero()
    gone = uniform(places.shape[:1], generator) < share
    kept = spikes.clone()
    kept[places[gone.to(places.device)].unbind(1)] = 0
    return kept


def uniform(shape: torch.Size, generator: Generator | None) -> Tensor:
    """Draw numbers in [0, 1) on the generator's device, the same for every dtype of spikes."""
    device = generator_device(generator)
    return torch.rand(shape, generator=generator, device=device, dtype=torch.float32)


def _pixels(spikes: Tensor) -> torch.Size:
    """Return the shape of the sensor: height and width, or the shape of a sample without them."""
    return spikes.shape[-2:] if spikes.dim() == 5 else spikes.shape[2:]
