"""What a perturbation adds to a step, part by part, beside what the machine could do.

    python benchmarks/speed/step_parts.py [--rounds 10]

Parts move bytes: their limit is the time in which this core copies as many bytes between tensors of
the same size. A plain step multiplies: its limit is the time of as many products in one large
matrix product of its dtype. A round takes every part once, in random order; times are medians.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from measuring import script
from networks import SETUPS, Training
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spikewvat import GAV, HSV, Gaussian, Momentum
from spikewvat.devices.base import norm_of
from spikewvat.devices.ranges import SixSigma, size_of, sizes_kept
from spikewvat.perturbations import Perturbation, variation
from spikewvat.weights import perturbed

SIGMA = 0.10
NAMES = ("VGG-5, batch 128", "ReLU network")
MATRIX = {torch.bfloat16: 4096, torch.float32: 1024}
"""Sides of the matrices whose product measures the core's speed."""


class Parts:
    """The parts of a step of one network.

    Args:
        training: The network; it has made a step.
    """

    def __init__(self, training: Training) -> None:
        self.training, self.weights = training, training.weights
        self.gradients = {name: torch.randn_like(w) for name, w in self.weights.items()}
        self.copies = {name: torch.empty_like(w) for name, w in self.weights.items()}
        self.buffers: dict[str, Tensor] = {}
        self.noise = torch.Generator().manual_seed(0)
        device, momentum = Gaussian(SIGMA), Momentum(training.optimizer)
        both = variation(device, worst=momentum, mix="both", gamma=1.0)
        drawn = HSV(Gaussian(SIGMA, drawn=True))
        adds = {
            "noise, looked up": (3, HSV(device)),
            "momentum and noise": (4, both),
            "worst direction, into its own memory": (3, GAV(device)),
            "noise, drawn": (2, drawn),
        }
        self.parts: dict[str, tuple[int, Callable[[], float]]] = {
            "copy": (2, partial(self._time, self._copy)),
            "ranges": (1, partial(self._time, self._ranges)),
            "length of a direction": (1, partial(self._time, self._lengths)),
            **{name: (reads, partial(self._hold, p)) for name, (reads, p) in adds.items()},
            "plain step": (0, partial(self._time, training.plain)),
        }
        """By name: how many numbers are moved for each weight, and the seconds of one."""

    def _time(self, function: Callable[[], object]) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    def _copy(self) -> None:
        for name, weight in self.weights.items():
            self.copies[name].copy_(weight.detach())

    def _ranges(self) -> None:
        with sizes_kept():
            for weight in self.weights.values():
                size_of(SixSigma(), weight)

    def _lengths(self) -> None:
        for gradient in self.gradients.values():
            float(norm_of(gradient))

    def _hold(self, perturbation: Perturbation) -> float:
        """Return the time of writing the perturbed weights, pointing to them and back."""
        gradients = {name: gradient.clone() for name, gradient in self.gradients.items()}
        plan = perturbation.plan(self.weights, gradients, generator=self.noise)
        del gradients  # nobody else holds them: their memory may be written to
        start = time.perf_counter()
        with perturbed(self.weights, plan, buffers=self.buffers):
            pass
        return time.perf_counter() - start


def products(dtype: torch.dtype) -> float:
    """Return how many products and sums a second this core makes in one matrix product."""
    side = MATRIX[dtype]
    one, other = torch.randn(2, side, side, dtype=dtype)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        torch.mm(one, other)
        times.append(time.perf_counter() - start)
    return float(2 * side**3 / min(times))


def measure(training: Training, rounds: int, seconds: float) -> dict[str, Any]:
    """Return milliseconds of each part and of its limit."""
    training.plain()
    with FlopCounterMode(display=False) as counter:
        training.plain()
    parts, order, start = Parts(training), random.Random(0), time.perf_counter()
    taken: dict[str, list[float]] = {name: [] for name in parts.parts}
    for number in range(rounds + 1):  # the first one warms up
        for name in order.sample(list(parts.parts), len(parts.parts)):
            found = parts.parts[name][1]()
            if number:
                taken[name].append(found)
        if number and time.perf_counter() - start > seconds:
            break
    times = {name: median(values) for name, values in taken.items()}
    count = sum(weight.numel() for weight in parts.weights.values())
    moved = {name: 4 * count * numbers for name, (numbers, _) in parts.parts.items()}
    speed = moved["copy"] / times["copy"]
    dtype = torch.bfloat16 if training.bf16 else torch.float32
    limits = {name: size / speed for name, size in moved.items()}
    limits["plain step"] = counter.get_total_flops() / products(dtype)
    return {
        "batch": len(training.labels),
        "weights": count,
        "rounds": len(taken["copy"]),
        "copy_gb_per_s": round(speed / 1e9, 1),
        "products_gflop": round(counter.get_total_flops() / 1e9, 1),
        "ms": {name: round(1e3 * seconds, 3) for name, seconds in times.items()},
        "limit_ms": {name: round(1e3 * seconds, 3) for name, seconds in limits.items()},
    }


def networks(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every network and print it."""
    torch.manual_seed(0)
    rows = {}
    for name in NAMES:
        rows[name] = measure(SETUPS[name](), arguments.rounds, arguments.seconds)
        print(name, rows[name])
    return {"sigma": SIGMA, "rows": rows}


def options(parser: argparse.ArgumentParser) -> None:
    """Add how long it may take."""
    parser.add_argument("--seconds", type=float, default=60, help="of one network, about")


if __name__ == "__main__":
    script(__file__, __doc__, networks, rounds=10, options=options)
