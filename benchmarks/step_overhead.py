"""What a training step costs beside plain training, method by method.

Each round runs a few steps of every method, in random order; a method's ratio is its time in a
round over plain training's in the same round, so that whatever else the machine does hits all
alike. SAM of the package pytorch_optimizer runs beside ours as a peer.

    python benchmarks/step_overhead.py [--rounds 40] [--out benchmarks/results/overhead/step.json]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from pytorch_optimizer import SAM as PeerSAM
from torch import Tensor, nn

from spikewvat import AWP, GAV, HSV, SAM, Gaussian, PerturbedGradient, Plain, adapter_for
from spikewvat.lab.models.dense import FullyConnected
from spikewvat.lab.models.snntorch import SpikingCNN as SnnTorchCNN
from spikewvat.lab.models.spikingjelly import SpikingCNN as SpikingJellyCNN
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.suites.steps import STEPS, Step, interleaved, step_of
from spikewvat.provenance import provenance
from spikewvat.results import StepTime, StepTimes
from spikewvat.serialisation import write
from spikewvat.training import WVAT

SIGMA = 0.10
RECIPES = Path(__file__).parent / "recipes" / "demo"


class Setup:
    """A network with a batch of its kind; every method trains its own copy."""

    def __init__(
        self, name: str, make: Callable[[], nn.Module], inputs: Tensor, *, spiking: bool
    ) -> None:
        self.name, self.make, self.inputs, self.spiking = name, make, inputs, spiking
        self.labels = torch.arange(inputs.shape[1 if spiking else 0]) % 10

    def loss(self, output: Tensor) -> Tensor:
        """Return the cross-entropy of the class scores."""
        return nn.functional.cross_entropy(output.sum(0) if self.spiking else output, self.labels)

    def stepper(self, method: str) -> Step:
        """Return a function that makes one training step."""
        torch.manual_seed(0)
        model = self.make()
        if method == "sam (pytorch_optimizer)":
            return self.peer(model)
        device = Gaussian(SIGMA)
        gradient = {
            "plain": lambda: Plain(model),
            "hsv": lambda: PerturbedGradient(model, HSV(device), warn_after=None),
            "gav": lambda: PerturbedGradient(model, GAV(device), warn_after=None),
            "wvat": lambda: WVAT(model, device, w_th=0.5, warn_after=None),
            "sam": lambda: PerturbedGradient(model, SAM(), warn_after=None),
            "awp": lambda: PerturbedGradient(model, AWP(), warn_after=None),
        }[method]()
        return step_of(
            model,
            torch.optim.SGD(model.parameters(), lr=1e-3),
            self.loss,
            self.inputs,
            method=gradient,
        )

    def peer(self, model: nn.Module) -> Step:
        """Return a step of another package's SAM."""
        adapter = adapter_for(model)
        peer = PeerSAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=1e-3)

        def step() -> None:
            for move in (peer.first_step, peer.second_step):
                adapter.reset_state(model)
                self.loss(model(self.inputs)).backward()
                move(zero_grad=True)

        return step


METHODS = ("plain", "hsv", "gav", "wvat", "sam", "sam (pytorch_optimizer)", "awp")


def setups() -> list[Setup]:
    """Return the demo network in both frameworks, and the MNIST network."""
    recipe = read_recipe(RECIPES / "adam.toml", preset="quick")
    steps, batch = recipe.data.parameters["time_steps"], recipe.training.batch_size
    spikes = (torch.rand(steps, batch, 2, 34, 34) < 0.08).float()
    parameters = dict(recipe.model.parameters)
    jelly = dict(read_recipe(RECIPES / "adam_spikingjelly.toml", preset="quick").model.parameters)
    return [
        Setup("demo CNN, snnTorch", lambda: SnnTorchCNN(**parameters), spikes, spiking=True),
        Setup("demo CNN, SpikingJelly", lambda: SpikingJellyCNN(**jelly), spikes, spiking=True),
        Setup("MNIST 784-400-200-10", FullyConnected, torch.rand(128, 784), spiking=False),
    ]


def measure(setup: Setup, rounds: int, seed: int) -> list[StepTime]:
    """Return a row for each method: median ratio to plain, quartiles, milliseconds."""
    steps = {method: setup.stepper(method) for method in METHODS}
    found = interleaved(steps, baseline="plain", rounds=rounds, seed=seed)
    return [StepTime(setup=setup.name, method=m, **times) for m, times in found.items()]


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "overhead" / "step.json"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for setup in setups():
        print(f"\n{setup.name}")
        for row in measure(setup, arguments.rounds, arguments.seed):
            rows.append(row)
            low, high = row.quartiles
            print(
                f"  {row.method:<26} {row.ratio:5.2f}  ({low:.2f} .. {high:.2f})  {row.ms:8.2f} ms"
            )
    times = StepTimes(
        rows=tuple(rows),
        recipe="benchmarks/step_overhead.py",
        seeds=(arguments.seed,),
        scale="quick",
        sigma=SIGMA,
        steps_per_round=STEPS,
        **provenance(),
    )
    write(arguments.out, times)


if __name__ == "__main__":
    main()
