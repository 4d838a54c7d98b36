"""How often the printed intervals hold: simulated trainings and chips of several laws.

    python benchmarks/coverage.py [--repetitions 1000] [--only "training yield"] [--out FILE.json]

A job is one kind of interval for one law, number of trainings and number of chips. Its coverage
is how often the truth lies inside. Jobs that FILE holds are not run again; each has its commit.
"""

from __future__ import annotations

import argparse
import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from spikewvat.provenance import commit, versions
from spikewvat.robustness import (
    ChipReport,
    Difference,
    chips_needed,
    hierarchical,
    paired_differences,
    yield_over_trainings,
)
from spikewvat.robustness.intervals import (
    chip_interval,
    over_images,
    running_interval,
    share_interval,
    unseen_share,
)
from spikewvat.robustness.statistics import FRACTIONS, Interval
from spikewvat.serialisation import read_json, write_json

OUT = Path(__file__).parent / "results" / "coverage" / "coverage.json"
IMAGES = 1000
TRAININGS, CHIPS = (1, 3, 5, 10), (10, 25, 100)
FOLDS = 5
YIELDS = (0.5, 0.9, 0.99, 1.0)
IMAGE_LAWS = {"chips agree": (1.0, 0.3), "chips hardly agree": (0.7, 1.0)}
"""Spread of the difficulty of images, and of what a chip makes of each."""
_MANY = 300_000

Draw = Callable[[Generator, tuple[int, ...]], Tensor]
"""From a shape to draws of that shape."""


def normal(std: float) -> Draw:
    """Return draws from a normal distribution of mean 0."""
    return lambda generator, shape: (
        std * torch.randn(shape, generator=generator, dtype=torch.float64)
    )


def skewed(sign: int) -> Draw:
    """Return log-normal draws with a long tail to one side: skewness 2.3 times the sign."""
    return lambda generator, shape: sign * 0.02 * normal(0.6)(generator, shape).exp()


def exponential(generator: Generator, shape: tuple[int, ...]) -> Tensor:
    """Return draws with an exponential tail to the left: skewness -2."""
    return 0.01 * torch.rand(shape, generator=generator, dtype=torch.float64).log()


def failing(share: float, loss: float, others: Draw) -> Draw:
    """Return draws of which a share is far worse."""

    def draw(generator: Generator, shape: tuple[int, ...]) -> Tensor:
        bad = torch.rand(shape, generator=generator, dtype=torch.float64) < share
        return others(generator, shape) - loss * bad

    return draw


@dataclass(frozen=True)
class Law:
    """What trainings and chips do to an accuracy of 90 %, summed.

    Args:
        training: Shift of all chips of a training.
        common: Effect of a chip on all trainings.
        own: Effect of a chip on a training.
        normal_trainings: Whether the shifts are normal.
        rare: Whether failures are so rare that a sample may contain none.
    """

    training: Draw
    common: Draw
    own: Draw
    normal_trainings: bool = True
    rare: bool = False

    def tables(self, generator: Generator, r: int, a: int, n: int) -> Tensor:
        """Return accuracies ``[repetitions, trainings, chips]``."""
        training = self.training(generator, (r, a, 1))
        return self._accuracy(training, generator, (r, 1, n), (r, a, n))

    def network(self, generator: Generator, r: int, n: int) -> Tensor:
        """Return chips ``[repetitions, n]`` of one and the same network."""
        return self._accuracy(torch.zeros(()), generator, (r, n), (r, n))

    def _accuracy(
        self, training: Tensor, generator: Generator, chips: tuple[int, ...], all_: tuple[int, ...]
    ) -> Tensor:
        effects = self.common(generator, chips) + self.own(generator, all_)
        return (0.9 + training + effects).clamp(0, 1)

    def population(self, trainings: int) -> Tensor:
        """Return a single chip of each of many trainings, or many chips of one network."""
        generator = Generator().manual_seed(99)
        if trainings == 1:
            return self.network(generator, 1, _MANY).flatten()
        return self.tables(generator, _MANY, 1, 1).flatten()


LAWS: dict[str, Law] = {
    "normal": Law(normal(0.005), normal(0.005), normal(0.005)),
    "trainings differ most": Law(normal(0.01), normal(0.0), normal(0.005)),
    "chips differ most": Law(normal(0.002), normal(0.01), normal(0.002)),
    "left skew": Law(normal(0.005), skewed(-1), normal(0.004)),
    "right skew": Law(normal(0.005), skewed(1), normal(0.004)),
    "exponential trainings": Law(exponential, normal(0.003), normal(0.003), normal_trainings=False),
    "8 % of chips fail": Law(
        normal(0.005), failing(0.08, 0.3, normal(0.003)), normal(0.003), rare=True
    ),
    "2 % of chips fail": Law(
        normal(0.005), failing(0.02, 0.3, normal(0.003)), normal(0.003), rare=True
    ),
    "10 % of trainings fail": Law(
        failing(0.1, 0.05, normal(0.004)),
        normal(0.003),
        normal(0.003),
        normal_trainings=False,
        rare=True,
    ),
}
FOR_YIELDS = (
    "normal",
    "chips differ most",
    "left skew",
    "exponential trainings",
    "8 % of chips fail",
    "10 % of trainings fail",
)
"""For the slowest intervals."""
OF_TRAININGS = ("trainings differ most", "exponential trainings", "10 % of trainings fail")
"""What these differ in does not show in a single network."""


@dataclass(frozen=True)
class Cell:
    """Coverage of an interval in one case.

    Args:
        interval: Which.
        law: Of trainings and chips.
        claimed: Whether the interval should hold for this law.
        trainings: How many.
        chips: How many.
        repetitions: Number of simulated experiments.
        coverage: How often the truth lies inside.
        too_high: How often the lower bound is above the truth: the side that flatters.
        width: Mean width.
    """

    interval: str
    law: str
    claimed: bool
    trainings: int
    chips: int
    repetitions: int
    coverage: float
    too_high: float
    width: float


class Job(NamedTuple):
    """A kind of interval in one case."""

    kind: str
    law: str
    trainings: int
    chips: int

    def cells(self, repetitions: int) -> Iterator[Cell]:
        """Run the job.

        Args:
            repetitions: Number of experiments; half of them for stopping, a third for other slow
                intervals, a sixth for the slowest.
        """
        generator = Generator().manual_seed(zlib.crc32(repr(tuple(self)).encode()))
        yield from KINDS[self.kind](self, generator, repetitions)

    def cell(self, found: Sequence[Interval], truth: float, *, claimed: bool, of: str = "") -> Cell:
        """Summarise the intervals of a job."""
        count = len(found)
        too_high = sum(low - 1e-12 > truth for low, _ in found)
        too_low = sum(high + 1e-12 < truth for _, high in found)
        return Cell(
            interval=f"{self.kind}{of}",
            law=self.law,
            claimed=claimed,
            trainings=self.trainings,
            chips=self.chips,
            repetitions=count,
            coverage=1 - (too_high + too_low) / count,
            too_high=too_high / count,
            width=sum(interval.width for interval in found) / count,
        )


def mean(job: Job, generator: Generator, repetitions: int) -> Iterator[Cell]:
    """Mean accuracy: over the chips of one network, or over trainings and chips."""
    law = LAWS[job.law]
    truth = float(law.population(job.trainings).mean())
    if job.trainings == 1:
        found = [chip_interval(row) for row in law.network(generator, repetitions, job.chips)]
        yield job.cell(found, truth, claimed=not law.rare)
        return
    tables = law.tables(generator, repetitions, job.trainings, job.chips)
    found = [hierarchical(one, same_chips=True, bounds=FRACTIONS).interval() for one in tables]
    yield job.cell(found, truth, claimed=law.normal_trainings and not law.rare)


def difference(job: Job, generator: Generator, repetitions: int) -> Iterator[Cell]:
    """Difference of a method from one whose trainings and chips are normal, paired."""
    law, other = LAWS[job.law], LAWS["normal"]
    truth = float(law.population(job.trainings).mean()) - 0.9
    shape = repetitions, job.trainings, job.chips
    if job.trainings == 1:
        tables = law.network(generator, *shape[::2]) - other.network(generator, *shape[::2])
        tables = tables[:, None]
    else:
        tables = law.tables(generator, *shape) - other.tables(generator, *shape)
    found = [hierarchical(one, same_chips=True).interval() for one in tables]
    claimed = not law.rare and (law.normal_trainings or job.trainings == 1)
    yield job.cell(found, truth, claimed=claimed)


def folds(job: Job, generator: Generator, repetitions: int) -> Iterator[Cell]:
    """The same in cross-validation: a fold has trainings of its own, and other effects of chips."""
    law, other = LAWS[job.law], LAWS["normal"]
    truth = float(law.population(job.trainings).mean()) - 0.9
    shape = repetitions, job.trainings // FOLDS, job.chips
    # Leads differ from fold to fold, around the mean: the interval is for these folds.
    offsets = torch.linspace(-0.02, 0.02, FOLDS).double()
    tables = torch.cat(
        [law.tables(generator, *shape) - other.tables(generator, *shape) + o for o in offsets], 1
    )
    places = [fold for fold in range(FOLDS) for _ in range(shape[1])]
    found = [hierarchical(one, same_chips=True, folds=places).interval() for one in tables]
    yield job.cell(found, truth, claimed=law.normal_trainings and not law.rare)


def network_yield(job: Job, generator: Generator, repetitions: int) -> Iterator[Cell]:
    """Share of working chips of one network: any law, since a chip works or does not."""
    for share in YIELDS:
        works = torch.rand(repetitions, job.chips, generator=generator) < share
        found = [share_interval(int(row.sum()), job.chips) for row in works]
        yield job.cell(found, share, claimed=True, of=f", {share:g}")


def training_yield(job: Job, generator: Generator, repetitions: int) -> Iterator[Cell]:
    """Share of working chips of further trainings, at targets that given shares reach."""
    law = LAWS[job.law]
    population = _on_images(law.population(job.trainings))
    tables = _on_images(law.tables(generator, repetitions // 6, job.trainings, job.chips))
    for share in YIELDS:
        # All chips work if the target is below each of the population by far.
        target = float(population.quantile(1 - share)) - (0.05 if share == 1 else 0)
        truth = float((population >= target).double().mean())
        found = [yield_over_trainings(_reports(table), target) for table in tables]
        of = f", {share:g}"
        model, free = [one.model for one in found], [one.free for one in found]
        yield job.cell(model, truth, claimed=law.normal_trainings, of=f", normal{of}")
        yield job.cell(free, truth, claimed=True, of=f", any{of}")


def _on_images(accuracies: Tensor) -> Tensor:
    return (accuracies * IMAGES).round() / IMAGES


def _reports(table: Tensor) -> list[ChipReport]:
    return [ChipReport("chip", None, row, tuple(range(len(row))), IMAGES) for row in table]


def percentile(job: Job, generator: Generator, repetitions: int) -> Iterator[Cell]:
    """The worst chip as a lower bound of a percentile."""
    law = LAWS[job.law]
    level = float(law.population(1).quantile(unseen_share(job.chips)))
    found = [
        Interval(float(row.min()), 1.0) for row in law.network(generator, repetitions, job.chips)
    ]
    yield job.cell(found, level, claimed=True)


def planned(job: Job, generator: Generator, repetitions: int) -> Iterator[Cell]:
    """A run of as many chips as a pilot run asks for; the width is relative to the wanted one."""
    law = LAWS[job.law]
    population = law.population(1)
    wanted = float(population.std())  # about 18 chips of Student's interval
    found, widths = [], []
    for row in law.network(generator, repetitions // 3, job.chips):
        pilot = ChipReport("chip", None, row, tuple(range(len(row))), IMAGES)
        run = law.network(generator, 1, min(chips_needed(pilot, wanted), 10_000))[0]
        found.append(chip_interval(run))
        widths.append(found[-1].width / wanted)
    cell = job.cell(found, float(population.mean()), claimed=not law.rare)
    yield Cell(**{**vars(cell), "width": sum(widths) / len(widths)})


def stopped(job: Job, generator: Generator, repetitions: int) -> Iterator[Cell]:
    """Stop as soon as the interval is narrow enough, or look at all times."""
    law = LAWS[job.law]
    population = law.population(1)
    truth, width = float(population.mean()), 0.5 * float(population.std())
    at_stop, always = [], []
    for row in law.network(generator, repetitions // 2, 300):
        for count in range(job.chips, 301):
            if chip_interval(row[:count], cautious=True).width < width:
                break
        at_stop.append(chip_interval(row[:count]))
        running = [running_interval(row[:count], 100) for count in range(2, 301, 7)]
        # All of them hold if their intersection does.
        always.append(Interval(max(r.low for r in running), min(r.high for r in running)))
    yield job.cell(at_stop, truth, claimed=not law.rare)
    if job.chips == CHIPS[1]:
        yield job.cell(always, truth, claimed=not law.rare, of=", any time")


def new_images(job: Job, generator: Generator, repetitions: int) -> Iterator[Cell]:
    """Mean accuracy of one network for new images, which differ in difficulty."""
    m, (spread, own) = 400, IMAGE_LAWS[job.law]
    total = math.sqrt(spread**2 + own**2 + 0.05)
    truth = float(torch.special.ndtr(torch.tensor(1.5 / total, dtype=torch.float64)))
    kinds: dict[str, list[Interval]] = {"": [], ", hits unknown": [], ", these images only": []}
    for _ in range(repetitions // 3):
        images = 1.5 + normal(spread)(generator, (1, m))
        chips = normal(math.sqrt(0.05))(generator, (job.chips, 1))
        right = (images + chips + normal(own)(generator, (job.chips, m)) > 0).double()
        interval, mean = chip_interval(right.mean(1)), float(right.mean())
        kinds[""].append(over_images(interval, mean, m, hits=right.mean(0)))
        kinds[", hits unknown"].append(over_images(interval, mean, m))
        kinds[", these images only"].append(interval)
    for kind, found in kinds.items():
        yield job.cell(found, truth, claimed=kind != ", these images only", of=kind)


def difference_for_new_images(job: Job, generator: Generator, repetitions: int) -> Iterator[Cell]:
    """Difference of two networks for new images, which differ in difficulty, alike for both."""
    m, (spread, own) = 400, IMAGE_LAWS[job.law]
    levels = torch.tensor([1.8, 1.5], dtype=torch.float64)
    truth = torch.special.ndtr(levels / math.sqrt(spread**2 + own**2 + 0.05))
    found: list[Difference] = []
    for _ in range(repetitions // 3):
        images = normal(spread)(generator, (1, m))
        reports = []
        for level in levels:
            chips = normal(math.sqrt(0.05))(generator, (job.chips, 1))
            noise = normal(own)(generator, (job.chips, m))
            right = (level + images + chips + noise > 0).double()
            hits, seeds = right.sum(0).long(), tuple(range(job.chips))
            reports.append(ChipReport("chip", None, right.mean(1), seeds, m, hits=hits))
        one, other = ([report] for report in reports)
        found += paired_differences({"other": other, "one": one}).differences
    lead = float(truth[0] - truth[1])
    wide = [difference.new_images or Interval(0, 0) for difference in found]
    yield job.cell(wide, lead, claimed=True)
    narrow = [difference.found.interval() for difference in found]
    yield job.cell(narrow, lead, claimed=False, of=", these images only")


KINDS: dict[str, Callable[[Job, Generator, int], Iterator[Cell]]] = {
    "mean": mean,
    "difference": difference,
    "folds": folds,
    "network yield": network_yield,
    "training yield": training_yield,
    "percentile": percentile,
    "planned": planned,
    "stopped": stopped,
    "new images": new_images,
    "difference for new images": difference_for_new_images,
}


def all_jobs() -> list[Job]:
    """Return all jobs."""
    of_chips = [name for name in LAWS if name not in OF_TRAININGS]
    jobs = []
    for n in CHIPS:
        jobs += [Job("network yield", "any", 1, n)]
        for kind in ("new images", "difference for new images"):
            jobs += [Job(kind, law, 1, n) for law in IMAGE_LAWS]
        for kind in ("mean", "difference", "percentile", "planned", "stopped"):
            jobs += [Job(kind, law, 1, n) for law in of_chips]
        for a in TRAININGS[1:]:
            for kind in ("mean", "difference"):
                jobs += [Job(kind, law, a, n) for law in LAWS]
        jobs += [Job("folds", law, 2 * FOLDS, n) for law in LAWS]
    sizes = itertools.product(reversed(CHIPS), TRAININGS[1:], FOR_YIELDS)
    return jobs + [Job("training yield", law, a, n) for n, a, law in sizes]


def main() -> None:
    """Run the jobs and write the result after each one."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only", default="", help="Part of the kinds of intervals to run.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    about = {
        "recipe": "benchmarks/coverage.py",
        "seeds": "of each job: the CRC-32 of its kind, law, trainings and chips",
        "repetitions": given.repetitions,
        "versions": versions(),
    }
    done: dict[str, dict[str, Any]] = {}
    if given.out.exists():
        before = read_json(given.out)
        done = before["jobs"] if before["repetitions"] == given.repetitions else {}
    for job in all_jobs():
        name = f"{job.kind}, {job.law}, {job.trainings} x {job.chips}"
        if given.only not in job.kind or name in done:
            continue
        cells = list(job.cells(given.repetitions))
        for cell in cells:
            print(f"{name:55} {cell.interval:30} {cell.coverage:.3f}  {cell.width:.4f}")
        done[name] = {"commit": commit(), "cells": [vars(cell) for cell in cells]}
        write_json(given.out, {**about, "jobs": done})


if __name__ == "__main__":
    main()
