"""What an event-driven first layer buys: SLAYER on real N-MNIST recordings, 1 ms a step.

    python benchmarks/speed/event_input.py --data-root DIR [--rounds 15] [--batch 16]

Three networks start alike and see the same batches: one multiplies matrices, one is given the same
dense spikes and finds the events in them, one is given sparse spikes. A round is one training step
of each, in random order. Peak memory is what three steps add in a fresh process. A second table
times first layers alone, forward and backward.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from measuring import interleaved, milliseconds, peak_memory, print_peak, script, seconds, speed_up
from torch import Tensor, nn
from torch.nn import functional

from spikewvat.data import NMNIST, make_loader
from spikewvat.lab.models.slayer import FullyConnected
from spikewvat.spiking import layers
from spikewvat.spiking.events import EventConv2d, EventLinear
from spikewvat.spiking.slayer import count_loss

PRODUCT, FOUND, SPARSE = "dense", "events found", "sparse"
KINDS = (PRODUCT, FOUND, SPARSE)
Batches = list[tuple[Tensor, Tensor]]


class Product(EventLinear):
    """The same synapses as a product of matrices, whatever the spikes are."""

    def forward(self, input: Tensor) -> Tensor:
        """Return currents [T, B, N'] of dense spikes [T, B, ...]."""
        return functional.linear(input.flatten(2), self.weight)


def batches(root: Path, size: int, count: int, *, sparse: bool, steps: int = 300) -> Batches:
    """Return the first batches of the training recordings, the same for all kinds."""
    data = NMNIST(root, "train", time_steps=steps, window_us=300_000 // steps, sparse=sparse)
    order = torch.Generator().manual_seed(0)
    loader = iter(make_loader(data, size, shuffle=True, generator=order))
    return [next(loader) for _ in range(count)]


class Trainer:
    """A network with its optimizer, and the batches that it sees one after the other."""

    def __init__(self, root: Path, size: int, count: int, kind: str) -> None:
        torch.manual_seed(0)
        self.model = FullyConnected()
        if kind == PRODUCT:
            self.model.layers[0].__class__ = Product
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self._read = functools.partial(batches, root, size, count, sparse=kind == SPARSE)
        self._batches: Iterator[tuple[Tensor, Tensor]] | None = None
        self.losses: list[float] = []

    def step(self) -> None:
        """Train on the next batch."""
        self._batches = self._batches or iter(self._read())  # in the first step, which warms up
        spikes, labels = next(self._batches)
        self.optimizer.zero_grad()
        loss = count_loss(self.model(spikes), labels)
        loss.backward()
        self.optimizer.step()
        self.losses.append(float(loss.detach()))


def row(what: str, run: dict[str, Callable[[], object]], rounds: int) -> dict[str, object]:
    """Return the times of all kinds, and speed-ups over the product."""
    timed = {kind: functools.partial(seconds, call) for kind, call in run.items()}
    times = interleaved(timed, rounds)
    found = {kind: milliseconds(taken) for kind, taken in times.items()}
    for kind in found:
        if kind != PRODUCT:
            found[kind] |= speed_up(PRODUCT, times[PRODUCT], times[kind])
    print(what, {kind: (part["ms"], part.get("speed_up")) for kind, part in found.items()})
    return {"what": what, "sides": found, "rounds": rounds}


def steps_of_training(root: Path, size: int, rounds: int) -> dict[str, object]:
    """Train all networks side by side."""
    trainers = {kind: Trainer(root, size, rounds + 1, kind) for kind in KINDS}
    run: dict[str, Callable[[], object]] = {kind: t.step for kind, t in trainers.items()}
    found = row(f"SLAYER 2312-400-200-10, T = 300, batch {size}: training step", run, rounds)
    losses = torch.tensor([trainers[kind].losses for kind in KINDS], dtype=torch.float64)
    difference = float(((losses[0] - losses) / losses[0]).abs().max())
    return {**found, "losses": trainers[PRODUCT].losses, "largest_relative_difference": difference}


def first_layers(root: Path, size: int, rounds: int) -> list[dict[str, object]]:
    """Time first layers alone, forward and backward."""
    found = []
    for steps in (300, 10):
        ((events, _),) = batches(root, size, 1, sparse=True, steps=steps)
        dense = events.to_dense()
        linear: dict[str, tuple[nn.Module, Tensor]] = {
            PRODUCT: (Product(2312, 400), dense),
            FOUND: (EventLinear(2312, 400), dense),
            SPARSE: (EventLinear(2312, 400), events),
        }
        conv = {
            PRODUCT: (layers.Conv2d(2, 8, 5, stride=2, padding=2), dense),
            SPARSE: (EventConv2d(2, 8, 5, stride=2, padding=2), events),
        }
        for name, sides in (("dense 2312 to 400", linear), ("convolution 8C5, stride 2", conv)):

            def call(layer: nn.Module, spikes: Tensor) -> None:
                layer(spikes).sum().backward()

            run: dict[str, Callable[[], object]] = {
                kind: functools.partial(call, *side) for kind, side in sides.items()
            }
            found.append(row(f"{name}, T = {steps}, batch {size}: layer alone", run, rounds))
    return found


def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure training, layers and memory."""
    root, size, rounds = arguments.data_root, arguments.batch, arguments.rounds
    if root is None:
        raise SystemExit("pass --data-root, or set SPIKEWVAT_DATA")
    rows = [steps_of_training(root, size, rounds), *first_layers(root, size, rounds)]
    memory = {kind: peak_memory(__file__, str(root), str(size), kind) for kind in KINDS}
    print(f"peak memory of training, MiB: {memory}")
    return {"scale": "quick", "rows": rows, "peak_memory_mib": memory}


def options(parser: argparse.ArgumentParser) -> None:
    """Add what is read, and how much of it."""
    parser.add_argument("--data-root", type=Path, default=os.environ.get("SPIKEWVAT_DATA"))
    parser.add_argument("--batch", type=int, default=16)


def print_memory(root: str, size: str, kind: str) -> None:
    """Print the peak memory of three steps of training."""
    trainer = Trainer(Path(root), int(size), 3, kind)
    trainer.model(
        torch.zeros(300, 1, 2312).to_sparse() if kind == SPARSE else torch.zeros(3, 1, 2312)
    )
    print_peak(trainer.step)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print_memory(*sys.argv[2:])
    else:
        script(__file__, __doc__, measure, rounds=15, options=options)
