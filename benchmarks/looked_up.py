"""Whether training with noise that is looked up is as good as with noise that is drawn.

    python benchmarks/looked_up.py [--seeds 0,60] [--data-root DIR]

Five small networks learn MNIST with noise in every step, from the same weights and batches, once
with noise out of the table and once with independent noise. Each pair is tested on the same
simulated chips, whose noise is always independent; the result holds the mean of its chips. Pairs
that the result file has already are not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import snntorch
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from spikewvat import HSV, Evaluator, Gaussian, PerturbedGradient
from spikewvat.data.images import MNIST
from spikewvat.lab.models.dense import FullyConnected
from spikewvat.lab.models.lif import FullyConnected as LIFNetwork
from spikewvat.memory import keep_freed_memory
from spikewvat.provenance import provenance
from spikewvat.serialisation import read_json, write_json

OUT = Path(__file__).parent / "results" / "speed" / "looked_up.json"
SIGMA, STEPS, CHIPS = 0.10, 4, 10
TRAINED, TESTED, EPOCHS, BATCH = 3000, 1000, 5, 64
SIZES = (784, 64, 10)


class SnnTorch(nn.Module):
    """A dense network of snnTorch's leaky neurons; potentials of the last layer [T, B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden = nn.Linear(*SIZES[:2]), snntorch.Leaky(beta=0.9)
        self.last, self.out = (
            nn.Linear(*SIZES[1:]),
            snntorch.Leaky(beta=0.9, reset_mechanism="none"),
        )

    def forward(self, currents: Tensor) -> Tensor:
        """Run all time steps."""
        hidden, out, potentials = self.hidden.reset_mem(), self.out.reset_mem(), []
        for current in self.first(currents.flatten(2)):
            spikes, hidden = self.hidden(current, hidden)
            _, out = self.out(self.last(spikes), out)
            potentials.append(out)
        return torch.stack(potentials)


def jelly() -> nn.Module:
    """Return a dense network of SpikingJelly's leaky neurons; spikes [T, B, 10]."""
    net = nn.Sequential(
        layer.Flatten(),
        layer.Linear(*SIZES[:2]),
        neuron.LIFNode(detach_reset=True),
        layer.Linear(*SIZES[1:]),
        neuron.LIFNode(detach_reset=True),
    )
    functional.set_step_mode(net, "m")
    return net


def convolutional() -> nn.Module:
    """Return a small convolutional ReLU network."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 10),
    )


SETUPS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "ReLU network 784-64-10": (lambda: FullyConnected(sizes=SIZES), False),
    "convolutional ReLU network": (convolutional, False),
    "LIF network 784-64-10": (lambda: LIFNetwork(sizes=SIZES), True),
    "snnTorch 784-64-10": (SnnTorch, True),
    "SpikingJelly 784-64-10": (jelly, True),
}
"""How to make each network, and whether it runs over time, with pixels as constant currents."""


def images(root: Path | None, split: str, count: int) -> tuple[Tensor, Tensor]:
    """Return so many standardised images and their labels."""
    found = MNIST(root, split, limit=count, standardize=True)
    return torch.stack([image for image, _ in found]), torch.tensor([label for _, label in found])


def over_time(inputs: Tensor) -> Tensor:
    """Return the same currents in every step, [T, B, ...]."""
    return inputs.expand(STEPS, *inputs.shape)


def batches(
    inputs: Tensor, labels: Tensor, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch in random order."""
    for chosen in torch.randperm(len(labels), generator=generator).split(BATCH):
        yield inputs[chosen], labels[chosen]


def accuracy(
    make: Callable[[], nn.Module],
    spiking: bool,
    drawn: bool,
    seed: int,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
) -> float:
    """Train one network and return its mean accuracy over chips, in per cent."""
    torch.manual_seed(seed)
    model, order = make(), torch.Generator().manual_seed(seed)
    method = PerturbedGradient(
        model,
        HSV(Gaussian(SIGMA, drawn=drawn)),
        generator=torch.Generator().manual_seed(seed),
        warn_after=None,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(EPOCHS):
        for chosen, labels in batches(*train, order):
            inputs = over_time(chosen) if spiking else chosen

            def loss(inputs: Tensor = inputs, labels: Tensor = labels) -> Tensor:
                output = model(inputs)
                return nn.functional.cross_entropy(output.sum(0) if spiking else output, labels)

            optimizer.zero_grad()
            method.backward(loss)
            optimizer.step()
    pictures, labels = test
    tested = [(over_time(pictures) if spiking else pictures, labels)]
    report = Evaluator(model.eval(), tested).chips(Gaussian(SIGMA), chips=CHIPS)
    return 100 * report.mean


def main() -> None:
    """Run the pairs that are missing, seed by seed, and write each at once."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", default="0,60", help="the first and one beyond the last")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start no pair later")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    start = time.monotonic()
    rows: dict[str, dict[str, Any]] = {name: {} for name in SETUPS}
    if arguments.out.exists():
        rows |= read_json(arguments.out)["rows"]
    train = images(arguments.data_root, "train", TRAINED)
    test = images(arguments.data_root, "test", TESTED)
    first, beyond = map(int, arguments.seeds.split(","))
    for seed in range(first, beyond):
        for name, (make, spiking) in SETUPS.items():
            if str(seed) in rows[name] or time.monotonic() - start > arguments.seconds:
                continue
            rows[name][str(seed)] = {
                what: round(accuracy(make, spiking, drawn, seed, train, test), 3)
                for what, drawn in (("drawn", True), ("looked up", False))
            }
            content = {"recipe": "benchmarks/looked_up.py", "sigma": SIGMA, "chips": CHIPS}
            content |= {"images": TESTED, "epochs": EPOCHS}
            write_json(arguments.out, {**content, **provenance(), "rows": rows})


if __name__ == "__main__":
    main()
