"""Ctrl-C at random moments of training steps: how often weights do not come back.

    python benchmarks/interrupts.py --interrupts 2000

A network takes steps; an asynchronous ``KeyboardInterrupt`` is raised in the thread at a random
moment of each, between two instructions of the interpreter. Afterwards weights, gradient mode,
and what layers compute must be as before the step, and the method must go on.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.utils import prune

from spikewvat import GAV, HSV, WVAT, Gaussian, Momentum, PerturbedGradient
from spikewvat.errors import TrainingStalledWarning
from spikewvat.holding import held
from spikewvat.training import GradientMethod
from spikewvat.training.methods import QAT

DEVICE = Gaussian(sigma=0.1)
KINDS = ("HSV", "GAV", "WVAT", "momentum + noise", "copies", "pruned", "QAT")


def prepared(kind: str) -> tuple[nn.Module, GradientMethod, list[object]]:
    """Return a small network, a method on it, and views that force copies where asked for."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    kept: list[object] = []
    if kind == "pruned":
        prune.l1_unstructured(model[0], "weight", amount=0.5)
    noise = Generator().manual_seed(1)
    if kind == "GAV":
        return model, PerturbedGradient(model, GAV(DEVICE), generator=noise), kept
    if kind == "WVAT":
        return model, WVAT(model, DEVICE, generator=noise), kept
    if kind == "QAT":
        return model, QAT(model, bits=4, perturbation=HSV(DEVICE), generator=noise), kept
    if kind == "momentum + noise":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
        model(torch.randn(4, 6)).sum().backward()
        optimizer.step()
        method = WVAT(model, DEVICE, worst=Momentum(optimizer), mix="both", generator=noise)
        return model, method, kept
    if kind == "copies":
        kept = [parameter.detach().view(-1) for parameter in model.parameters()]
    return model, PerturbedGradient(model, HSV(DEVICE), generator=noise), kept


class Interrupter:
    """Raises KeyboardInterrupt in this thread after a while, at most once each time it is armed."""

    def __init__(self) -> None:
        self._target = ctypes.c_ulong(threading.get_ident())
        self._delay = 0.0
        self._go, self._done = threading.Event(), threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._go.wait()
            self._go.clear()
            end = time.perf_counter() + self._delay
            while time.perf_counter() < end:
                time.sleep(0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                self._target, ctypes.py_object(KeyboardInterrupt)
            )
            self._done.set()

    def _await(self) -> None:
        """Wait until the interrupt was sent, and a little longer: it may arrive late."""
        while not self._done.is_set():
            time.sleep(0.0002)
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass

    def hits(self, function: Callable[[], object], delay: float) -> bool:
        """Call a function and interrupt it; return whether that hit it."""
        self._delay = delay
        self._done.clear()
        inside = hit = arrived = False
        try:
            try:
                self._go.set()
                inside = True
                function()
                inside = False
                self._await()
            except KeyboardInterrupt:
                arrived, hit = True, inside
            if not arrived or not self._done.is_set():
                self._await()
        except KeyboardInterrupt:
            pass
        return hit


def _seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def trial(kind: str, interrupts: int, seed: int = 0) -> tuple[int, Counter[str]]:
    """Interrupt steps until so many were hit.

    Returns:
        How many were hit, and how often what was not restored.
    """
    model, method, kept = prepared(kind)
    x, draw = torch.randn(16, 6), random.Random(seed)

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        method.backward(lambda: model(x).square().mean())

    # Weights that no optimizer moves cannot learn, and no step of theirs may take a warning's way.
    warnings.simplefilter("ignore", TrainingStalledWarning)
    usual = min(_seconds(step) for _ in range(10))
    parameters = list(model.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    computed = _computed(model, x)
    interrupter, hits, wrong = Interrupter(), 0, Counter[str]()
    while hits < interrupts:
        if not interrupter.hits(step, draw.uniform(0, 1.1 * usual)):
            continue
        hits += 1
        if not all(map(torch.equal, parameters, before)):
            wrong["weights"] += 1
            for parameter, value in zip(parameters, before, strict=True):
                parameter.data = value.clone()
        if not torch.is_grad_enabled():
            wrong["gradient mode"] += 1
            torch.set_grad_enabled(True)
        wrong["still held"] += bool(held())
        wrong["what layers compute"] += not all(map(torch.equal, _computed(model, x), computed))
        wrong["computed weights"] += any(getattr(w, "_holds", 0) for w in method.weights.values())
        try:
            step()
        except RuntimeError:
            wrong["next step"] += 1
    assert kind != "copies" or kept
    return hits, +wrong


def _computed(model: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        return [model[0](x), model[-1](torch.ones(1, 8))]


def main() -> None:
    """Print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=[*KINDS], metavar="KIND")
    parser.add_argument("--interrupts", type=int, default=2000, help="steps that are hit, in all")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.setswitchinterval(1e-5)
    each = -(-arguments.interrupts // len(arguments.kinds))
    for kind in arguments.kinds:
        hits, wrong = trial(kind, each, arguments.seed)
        print(f"{kind:18s} {hits} interrupted, not restored: {dict(wrong) or 0}", flush=True)


if __name__ == "__main__":
    main()
