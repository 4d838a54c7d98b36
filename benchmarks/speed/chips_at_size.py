"""What a chip costs for the paper's networks on CIFAR-10, and what several processes gain.

    python benchmarks/speed/chips_at_size.py SETUP [--rounds 3]

A round times as many passes of a plain loop over the images, in bf16 and channels last, as an
``Evaluator`` then simulates chips; the ratio is that of a round. Times are the process's own on one
thread: on a shared machine long work is interrupted. With two processes it is an ``Evaluator`` of
one process against one of two, by the clock on two cores: the numbers must be the same, and their
start is part of the time. Images are random: their content takes no time.

Rows of other setups stay in the file of results.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import torch
from measuring import ROOT, quartiles, script, with_others
from torch import Tensor, nn

from spikewvat import Evaluator, Gaussian
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes.resolve import resolve

SIGMA = 0.10
# Name, recipe, images, chips in a round; one process against two.
SETUPS = {
    "VGG-5": ("cifar10/vgg5_sgd.toml", 10_000, 1, False),
    "VGG-5, two processes": ("cifar10/vgg5_sgd.toml", 2_000, 6, True),
    "ResNet-18": ("cifar10/resnet18_sgd.toml", 1_000, 1, False),
}
Batches = list[tuple[Tensor, Tensor]]


def seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return how long a call takes."""
    start = clock()
    function()
    return clock() - start


def passed(model: nn.Module, batches: Batches, times: int) -> None:
    """Classify all images so many times, as one writes it."""
    with torch.no_grad():
        for _ in range(times):
            right = 0
            for inputs, labels in batches:
                with torch.autocast("cpu", torch.bfloat16):
                    scores = model(inputs)
                right += int((scores.argmax(1) == labels).sum())


def measure(path: str, images: int, chips: int, jobs: bool, rounds: int) -> dict[str, Any]:
    """Return the seconds of the rounds, and quartiles of their ratio."""
    resolved = resolve(read_recipe(ROOT / "recipes" / path, preset="paper"))
    model, batch = resolved.build_model().eval(), resolved.recipe.evaluation.batch_size
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(images, 3, 32, 32, generator=generator)
    batches = list(zip(inputs.split(batch), (torch.arange(images) % 10).split(batch), strict=True))
    options: dict[str, Any] = {"time": "network", "autocast": torch.bfloat16}
    test = Evaluator(model, batches, **options)
    device, found = Gaussian(SIGMA), []

    def chips_on(evaluator: Evaluator) -> None:
        found.append(evaluator.chips(device, chips=chips).accuracies)

    ways: dict[str, Callable[[], None]] = {"clean": lambda: passed(model, batches, chips)}
    ways["chips"] = lambda: chips_on(test)
    if jobs:
        shared = Evaluator(model, batches, jobs=2, **options)
        ways = {"one": ways["chips"], "two": lambda: chips_on(shared)}
    else:
        passed(model, batches, 1)
        test.chips(device, chips=1)  # both have warmed up
    clock = time.perf_counter if jobs else time.process_time
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, function in ways.items():
            taken[way].append(seconds(function, clock))
    assert all(torch.equal(one, found[0]) for one in found)
    first, second = (torch.tensor(times, dtype=torch.float64) for times in taken.values())
    return {
        "weights": sum(p.numel() for p in model.parameters()),
        "images": images,
        "batch": batch,
        "chips": chips,
        "rounds": rounds,
        "pass_s": round(float(first.median()) / chips, 3),
        "ratio": [round(r, 3) for r in quartiles(second / first)],
        "seconds": taken,
    }


def rows(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a setup and print it; the result keeps the others."""
    name = arguments.setup
    if SETUPS[name][3] and len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two processes need two cores.")
    torch.manual_seed(0)
    row = {"setup": name, **measure(*SETUPS[name], arguments.rounds)}
    print({key: value for key, value in row.items() if key != "seconds"})
    return {"sigma": SIGMA, "rows": with_others(row, arguments.out, SETUPS)}


if __name__ == "__main__":
    script(
        __file__,
        __doc__,
        rows,
        rounds=3,
        options=lambda parser: parser.add_argument("setup", choices=SETUPS),
    )
