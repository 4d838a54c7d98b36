"""What variation adds to a training step: drawing, displacing, restoring, as a share of it.

    python benchmarks/speed/step_parts.py [--rounds 20]

A round makes a plain step, then the parts without any forward pass. Times are the process's own on
one thread: on a shared machine long work is interrupted, short work is not. As in programs, freed
memory is kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from spikewvat import HSV, Gaussian, adapter_for
from spikewvat.memory import keep_freed_memory
from spikewvat.models.dense import FullyConnected
from spikewvat.recipes import read_recipe
from spikewvat.recipes.build import build_model
from spikewvat.recipes.results import provenance, write_json
from spikewvat.weights import perturbed

ROOT = Path(__file__).parents[1]
SIGMA = 0.10
PARTS = ("draw", "displace and restore")


def demo_cnn() -> tuple[nn.Module, Tensor]:
    """Return the demo network and a batch of spikes."""
    recipe = read_recipe(ROOT / "recipes" / "demo" / "adam.toml", preset="quick")
    shape = (recipe.data.parameters["time_steps"], recipe.training.batch_size, 2, 34, 34)
    return build_model(recipe), (torch.rand(shape) < 0.08).float()


def vgg5() -> tuple[nn.Module, Tensor]:
    """Return the VGG-5 of the conversion suite and a batch of images."""
    recipe = read_recipe(ROOT / "recipes" / "conversion" / "vgg5_sgd.toml")
    return build_model(recipe), torch.rand(recipe.training.batch_size, 3, 32, 32)


# Name, network and inputs, time first or not, passes of the parts in a row.
SETUPS: tuple[tuple[str, Callable[[], tuple[nn.Module, Tensor]], bool, int], ...] = (
    ("demo CNN, batch 32", demo_cnn, True, 20),
    ("VGG-5, batch 64", vgg5, False, 5),
    ("784-400-200-10, batch 128", lambda: (FullyConnected(), torch.rand(128, 784)), False, 5),
)


def taken(function: Callable[[], object], repeats: int) -> float:
    """Return the seconds of one call."""
    start = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - start) / repeats


def measure(
    make: Callable[[], tuple[nn.Module, Tensor]], timed: bool, repeats: int, rounds: int
) -> dict[str, object]:
    """Return the share of each part in a plain step: median over rounds, and quartiles."""
    torch.manual_seed(0)
    model, inputs = make()
    labels = torch.arange(inputs.shape[1 if timed else 0]) % 10
    adapter = adapter_for(model)
    weights, optimizer = adapter.synaptic_weights(model), torch.optim.SGD(model.parameters(), 1e-3)
    direction, generator = HSV(Gaussian(SIGMA)), torch.Generator().manual_seed(0)
    scratch: list[Tensor] = []
    delta = direction(weights, generator=generator)

    def plain() -> None:
        adapter.reset_state(model)
        optimizer.zero_grad()
        output = model(inputs)
        nn.functional.cross_entropy(output.sum(0) if timed else output, labels).backward()
        optimizer.step()

    def draw() -> None:
        nonlocal delta
        delta = direction(weights, generator=generator)

    def displace() -> None:
        with perturbed(weights, delta, scratch=scratch):
            pass

    times: dict[str, list[float]] = {"plain": [], **{part: [] for part in PARTS}}
    for number in range(rounds + 1):  # the first one warms up
        found = (taken(plain, 1), taken(draw, repeats), taken(displace, repeats))
        if number:
            for key, seconds in zip(times, found, strict=True):
                times[key].append(seconds)
    plain_times = torch.tensor(times["plain"])
    row: dict[str, object] = {"plain_ms": round(1e3 * float(plain_times.median()), 2)}
    both = torch.tensor(times[PARTS[0]]) + torch.tensor(times[PARTS[1]])
    row["both_ms"] = round(1e3 * float(both.median()), 3)
    for part, seconds in (*((p, torch.tensor(times[p])) for p in PARTS), ("both", both)):
        share = seconds / plain_times
        low, middle, high = share.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        row[part] = [round(low, 4), round(middle, 4), round(high, 4)]
    return {**row, "weights": sum(w.numel() for w in weights.values()), "rounds": rounds}


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "speed" / "step_parts.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for name, make, timed, repeats in SETUPS:
        row = {"setup": name, **measure(make, timed, repeats, arguments.rounds)}
        rows.append(row)
        shares = ", ".join(f"{part} {100 * row[part][1]:.2f} %" for part in (*PARTS, "both"))  # type: ignore[index]
        print(f"{name:<28} plain step {row['plain_ms']} ms: {shares}")
    content = {"recipe": "benchmarks/speed/step_parts.py", "seeds": [0], "sigma": SIGMA}
    write_json(arguments.out, {**content, **provenance(), "rows": rows})


if __name__ == "__main__":
    main()
