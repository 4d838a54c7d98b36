"""Training steps of the package's own neurons: before and now, and how far they are from the limit.

    git worktree add DIR COMMIT
    python benchmarks/speed/spiking_rules.py --before DIR [--rounds 15]

One process runs the code of DIR, another this one, also under bf16 autocast; they take turns in
random order, and ratios are those of a round. The limit of a step is the least time that this core
needs in float32 for the products of its synapses, forward and backward, and for the neurons to read
and write once through memory what they have to: currents, potentials and spikes forward; potentials
and both gradients backward. Both rates are measured in the same run. Events are counted by what is
added up for them.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import ROOT, interleaved, milliseconds, rates, script, seconds, speed_up
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spikewvat.lab.models import lif, slayer, tsslbp
from spikewvat.memory import keep_freed_memory
from spikewvat.spiking import lif as lif_neurons
from spikewvat.spiking import slayer as slayer_neurons
from spikewvat.spiking import tsslbp as tsslbp_neurons
from spikewvat.spiking.losses import rate_cross_entropy

NEURONS = (
    lif_neurons.Neurons,
    slayer_neurons.Neurons,
    slayer_neurons.Spike,
    tsslbp_neurons.Neurons,
)
TOUCHED = 6 * 4  # bytes that a neuron reads or writes in a step: three numbers in each direction


def spikes(*shape: int, rate: float) -> Tensor:
    """Return random spikes."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < rate).float()


def fires(model: nn.Module, by: float) -> nn.Module:
    """Return a network with wider weights, so that all of its layers fire."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(by)
    return model


Loss = Callable[[Tensor, Tensor], Tensor]
Made = tuple[nn.Module, Tensor, Loss]
_still = functools.partial(tsslbp_neurons.kernel_loss, tau_syn=3.0)
SETUPS: dict[str, Callable[[], Made]] = {
    "LIF, 2312-400-200-10, T = 30, batch 64, 4 % fire": lambda: (
        fires(lif.FullyConnected(), 8.0),
        spikes(30, 64, 2312, rate=0.04),
        rate_cross_entropy,
    ),
    "LIF, the same, 30 % fire": lambda: (
        fires(lif.FullyConnected(), 8.0),
        spikes(30, 64, 2312, rate=0.3),
        rate_cross_entropy,
    ),
    "LIF, 12C5-P2-32C5-P2-10, T = 20, batch 32": lambda: (
        fires(lif.CNN(), 8.0),
        spikes(20, 32, 2, 34, 34, rate=0.04),
        rate_cross_entropy,
    ),
    "SLAYER, 2312-400-200-10, T = 300, batch 16": lambda: (
        slayer.FullyConnected(),
        spikes(300, 16, 2312, rate=0.01),
        slayer_neurons.count_loss,
    ),
    "SLAYER, 16C5-P2-32C3-P2-64C3-10, T = 100, batch 4": lambda: (
        slayer.CNN(),
        spikes(100, 4, 2, 34, 34, rate=0.02),
        slayer_neurons.count_loss,
    ),
    "TSSL-BP, 15C5-P2-40C5-P2-300-10, T = 5, batch 50": lambda: (
        fires(tsslbp.SpikingCNN2(), 3.0),
        torch.randn(50, 1, 28, 28, generator=torch.Generator().manual_seed(0)),
        _still,
    ),
    "TSSL-BP, 12C5-P2-64C5-P2-10, T = 30, batch 10": lambda: (
        fires(tsslbp.NMNISTCNN(), 3.0),
        spikes(30, 10, 2, 34, 34, rate=0.04),
        tsslbp_neurons.count_loss,
    ),
}


class Side:
    """A network with its batch and an Adam."""

    def __init__(self, setup: str, *, half: bool = False) -> None:
        torch.manual_seed(0)
        self.model, self.input, self.loss = SETUPS[setup]()
        samples = self.input.shape[0 if self.input.dim() == 4 else 1]
        self.labels = torch.arange(samples) % 10
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4)
        self._half = half

    def step(self) -> None:
        """Train on the batch."""
        self.optimizer.zero_grad()
        with torch.autocast("cpu", enabled=self._half):
            output = self.model(self.input)
        self.loss(output.float(), self.labels).backward()
        self.optimizer.step()


def work(side: Side) -> dict[str, float]:
    """Return the operations in products of a step, and the bytes that its neurons have to touch."""
    touched = []

    def counted(run: Callable[..., Any], currents: Tensor, *rest: Any) -> Any:
        touched.append(currents.numel())
        return run(currents, *rest)

    for module in side.model.modules():
        if isinstance(module, NEURONS):
            name = "steps" if hasattr(module, "steps") else "forward"
            setattr(module, name, functools.partial(counted, getattr(module, name)))

    def added(table: Tensor, entries: Tensor, *_: Any, **__: Any) -> int:
        return 2 * len(entries) * table.shape[1]

    added._get_raw = True  # type: ignore[attr-defined]
    both = (torch.ops.aten._embedding_bag, torch.ops.aten._embedding_bag_forward_only)
    with FlopCounterMode(display=False, custom_mapping=dict.fromkeys(both, added)) as counter:
        side.step()
    return {"operations": counter.get_total_flops(), "bytes": TOUCHED * sum(touched)}


class Process:
    """A process that makes steps with the code of a folder when asked to."""

    def __init__(self, tree: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            env=os.environ | {"PYTHONPATH": str(tree)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, setup: str, half: bool = False) -> float:
        """Return the seconds of one step, in bf16 where wanted."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(setup, int(half), sep="\t", file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


def serve() -> None:
    """Answer every name of a setup with the seconds of a step."""
    torch.set_num_threads(1)
    keep_freed_memory()
    sides: dict[tuple[str, str], Side] = {}
    for line in sys.stdin:
        setup, half = line.rstrip("\n").split("\t")
        if setup not in {name for name, _ in sides}:
            sides.clear()
        if (setup, half) not in sides:
            sides[setup, half] = Side(setup, half=half == "1")
        print(seconds(sides[setup, half].step), flush=True)


def compare(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure every network in both processes."""
    before, now = Process(arguments.before), Process(ROOT.parent)
    best, rows = rates(), []
    for setup in SETUPS:
        timed = {
            "before": functools.partial(before.ask, setup),
            "now": functools.partial(now.ask, setup),
            "bf16": functools.partial(now.ask, setup, True),
        }
        times = interleaved(timed, arguments.rounds)
        told = {name: milliseconds(taken) for name, taken in times.items()}
        for name in ("now", "bf16"):
            told[name] |= speed_up("before", times["before"], times[name])
        found = work(Side(setup))
        limit = found["operations"] / best["products"] + found["bytes"] / best["memory"]
        rows.append({"setup": setup, **told, **found, "limit_ms": round(limit / 1e6, 2)})
        print(setup, found, rows[-1]["limit_ms"])
        for name, part in told.items():
            print("   ", name, {key: v for key, v in part.items() if key != "rounds_ms"})
    git = ["git", "-C", str(arguments.before), "rev-parse", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    about = {"before": commit, "rounds": arguments.rounds, "rates": best}
    return {"scale": "quick", **about, "rows": rows}


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        script(
            __file__,
            __doc__,
            compare,
            rounds=15,
            options=lambda parser: parser.add_argument(
                "--before", type=Path, required=True, metavar="DIR", help="a tree of older code"
            ),
        )
