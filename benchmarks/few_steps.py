"""Accuracy of converted LeNets within 1 to 32 steps, beside SpikingJelly's ann2snn and QCFS.

    nice python benchmarks/few_steps.py --data data
    python benchmarks/few_steps.py --data data --times

Each seed trains three LeNets on MNIST: with ReLU, with QCFS, and with QCFS under weight variation.
Every side converts one of them, and meets the same test images and the same chips; thresholds are
fitted to each number of steps where the side can. Without variation they see all test images; a
chip sees one of --parts parts of them, each part being seen by as many chips. Networks that
SpikingJelly converted run as they are without variation; chips run its thresholds and starts in
our loop, after a check that both give the same accuracies. The result file is written after every
side; a run that was stopped goes on from there. ``--times`` measures the time of an image instead,
all sides in turn, and adds it to the file.
"""

from __future__ import annotations

import argparse
import copy
import functools
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from quick_neurons import quick
from spikingjelly.activation_based import ann2snn, neuron
from spikingjelly.activation_based.ann2snn.recipes import (
    LocalThresholdBalancingRecipe,
    RateCodingRecipe,
)
from torch import Tensor, nn
from torch.nn import functional

from spikewvat import WVAT, BiasTrim, Evaluator, Gaussian, adapter_for, files
from spikewvat.conversion import (
    QCFS,
    Dynamics,
    OffsetSpikes,
    OverTime,
    SilentResiduals,
    SpikingNetwork,
    convert,
    sweep_time,
)
from spikewvat.data.images import MNIST
from spikewvat.provenance import provenance
from spikewvat.robustness.calibration import Measure, Repair
from spikewvat.serialisation import read_json, write_json
from spikewvat.weights import replaced

STEPS = (1, 2, 4, 8, 16, 32)
LEVELS, SIGMA = 4, 0.10
BATCH = 64
SAME = 0.001  # difference in accuracy between SpikingJelly's modules and our loop
TIMED, TIMED_STEPS = 100, 4  # images and steps of a pass whose time is taken
Batches = list[tuple[Tensor, Tensor]]
HEADS = ("ReLU", "QCFS", "QCFS under WVAT")


@dataclass
class Side:
    """A converted network.

    Args:
        snn: The network.
        fit: Called before each test, when ``time_steps`` of the network is set; None for a network
            of which one pass gives the scores after every step.
        peer: The network as SpikingJelly converted it.
        measures: What is done to each chip, with the calibration images.
        calibration: Batches of them.
    """

    snn: SpikingNetwork
    fit: Callable[[SpikingNetwork], object] | None = None
    peer: nn.Module | None = None
    measures: tuple[Measure, ...] = ()
    calibration: Batches = field(default_factory=list)


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


def ours(
    ann: nn.Module,
    calibration: Batches,
    *measures: Measure,
    steps: Sequence[int],
    options: dict[str, Any],
) -> Side:
    """Return a network with thresholds for each T, and what is done to each of its chips."""
    fitted: dict[int, SpikingNetwork] = {}
    for t in steps:
        generator = torch.Generator().manual_seed(0)
        fitted[t] = convert(ann, calibration, time_steps=t, generator=generator, **options)

    def fit(net: SpikingNetwork) -> None:
        """Take over what was fitted to this T with the ideal weights."""
        for neurons, known in zip(
            net.neurons().values(), fitted[net.time_steps].neurons().values(), strict=True
        ):
            neurons.set_threshold(known.threshold)
            neurons.start = known.start

    snn = fitted[steps[-1]]
    learned = all(neurons.levels is not None for neurons in snn.neurons().values())
    once = learned and not measures and not isinstance(snn.correction, OffsetSpikes)
    return Side(snn, None if once else fit, measures=measures, calibration=calibration)


def jelly(ann: nn.Module, recipe: Any) -> Side:
    """Return a network that SpikingJelly converted, and one of ours with its thresholds."""
    net = ann2snn.Converter(recipe).convert(copy.deepcopy(ann)).eval()
    images = torch.rand(32, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    snn = convert(ann, [images], time_steps=STEPS[-1])  # only for its layers
    scales = [module.scale for name, module in net.named_modules() if name.endswith("scaler1")]
    nodes = [module for module in net.modules() if isinstance(module, neuron.BaseNode)]
    for own, scale, node in zip(snn.neurons().values(), scales, nodes, strict=True):
        own.set_threshold(scale)
        half = isinstance(node, neuron.HalfThresholdIFNode)
        own.start = torch.full_like(own.start, 0.5 if half else 0.0)
    return Side(snn, peer=net)


def sides(
    networks: dict[str, nn.Module], calibration: Batches, steps: Sequence[int] = STEPS
) -> dict[str, Callable[[], Side]]:
    """Return what makes each side for these numbers of steps, the most telling ones first."""
    relu, qcfs, varied = (networks[name] for name in HEADS)
    images = torch.cat([x for x, _ in calibration])
    offsets = BiasTrim(samples=256)

    def rate(**options: Any) -> Side:
        return jelly(relu, RateCodingRecipe([(images,)], **options))

    def own(ann: nn.Module, *measures: Measure, **options: Any) -> Side:
        return ours(ann, calibration, *measures, steps=steps, options=options)

    robust = {"mode": "99.9%", "channel_wise": True}
    return {
        "ours": lambda: own(relu),
        "QCFS under WVAT": lambda: own(varied),
        "QCFS": lambda: own(qcfs),
        # It takes a step towards its thresholds with every batch.
        "ann2snn, LTB": lambda: jelly(
            relu, LocalThresholdBalancingRecipe([(part,) for part in 4 * images.split(32)])
        ),
        "ann2snn, 99.9 %, channels, half": lambda: rate(**robust, half_threshold=True),
        "ours, signed, bursts of 2": lambda: own(relu, dynamics=Dynamics(signed=True, burst=2)),
        "ours, offsets of each chip": lambda: own(relu, offsets),
        "QCFS, silent residuals (SRP)": lambda: own(qcfs, correction=SilentResiduals(4)),
        "ann2snn, maximum (its default)": rate,
        "ann2snn, 99.9 %": lambda: rate(mode="99.9%"),
        "ann2snn, half the maximum": lambda: rate(mode=0.5),
        "ann2snn, 99.9 %, channels": lambda: rate(**robust),
        "QCFS under WVAT, offsets of each chip": lambda: own(varied, offsets),
        "ours, for chips": lambda: own(relu, variation=Gaussian(SIGMA)),
        "ours, offset spikes (COS)": lambda: own(relu, correction=OffsetSpikes()),
        "QCFS, offset spikes (COS)": lambda: own(qcfs, correction=OffsetSpikes()),
        "ours, starting at 0": lambda: own(relu, dynamics=Dynamics(initial=0.0)),
    }


FIRST = 8  # sides that all seeds run before any runs the others


def without_variation(side: Side, test: Batches) -> dict[str, Any]:
    """Return accuracy, spikes and synaptic operations after each T."""
    found = sweep_time(side.snn, test, STEPS, fit=side.fit)
    row: dict[str, Any] = {
        "accuracy": [round(float(a), 5) for a in found.accuracies],
        "spikes": [round(s, 1) for s in found.spikes],
        "operations": [round(o) for o in found.operations],
    }
    if side.peer is not None:
        own = _accuracies(_potentials(side.peer), test, STEPS)
        furthest = max(abs(a - b) for a, b in zip(own, row["accuracy"], strict=True))
        if furthest > SAME:
            raise AssertionError(f"SpikingJelly's modules give {own}, ours {row['accuracy']}.")
        row["accuracy"] = own
    return row


def on_chips(side: Side, parts: list[Batches], chips: int, sigma: float) -> list[list[float]]:
    """Return the accuracies of the chips for each T."""
    snn = side.snn
    if side.fit is None:
        snn.time_steps = STEPS[-1]
        over_time = [
            _accuracies(lambda x: torch.cat(list(snn.outputs(x))).cumsum(0), parts[k], STEPS)
            for k in _held(snn, chips, sigma, len(parts))
        ]
        return [list(column) for column in zip(*over_time, strict=True)]
    found = []
    for snn.time_steps in STEPS:
        side.fit(snn)
        with Evaluator(snn, side.calibration).bench(side.calibration) as bench:
            repair = Repair(bench, side.measures)
            own = []
            for seed, part in enumerate(_held(snn, chips, sigma, len(parts))):
                with repair.calibrated(seed):
                    own += _accuracies(lambda x: snn(x)[None], parts[part], [1])
        found.append(own)
    return found


def _held(net: nn.Module, chips: int, sigma: float, parts: int) -> Iterator[int]:
    """Yield the part for each chip, while the network holds its weights; a chip is its seed."""
    live = adapter_for(net).synaptic_weights(net)
    clean = {name: weight.detach() for name, weight in live.items()}
    for seed in range(chips):
        draw = torch.Generator().manual_seed(seed)
        with replaced(live, Gaussian(sigma).program(clean, generator=draw)):
            yield seed % parts


def _potentials(net: nn.Module) -> Callable[[Tensor], Tensor]:
    adapter = adapter_for(net)

    def potentials(images: Tensor) -> Tensor:
        adapter.reset_state(net)
        return torch.stack([net(images) for _ in range(STEPS[-1])]).cumsum(0)

    return potentials


@torch.no_grad()
def _accuracies(
    potentials: Callable[[Tensor], Tensor], test: Batches, steps: Sequence[int]
) -> list[float]:
    """Return the accuracy after each of so many steps, from potentials [T, B, classes]."""
    right = torch.zeros(len(steps), dtype=torch.float64)
    at = torch.tensor(steps) - 1
    for x, y in test:
        right += (potentials(x)[at].argmax(2) == y).sum(1)
    return [round(float(r), 5) for r in right / sum(len(y) for _, y in test)]


@torch.no_grad()
def times(made: dict[str, Callable[[], Side]], images: Tensor, rounds: int) -> dict[str, float]:
    """Return the median time of an image in ms, all sides in turn."""
    runs: dict[str, Callable[[], object]] = {}
    for name, make in made.items():
        side = make()
        side.snn.time_steps = TIMED_STEPS
        net = side.snn if side.peer is None else OverTime(side.peer, TIMED_STEPS)
        runs[name] = functools.partial(_run_anew, adapter_for(net), net, images)
    taken: dict[str, list[float]] = {name: [] for name in runs}
    order = random.Random(0)
    for _ in range(rounds + 1):
        for name in order.sample(list(runs), len(runs)):
            start = time.perf_counter()
            runs[name]()
            taken[name].append(time.perf_counter() - start)
    return {
        name: round(1e3 * statistics.median(of[1:]) / len(images), 4) for name, of in taken.items()
    }


def _run_anew(adapter: Any, net: nn.Module, images: Tensor) -> object:
    adapter.reset_state(net)
    return net(images)


def _networks(
    images: Tensor, labels: Tensor, epochs: int, seed: int, kept: Path
) -> dict[str, nn.Module]:
    """Return the trained networks of a seed, from their files if there are any."""
    made: dict[str, nn.Module] = {}
    makers: tuple[tuple[Any, Any], ...] = (
        (nn.ReLU, None),
        (lambda: QCFS(LEVELS, 1.0), None),
        (lambda: QCFS(LEVELS, 1.0), Gaussian(SIGMA)),
    )
    for name, (activation, device) in zip(HEADS, makers, strict=True):
        path = kept / f"{name}-{seed}-{len(images)}-{epochs}.safetensors".replace(" ", "_")
        torch.manual_seed(seed)
        ann: nn.Module = lenet(activation).eval()
        if path.exists():
            files.load_state(ann, files.load(path), source=str(path))
        else:
            ann = train(ann.train(), images, labels, epochs, device)
            path.parent.mkdir(parents=True, exist_ok=True)
            files.save(path, ann.state_dict())
        made[name] = ann
    return made


def main() -> None:
    """Train, convert, test, print and write the result after every side."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("SPIKEWVAT_DATA", "data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--training-images", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--chips", type=int, default=25)
    parser.add_argument("--parts", type=int, default=10)
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.05, 0.10])
    parser.add_argument("--kept", type=Path, default=Path("runs/few_steps"), metavar="FOLDER")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--rounds", type=int, default=21)
    out = Path(__file__).parent / "results" / "conversion" / "few_steps.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training, test = MNIST(arguments.data, "train"), MNIST(arguments.data, "test")
    known = training.images[: arguments.training_images, None] / 255
    labels = training.targets[: arguments.training_images]
    images = test.images[: arguments.images, None] / 255
    batches = _batches(images, test.targets[: arguments.images])
    of_run = ("data", "out", "seeds", "kept", "times", "rounds")
    settings = {k: v for k, v in vars(arguments).items() if k not in of_run}
    settings |= {"recipe": "benchmarks/few_steps.py", "steps": list(STEPS)}
    content = _earlier(arguments.out, settings)

    def networks_of(seed: int) -> dict[str, nn.Module]:
        return _networks(known, labels, arguments.epochs, seed, arguments.kept)

    calibration = _batches(known[:512], labels[:512])
    if arguments.times:
        made = sides(networks_of(arguments.seeds[0]), calibration, [TIMED_STEPS])
        taken = times(made, images[:TIMED], arguments.rounds)
        about = {"steps": TIMED_STEPS, "images": TIMED, "rounds": arguments.rounds}
        content["times"] = {**about, **provenance(), "ms": taken}
        write_json(arguments.out, content)
        print(*(f"{name:<40} {ms:7.4f} ms" for name, ms in taken.items()), sep="\n")
        return
    for first in (True, False):
        for seed in arguments.seeds:
            with quick():
                _run(content, networks_of(seed), calibration, batches, arguments, seed, first)


def _run(
    content: dict[str, Any],
    networks: dict[str, nn.Module],
    calibration: Batches,
    batches: Batches,
    arguments: Any,
    seed: int,
    first: bool,
) -> None:
    """Run the sides of a training that have not run yet, and write each into the file."""
    rows = content["rows"]
    done = {row["side"] for row in rows if row["seed"] == seed}
    made = sides(networks, calibration)
    chosen = list(made)[:FIRST] if first else list(made)[FIRST:]
    names = [*(f"ANN, {name}" for name in networks), *made]
    whole = [torch.cat(of) for of in zip(*batches, strict=True)]
    parts = [_batches(*(x[k :: arguments.parts] for x in whole)) for k in range(arguments.parts)]
    for side in [*names[: len(networks)], *chosen]:
        if side in done:
            continue
        began = time.process_time()
        row: dict[str, Any] = {"seed": seed, "side": side}
        if side in made:
            converted = made[side]()
            row |= without_variation(converted, batches)
            row["chips"] = {
                f"{sigma:g}": on_chips(converted, parts, arguments.chips, sigma)
                for sigma in arguments.sigmas
            }
        else:
            row |= _of_ann(networks[side.removeprefix("ANN, ")], batches, parts, arguments)
        row["seconds"] = round(time.process_time() - began)
        rows.append(row)
        rows.sort(key=lambda r: (r["seed"], names.index(r["side"])))
        content |= {"seeds": sorted({r["seed"] for r in rows}), **provenance()}
        write_json(arguments.out, content)
        _show(row)


def _of_ann(
    ann: nn.Module, batches: Batches, parts: list[Batches], arguments: Any
) -> dict[str, Any]:
    """Return the accuracy of an ANN without variation and on the chips."""

    def accuracy(test: Batches) -> list[float]:
        return _accuracies(lambda x: ann(x)[None], test, [1])

    chips = {
        f"{sigma:g}": [
            [accuracy(parts[k])[0] for k in _held(ann, arguments.chips, sigma, len(parts))]
        ]
        for sigma in arguments.sigmas
    }
    return {"accuracy": accuracy(batches), "chips": chips}


def _batches(images: Tensor, labels: Tensor) -> Batches:
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


def _earlier(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the results of an earlier run with the same settings, whose rows do not run again."""
    content = read_json(path) if path.exists() else {}
    same = all(content.get(key) == value for key, value in settings.items())
    return content if same else {**settings, "rows": []}


def _show(row: dict[str, Any]) -> None:
    lines = {"clean": row["accuracy"]}
    for sigma, of_steps in row["chips"].items():
        lines[sigma] = [math.fsum(chips) / len(chips) for chips in of_steps]
    print(f"seed {row['seed']}  {row['side']}  ({row['seconds']} s)")
    for name, values in lines.items():
        print(f"  {name:>6} " + " ".join(f"{100 * v:6.2f}" for v in values), flush=True)


if __name__ == "__main__":
    main()
