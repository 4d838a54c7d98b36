"""Our conversion beside SpikingJelly's ann2snn: the same ANN, calibration and test images.

    python benchmarks/conversion_peer.py --images 1000

Accuracy after 8 .. 128 steps, of ideal weights and on simulated chips, and the time of an image.
Every chip is the same draw for all sides: the weights have one order and one shape. The ANN is a
LeNet that is trained here for a few epochs, or the state of one: ``--checkpoint FILE``, written
by ``--save FILE``.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import ann2snn
from spikingjelly.activation_based.ann2snn.recipes import RateCodingRecipe
from torch import Tensor, nn
from torch.nn import functional

from spikewvat import Gaussian, adapter_for, files
from spikewvat.conversion import Dynamics, OverTime, convert
from spikewvat.data.images import MNIST
from spikewvat.provenance import provenance
from spikewvat.serialisation import read_json, write_json
from spikewvat.weights import replaced

STEPS = (8, 16, 32, 64, 128)
BATCH = 100
Potentials = Callable[[Tensor], Tensor]


def lenet() -> nn.Sequential:
    """Return the network: average pooling, which both sides convert exactly."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(800, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def train(images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """Return a LeNet after a few epochs of Adam."""
    ann = lenet()
    optimizer = torch.optim.Adam(ann.parameters(), 1e-3)
    steps = epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for _ in range(epochs):
        for index in torch.randperm(len(images)).split(64)[: len(images) // 64]:
            optimizer.zero_grad()
            functional.cross_entropy(ann(images[index]), labels[index]).backward()
            optimizer.step()
            schedule.step()
    return ann.eval()


def sides(ann: nn.Module, calibration: Tensor) -> dict[str, tuple[nn.Module, Potentials]]:
    """Return the networks and what yields their potentials [numbers of steps, B, classes]."""
    found: dict[str, tuple[nn.Module, Potentials]] = {}
    for name, options in (
        ("ann2snn, maximum (its default)", {}),
        ("ann2snn, 99.9 %", {"mode": "99.9%"}),
        ("ann2snn, 99.9 %, channels, half a threshold",
         {"mode": "99.9%", "channel_wise": True, "half_threshold": True}),
    ):  # fmt: skip
        recipe = RateCodingRecipe([(calibration,)], **options)
        net = ann2snn.Converter(recipe).convert(copy.deepcopy(ann)).eval()
        found[name] = (net, _jelly(net))
    for name, variation in (
        ("ours", None),
        ("ours, thresholds over 8 chips", Gaussian(0.1)),
    ):
        found[name] = _ours(ann, calibration, variation)
    return found


def _jelly(net: nn.Module) -> Potentials:
    adapter = adapter_for(net)

    def potentials(images: Tensor) -> Tensor:
        adapter.reset_state(net)
        outputs = torch.stack([net(images) for _ in range(STEPS[-1])])
        return outputs.cumsum(0)[torch.tensor(STEPS) - 1]

    return potentials


def _ours(
    ann: nn.Module, calibration: Tensor, variation: Gaussian | None
) -> tuple[nn.Module, Potentials]:
    """Return one network, which takes the thresholds that were fitted to each number of steps."""
    thresholds = {}
    for steps in STEPS:
        generator = torch.Generator().manual_seed(1)
        snn = convert(
            ann,
            [calibration],
            time_steps=steps,
            dynamics=Dynamics(initial=0.0),  # few_steps.py compares starts
            variation=variation,
            generator=generator,
        )
        thresholds[steps] = snn.thresholds()

    def potentials(images: Tensor) -> Tensor:
        found = []
        for snn.time_steps, fitted in thresholds.items():
            snn.set_thresholds(fitted)
            found.append(snn(images))
        return torch.stack(found)

    return snn, potentials


@torch.no_grad()
def accuracies(potentials: Potentials, images: Tensor, labels: Tensor) -> list[float]:
    """Return the accuracy after each number of steps."""
    right = torch.zeros(len(STEPS))
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        right += (potentials(x).argmax(2) == y).sum(1)
    return [round(value, 6) for value in (right / len(labels)).tolist()]


def on_chips(
    net: nn.Module, run: Callable[[], list[float]], chips: int, sigma: float
) -> list[list[float]]:
    """Return what each chip reaches; a chip is its seed."""
    live = adapter_for(net).synaptic_weights(net)
    found = []
    for seed in range(chips):
        generator = torch.Generator().manual_seed(seed)
        clean = {name: weight.detach() for name, weight in live.items()}
        with replaced(live, Gaussian(sigma).program(clean, generator=generator)):
            found.append(run())
    return found


@torch.no_grad()
def times(
    ann: nn.Module, calibration: Tensor, images: Tensor, rounds: int, seed: int
) -> list[dict[str, Any]]:
    """Return the time of an image of each side for every T, and its share of ann2snn's."""
    jelly = ann2snn.Converter(RateCodingRecipe([(calibration,)])).convert(copy.deepcopy(ann)).eval()
    snn = convert(ann, [calibration], time_steps=16)
    adapter, order, rows = adapter_for(jelly), random.Random(seed), []
    x = images[:BATCH]
    for steps in STEPS:
        theirs, snn.time_steps = OverTime(jelly, steps), steps
        taken: dict[str, list[float]] = {"ann2snn": [], "ours": []}
        for _ in range(rounds + 1):
            for name in order.sample(list(taken), 2):
                adapter.reset_state(jelly)
                start = time.perf_counter()
                (theirs if name == "ann2snn" else snn)(x)
                taken[name].append(time.perf_counter() - start)
        ours, peer = (torch.tensor(taken[n][1:]) for n in ("ours", "ann2snn"))
        low, median, high = (ours / peer).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        rows.append(
            {
                "steps": steps,
                "ours_ms": round(1e3 * float(ours.median()) / len(x), 4),
                "ann2snn_ms": round(1e3 * float(peer.median()) / len(x), 4),
                "ratio": round(median, 4),
                "quartiles": [round(low, 4), round(high, 4)],
                "rounds": rounds,
            }
        )
    return rows


def main() -> None:
    """Train or load, compare, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SPIKEWVAT_DATA", "data"))
    parser.add_argument("--checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--save", type=Path, metavar="FILE")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--chips", type=int, default=5)
    parser.add_argument("--sigma", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--speed", action="store_true", help="only take the times anew")
    parser.add_argument("--seed", type=int, default=0)
    out = Path(__file__).parent / "results" / "speed" / "conversion_peer.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    training, test = MNIST(arguments.data, "train"), MNIST(arguments.data, "test")
    known, images = training.images[:, None] / 255, test.images[: arguments.images, None] / 255
    labels = test.targets[: arguments.images]
    if arguments.speed:  # which do not depend on the weights
        speed = times(lenet().eval(), known[:512], images, arguments.rounds, arguments.seed)
        write_json(arguments.out, {**read_json(arguments.out), **provenance(), "speed": speed})
        print(*speed, sep="\n")
        return
    if arguments.checkpoint is None:
        ann = train(known, training.targets, arguments.epochs)
    else:
        ann = lenet().eval()
        files.load_state(ann, files.load(arguments.checkpoint), source=str(arguments.checkpoint))
    if arguments.save is not None:
        files.save(arguments.save, ann.state_dict())
    calibration = known[:512]

    def of_ann() -> list[float]:
        with torch.no_grad():
            return [float((ann(images).argmax(1) == labels).float().mean())]

    clean_ann, chips_ann = of_ann()[0], on_chips(ann, of_ann, arguments.chips, arguments.sigma)
    print(f"ANN {100 * clean_ann:.2f} %, on chips {100 * _mean([c[0] for c in chips_ann]):.2f} %")
    rows = []
    for name, (net, potentials) in sides(ann, calibration).items():

        def run(potentials: Potentials = potentials) -> list[float]:
            return accuracies(potentials, images, labels)

        clean = run()
        chips = on_chips(net, run, arguments.chips, arguments.sigma)
        mean = [_mean(column) for column in zip(*chips, strict=True)]
        rows.append(
            {
                "side": name,
                "steps": list(STEPS),
                "clean": clean,
                "chips": chips,
                "chips_mean": [round(value, 6) for value in mean],
            }
        )
        for what, values in (("clean", clean), ("chips", mean)):
            shown = "  ".join(f"{100 * value:6.2f}" for value in values)
            print(f"{name:<46} {what}  {shown}", flush=True)
    speed = times(ann, calibration, images, arguments.rounds, arguments.seed)
    for row in speed:
        print(
            f"T = {row['steps']:>3}: ours {row['ours_ms']:.3f} ms an image, {row['ratio']:.2f} of "
            f"ann2snn's time ({row['quartiles'][0]:.2f} .. {row['quartiles'][1]:.2f})"
        )
    write_json(
        arguments.out,
        {
            "recipe": "benchmarks/conversion_peer.py",
            "seeds": [arguments.seed],
            "scale": "full" if arguments.images >= 10_000 else "quick",
            "images": len(labels),
            "sigma": arguments.sigma,
            "ann": {"clean": clean_ann, "chips": [c[0] for c in chips_ann]},
            **provenance(),
            "rows": rows,
            "speed": speed,
        },
    )


def _mean(values: list[float] | tuple[float, ...]) -> float:
    return math.fsum(values) / len(values)


if __name__ == "__main__":
    main()
