"""The package's LIF networks beside snnTorch and SpikingJelly: a step of training, a forward pass.

    python benchmarks/speed/spiking_layers.py [--rounds 15]

All sides have the same weights, spikes, decay, threshold and surrogate, and an Adam of their own.
They take turns in one process that keeps freed memory, in random order; ratios are those of a
round. Peers are written as their documentation recommends for speed: SpikingJelly in multi-step
mode on its torch backend, snnTorch with synapses over all steps at once and neurons in a loop; and
beside that with the whole network in a loop over steps, as in their tutorials.
Where 30 % of the inputs fire there are no events to add up; in bf16 all sides run under autocast.
Peak memory is what three steps add in a fresh process.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import snntorch
import torch
from measuring import compared, interleaved, peak_memory, print_peak, rates, script, seconds
from snntorch import surrogate
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from spikewvat import adapter_for
from spikewvat.lab.models import lif
from spikewvat.lab.models import snntorch as snntorch_models
from spikewvat.lab.models import spikingjelly as jelly_models
from spikewvat.spiking.lif import LIF

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
FAST_FC: dict[str, Callable[[], nn.Module]] = {
    "snnTorch": SnnTorchFC,
    "SpikingJelly": lambda: JellyFC("m"),
    OURS: lambda: lif.FullyConnected(sizes=SIZES, constants=LIF(BETA)),
}
ALL_FC: dict[str, Callable[[], nn.Module]] = {
    "snnTorch, step by step": lambda: InALoop(SnnTorchFC()),
    "SpikingJelly, step by step": lambda: JellyFC("s"),
    **FAST_FC,
    EVENTS: FAST_FC[OURS],
}
ALL_CNN: dict[str, Callable[[], nn.Module]] = {
    "snnTorch, step by step": lambda: InALoop(SnnTorchCNN()),
    "snnTorch": SnnTorchCNN,
    "SpikingJelly, step by step": lambda: jelly_cnn("s"),
    "SpikingJelly": lambda: jelly_cnn("m"),
    OURS: lambda: lif.CNN(constants=LIF(BETA)),
}


@dataclass(frozen=True)
class Setup:
    """Networks on the same spikes.

    Args:
        name: For the table.
        sides: Makes each implementation.
        shape: Of the spikes.
        density: Share of the inputs that fire in a step; N-MNIST in 30 bins has 0.04.
        half: Whether to run in bf16.
    """

    name: str
    sides: dict[str, Callable[[], nn.Module]]
    shape: tuple[int, ...] = (30, 64, 2, 34, 34)
    density: float = 0.04
    half: bool = False


_FC = "FC 2312-400-200-10, T = 30, batch 64"
SETUPS = (
    Setup(_FC, ALL_FC),
    Setup(f"{_FC}, 30 % fire", FAST_FC, density=0.3),
    Setup(f"{_FC}, 30 % fire, bf16", FAST_FC, density=0.3, half=True),
    Setup("CNN 12C5-P2-32C5-P2-10, T = 20, batch 32", ALL_CNN, shape=(20, 32, 2, 34, 34)),
)


class Side:
    """One implementation, with the spikes that it takes."""

    def __init__(self, setup: Setup, name: str) -> None:
        generator = torch.Generator().manual_seed(0)
        spikes = (torch.rand(setup.shape, generator=generator) < setup.density).float()
        self.spikes = spikes.to_sparse() if name == EVENTS else spikes
        self.labels = torch.arange(spikes.shape[1]) % 10
        self.model = setup.sides[name]()
        self.adapter = adapter_for(self.model)
        synapses = self.adapter.synaptic_weights(self.model)
        with torch.no_grad():
            for weight in synapses.values():  # wide enough that all layers fire
                bound = 8 / weight[0].numel() ** 0.5
                weight.copy_(torch.empty_like(weight).uniform_(-bound, bound, generator=generator))
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-4)
        self._half = setup.half

    def _output(self) -> Tensor:
        self.adapter.reset_state(self.model)
        with torch.autocast("cpu", enabled=self._half):
            output: Tensor = self.model(self.spikes)
        return output

    def step(self) -> None:
        """Train on the batch."""
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self._output().float().sum(0), self.labels).backward()
        self.optimizer.step()

    @torch.no_grad()
    def forward(self) -> Tensor:
        """Return output spikes of the batch."""
        return self._output()


def measure(setup: Setup, rounds: int) -> dict[str, object]:
    """Return the comparison of one network."""
    sides = {name: Side(setup, name) for name in setup.sides}
    outputs = {name: side.forward() for name, side in sides.items()}
    reference = outputs["SpikingJelly"]

    def times(part: str) -> dict[str, dict[str, Any]]:
        run = {
            name: functools.partial(seconds, getattr(side, part)) for name, side in sides.items()
        }
        return compared(interleaved(run, rounds), OURS)

    forward, training = times("forward"), times("step")
    rows = [
        {
            "side": name,
            "training": training[name],
            "forward": forward[name],
            "peak_memory_mib": peak_memory(__file__, setup.name, name),
            "spikes": int(outputs[name].sum()),
            "spikes_unlike_spikingjelly": int((outputs[name] != reference).sum()),
        }
        for name in sides
    ]
    for row in rows:
        print({k: v for k, v in row.items() if k not in ("forward", "training")})
        print("   ", {k: v for k, v in training[str(row["side"])].items() if k != "rounds_ms"})
    return {"setup": setup.name, "density": setup.density, "rounds": rounds, "rows": rows}


def networks(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure every network."""
    return {
        "scale": "quick",
        "beta": BETA,
        "alpha": ALPHA,
        "rates": rates(),
        "setups": [measure(setup, arguments.rounds) for setup in SETUPS],
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        by_name = {setup.name: setup for setup in SETUPS}
        print_peak(Side(by_name[sys.argv[2]], sys.argv[3]).step)
    else:
        script(__file__, __doc__, networks, rounds=15)
