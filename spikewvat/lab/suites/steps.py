"""Compare the time of a training step across methods.

Each round runs a few steps of every method, in random order. The ratio of a method is its time over
that of plain training in the same round, so that other load on the machine affects all methods
alike.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from spikewvat.training import GradientMethod

Step: TypeAlias = Callable[[], object]
STEPS = 10
"""Consecutive steps of one method; averages methods that choose at random what to do."""


def step_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Any], Tensor],
    inputs: Tensor,
    *,
    method: GradientMethod,
) -> Step:
    """Return a function that runs one training step, always on the same batch.

    Args:
        model: The network.
        optimizer: Optimizer of its parameters.
        loss: Function from the network's output to a scalar.
        inputs: The batch.
        method: The gradient method.
    """

    def closure() -> tuple[Tensor, Any]:
        output = model(inputs)
        return loss(output), output

    def step() -> None:
        optimizer.zero_grad()
        method.backward(closure)
        optimizer.step()
        method.after_step()

    return step


def interleaved(
    steps: Mapping[str, Step], *, baseline: str, rounds: int, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """Time steps of several methods in turn.

    Args:
        steps: Step functions by method; each is run once before the first round.
        baseline: The method whose time is the unit.
        rounds: Number of rounds.
        seed: Seed of the order within a round.

    Returns:
        For each method its ``ratio`` (median over rounds), ``quartiles`` of the ratio, median
        ``ms`` per step, and ``rounds``.

    Raises:
        ValueError: If there is no baseline, or fewer than one round.
    """
    if baseline not in steps or rounds < 1:
        raise ValueError(
            f"expected at least 1 round and a baseline among {list(steps)}, got {rounds!r} rounds "
            f"and {baseline!r}."
        )
    order = random.Random(seed)
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {method: [] for method in steps}
    for _ in range(rounds):
        for method in order.sample(list(steps), len(steps)):
            start = time.perf_counter()
            for _ in range(STEPS):
                steps[method]()
            seconds[method].append((time.perf_counter() - start) / STEPS)
    return {method: _summary(taken, seconds[baseline]) for method, taken in seconds.items()}


def _summary(seconds: list[float], unit: list[float]) -> dict[str, Any]:
    """Return the median and quartiles over rounds of the time relative to the baseline."""
    taken, plain = (torch.tensor(values, dtype=torch.float64) for values in (seconds, unit))
    points = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low, middle, high = (taken / plain).quantile(points).tolist()
    return {
        "ratio": round(middle, 3),
        "quartiles": (round(low, 3), round(high, 3)),
        "ms": round(1e3 * float(taken.median()), 2),
        "rounds": len(seconds),
    }
