"""Digests of trained weights: equal seeds have to end bit-identical from version to version.

    python benchmarks/training_digests.py

Trains the demo network (snnTorch, embedded event digits) by each method for a while on one thread
and prints a sha256 of its weights. Compare the output with that of another version of the package
on the same machine and torch; other processors may round differently.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from spikewvat import (
    AWP,
    GAV,
    HSV,
    SAM,
    SWA,
    WVAT,
    Gaussian,
    Momentum,
    Past,
    PerturbedGradient,
    Plain,
)
from spikewvat.data.embedded import embedded_root
from spikewvat.data.nmnist import NMNIST
from spikewvat.lab.models.snntorch import SpikingCNN
from spikewvat.perturbations import RandomLength, Warmup, variation
from spikewvat.spiking.losses import rate_cross_entropy
from spikewvat.training import GradientMethod

SEED, BATCH = 7, 32
DEVICE = Gaussian(sigma=0.1)


def _noise() -> Generator:
    return Generator().manual_seed(SEED)


METHODS: dict[str, Callable[[nn.Module, Optimizer], GradientMethod]] = {
    "plain": lambda model, _: Plain(model),
    "HSV": lambda model, _: PerturbedGradient(model, HSV(DEVICE), generator=_noise()),
    "GAV": lambda model, _: PerturbedGradient(model, GAV(DEVICE), generator=_noise()),
    "WVAT": lambda model, _: WVAT(model, DEVICE, generator=_noise()),
    "momentum + noise": lambda model, optimizer: WVAT(
        model, DEVICE, worst=Momentum(optimizer), mix="both", generator=_noise()
    ),
    "SAM": lambda model, _: PerturbedGradient(model, SAM(), generator=_noise()),
    "AWP": lambda model, _: PerturbedGradient(model, AWP(), generator=_noise()),
    "SWA": lambda model, _: Plain(model),
    "past": lambda model, _: WVAT(model, DEVICE, worst=Past(decay=0.9), generator=_noise()),
    "momentum-sam": lambda model, optimizer: PerturbedGradient(
        model, SAM(0.3, Momentum(optimizer)), generator=_noise()
    ),
    "warmup, random length": lambda model, _: PerturbedGradient(
        model, Warmup(RandomLength(variation(DEVICE), 0.5), 100), generator=_noise()
    ),
}


def batches(data: NMNIST) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches for ever, the same for every method."""
    generator = _noise()
    while True:
        order = torch.randperm(len(data), generator=generator).tolist()
        for first in range(0, len(order) - BATCH + 1, BATCH):
            yield data.batch(order[first : first + BATCH])


def digest(name: str, data: NMNIST, steps: int) -> str:
    """Train by one method and return the digest of the weights."""
    torch.manual_seed(SEED)
    model = SpikingCNN(channels=(8, 16), stride=2, pool=1, slope=5.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    method = METHODS[name](model, optimizer)
    swa = SWA(model)
    for step, (spikes, labels) in zip(range(1, steps + 1), batches(data), strict=False):
        optimizer.zero_grad()
        method.backward(lambda s=spikes, y=labels: rate_cross_entropy(model(s), y))
        optimizer.step()
        method.after_step()
        if step % 50 == 0:
            swa.update(step // 50 - 1)
    final = swa.model if name == "SWA" else model
    weights = (parameter.detach().numpy().tobytes() for parameter in final.parameters())
    return hashlib.sha256(b"".join(weights)).hexdigest()


def main() -> None:
    """Print a line for each method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=[*METHODS], metavar="METHOD")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = NMNIST(embedded_root(), "train", time_steps=6)
    for name in arguments.methods:
        print(f"{name:22s} {digest(name, data, arguments.steps)[:32]}", flush=True)


if __name__ == "__main__":
    main()
