"""What variation adds to a training step: noise, displacing, restoring, as a share of it.

    python benchmarks/speed/step_parts.py [--rounds 20]

A round makes a plain step as the recipe does, then displaces the weights and restores them without
any forward pass: by nothing, by noise that is drawn, and by noise that is looked up in a table.
Times are the process's own on one thread: on a shared machine long work is interrupted, short work
is not. As in programs, freed memory is kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from measuring import ROOT, quartiles, script
from torch import Tensor, nn

from spikewvat import HSV, Gaussian, adapter_for
from spikewvat.devices import DeviceModel, GaussianTable
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.weights import perturbed

SIGMA = 0.10
DEVICES = {
    "save and restore": None,
    "noise drawn": Gaussian(SIGMA),
    "noise looked up": GaussianTable(SIGMA),
}


# Name, recipe, shape of an image without time, passes of the parts in a row.
SETUPS = (
    ("demo CNN", "demo/adam.toml", (2, 34, 34), 20),
    ("VGG-5", "conversion/vgg5_sgd.toml", (3, 32, 32), 5),
    ("784-400-200-10", "league/fc.toml", (1, 28, 28), 5),
)


def spikes(*shape: int) -> Tensor:
    """Return as many spikes as event digits have."""
    return (torch.rand(shape) < 0.08).float()


def taken(function: Callable[[], object], repeats: int) -> float:
    """Return the seconds of one call."""
    start = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - start) / repeats


def measure(path: str, shape: tuple[int, ...], repeats: int, rounds: int) -> dict[str, object]:
    """Return the share of each part in a plain step: median over rounds, and quartiles."""
    torch.manual_seed(0)
    recipe = read_recipe(ROOT / "recipes" / path, preset="quick")
    steps = recipe.data.parameters.get("time_steps")
    batch = recipe.training.batch_size
    inputs = torch.rand(batch, *shape) if steps is None else spikes(steps, batch, *shape)
    labels = torch.arange(batch) % 10
    resolved = resolve(recipe)
    model = resolved.build_model()
    adapter = adapter_for(model)
    weights, optimizer = (
        adapter.synaptic_weights(model),
        resolved.optimization(model.parameters())[0],
    )
    generator = torch.Generator().manual_seed(0)
    buffers: dict[str, Tensor] = {}

    def plain() -> None:
        adapter.reset_state(model)
        optimizer.zero_grad()
        output = model(inputs)
        nn.functional.cross_entropy(output.sum(0) if steps else output, labels).backward()
        optimizer.step()

    def there_and_back(device: DeviceModel | None) -> None:
        noise = HSV(device).plan(weights, generator=generator) if device else lambda live: None
        with perturbed(weights, noise, buffers=buffers):
            pass

    parts = {name: partial(there_and_back, device) for name, device in DEVICES.items()}
    times: dict[str, list[float]] = {"plain": [], **{name: [] for name in parts}}
    for number in range(rounds + 1):  # the first one warms up
        found = {"plain": taken(plain, 1)}
        found |= {name: taken(part, repeats) for name, part in parts.items()}
        if number:
            for name, seconds in found.items():
                times[name].append(seconds)
    plain_times = torch.tensor(times["plain"], dtype=torch.float64)
    seconds_of = {name: torch.tensor(times[name], dtype=torch.float64) for name in parts}
    return {
        "plain_ms": round(1e3 * float(plain_times.median()), 2),
        "shares": {
            name: [round(share, 4) for share in quartiles(part / plain_times)]
            for name, part in seconds_of.items()
        },
        "batch": batch,
        "weights": sum(w.numel() for w in weights.values()),
        "rounds": rounds,
    }


def rows(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure every network and print it."""
    found = []
    for name, path, shape, repeats in SETUPS:
        found.append({"setup": name, **measure(path, shape, repeats, arguments.rounds)})
        print(found[-1])
    return {"sigma": SIGMA, "rows": found}


if __name__ == "__main__":
    script(__file__, __doc__, rows, rounds=20)
