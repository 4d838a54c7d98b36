"""What an event-driven first layer buys: SLAYER on real N-MNIST recordings, 1 ms a step.

    python benchmarks/event_input.py --data-root DIR [--rounds 15] [--batch 16]

Both networks start alike and see the same batches; a round is one training step of each, in
random order. Peak memory is that of a process that makes three steps, beyond what the process
holds before the first one. A second table times first layers alone, forward and backward.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from spikewvat.data import NMNIST, make_loader
from spikewvat.lab.models.slayer import FullyConnected
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json
from spikewvat.spiking.events import EventConv2d, EventLinear
from spikewvat.spiking.slayer import count_loss

HERE = Path(__file__).parent
KINDS = ("dense", "event-driven")
Batches = list[tuple[Tensor, Tensor]]


def batches(root: Path, size: int, count: int, *, sparse: bool, steps: int = 300) -> Batches:
    """Return the first batches of the training recordings, the same for both kinds."""
    data = NMNIST(root, "train", time_steps=steps, window_us=300_000 // steps, sparse=sparse)
    order = torch.Generator().manual_seed(0)
    loader = iter(make_loader(data, size, shuffle=True, generator=order))
    return [next(loader) for _ in range(count)]


class Trainer:
    """One of the two networks with its optimizer."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = FullyConnected()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def step(self, spikes: Tensor, labels: Tensor) -> float:
        """Train on one batch; return its loss."""
        self.optimizer.zero_grad()
        loss = count_loss(self.model(spikes), labels)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def interleaved(
    run: dict[str, Callable[[int], object]], rounds: int, seed: int
) -> dict[str, list[float]]:
    """Time every function once a round, in random order."""
    order = random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in run}
    for number in range(rounds):
        for name in order.sample(list(run), len(run)):
            start = time.perf_counter()
            run[name](number)
            times[name].append(time.perf_counter() - start)
    return times


def row(what: str, times: dict[str, list[float]]) -> dict[str, object]:
    """Return medians, and the speed-up with its quartiles; the first round warms up."""
    dense, event = (torch.tensor(times[kind][1:]) for kind in KINDS)
    low, median, high = (dense / event).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return {
        "what": what,
        "dense_ms": round(1e3 * float(dense.median()), 2),
        "event_ms": round(1e3 * float(event.median()), 2),
        "speed_up": round(median, 2),
        "quartiles": [round(low, 2), round(high, 2)],
        "rounds": len(dense),
    }


def steps_of_training(root: Path, size: int, rounds: int) -> dict[str, object]:
    """Train both networks side by side."""
    trainers = {kind: Trainer() for kind in KINDS}
    data = {kind: batches(root, size, rounds, sparse=kind == "event-driven") for kind in KINDS}
    losses: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def stepper(kind: str) -> Callable[[int], object]:
        return lambda number: losses[kind].append(trainers[kind].step(*data[kind][number]))

    times = interleaved({kind: stepper(kind) for kind in KINDS}, rounds, 0)
    pairs = torch.tensor([losses[kind] for kind in KINDS], dtype=torch.float64)
    return {
        **row(f"SLAYER 2312-400-200-10, T = 300, batch {size}: training step", times),
        "losses": losses["dense"],
        "largest_relative_loss_difference": float(((pairs[0] - pairs[1]) / pairs[0]).abs().max()),
    }


def first_layers(root: Path, size: int, rounds: int) -> list[dict[str, object]]:
    """Time first layers alone, forward and backward."""
    found = []
    for steps in (300, 10):
        ((events, _),) = batches(root, size, 1, sparse=True, steps=steps)
        inputs = {"dense": events.to_dense(), "event-driven": events}
        layers: list[tuple[str, nn.Module]] = [
            ("dense 2312 to 400", EventLinear(2312, 400)),
            ("convolution 8C5, stride 2", EventConv2d(2, 8, 5, stride=2, padding=2)),
        ]
        for name, layer in layers:

            def runner(kind: str, layer: nn.Module = layer, inputs: dict = inputs):
                return lambda number: layer(inputs[kind]).sum().backward()

            times = interleaved({kind: runner(kind) for kind in KINDS}, rounds, 1)
            found.append(row(f"{name}, T = {steps}, batch {size}: layer alone", times))
    return found


def peak_memory(root: Path, size: int, kind: str) -> float:
    """Return what three training steps add to the peak memory of a fresh process, MiB."""
    command = [sys.executable, __file__, "--data-root", str(root), "--batch", str(size)]
    done = subprocess.run(
        [*command, "--memory", kind], capture_output=True, text=True, check=True, env=os.environ
    )
    return float(done.stdout.split()[-1])


def memory_of_steps(root: Path, size: int, kind: str) -> None:
    """Make three steps and print the peak beyond the state before them."""
    trainer = Trainer()
    warm = torch.zeros(300, 1, 2312).to_sparse()
    trainer.model(warm)

    def peak() -> float:  # ru_maxrss would be that of the parent process
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1024

    before = peak()
    for spikes, labels in batches(root, size, 3, sparse=kind == "event-driven"):
        trainer.step(spikes, labels)
    print(round(peak() - before, 1))


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("SPIKEWVAT_DATA"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--memory", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "speed" / "event_input.json")
    arguments = parser.parse_args(argv)
    if arguments.data_root is None:
        parser.error("pass --data-root, or set SPIKEWVAT_DATA")
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write the result."""
    arguments = parsed(argv)
    torch.set_num_threads(1)
    root, size, rounds = arguments.data_root, arguments.batch, arguments.rounds
    if arguments.memory:
        memory_of_steps(root, size, arguments.memory)
        return
    training = steps_of_training(root, size, rounds + 1)
    rows = [training, *first_layers(root, size, rounds + 1)]
    for found in rows:
        low, high = found["quartiles"]
        print(
            f"{found['what']}: {found['dense_ms']:.1f} ms dense, {found['event_ms']:.1f} ms "
            f"event-driven, {found['speed_up']:.2f} times ({low:.2f} .. {high:.2f})"
        )
    memory = {kind: peak_memory(root, size, kind) for kind in KINDS}
    print(f"peak memory of training, MiB: {memory}")
    difference = training["largest_relative_loss_difference"]
    print(f"largest relative difference of the losses: {difference:.2g}")
    write_json(
        arguments.out,
        {
            "recipe": "benchmarks/event_input.py",
            "seeds": [0],
            "scale": "quick",
            **provenance(),
            "rows": rows,
            "peak_memory_mib": memory,
        },
    )


if __name__ == "__main__":
    main()
