"""How often the printed intervals hold: simulated trainings and chips of several laws.

    python benchmarks/coverage.py [--repetitions 400] [--only yield] [--out FILE.json]

For each interval, number of trainings and number of chips: how often the truth lies inside, in
the worst law and on average, and the mean width. The laws: normal trainings and chips, with
trainings or common chips in front; a left skew; 8 % of the chips or 10 % of the trainings fail;
trainings with an exponential tail.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from spikewvat.robustness.hierarchy import hierarchical
from spikewvat.robustness.intervals import (
    chip_interval,
    over_images,
    running_interval,
    share_interval,
    unseen_share,
)
from spikewvat.robustness.statistics import Interval
from spikewvat.robustness.yields import training_yield

IMAGES = 1000
TRAININGS, CHIPS = (1, 3, 5, 10), (10, 25, 100)
YIELDS = (0.5, 0.9, 0.97)

Draw = Callable[[Generator, tuple[int, ...]], Tensor]
"""From a shape to draws of that shape."""


def normal(std: float) -> Draw:
    """Return draws from a normal distribution of mean 0."""
    return lambda generator, shape: (
        std * torch.randn(shape, generator=generator, dtype=torch.float64)
    )


def skewed(generator: Generator, shape: tuple[int, ...]) -> Tensor:
    """Return minus log-normal losses: skewness about -2."""
    return -0.02 * normal(0.6)(generator, shape).exp()


def exponential(generator: Generator, shape: tuple[int, ...]) -> Tensor:
    """Return a tail to the left."""
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
    """

    training: Draw
    common: Draw
    own: Draw

    def tables(self, r: int, a: int, n: int, seed: int) -> Tensor:
        """Return accuracies ``[repetitions, trainings, chips]``."""
        generator = Generator().manual_seed(seed)
        return (
            0.9
            + self.training(generator, (r, a, 1))
            + self.common(generator, (r, 1, n))
            + self.own(generator, (r, a, n))
        ).clamp(0, 1)

    def network(self, r: int, n: int, seed: int) -> Tensor:
        """Return chips ``[repetitions, n]`` of one and the same network."""
        generator = Generator().manual_seed(seed)
        chips = self.common(generator, (r, n)) + self.own(generator, (r, n))
        return (0.9 + chips).clamp(0, 1)

    def population(self) -> Tensor:
        """Return a single chip of each of many trainings."""
        return self.tables(400_000, 1, 1, 99).flatten()

    def chips(self) -> Tensor:
        """Return many chips of one network."""
        return self.network(1, 400_000, 98).flatten()


LAWS: dict[str, Law] = {
    "trainings": Law(normal(0.01), normal(0.0), normal(0.005)),
    "chips": Law(normal(0.0), normal(0.005), normal(0.005)),
    "both": Law(normal(0.005), normal(0.005), normal(0.005)),
    "common chips": Law(normal(0.002), normal(0.01), normal(0.002)),
    "left skew": Law(normal(0.005), skewed, normal(0.004)),
    "8 % of chips fail": Law(normal(0.005), failing(0.08, 0.3, normal(0.003)), normal(0.003)),
    "exponential trainings": Law(exponential, normal(0.003), normal(0.003)),
    "10 % of trainings fail": Law(failing(0.1, 0.05, normal(0.004)), normal(0.003), normal(0.003)),
}
RARE = {
    "2 % of chips fail": Law(normal(0.005), failing(0.02, 0.3, normal(0.003)), normal(0.003)),
}
"""Against failures that a sample may not have met no narrow interval holds."""


@dataclass(frozen=True)
class Cell:
    """Coverage of an interval in one case.

    Args:
        interval: Which.
        law: Of trainings and chips.
        trainings: How many.
        chips: How many.
        coverage: How often the truth lies inside.
        too_high: How often the lower bound is above the truth: the side that flatters.
        width: Mean width.
    """

    interval: str
    law: str
    trainings: int
    chips: int
    coverage: float
    too_high: float
    width: float


def _cell(
    name: str, law: str, a: int, n: int, intervals: list[Interval], truth: float | list[float]
) -> Cell:
    truths = truth if isinstance(truth, list) else [truth] * len(intervals)
    pairs = list(zip(intervals, truths, strict=True))
    count = len(intervals)
    return Cell(
        name,
        law,
        a,
        n,
        sum(low - 1e-12 <= true <= high + 1e-12 for (low, high), true in pairs) / count,
        sum(low - 1e-12 > true for (low, _), true in pairs) / count,
        sum(interval.width for interval in intervals) / count,
    )


def mean_cells(name: str, law: Law, a: int, n: int, repetitions: int) -> Iterator[Cell]:
    """Mean accuracy: over the chips of one network, over trainings and chips of several."""
    if a == 1:
        found = [chip_interval(row) for row in law.network(repetitions, n, n)]
        yield _cell("mean over chips", name, 1, n, found, float(law.chips().mean()))
        return
    tables = law.tables(repetitions, a, n, a * n)
    found = [hierarchical(table, same_chips=True, skewed=True).interval() for table in tables]
    yield _cell("mean over trainings", name, a, n, found, float(law.population().mean()))


def yield_cells(name: str, law: Law, a: int, n: int, repetitions: int) -> Iterator[Cell]:
    """Share of working chips, at targets that the given shares of all chips reach."""
    if a == 1:
        for share in (*YIELDS, 0.99):
            works = torch.rand(repetitions, n, generator=Generator().manual_seed(n)) < share
            found = [share_interval(int(row.sum()), n) for row in works]
            yield _cell(f"yield of a network, {share:g}", "any", 1, n, found, share)
        return
    population = law.population()
    tables = law.tables(repetitions, a, n, a * n + 1)
    for share in YIELDS:
        target = float(population.quantile(1 - share))
        truth = float((population >= target).double().mean())
        found = [
            training_yield(list(table), target, images=IMAGES, same_chips=True) for table in tables
        ]
        for kind in ("model", "free"):
            intervals = [getattr(one, kind) for one in found]
            yield _cell(f"yield, {kind}, {share:g}", name, a, n, intervals, truth)


def image_cells(a: int, n: int, repetitions: int) -> Iterator[Cell]:
    """Mean accuracy of one network for new images: images differ in difficulty."""
    generator = Generator().manual_seed(5)
    m, spread = 400, 0.7
    truth = float(torch.special.ndtr(torch.tensor(1.5 / math.sqrt(1 + spread**2 + 0.05))))
    kinds: dict[str, list[Interval]] = {"these images": [], "known hits": [], "no hits": []}
    for _ in range(repetitions):
        images = 1.5 + normal(spread)(generator, (1, m))
        chips = normal(math.sqrt(0.05))(generator, (n, 1))
        right = (images + chips + normal(1.0)(generator, (n, m)) > 0).double()
        interval = chip_interval(right.mean(1))
        mean = float(right.mean())
        kinds["these images"].append(interval)
        kinds["known hits"].append(over_images(interval, mean, m, hits=right.mean(0)))
        kinds["no hits"].append(over_images(interval, mean, m))
    for kind, found in kinds.items():
        yield _cell(f"mean for new images, {kind}", "images", a, n, found, truth)


def percentile_cells(name: str, law: Law, n: int, repetitions: int) -> Iterator[Cell]:
    """The worst chip as a bound of a percentile."""
    chips = law.network(repetitions, n, n)
    level = float(law.chips().quantile(unseen_share(n)))
    found = [Interval(float(row.min()), 1.0) for row in chips]
    # The worst is a lower bound of the percentile with the stated confidence.
    yield _cell("percentile from the worst chip", name, 1, n, found, level)


def stopping_cells(name: str, law: Law, repetitions: int) -> Iterator[Cell]:
    """Stop as soon as the cautious interval is narrow enough, after at least 25 chips."""
    chips, truth = law.network(repetitions, 300, 3), float(law.chips().mean())
    width = 0.5 * float(chips.std())  # about 60 chips of Student's interval
    stopped, always = [], []
    for row in chips:
        for count in range(25, 301):
            if chip_interval(row[:count], cautious=True).width < width:
                break
        stopped.append(chip_interval(row[:count], cautious=True))
        running = [running_interval(row[:count], 100) for count in range(2, 301, 7)]
        # All of them at once hold if their intersection does.
        low, high = max(r.low for r in running), min(r.high for r in running)
        always.append(Interval(low, high))
    yield _cell("mean, stopped early", name, 1, 300, stopped, truth)
    yield _cell("mean, at all times", name, 1, 300, always, truth)


def table(repetitions: int, only: str = "") -> list[Cell]:
    """Return all cells, or those whose function's name holds a text.

    Args:
        repetitions: Of the slow intervals; five times as many of the fast ones.
        only: Part of a name, such as ``"yield"``.
    """
    many = 5 * repetitions
    one = LAWS | RARE
    jobs: list[tuple[Callable[..., Iterator[Cell]], tuple[Any, ...]]] = []
    for n in CHIPS:
        jobs.append((image_cells, (1, n, repetitions)))
        jobs.append((yield_cells, ("any", LAWS["both"], 1, n, many)))
        jobs += [(mean_cells, (name, law, 1, n, many)) for name, law in one.items()]
        jobs += [(percentile_cells, (name, law, n, many)) for name, law in one.items()]
        for a in TRAININGS[1:]:
            jobs += [(mean_cells, (name, law, a, n, many)) for name, law in LAWS.items()]
            jobs += [(yield_cells, (name, law, a, n, repetitions)) for name, law in LAWS.items()]
    for name in ("chips", "left skew", "8 % of chips fail", "2 % of chips fail"):
        jobs.append((stopping_cells, (name, one[name], repetitions)))
    return [cell for job, given in jobs if only in job.__name__ for cell in job(*given)]


def main() -> None:
    """Print the table, worst and mean over laws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="Part of the names of the functions to run.")
    given = parser.parse_args()
    cells = table(given.repetitions, given.only)
    groups: dict[tuple[str, int, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.interval, cell.trainings, cell.chips), []).append(cell)
    print("interval                              trainings chips  worst  mean  too high  width")
    for (interval, a, n), rows in sorted(groups.items()):
        worst = min(rows, key=lambda cell: cell.coverage)
        mean = sum(cell.coverage for cell in rows) / len(rows)
        flattering = max(cell.too_high for cell in rows)
        width = sum(cell.width for cell in rows) / len(rows)
        print(
            f"{interval:38} {a:8} {n:5}  {worst.coverage:.3f}  {mean:.3f}  {flattering:.3f}"
            f"  {width:.4f}  {worst.law}"
        )
    if given.out is not None:
        given.out.write_text(json.dumps([vars(cell) for cell in cells], indent=1))


if __name__ == "__main__":
    main()
