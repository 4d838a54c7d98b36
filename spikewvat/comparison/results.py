"""Results of a comparison: one row for each method on each device and under each corruption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from spikewvat.formatting import MISSING, percent, working
from spikewvat.robustness.results import Degradation
from spikewvat.robustness.statistics import mean_of, sample_std
from spikewvat.robustness.yields import TrainingYield, yield_over_trainings


@dataclass(frozen=True)
class Row:
    """One method on one device or under one corruption.

    Args:
        test: Name of the device or corruption.
        method: Name of the method.
        seeds: Seeds of the trainings.
        curves: One curve per training, in the order of the seeds: accuracy against the size of the
            variation or the severity of the corruption.
        seconds: Duration of each training.
    """

    test: str
    method: str
    seeds: tuple[int, ...]
    curves: tuple[Degradation, ...]
    seconds: tuple[float, ...]

    @cached_property
    def pooled(self) -> Degradation:
        """A single curve over the chips of all trainings."""
        return Degradation.pooled(self.curves)

    def mean(self, index: int) -> float:
        """Return the mean over trainings of the mean accuracy over chips, a fraction.

        Args:
            index: Position of the size or severity in the sweep.
        """
        return mean_of(torch.tensor([c.means[index] for c in self.curves], dtype=torch.float64))

    def std(self, index: int) -> float:
        """Return the standard deviation over trainings of the mean accuracy over chips.

        Args:
            index: As for :meth:`mean`.
        """
        return sample_std(torch.tensor([c.means[index] for c in self.curves], dtype=torch.float64))

    def yield_at(self, target: float, index: int = -1) -> TrainingYield:
        """Return the working chips of all trainings, with intervals for further trainings.

        Args:
            target: Accuracy that a chip must reach to work, a fraction.
            index: Position of the size or severity in the sweep; the last by default.
        """
        return yield_over_trainings([curve[index] for curve in self.curves], target)

    def __str__(self) -> str:
        return f"{self.method}, {self.test}: {self.pooled[-1]}"


@dataclass(frozen=True)
class Failure:
    """A method that raised.

    Args:
        method: Its name.
        error: The exception.
    """

    method: str
    error: Exception

    def __str__(self) -> str:
        message = " ".join(str(self.error).split())
        return f"{self.method}: failed: {type(self.error).__name__}: {message}"


@dataclass(frozen=True)
class Comparison:
    """Methods compared on devices and under corruptions; prints one table for each of them.

    Args:
        tests: Names of the devices and corruptions, in the order of the tables.
        methods: Names of the methods, in the order of the rows.
        seeds: Seeds of the trainings.
        rows: Results so far, in the order in which they were obtained.
        failures: Methods that raised.
        skipped: Default corruptions that do not apply to the network, each with the reason.
        training_samples: Number of samples in the training loader; 0 without training.
    """

    tests: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...] = ()
    failures: tuple[Failure, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    training_samples: int = 0

    def row(self, test: str, method: str) -> Row:
        """Return the row of a method on a device or under a corruption.

        Raises:
            KeyError: If there is no such row.
        """
        for row in self.rows:
            if (row.test, row.method) == (test, method):
                return row
        raise KeyError(
            f"there is no result for {test!r} and {method!r} (tests: {', '.join(self.tests)}; "
            f"methods: {', '.join(self.methods)})."
        )

    def __str__(self) -> str:
        tables = [self._table(test) for test in self.tests if self._of(test)]
        note = "Accuracy in %: mean over chips and trainings"
        note += ", ± standard deviation over trainings." if len(self.seeds) > 1 else "."
        if self.rows and self.rows[0].pooled[-1].target is not None:
            note += f" Working chips: at the last size, with the 95 % CI {self.covered}."
        return "\n\n".join([*tables, note, *map(str, self.failures)])

    @property
    def covered(self) -> str:
        """What the intervals of working chips cover."""
        if len(self.seeds) == 1:
            return "over chips of this training"
        return "of further trainings, if they differ like normal noise"

    def _of(self, test: str) -> list[Row]:
        return [row for row in self.rows if row.test == test]

    def _table(self, test: str) -> str:
        rows = self._of(test)
        curve = rows[0].pooled
        lines = [
            [
                test,
                "no variation",
                *map(curve.heading, range(len(curve))),
                "worst chip",
                "working chips",
            ],
            *([row.method, *_cells(row)] for row in rows),
        ]
        return _aligned(lines)


def _cells(row: Row) -> list[str]:
    """Return the figures of a row in words."""
    pooled = row.pooled
    last = pooled[-1]
    means = [percent(row.mean(index)) for index in range(len(pooled))]
    if len(row.curves) > 1:
        means = [f"{mean} ± {percent(row.std(index))}" for index, mean in enumerate(means)]
    works = MISSING
    if last.target is not None:
        found = row.yield_at(last.target)
        count = working(found.working, found.chips, *found.model)
        works = f"{count} at {100 * found.target:g} %"
    return [percent(pooled.clean), *means, percent(last.worst), works]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if number == 0 else text.rjust(width)
            for number, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
