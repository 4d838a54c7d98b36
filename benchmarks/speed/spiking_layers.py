"""The package's LIF networks beside snnTorch and SpikingJelly: a step of training, a forward pass.

    python benchmarks/speed/spiking_layers.py [--rounds 15]

All sides have the same weights, spikes, decay, threshold and surrogate, and an Adam of their own.
They take turns in one process that keeps freed memory, in random order; ratios are those of a
round. Peers are written as their documentation recommends for speed: SpikingJelly in multi-step
mode on its torch backend, snnTorch with synapses over all steps at once and neurons in a loop; and
beside that with the whole network in a loop over steps, as in their tutorials.
Peak memory is what three steps add in a fresh process.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import snntorch
import torch
from snntorch import surrogate
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from spikewvat import adapter_for
from spikewvat.lab.models import lif
from spikewvat.lab.models import snntorch as snntorch_models
from spikewvat.lab.models import spikingjelly as jelly_models
from spikewvat.memory import keep_freed_memory
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json
from spikewvat.spiking.lif import LIF

ROOT = Path(__file__).parents[1]
SIZES, BETA, ALPHA = (2312, 400, 200, 10), 0.9, 2.0


class SnnTorchFC(nn.Module):
    """Dense layers over all steps at once, snnTorch's neurons in a loop."""

    def __init__(self) -> None:
        super().__init__()
        grad = surrogate.atan(alpha=ALPHA)
        self.synapses = nn.ModuleList(nn.Linear(i, o, bias=False) for i, o in pairwise(SIZES))
        self.neurons = nn.ModuleList(
            snntorch.Leaky(beta=BETA, spike_grad=grad) for _ in self.synapses
        )

    def stages(self) -> list[tuple[Callable[[Tensor], Tensor], Any]]:
        """Return what happens in a step in front of each layer of neurons, and the neurons."""
        return list(zip(self.synapses, self.neurons, strict=True))

    def forward(self, spikes: Tensor) -> Tensor:
        """Return output spikes [T, B, classes]."""
        x = spikes.flatten(2)
        for synapses, leaky in zip(self.synapses, self.neurons, strict=True):
            mem, fired = leaky.reset_mem(), []
            for current in snntorch_models.folded(synapses, x):
                spike, mem = leaky(current, mem)
                fired.append(spike)
            x = torch.stack(fired)
        return x


class SnnTorchCNN(snntorch_models.SpikingCNN):
    """The convolutional network with the others' surrogate."""

    def __init__(self) -> None:
        super().__init__(beta=BETA)
        for module in self.modules():
            if isinstance(module, snntorch.Leaky):
                module.spike_grad = surrogate.atan(alpha=ALPHA)

    def stages(self) -> list[tuple[Callable[[Tensor], Tensor], Any]]:
        """Return what happens in a step in front of each layer of neurons, and the neurons."""
        convs = [nn.Sequential(conv, self.pool) for conv in self.convs]
        return [
            *zip(convs, self.neurons, strict=True),
            (lambda x: self.readout(x.flatten(1)), self.output),
        ]


class InALoop(nn.Module):
    """The same network run as a whole in every step, as most tutorials do."""

    def __init__(self, model: SnnTorchFC | SnnTorchCNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, spikes: Tensor) -> Tensor:
        """Return output spikes [T, B, classes]."""
        stages = self.model.stages()
        mems = [leaky.reset_mem() for _, leaky in stages]
        fired = []
        for step in spikes if isinstance(self.model, SnnTorchCNN) else spikes.flatten(2):
            x = step
            for number, (synapses, leaky) in enumerate(stages):
                x, mems[number] = leaky(synapses(x), mems[number])
            fired.append(x)
        return torch.stack(fired)


class JellyFC(nn.Module):
    """The dense network in SpikingJelly, in either step mode."""

    def __init__(self, step_mode: str) -> None:
        super().__init__()
        neurons = jelly_models.Neurons(BETA, 1.0, ALPHA, step_mode)
        modules: list[nn.Module] = [layer.Flatten(step_mode=step_mode)]
        for i, o in pairwise(SIZES):
            modules += [layer.Linear(i, o, bias=False, step_mode=step_mode), neurons()]
        self.layers, self.step_mode = nn.Sequential(*modules), step_mode

    def forward(self, spikes: Tensor) -> Tensor:
        """Return output spikes [T, B, classes]."""
        if self.step_mode == "s":
            return torch.stack([self.layers(step) for step in spikes])
        output: Tensor = self.layers(spikes)
        return output


def jelly_cnn(step_mode: str) -> nn.Module:
    """Return the convolutional network in SpikingJelly."""
    return jelly_models.SpikingCNN(beta=BETA, slope=ALPHA, step_mode=step_mode)


OURS = "spikewvat"
EVENTS = "spikewvat, sparse spikes"
MAKERS: dict[str, dict[str, Callable[[], nn.Module]]] = {
    "FC 2312-400-200-10, T = 30, batch 64": {
        "snnTorch, step by step": lambda: InALoop(SnnTorchFC()),
        "snnTorch": SnnTorchFC,
        "SpikingJelly, step by step": lambda: JellyFC("s"),
        "SpikingJelly": lambda: JellyFC("m"),
        OURS: lambda: lif.FullyConnected(sizes=SIZES, constants=LIF(BETA)),
        EVENTS: lambda: lif.FullyConnected(sizes=SIZES, constants=LIF(BETA)),
    },
    "CNN 12C5-P2-32C5-P2-10, T = 20, batch 32": {
        "snnTorch, step by step": lambda: InALoop(SnnTorchCNN()),
        "snnTorch": SnnTorchCNN,
        "SpikingJelly, step by step": lambda: jelly_cnn("s"),
        "SpikingJelly": lambda: jelly_cnn("m"),
        OURS: lambda: lif.CNN(constants=LIF(BETA)),
    },
}
SHAPES = dict(zip(MAKERS, ((30, 64, 2, 34, 34), (20, 32, 2, 34, 34)), strict=True))
DENSITY = 0.04  # of N-MNIST in 30 bins


class Side:
    """One implementation, with the spikes that it takes."""

    def __init__(self, setup: str, name: str) -> None:
        generator = torch.Generator().manual_seed(0)
        spikes = (torch.rand(SHAPES[setup], generator=generator) < DENSITY).float()
        self.spikes = spikes.to_sparse() if name == EVENTS else spikes
        self.labels = torch.arange(spikes.shape[1]) % 10
        self.model = MAKERS[setup][name]()
        synapses = adapter_for(self.model).synaptic_weights(self.model)
        with torch.no_grad():
            for weight in synapses.values():  # wide enough that all layers fire
                bound = 8 / weight[0].numel() ** 0.5
                weight.copy_(torch.empty_like(weight).uniform_(-bound, bound, generator=generator))
        self.adapter = adapter_for(self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4)

    def step(self) -> None:
        """Train on the batch."""
        self.adapter.reset_state(self.model)
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(self.spikes).sum(0), self.labels).backward()
        self.optimizer.step()

    @torch.no_grad()
    def forward(self) -> Tensor:
        """Return output spikes of the batch."""
        self.adapter.reset_state(self.model)
        output: Tensor = self.model(self.spikes)
        return output


def interleaved(run: dict[str, Callable[[], object]], rounds: int) -> dict[str, Tensor]:
    """Time every function once a round, in random order; the first round warms up."""
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in run}
    for _ in range(rounds + 1):
        for name in order.sample(list(run), len(run)):
            start = time.perf_counter()
            run[name]()
            times[name].append(time.perf_counter() - start)
    return {name: torch.tensor(taken[1:]) for name, taken in times.items()}


def compared(times: dict[str, Tensor]) -> dict[str, dict[str, object]]:
    """Return medians, and for our sides the speed-up over the faster peer with its quartiles."""
    peers = {name: taken for name, taken in times.items() if not name.startswith(OURS)}
    faster = min(peers, key=lambda name: float(peers[name].median()))
    rows: dict[str, dict[str, object]] = {}
    for name, taken in times.items():
        rows[name] = {"ms": round(1e3 * float(taken.median()), 2)}
        if name not in peers:
            quartiles = torch.tensor([0.25, 0.5, 0.75])
            low, ratio, high = (peers[faster] / taken).quantile(quartiles).tolist()
            rows[name] |= {
                "over": faster,
                "speed_up": round(ratio, 2),
                "quartiles": [round(low, 2), round(high, 2)],
            }
    return rows


def peak_memory(setup: str, name: str) -> float:
    """Return what three steps add to the peak memory of a fresh process, MiB."""
    command = [sys.executable, __file__, "--memory", setup, name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return float(done.stdout.split()[-1])


def memory_of_steps(setup: str, name: str) -> None:
    """Make three steps and print the peak beyond the state before them."""

    def peak() -> float:  # ru_maxrss would be that of the parent process
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 1024

    side = Side(setup, name)
    before = peak()
    for _ in range(3):
        side.step()
    print(round(peak() - before, 1))


def measure(setup: str, rounds: int) -> dict[str, object]:
    """Return the comparison of one network."""
    sides = {name: Side(setup, name) for name in MAKERS[setup]}
    outputs = {name: side.forward() for name, side in sides.items()}
    reference = outputs["SpikingJelly"]
    forward = compared(interleaved({name: side.forward for name, side in sides.items()}, rounds))
    training = compared(interleaved({name: side.step for name, side in sides.items()}, rounds))
    rows = [
        {
            "side": name,
            "training": training[name],
            "forward": forward[name],
            "peak_memory_mib": peak_memory(setup, name),
            "spikes": int(outputs[name].sum()),
            "spikes_unlike_spikingjelly": int((outputs[name] != reference).sum()),
        }
        for name in sides
    ]
    return {"setup": setup, "rounds": rounds, "rows": rows}


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    out = ROOT / "results" / "speed" / "spiking_layers.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    if arguments.memory:
        memory_of_steps(*arguments.memory)
        return
    setups = [measure(setup, arguments.rounds) for setup in MAKERS]
    for setup in setups:
        print(setup["setup"])
        for row in setup["rows"]:  # type: ignore[attr-defined]
            print(f"  {row}")
    content = {"recipe": "benchmarks/speed/spiking_layers.py", "seeds": [0], "scale": "quick"}
    shared = {"density": DENSITY, "beta": BETA, "alpha": ALPHA}
    write_json(arguments.out, {**content, **shared, **provenance(), "setups": setups})


if __name__ == "__main__":
    main()
