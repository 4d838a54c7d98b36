"""Rows of the shared contract suite of corruptions: a new one adds a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import reference_spikes as reference
import torch
from torch import Tensor

from spikewvat.robustness.corruptions import (
    Corruption,
    DeadNeurons,
    DeadPixels,
    Deletion,
    DroppedBins,
    HotPixels,
    Insertion,
    Jitter,
    LeakMismatch,
    PolarityFlip,
    ReadNoise,
    StuckNeurons,
    ThresholdMismatch,
    TransmissionLoss,
)


@dataclass(frozen=True)
class SpikeCase:
    """A corruption and its literal twin, if it is a function of spikes."""

    kind: Callable[[float], Corruption]
    literal: Callable[..., Tensor] | None = None
    strong: float = 0.4  # a severity that shows

    def __str__(self) -> str:
        return self.kind(self.strong).name


def _hot(severity: float) -> HotPixels:
    return HotPixels(severity, period=3)


EVENTS = [
    SpikeCase(Deletion, reference.deletion),
    SpikeCase(Insertion, reference.insertion),
    SpikeCase(Jitter, reference.jitter, strong=1.5),
    SpikeCase(PolarityFlip, reference.polarity_flip),
    SpikeCase(DroppedBins, reference.dropped_bins),
    SpikeCase(DeadPixels, reference.dead_pixels),
    SpikeCase(HotPixels, reference.hot_pixels),
    SpikeCase(_hot, lambda s, p, g: reference.hot_pixels(s, p, g, period=3)),
]
SENT = [
    SpikeCase(DeadNeurons, reference.dead_neurons),
    SpikeCase(StuckNeurons, reference.stuck_neurons),
    SpikeCase(TransmissionLoss, reference.transmission_loss),
]
INSIDE = [
    *SENT,
    SpikeCase(ThresholdMismatch, strong=1.0),
    SpikeCase(LeakMismatch, strong=1.0),
    SpikeCase(ReadNoise),
]
CORRUPTIONS = [*EVENTS, *INSIDE]


def some_events(shape: tuple[int, ...] = (6, 3, 2, 4, 5), rate: float = 0.3) -> Tensor:
    """Return the same events every time."""
    generator = torch.Generator().manual_seed(11)
    return (torch.rand(shape, generator=generator) < rate).float()
