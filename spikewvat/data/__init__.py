"""Event data: N-MNIST and the embedded event digits, images and their encodings, batches."""

from __future__ import annotations

from spikewvat.data.augmentation import RandomFlip, RandomShift
from spikewvat.data.embedded import embedded_root
from spikewvat.data.events import bin_events, make_events
from spikewvat.data.loaders import make_loader
from spikewvat.data.nmnist import NMNIST
from spikewvat.data.saccades import SaccadeCamera

__all__ = [
    "NMNIST",
    "RandomFlip",
    "RandomShift",
    "SaccadeCamera",
    "bin_events",
    "embedded_root",
    "make_events",
    "make_loader",
]
