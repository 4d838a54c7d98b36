"""Thresholds of the clean weights, of an ensemble of chips, and of each chip, beside each other.

    python benchmarks/balancing.py RUN [RUN ...] --images 500 --chips 25

RUN is a folder that ``spikewvat train`` has written, or ``spikewvat bench conversion``. All sides
meet the same chips and the same test images, so their differences are paired; a network trained
with another seed is another group, and chips are compared within it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from spikewvat import Gaussian, adapter_for
from spikewvat.conversion import Balancing, Dynamics, SpikingNetwork, balance, convert
from spikewvat.data import make_loader
from spikewvat.lab.recipes.loaders import open_data, spread
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.recipes.saved import load_model, read_run
from spikewvat.provenance import provenance
from spikewvat.robustness import hierarchical
from spikewvat.robustness.statistics import mean_of
from spikewvat.serialisation import write_json
from spikewvat.weights import replaced

CLEAN, ENSEMBLE, OWN = "clean weights", "ensemble of chips", "each chip's own"
CLEAN_AT_0, ENSEMBLE_AT_0 = "clean weights, potentials from 0", "ensemble of chips, from 0"
SIDES = (CLEAN, ENSEMBLE, OWN, CLEAN_AT_0, ENSEMBLE_AT_0)
STEPS = (4, 8, 16, 64)


@torch.no_grad()
def accuracies(snn: SpikingNetwork, batches: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """Return the accuracy after each number of steps, of one pass."""
    right, seen = torch.zeros(len(STEPS), dtype=torch.float64), 0
    for images, labels in batches:
        outputs = torch.cat(list(snn.outputs(images, time_steps=STEPS[-1])))
        potential = outputs.cumsum(0)[torch.tensor(STEPS) - 1]
        right += (potential.argmax(2) == labels).sum(1)
        seen += len(labels)
    return [float(value) for value in right / seen]


def measure(
    folder: Path, data_root: Path | None, images: int, chips: int, sigma: float
) -> dict[str, Any]:
    """Return what one trained network reaches, converted in all ways, on its chips."""
    recipe = read_run(folder)
    resolved = resolve(recipe)
    data = open_data(resolved, data_root)
    ann = load_model(folder, resolved).cpu()
    generator = torch.Generator().manual_seed(recipe.seed)
    training: Any = data.train.dataset
    chosen = torch.randperm(len(training), generator=generator)[:512].tolist()
    calibration = [batch[0] for batch in make_loader(Subset(training, chosen), 128)]
    test: Any = data.test.dataset
    batches = list(make_loader(spread(test, images), 100))
    device = Gaussian(sigma)
    networks = {
        side: convert(
            ann,
            calibration,
            time_steps=16,
            dynamics=Dynamics(initial=initial),
            variation=variation,
            generator=generator,
        )
        for side, initial, variation in (
            (CLEAN, 0.5, None),
            (ENSEMBLE, 0.5, device),
            (OWN, 0.5, None),
            (CLEAN_AT_0, 0.0, None),
            (ENSEMBLE_AT_0, 0.0, device),
        )
    }
    found: dict[str, Any] = {
        side: {"ideal": accuracies(snn, batches), "chips": []} for side, snn in networks.items()
    }
    for seed in range(chips):
        for side, snn in networks.items():
            live = adapter_for(snn).synaptic_weights(snn)
            clean = {name: weight.detach() for name, weight in live.items()}
            draw = torch.Generator().manual_seed(seed)
            with replaced(live, device.program(clean, generator=draw)):
                if side == OWN:
                    balance(snn, calibration, Balancing())
                found[side]["chips"].append(accuracies(snn, batches))
        means = {side: mean_of([c[2] for c in part["chips"]]) for side, part in found.items()}
        shown = ", ".join(f"{side} {100 * mean:.2f}" for side, mean in means.items())
        print(f"{folder.name}, {seed + 1} chips, T = {STEPS[2]}: {shown}", flush=True)
    return {"recipe": recipe.name, "seed": recipe.seed, "sides": found}


def compared(networks: Sequence[dict[str, Any]], side: str, at: int) -> dict[str, Any]:
    """Return mean accuracy at a number of steps, and its paired difference from clean weights."""
    values = [[chip[at] for chip in network["sides"][side]["chips"]] for network in networks]
    base = [[chip[at] for chip in network["sides"][CLEAN]["chips"]] for network in networks]
    gains = torch.tensor(values, dtype=torch.float64) - torch.tensor(base, dtype=torch.float64)
    row: dict[str, Any] = {
        "side": side,
        "steps": STEPS[at],
        "mean": mean_of([value for group in values for value in group]),
    }
    if side != CLEAN:
        gain = hierarchical(gains, same_chips=True)
        row["gain"], row["gain_ci95"] = gain.mean, list(gain.interval())
    return row


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", type=Path, default=os.environ.get("SPIKEWVAT_DATA", "data"))
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--chips", type=int, default=25)
    parser.add_argument("--sigma", type=float, default=0.1)
    out = Path(__file__).parent / "results" / "conversion" / "balancing.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    networks = [
        measure(run, arguments.data, arguments.images, arguments.chips, arguments.sigma)
        for run in arguments.runs
    ]
    rows = [compared(networks, side, at) for at in range(len(STEPS)) for side in SIDES]
    for row in rows:
        gain = ""
        if "gain" in row:
            low, high = row["gain_ci95"]
            gain = f", {100 * row['gain']:+.2f} ({100 * low:+.2f} .. {100 * high:+.2f})"
        print(f"T = {row['steps']:>3}  {row['side']:<18} {100 * row['mean']:6.2f}{gain}")
    write_json(
        arguments.out,
        {
            "recipe": "benchmarks/balancing.py",
            "seeds": [network["seed"] for network in networks],
            "scale": "quick",
            "images": arguments.images,
            "sigma": arguments.sigma,
            **provenance(),
            "networks": networks,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
