"""How long training steps take, method beside method.

Each round runs a few steps of every method, in random order; a method's ratio is its time in a
round over plain training's in the same round, so that whatever else the machine does hits all
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
"""Steps of one method in a row; methods that draw what they do average over them."""


def step_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Any], Tensor],
    inputs: Tensor,
    *,
    method: GradientMethod,
) -> Step:
    """Return a function that makes one training step, always on the same batch.

    Args:
        model: The network.
        optimizer: Of its parameters.
        loss: From the network's output to a scalar.
        inputs: The batch.
        method: Takes the gradients.
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
        steps: What makes a step, by method; each is run once before the first round.
        baseline: Method whose time is the unit.
        rounds: How often each method has its turn.
        seed: Seed of their order in a round.

    Returns:
        By method ``ratio`` (median over rounds), its ``quartiles``, ``ms`` of a step (median) and
        ``rounds``.

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
    """Return median and quartiles over rounds of the time, in units of another's."""
    taken, plain = (torch.tensor(values, dtype=torch.float64) for values in (seconds, unit))
    points = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low, middle, high = (taken / plain).quantile(points).tolist()
    return {
        "ratio": round(middle, 3),
        "quartiles": (round(low, 3), round(high, 3)),
        "ms": round(1e3 * float(taken.median()), 2),
        "rounds": len(seconds),
    }
