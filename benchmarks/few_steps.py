"""Accuracy of converted LeNets within 1 to 32 steps, beside SpikingJelly's ann2snn and QCFS.

    nice python benchmarks/few_steps.py --data data --seeds 0 1 2

Each seed trains three LeNets on MNIST: with ReLU, with QCFS, and with QCFS under weight variation.
Every side converts one of them, and meets the same test images and the same chips; thresholds are
fitted to each number of steps where the side can. The result file is written after every side; a
run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import ann2snn, neuron
from spikingjelly.activation_based.ann2snn.recipes import (
    LocalThresholdBalancingRecipe,
    RateCodingRecipe,
)
from torch import Tensor, nn
from torch.nn import functional

from spikewvat import WVAT, Gaussian, adapter_for
from spikewvat.conversion import (
    QCFS,
    Dynamics,
    OffsetSpikes,
    SilentResiduals,
    SpikingNetwork,
    bias_targets,
    calibrate_biases,
    convert,
    sweep_time,
)
from spikewvat.data.images import MNIST
from spikewvat.provenance import provenance
from spikewvat.serialisation import read_json, write_json
from spikewvat.weights import replaced

STEPS = (1, 2, 4, 8, 16, 32)
LEVELS, SIGMA = 4, 0.10
BATCH = 250
Fit = Callable[[SpikingNetwork], object]
Batches = list[tuple[Tensor, Tensor]]


def lenet(activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Return LeNet-5 with average pooling, which all sides convert exactly."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), activation(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), activation(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), activation(), nn.Linear(120, 84), activation(), nn.Linear(84, 10)),
    )


def train(ann: nn.Module, images: Tensor, labels: Tensor, epochs: int, device: Any) -> nn.Module:
    """Train with Adam, under the variation of a device if there is one."""
    optimizer = torch.optim.Adam(ann.parameters(), 2e-3)
    steps = epochs * (len(images) // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    method = None if device is None else WVAT(ann, device)
    for _ in range(epochs):
        for index in torch.randperm(len(images)).split(64)[: len(images) // 64]:

            def loss(index: Tensor = index) -> Tensor:
                return functional.cross_entropy(ann(images[index]), labels[index])

            optimizer.zero_grad()
            if method is None:
                loss().backward()
            else:
                method.backward(loss)
            optimizer.step()
            schedule.step()
    return ann.eval()


def ours(ann: nn.Module, calibration: Tensor, *, biases: bool = False, **options: Any) -> Any:
    """Return a network, and a function from test batches to what it reaches after each T."""
    fitted: dict[int, SpikingNetwork] = {}
    for steps in STEPS:
        generator = torch.Generator().manual_seed(0)
        fitted[steps] = convert(
            ann, [calibration], time_steps=steps, generator=generator, **options
        )
    snn = fitted[STEPS[-1]]
    targets = bias_targets(snn, [calibration]) if biases else None

    def fit(net: SpikingNetwork) -> None:
        """Take over what was fitted to this T with the ideal weights; a chip's own stay."""
        for neurons, known in zip(
            net.neurons().values(), fitted[net.time_steps].neurons().values(), strict=True
        ):
            neurons.set_threshold(known.threshold)
            neurons.start = known.start
        if targets is not None:
            calibrate_biases(net, [calibration], targets)

    def run(test: Batches) -> dict[str, list[float]]:
        found = sweep_time(snn, test, STEPS, fit=fit)
        return {
            "accuracy": [round(float(a), 5) for a in found.accuracies],
            "spikes": [round(s, 1) for s in found.spikes],
        }

    return snn, run


def jelly(ann: nn.Module, recipe: Any) -> Any:
    """Return the same for a network that SpikingJelly converted."""
    net = ann2snn.Converter(recipe).convert(copy.deepcopy(ann)).eval()
    adapter = adapter_for(net)

    @torch.no_grad()
    def run(test: Batches) -> dict[str, list[float]]:
        right, spikes, images = torch.zeros(len(STEPS)), torch.zeros(STEPS[-1]), 0
        with counted(net) as counts:
            for x, y in test:
                adapter.reset_state(net)
                potential = torch.zeros(())
                for step in range(STEPS[-1]):
                    counts.clear()
                    potential = potential + net(x)
                    spikes[step] += sum(counts)
                    if step + 1 in STEPS:
                        right[STEPS.index(step + 1)] += (potential.argmax(1) == y).sum()
                images += len(y)
        totals = (spikes.cumsum(0) / images)[torch.tensor(STEPS) - 1]
        return {
            "accuracy": [round(a, 5) for a in (right / images).tolist()],
            "spikes": [round(s, 1) for s in totals.tolist()],
        }

    return net, run


@contextmanager
def counted(net: nn.Module) -> Iterator[list[float]]:
    """Collect the numbers of spikes of all calls of its neurons."""
    counts: list[float] = []
    hooks = [
        module.register_forward_hook(lambda m, x, out: counts.append(float(out.count_nonzero())))
        for module in net.modules()
        if isinstance(module, neuron.BaseNode)
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def sides(networks: dict[str, nn.Module], calibration: Tensor) -> dict[str, Callable[[], Any]]:
    """Return what makes each side."""
    relu, qcfs, varied = networks.values()
    device, half = Gaussian(SIGMA), Dynamics()

    def rate(**options: Any) -> Any:
        return jelly(relu, RateCodingRecipe([(calibration,)], **options))

    def own(ann: nn.Module, **options: Any) -> Any:
        return ours(ann, calibration, **options)

    return {
        "ours": lambda: own(relu),
        "ours, starting at 0": lambda: own(relu, dynamics=Dynamics(initial=0.0)),
        "ours, for chips": lambda: own(relu, variation=device),
        "ours, signed, bursts of 2": lambda: own(relu, dynamics=Dynamics(signed=True, burst=2)),
        "ours, biases of each chip": lambda: own(relu, dynamics=half, biases=True),
        "ours, offset spikes (COS)": lambda: own(relu, correction=OffsetSpikes()),
        "QCFS": lambda: own(qcfs),
        "QCFS, offset spikes (COS)": lambda: own(qcfs, correction=OffsetSpikes()),
        "QCFS, silent residuals (SRP)": lambda: own(qcfs, correction=SilentResiduals(4)),
        "QCFS under WVAT": lambda: own(varied),
        "ann2snn, maximum (its default)": rate,
        "ann2snn, 99.9 %": lambda: rate(mode="99.9%"),
        "ann2snn, 99.9 %, channels, half": lambda: rate(
            mode="99.9%", channel_wise=True, half_threshold=True
        ),
        # It takes a step towards its thresholds with every batch.
        "ann2snn, LTB": lambda: jelly(
            relu, LocalThresholdBalancingRecipe([(part,) for part in 4 * calibration.split(32)])
        ),
    }


def on_chips(net: nn.Module, run: Any, test: Batches, chips: int, sigma: float) -> list[Any]:
    """Return the accuracies of each chip after each T; a chip is its seed."""
    live = adapter_for(net).synaptic_weights(net)
    clean = {name: weight.detach() for name, weight in live.items()}
    found = []
    for seed in range(chips):
        draw = torch.Generator().manual_seed(seed)
        with replaced(live, Gaussian(sigma).program(clean, generator=draw)):
            found.append(run(test)["accuracy"])
    return found


def _networks(images: Tensor, labels: Tensor, epochs: int, seed: int) -> dict[str, nn.Module]:
    made: dict[str, nn.Module] = {}
    for name, activation, device in (
        ("ReLU", nn.ReLU, None),
        ("QCFS", lambda: QCFS(LEVELS, 1.0), None),
        ("QCFS under WVAT", lambda: QCFS(LEVELS, 1.0), Gaussian(SIGMA)),
    ):
        torch.manual_seed(seed)
        made[name] = train(lenet(activation), images, labels, epochs, device)
    return made


def main() -> None:
    """Train, convert, test, print and write the result after every side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SPIKEWVAT_DATA", "data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--training-images", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--chips", type=int, default=25)
    parser.add_argument("--chip-images", type=int, default=10_000)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.05, 0.10])
    out = Path(__file__).parent / "results" / "conversion" / "few_steps.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training, test = MNIST(arguments.data, "train"), MNIST(arguments.data, "test")
    known = training.images[: arguments.training_images, None] / 255
    labels = training.targets[: arguments.training_images]
    batches = _batches(test, arguments.images)
    few = _batches(test, arguments.chip_images)
    settings = {k: v for k, v in vars(arguments).items() if k not in ("data", "out", "seeds")}
    settings |= {"recipe": "benchmarks/few_steps.py", "steps": list(STEPS)}
    rows = _earlier(arguments.out, settings)

    def write() -> None:
        content = {**settings, "seeds": sorted({row["seed"] for row in rows}), **provenance()}
        write_json(arguments.out, {**content, "rows": rows})

    for seed in arguments.seeds:
        done = {row["side"] for row in rows if row["seed"] == seed}
        networks = _networks(known, labels, arguments.epochs, seed)
        for name, ann in networks.items():
            if f"ANN, {name}" in done:
                continue
            accuracy = _accuracy(ann, batches)
            rows.append({"seed": seed, "side": f"ANN, {name}", "accuracy": accuracy})
            print(f"seed {seed}  ANN, {name}: {100 * accuracy:.2f} %", flush=True)
        made = sides(networks, known[:512])
        names = [*(f"ANN, {name}" for name in networks), *made]
        for side, make in made.items():
            if side in done:
                continue
            began = time.process_time()
            net, run = make()
            row = {"seed": seed, "side": side, **run(batches)}
            row["chips"] = {
                f"{sigma:g}": on_chips(net, run, few, arguments.chips, sigma)
                for sigma in arguments.sigmas
            }
            rows.append(row)
            rows.sort(key=lambda r, n=names: (r["seed"], n.index(r["side"])))
            write()
            _show(row, time.process_time() - began)


def _earlier(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of an earlier run with the same settings, which are not run again."""
    if not path.exists():
        return []
    content = read_json(path)
    same = all(content.get(key) == value for key, value in settings.items())
    return list(content["rows"]) if same else []


def _batches(data: MNIST, count: int) -> Batches:
    images, labels = data.images[:count, None] / 255, data.targets[:count]
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


@torch.no_grad()
def _accuracy(ann: nn.Module, batches: Batches) -> float:
    right = sum(int((ann(x).argmax(1) == y).sum()) for x, y in batches)
    return round(right / sum(len(y) for _, y in batches), 5)


def _show(row: dict[str, Any], seconds: float) -> None:
    lines = {"clean": row["accuracy"]}
    for sigma, chips in row["chips"].items():
        lines[sigma] = [math.fsum(c) / len(c) for c in zip(*chips, strict=True)]
    print(f"seed {row['seed']}  {row['side']}  ({seconds:.0f} s)")
    for name, values in lines.items():
        print(f"  {name:>6} " + " ".join(f"{100 * v:6.2f}" for v in values), flush=True)


if __name__ == "__main__":
    main()
