"""Which chips are simulated: their number, their seeds, and when there are enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Generator

from spikewvat.devices.base import DeviceModel
from spikewvat.robustness.intervals import chip_interval, running_interval
from spikewvat.robustness.results import check_target

Progress: TypeAlias = Callable[[int, int, float], object]
"""Called after each chip with chips done, the largest total, and that chip's accuracy."""

_SEEDS = 2**32  # torch's CPU generator keeps 32 bits of a seed


@dataclass(frozen=True)
class Plan:
    """Which chips to simulate and when to stop.

    Args:
        chips: Largest number of chips.
        source: A generator that draws the seeds of the chips, or the seed of one.
        target: Accuracy that a chip must reach to work.
        interval_width: Stop when the interval of the mean is narrower than this.
        min_chips: Chips to simulate before stopping early.
        images: Number of images per chip, redrawn for each; None uses all.
        any_time: Whether the interval holds at all numbers of chips at once.
        before: Whether chips are tested before they are calibrated, too.

    Raises:
        ValueError: If a number is out of range.
    """

    chips: int
    source: int | Generator
    target: float | None = None
    interval_width: float | None = None
    min_chips: int = 2
    images: int | None = None
    any_time: bool = False
    before: bool = True

    def __post_init__(self) -> None:
        for name, least in (("chips", 2 if self.any_time else 1), ("min_chips", 2)):
            count = getattr(self, name)
            if not isinstance(count, int) or count < least:
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, got {count!r}."
                )
        if self.target is not None:
            check_target(self.target)
        width = self.interval_width
        if width is not None and not (math.isfinite(width) and width > 0):
            raise ValueError(
                f"interval_width must be above 0, got {width!r}. "
                "Write 0.01 for an interval of one percentage point."
            )
        if self.images is not None and self.target is not None:
            raise ValueError(
                f"target is {self.target!r} and images_per_chip {self.images!r}: a subset of the "
                "images does not show whether a chip works. Leave out one of the two."
            )

    def is_done(self, accuracies: list[float]) -> bool:
        """Return whether the requested interval is reached."""
        if self.interval_width is None or len(accuracies) < self.min_chips:
            return False
        found = torch.tensor(accuracies, dtype=torch.float64)
        if self.any_time:
            return running_interval(found, self.chips).width < self.interval_width
        return chip_interval(found, cautious=True).width < self.interval_width


def source_of_seeds(seed: int | None, generator: Generator | None) -> int | Generator:
    """Return what the seeds of chips are drawn with: one of the two, seed 0 without either.

    Raises:
        ValueError: If both are given.
        TypeError: If they are of another kind.
    """
    if seed is not None and generator is not None:
        raise ValueError(
            f"got seed={seed!r} and a generator, which both say what chips there are. "
            "Leave one out."
        )
    if generator is None:
        seed = 0 if seed is None else seed
        if not isinstance(seed, int):
            raise TypeError(f"seed must be a whole number, got {seed!r}.")
        return seed
    if not isinstance(generator, Generator):
        raise TypeError(f"generator must be a torch.Generator, got {generator!r}.")
    return generator


def draw_seeds(count: int, source: int | Generator) -> tuple[int, ...]:
    """Draw the seeds of chips; seed i does not depend on the number of chips.

    Args:
        count: How many.
        source: A generator, which goes on, or the seed of one.
    """
    generator = Generator().manual_seed(source) if isinstance(source, int) else source
    place = generator.device
    # One call for each: a vectorised draw may depend on how many there are.
    return tuple(
        int(torch.randint(_SEEDS, (), generator=generator, device=place)) for _ in range(count)
    )


def sigma_of(device: DeviceModel) -> float | None:
    """Return the size of a device's variation, or None if it has none."""
    sigma = getattr(device, "sigma", None)
    return float(sigma) if isinstance(sigma, int | float) else None


def shifted(progress: Progress | None, index: int, sizes: int, chips: int) -> Progress | None:
    """Make a progress callback count chips over all sizes of a sweep."""
    if progress is None:
        return None
    return lambda done, total, accuracy: progress(index * chips + done, sizes * chips, accuracy)
