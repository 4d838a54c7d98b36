"""What a chip costs in an evaluation, beside a clean evaluation and a plain loop.

    python benchmarks/speed/monte_carlo.py [--rounds 3] [--device cuda]

A round evaluates the clean network, chips as an ``Evaluator`` does, chips stacked, and chips as
a loop does that copies noise into the weights for every batch; ratios are those of a round. Then
what an interval of half a point on each side costs by three designs, for a network trained on
scikit-learn's digits: as many chips as planned, or until the interval is narrow, on all images or
on as many as pay.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from spikewvat import Gaussian, adapter_for
from spikewvat.errors import UnsupportedModelError
from spikewvat.lab.models.dense import FullyConnected
from spikewvat.lab.models.slayer import FullyConnected as SlayerNet
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.memory import keep_freed_memory
from spikewvat.provenance import provenance
from spikewvat.robustness import (
    ChipReport,
    Evaluator,
    best_split,
    chips_needed,
    simulate_chips,
)
from spikewvat.serialisation import write_json
from spikewvat.spiking.losses import class_scores

ROOT = Path(__file__).parents[1]
SIGMA, WIDTH = 0.10, 0.01
CHIPS = 100  # in a round, for each way
QUARTILES = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
BATCH = 250


def spikes(steps: int, *shape: int) -> Callable[[int], Tensor]:
    """Return a maker of random spikes [T, B, ...]."""
    return lambda images: (torch.rand(steps, images, *shape) < 0.03).float()


def demo_cnn() -> nn.Module:
    """Return the demo network."""
    recipe = read_recipe(ROOT / "recipes" / "demo" / "adam.toml", preset="quick")
    return resolve(recipe).build_model()


# Name, network, inputs, images; 2312 inputs at 30 steps are what N-MNIST has at 10 ms.
SETUPS: tuple[tuple[str, Callable[[], nn.Module], Callable[[int], Tensor], int], ...] = (
    ("784-400-200-10", FullyConnected, lambda images: torch.rand(images, 784), 10_000),
    ("SLAYER 2312-400-200-10, T = 30", SlayerNet, spikes(30, 2312), 250),
    ("demo CNN, T = 6", demo_cnn, spikes(6, 2, 34, 34), 200),
)


def teacher(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return labels that the network gets right: what it answers without noise."""
    adapter_for(model).reset_state(model)
    model.eval()
    with torch.no_grad():
        return class_scores(model(inputs)).argmax(1)


def plain_loop(model: nn.Module, loader: list[Any], chips: int, device: str) -> list[float]:
    """Draw noise anew for every batch, in place, and restore a copy: what one writes first."""
    adapter = adapter_for(model)
    weights = adapter.synaptic_weights(model)
    found = []
    model.eval()
    with torch.no_grad():
        for _ in range(chips):
            right = images = 0
            for inputs, labels in loader:
                saved = {name: weight.clone() for name, weight in weights.items()}
                for weight in weights.values():
                    weight.add_(torch.randn_like(weight) * SIGMA * 6 * weight.std())
                adapter.reset_state(model)
                scores = class_scores(model(inputs.to(device)))
                right += int((scores.argmax(1) == labels.to(device)).sum())
                images += len(labels)
                for name, weight in weights.items():
                    weight.copy_(saved[name])
            found.append(right / images)
    return found


def seconds(function: Callable[[], object], device: str) -> float:
    """Return how long a call takes, the GPU's work included."""
    if device == "cpu":
        # The process's own time on one thread, whatever else the machine does.
        start = time.process_time()
        function()
        return time.process_time() - start
    start = time.perf_counter()
    function()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def ways(model: nn.Module, loader: list[Any], chips: int, device: str) -> dict[str, Any]:
    """Return a function for each way to evaluate so many chips."""

    def simulated(stack: bool) -> Callable[[], object]:
        return lambda: simulate_chips(
            model,
            loader,
            Gaussian(SIGMA),
            chips=chips,
            stack=stack,
        )

    found: dict[str, Any] = {
        "clean": lambda: [Evaluator(model, loader, cache_bytes=0).accuracy for _ in range(chips)],
        "chips": simulated(False),
        "stacked": simulated(True),
        "plain loop": lambda: plain_loop(model, loader, chips, device),
    }
    try:  # the first chips of a run are never stacked: they show what a chip takes
        simulate_chips(model, loader[:1], Gaussian(SIGMA), chips=3, stack=True)
    except UnsupportedModelError:
        del found["stacked"]
    return found


def chip_cost(model: nn.Module, loader: list[Any], images: int) -> float:
    """Return what a chip costs beyond its images, in images: from few and from many of them."""
    few = max(1, images // 20)

    def one(count: int) -> float:
        run = {"chips": 12, "images_per_chip": count}
        return seconds(lambda: simulate_chips(model, loader, Gaussian(SIGMA), **run), "cpu") / 12

    one(few)
    slow, fast = one(images), one(few)
    return max(1.0, fast / max(slow - fast, 1e-9) * (images - few) - few)


def trained() -> tuple[nn.Module, list[Any], int]:
    """Return a network trained on half of the digits, and the other half in batches."""
    torch.manual_seed(0)
    pixels, digits = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(digits)
    model, half = FullyConnected(sizes=(64, 100, 10)), len(x) // 2
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:half]), y[:half]).backward()
        optimizer.step()
    x, y = x[half:], y[half:]
    return model, list(zip(x.split(BATCH), y.split(BATCH), strict=True)), len(x)


def designs(runs: int = 40) -> dict[str, object]:
    """Return what an interval of +-0.5 points costs by each design, and how often it is right.

    A run plans from eight chips. The fixed design tests as many chips on all images as those ask
    for; the stopped ones test until the interval is narrow, on all images or on as many as pay.
    """
    model, loader, images = trained()

    def simulated(seed: int, chips: int, **design: Any) -> ChipReport:
        return simulate_chips(model, loader, Gaussian(SIGMA), chips=chips, seed=seed, **design)

    truth = simulated(1, 4000).mean
    cost = chip_cost(model, loader, images)
    found: dict[str, list[tuple[int, int, bool]]] = {"fixed": [], "stopped": [], "split": []}
    for run in range(runs):
        pilot = simulated(1000 + run, 8)
        split = best_split(pilot, WIDTH, chip_cost=cost)
        stop = {"interval_width": WIDTH}
        reports = {
            "fixed": simulated(2000 + run, chips_needed(pilot, WIDTH)),
            "stopped": simulated(3000 + run, 4000, **stop),
            "split": simulated(4000 + run, 4000, images_per_chip=split.images, **stop),
        }
        for design, report in reports.items():
            low, high = report.ci95
            found[design].append((report.chips, report.images, low <= truth <= high))
    return {
        "runs": runs,
        "images": images,
        "chip_cost": round(cost, 1),
        "designs": {design: summed_up(rows) for design, rows in found.items()},
    }


def summed_up(rows: list[tuple[int, int, bool]]) -> dict[str, object]:
    """Return medians over runs, quartiles of the cost, and the share of intervals that cover."""
    chips, images, covers = torch.tensor(rows, dtype=torch.float64).unbind(1)
    return {
        "chips": float(chips.median()),
        "images": float(images.median()),
        "chip_images": [float(x) for x in (chips * images).quantile(QUARTILES)],
        "covers": float(covers.mean()),
    }


def measure(
    make: Callable[[], nn.Module],
    inputs_of: Callable[[int], Tensor],
    images: int,
    rounds: int,
    device: str,
) -> dict[str, object]:
    """Return each way's time over the clean evaluation's: quartiles and median of rounds."""
    torch.manual_seed(0)
    model = make()
    inputs = inputs_of(images)
    labels = teacher(model, inputs)
    axis = int(inputs.shape[0] != images)
    loader = list(zip(inputs.split(BATCH, axis), labels.split(BATCH), strict=True))
    model.to(device)
    functions = ways(model, loader, CHIPS, device)
    times: dict[str, list[float]] = {way: [] for way in functions}
    for number in range(rounds + 1):  # the first one warms up
        for way, function in functions.items():
            taken = seconds(function, device)
            if number:
                times[way].append(taken)
    clean = torch.tensor(times["clean"], dtype=torch.float64)
    row: dict[str, object] = {"clean_ms": round(1e3 * float(clean.median()) / CHIPS, 2)}
    for way in functions:
        if way != "clean":
            ratios = torch.tensor(times[way], dtype=torch.float64) / clean
            row[way] = [round(float(x), 3) for x in ratios.quantile(QUARTILES)]
    return {**row, "images": images, "chips_a_round": CHIPS, "rounds": rounds, "device": device}


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    name = "monte_carlo" if arguments.device == "cpu" else f"monte_carlo_{arguments.device}"
    out = arguments.out or ROOT / "results" / "speed" / f"{name}.json"
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = []
    for name, make, inputs_of, images in SETUPS:
        row = {
            "setup": name,
            **measure(make, inputs_of, images, arguments.rounds, arguments.device),
        }
        rows.append(row)
        print(row, flush=True)
    content = {"recipe": "benchmarks/speed/monte_carlo.py", "seeds": [0], "sigma": SIGMA}
    found = designs()
    print(found)
    write_json(out, {**content, "width": WIDTH, **provenance(), "rows": rows, "designs": found})


if __name__ == "__main__":
    main()
