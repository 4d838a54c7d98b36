"""What the checks cost: once, when a method or an evaluator is made and used first, and per step.

    python benchmarks/speed/checks.py [--rounds 40]

Per step, every check is timed within real steps of WVAT, so that both belong to the same step; the
row gives the checks' share of it, median and quartiles over steps. Set-up is the time of making the
object, and what its first use takes beyond a later one: passes that show whether state survives and
how the network handles time. Times are the process's own, on one thread.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any
from unittest import mock

import torch
from measuring import ROOT, quartiles, script, seconds
from torch import Tensor, nn

from spikewvat import WVAT, Evaluator, Gaussian, holding
from spikewvat.adapters.torch import TorchAdapter
from spikewvat.holding import Hold
from spikewvat.lab.models.vgg import VGG5
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.training import base
from spikewvat.training.base import GradientMethod
from spikewvat.training.references import Arrivals

CHECKS: tuple[tuple[Any, str], ...] = (
    (base, "check_grad_mode"),
    (GradientMethod, "_find_again"),
    (GradientMethod, "_check_kept"),
    (GradientMethod, "_check_arrived"),
    (GradientMethod, "_check_state"),
    (Arrivals, "__init__"),
    (holding, "check_holdable"),
    (Hold, "_refuse_other_threads"),
    (Hold, "disturbances"),
    (TorchAdapter, "_refuse_unknown_state"),
)
"""All that a step does for safety alone, by where it is."""


def demo() -> tuple[nn.Module, Tensor]:
    """Return the demo network and spikes of a batch."""
    recipe = read_recipe(ROOT / "recipes" / "demo" / "wvat.toml", preset="quick")
    steps, batch = recipe.data.parameters["time_steps"], recipe.training.batch_size
    return resolve(recipe).build_model(), (torch.rand(steps, batch, 2, 34, 34) < 0.08).float()


def vgg5() -> tuple[nn.Module, Tensor]:
    """Return VGG-5 at the paper's width and a small batch of images."""
    return VGG5(), torch.rand(8, 3, 32, 32)


SETUPS = {"demo CNN": demo, "VGG-5": vgg5}


@contextmanager
def timed(spent: list[float]) -> Iterator[None]:
    """Add the time of every check within a block to the only entry of a list."""

    def around(check: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(check)
        def call(*args: Any, **kw: Any) -> Any:
            start = time.process_time()
            try:
                return check(*args, **kw)
            finally:
                spent[0] += time.process_time() - start

        return call

    with ExitStack() as stack:
        for where, name in CHECKS:
            stack.enter_context(mock.patch.object(where, name, around(getattr(where, name))))
        yield


def measure(make: Callable[[], tuple[nn.Module, Tensor]], rounds: int) -> dict[str, Any]:
    """Return what checks cost a network."""
    torch.manual_seed(0)
    model, inputs = make()
    spiking = inputs.dim() == 5
    labels = torch.arange(inputs.shape[int(spiking)]) % 10

    def loss() -> Tensor:
        output = model(inputs)
        output = output[0] if isinstance(output, tuple) else output
        return nn.functional.cross_entropy(output.sum(0) if spiking else output, labels)

    made: list[WVAT] = []
    making = seconds(lambda: made.append(WVAT(model, Gaussian(0.1), w_th=0.0, warn_after=None)))
    wvat = made[0]

    def step() -> None:
        model.zero_grad()
        wvat.backward(loss)

    first = seconds(step)
    shares, steps, spent = [], [], [0.0]
    with timed(spent):
        for _ in range(rounds):
            spent[0] = 0.0
            steps.append(seconds(step))
            shares.append(spent[0] / steps[-1])
    usual = median(steps)
    found: list[Evaluator] = []
    batches = [(inputs, labels)]
    evaluating = seconds(lambda: found.append(Evaluator(model, batches)))
    looked = seconds(lambda: found[0].accuracy)
    passes = [seconds(lambda: Evaluator.accuracy.fget(_fresh(found[0]))) for _ in range(5)]  # type: ignore[attr-defined]
    return {
        "weights": sum(w.numel() for w in wvat.weights.values()),
        "batch": len(labels),
        "rounds": rounds,
        "step_ms": round(1e3 * usual, 2),
        "share": [round(share, 5) for share in quartiles(shares)],
        "wvat_ms": [round(1e3 * s, 2) for s in (making, first - usual)],
        "evaluator_ms": [round(1e3 * s, 2) for s in (evaluating, looked - median(passes))],
    }


def _fresh(evaluator: Evaluator) -> Evaluator:
    """Return an evaluator that has met its network and measures it again."""
    evaluator._subject._known.clear()
    return evaluator


def rows(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every network and print it."""
    found = []
    for name, make in SETUPS.items():
        found.append({"setup": name, **measure(make, arguments.rounds)})
        print(found[-1])
    return {"rows": found}


if __name__ == "__main__":
    script(__file__, __doc__, rows, rounds=40)
