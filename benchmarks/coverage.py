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

Law = Callable[[int, int, int, Generator], Tensor]
"""From repetitions, trainings and chips to accuracies ``[repetitions, trainings, chips]``."""


def _normal(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def normal(seed: float, common: float, own: float) -> Law:
    """Return the law of normal trainings, common effects of chips, and own ones."""

    def draw(r: int, a: int, n: int, generator: Generator) -> Tensor:
        return (
            0.9
            + seed * _normal(r, a, 1, generator=generator)
            + common * _normal(r, 1, n, generator=generator)
            + own * _normal(r, a, n, generator=generator)
        )

    return draw


def skewed(r: int, a: int, n: int, generator: Generator) -> Tensor:
    """Chips whose losses are log-normal: skewness about -2, common to all trainings."""
    loss = (0.6 * _normal(r, 1, n, generator=generator)).exp()
    own = 0.004 * _normal(r, a, n, generator=generator)
    return 0.95 - 0.02 * loss + 0.005 * _normal(r, a, 1, generator=generator) + own


def collapsing(share: float) -> Law:
    """Return the law where a share of the chips loses 30 points."""

    def draw(r: int, a: int, n: int, generator: Generator) -> Tensor:
        bad = torch.rand(r, 1, n, generator=generator, dtype=torch.float64) < share
        return normal(0.005, 0.003, 0.003)(r, a, n, generator) - 0.3 * bad

    return draw


def exponential(r: int, a: int, n: int, generator: Generator) -> Tensor:
    """Trainings with a tail to the left."""
    tail = -torch.rand(r, a, 1, generator=generator, dtype=torch.float64).log()
    return normal(0, 0.003, 0.003)(r, a, n, generator) - 0.01 * tail


def failing(r: int, a: int, n: int, generator: Generator) -> Tensor:
    """One in ten trainings is worse by 5 points."""
    bad = torch.rand(r, a, 1, generator=generator, dtype=torch.float64) < 0.1
    return normal(0.004, 0.003, 0.003)(r, a, n, generator) - 0.05 * bad


LAWS: dict[str, Law] = {
    "trainings": normal(0.01, 0.0, 0.005),
    "chips": normal(0.0, 0.005, 0.005),
    "both": normal(0.005, 0.005, 0.005),
    "common chips": normal(0.002, 0.01, 0.002),
    "left skew": skewed,
    "8 % of chips fail": collapsing(0.08),
    "exponential trainings": exponential,
    "10 % of trainings fail": failing,
}
RARE = {"2 % of chips fail": collapsing(0.02)}
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


def _population(law: Law) -> Tensor:
    """Return a single chip of each of many trainings."""
    return law(400_000, 1, 1, Generator().manual_seed(99)).clamp(0, 1).flatten()


def mean_cells(name: str, law: Law, a: int, n: int, repetitions: int) -> Iterator[Cell]:
    """Mean accuracy: over the chips of one network, over trainings and chips of several."""
    tables = law(repetitions, a, n, Generator().manual_seed(a * n)).clamp(0, 1)
    if a > 1:
        found = [hierarchical(table, same_chips=True).interval() for table in tables]
        yield _cell("mean over trainings", name, a, n, found, float(_population(law).mean()))
        return
    # One network: its own mean over chips, so its training's shift is taken out.
    fixed = _one_network(law, repetitions, n)
    truth = float(_one_network(law, 1, 400_000).mean())
    yield _cell("mean over chips", name, 1, n, [chip_interval(row) for row in fixed], truth)


def _one_network(law: Law, repetitions: int, n: int) -> Tensor:
    """Return chips ``[repetitions, n]`` of one and the same network."""
    names = {id(value): key for key, value in (LAWS | RARE).items()}
    fixed: dict[str, Law] = {
        "trainings": normal(0, 0, 0.005),
        "both": normal(0, 0.005, 0.005),
        "common chips": normal(0, 0.01, 0.002),
        "exponential trainings": normal(0, 0.003, 0.003),
        "10 % of trainings fail": normal(0, 0.003, 0.003),
    }
    chosen = fixed.get(names[id(law)], law)
    return chosen(repetitions, 1, n, Generator().manual_seed(n))[:, 0].clamp(0, 1)


def yield_cells(name: str, law: Law, a: int, n: int, repetitions: int) -> Iterator[Cell]:
    """Share of working chips, at targets that the given shares of all chips reach."""
    if a == 1:
        for share in (*YIELDS, 0.99):
            works = torch.rand(repetitions, n, generator=Generator().manual_seed(n)) < share
            found = [share_interval(int(row.sum()), n) for row in works]
            yield _cell(f"yield of a network, {share:g}", "any", 1, n, found, share)
        return
    population = _population(law)
    tables = law(repetitions, a, n, Generator().manual_seed(a * n + 1)).clamp(0, 1)
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
        images = 1.5 + spread * _normal(1, m, generator=generator)
        chips = math.sqrt(0.05) * _normal(n, 1, generator=generator)
        right = (images + chips + _normal(n, m, generator=generator) > 0).double()
        interval = chip_interval(right.mean(1))
        mean = float(right.mean())
        kinds["these images"].append(interval)
        kinds["known hits"].append(over_images(interval, mean, m, hits=right.mean(0)))
        kinds["no hits"].append(over_images(interval, mean, m))
    for kind, found in kinds.items():
        yield _cell(f"mean for new images, {kind}", "images", a, n, found, truth)


def percentile_cells(name: str, law: Law, n: int, repetitions: int) -> Iterator[Cell]:
    """The worst chip as a bound of a percentile."""
    chips = _one_network(law, repetitions, n)
    level = float(_one_network(law, 1, 400_000).flatten().quantile(unseen_share(n)))
    found = [Interval(float(row.min()), 1.0) for row in chips]
    # The worst is a lower bound of the percentile with the stated confidence.
    yield _cell("percentile from the worst chip", name, 1, n, found, level)


def stopping_cells(name: str, law: Law, repetitions: int) -> Iterator[Cell]:
    """Stop as soon as the cautious interval is narrow enough, after at least 25 chips."""
    chips = _one_network(law, repetitions, 300)
    truth = float(_one_network(law, 1, 400_000).mean())
    width = 0.6 * 4 * float(chips.std()) / 5
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
