"""Recurrent LIF layers beside snnTorch's and SpikingJelly's: a step of training, a forward pass.

    python benchmarks/speed/recurrent_layers.py [--rounds 15]

All sides have the same weights, spikes, constants and surrogate, and an Adam of their own. They
take turns in one process that keeps freed memory, in random order; ratios are those of a round.
The peers' synapses in front of the recurrent layer and behind it run over all steps at once, except
where they are part of the layer, as in SpikingJelly's.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

import snntorch
import torch
from measuring import compared, interleaved, rates, script, seconds
from snntorch import surrogate
from spikingjelly.activation_based import layer
from torch import Tensor, nn

from spikewvat import adapter_for
from spikewvat.lab.models import snntorch as snntorch_models
from spikewvat.lab.models import spikingjelly as jelly_models
from spikewvat.spiking.layers import Linear
from spikewvat.spiking.lif import LIF, Neurons, Recurrent

OURS = "spikewvat"
BETA, ALPHA, SLOPE, DENSITY = 0.9, 0.8, 2.0, 0.15
STEPS, BATCH, SIZE, CLASSES = 100, 64, 400, 10


class SnnTorch(nn.Module):
    """Recurrent neurons of snnTorch between dense layers over all steps at once."""

    def __init__(self, neurons: nn.Module) -> None:
        super().__init__()
        self.first, self.neurons = nn.Linear(SIZE, SIZE, bias=False), neurons
        self.readout = nn.Linear(SIZE, CLASSES, bias=False)
        self.output = snntorch.Leaky(beta=BETA, spike_grad=surrogate.atan(alpha=SLOPE))
        nn.init.zeros_(neurons.recurrent.bias)  # type: ignore[union-attr, arg-type]

    def forward(self, spikes: Tensor) -> Tensor:
        """Return output spikes [T, B, classes]."""
        states: tuple[Tensor, ...] = self.neurons.reset_mem()  # type: ignore[operator]
        fired = []
        for current in snntorch_models.folded(self.first, spikes):
            states = self.neurons(current, *states)
            fired.append(states[0])
        mem, sent = self.output.reset_mem(), []
        for current in snntorch_models.folded(self.readout, torch.stack(fired)):
            spike, mem = self.output(current, mem)
            sent.append(spike)
        return torch.stack(sent)


class Jelly(nn.Module):
    """SpikingJelly's container, whose matrix holds input and recurrent weights, and a read-out."""

    def __init__(self) -> None:
        super().__init__()
        single = jelly_models.Neurons(BETA, 1.0, SLOPE, "s")
        multiple = jelly_models.Neurons(BETA, 1.0, SLOPE, "m")
        self.layers = nn.Sequential(
            layer.LinearRecurrentContainer(single(), SIZE, SIZE, bias=False, step_mode="m"),
            layer.Linear(SIZE, CLASSES, bias=False, step_mode="m"),
            multiple(),
        )

    def forward(self, spikes: Tensor) -> Tensor:
        """Return output spikes [T, B, classes]."""
        output: Tensor = self.layers(spikes)
        return output


def ours(constants: LIF, alpha: float = 0.0) -> nn.Module:
    """Return the network of this package."""
    recurrent = Recurrent(SIZE, constants, alpha=alpha)
    return nn.Sequential(Linear(SIZE, SIZE), recurrent, Linear(SIZE, CLASSES), Neurons(constants))


_AFTER = LIF(BETA, reset_after_decay=True)  # as in snnTorch
_ABOUT: dict[str, Any] = {
    "beta": BETA,
    "linear_features": SIZE,
    "spike_grad": surrogate.atan(alpha=SLOPE),
}
SETUPS: dict[str, dict[str, Callable[[], nn.Module]]] = {
    "currents of one step": {
        "snnTorch, RLeaky": lambda: SnnTorch(snntorch.RLeaky(**_ABOUT)),
        "SpikingJelly, LinearRecurrentContainer": Jelly,
        OURS: lambda: ours(LIF(BETA)),
    },
    "currents that last": {
        "snnTorch, RSynaptic": lambda: SnnTorch(snntorch.RSynaptic(alpha=ALPHA, **_ABOUT)),
        OURS: lambda: ours(_AFTER, ALPHA),
    },
}


class Side:
    """One implementation."""

    def __init__(self, model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(0)
        self.spikes = (torch.rand(STEPS, BATCH, SIZE, generator=generator) < DENSITY).float()
        self.labels = torch.arange(BATCH) % CLASSES
        self.model, self.adapter = model, adapter_for(model)
        first, recurrent = (torch.randn(SIZE, SIZE, generator=generator) for _ in range(2))
        readout = torch.randn(CLASSES, SIZE, generator=generator)
        matrices = [first * 0.1, recurrent * 0.03, readout * 0.1]
        held = list(self.adapter.synaptic_weights(model).values())
        if len(held) == 2:  # SpikingJelly's
            matrices = [torch.cat(matrices[:2], 1), matrices[2]]
        if isinstance(model, SnnTorch):
            held = [model.first.weight, model.neurons.recurrent.weight, model.readout.weight]  # type: ignore[union-attr, list-item]
        with torch.no_grad():
            for weight, value in zip(held, matrices, strict=True):
                weight.copy_(value)
        self.optimizer = torch.optim.Adam(model.parameters(), 1e-4)

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


def measure(setup: str, rounds: int) -> dict[str, object]:
    """Return the comparison of one kind of neurons."""
    sides = {name: Side(make()) for name, make in SETUPS[setup].items()}
    outputs = {name: side.forward() for name, side in sides.items()}
    rows = [{"side": name, "spikes": int(outputs[name].sum())} for name in sides]
    for part in ("forward", "step"):
        calls = {name: getattr(side, part) for name, side in sides.items()}
        timed = {name: functools.partial(seconds, call) for name, call in calls.items()}
        found = compared(interleaved(timed, rounds), OURS)
        for row in rows:
            row["training" if part == "step" else part] = found[str(row["side"])]  # type: ignore[assignment]
    for row in rows:
        print(row["side"], row["spikes"], row["training"]["ms"], row["forward"]["ms"])  # type: ignore[index]
    print(rows[-1])
    return {"setup": setup, "rounds": rounds, "rows": rows}


def layers(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure both kinds of neurons."""
    sizes = {"steps": STEPS, "batch": BATCH, "sizes": [SIZE, SIZE, CLASSES], "density": DENSITY}
    constants = {"beta": BETA, "alpha": ALPHA, "surrogate": SLOPE}
    setups = [measure(setup, arguments.rounds) for setup in SETUPS]
    return {"scale": "quick", **sizes, **constants, "rates": rates(), "setups": setups}


if __name__ == "__main__":
    script(__file__, __doc__, layers, rounds=15)
