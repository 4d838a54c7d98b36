"""Recordings for tests: random events, and small folders in the layout of N-MNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikewvat.data.events import Events, make_events, write_events


def random_events(seed: int, count: int = 200, *, size: int = 34, last: int = 300_000) -> Events:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, size, (2, count))
    return make_events(x, y, np.sort(rng.integers(0, last, count)), rng.integers(0, 2, count))


def write_part(folder: Path, per_class: int = 2, classes: range = range(10)) -> Path:
    """Write recordings into ``<folder>/<digit>``; return the root that holds ``NMNIST``."""
    for digit in classes:
        (folder / str(digit)).mkdir(parents=True)
        for number in range(per_class):
            name = f"{10 * number + digit + 1:05d}.bin"
            write_events(folder / str(digit) / name, random_events(10 * number + digit))
    return folder.parent.parent
