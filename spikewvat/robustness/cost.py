"""What measures after programming cost, and what a report keeps of them."""

from __future__ import annotations

from dataclasses import dataclass

from spikewvat.robustness.statistics import mean_of
from spikewvat.serialisation import Fractions


@dataclass(frozen=True)
class Cost:
    """What a measure costs for one chip.

    Args:
        samples: Calibration samples that the chip has to see.
        labels: Of these, how many must be labelled.
        passes: How often the chip runs over its samples.
        numbers: Numbers that are stored beside the weights.
        pulses: Programming pulses beyond the first write of every weight.
        reads: Cells that are read one by one.
    """

    samples: int = 0
    labels: int = 0
    passes: int = 0
    numbers: int = 0
    pulses: float = 0.0
    reads: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of both, with the same samples and labels for both."""
        return Cost(
            max(self.samples, other.samples),
            max(self.labels, other.labels),
            self.passes + other.passes,
            self.numbers + other.numbers,
            self.pulses + other.pulses,
            self.reads + other.reads,
        )

    def __str__(self) -> str:
        parts = [
            f"{self.samples} samples" + ("" if self.labels else " without labels"),
            f"{self.labels} labels",
            f"{self.passes} passes",
            f"{self.numbers} stored numbers",
            f"{self.pulses:.0f} pulses",
            f"{self.reads} reads of cells",
        ]
        return ", ".join(part for part in parts if not part.startswith("0 ")) or "nothing"


@dataclass(frozen=True, eq=False)
class Calibrated:
    """What was done to the chips of a report before they were tested.

    Args:
        measures: The measures, in order.
        before: Accuracies of the same chips without them ``[chips]``, None if not tested.
        cost: What they cost for each chip.
        undone: Number of chips on which a check has undone some of them.
    """

    measures: tuple[str, ...]
    before: Fractions | None
    cost: Cost
    undone: int = 0

    def __str__(self) -> str:
        was = "" if self.before is None else f"{100 * mean_of(self.before):.1f} % before "
        chips = f"{self.undone} chip{'s' * (self.undone > 1)}"
        undone = f", undone on {chips}" if self.undone else ""
        return f"{was}{' + '.join(self.measures)} ({self.cost}{undone})"
