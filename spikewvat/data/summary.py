"""What the recordings of a data set are like, in figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Recordings(Protocol):
    """Recordings with a label each, such as :class:`spikewvat.data.NMNIST`."""

    @property
    def targets(self) -> Sequence[int]:
        """The label of each."""
        ...

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def events(self, index: int) -> npt.NDArray[Any]:
        """Return the events of a recording, with fields ``t`` (microseconds) and ``p``."""
        ...


@dataclass(frozen=True)
class Spread:
    """Mean and ends of a count or time over recordings.

    Args:
        mean: Over all recordings.
        low: The smallest.
        high: The largest.
    """

    mean: float
    low: int
    high: int

    @classmethod
    def of(cls, values: Sequence[int]) -> Spread:
        """Return those of some values, at least one."""
        return cls(float(np.mean(values)), int(min(values)), int(max(values)))


@dataclass(frozen=True)
class Summary:
    """What the recordings of a data set are like.

    Args:
        recordings: How many there are.
        per_class: How many each class has.
        events: Events of a recording.
        on_share: Share of the events that are ON.
        last_us: Time of a recording's last event, microseconds.
    """

    recordings: int
    per_class: Spread
    events: Spread
    on_share: float
    last_us: Spread


def summarize(dataset: Recordings) -> Summary:
    """Read every recording of a data set and describe what is there.

    Args:
        dataset: At least one recording, each with at least one event.

    Raises:
        DataError: If a recording cannot be read.
    """
    recordings = [dataset.events(index) for index in range(len(dataset))]
    counts = [len(events) for events in recordings]
    on = sum(int((events["p"] == 1).sum()) for events in recordings)
    return Summary(
        recordings=len(recordings),
        per_class=Spread.of(np.bincount(dataset.targets).tolist()),
        events=Spread.of(counts),
        on_share=on / sum(counts),
        last_us=Spread.of([int(events["t"][-1]) for events in recordings]),
    )
