"""A training step of the paper's networks on CIFAR-10, part by part, and an epoch.

    python benchmarks/speed/training_at_size.py SETUP [--rounds 5]

All ways are the recipe at the paper's scale: as it is now (bf16, channels last, fused steps, whole
batches), the same through torch.compile, and as it was before (float32, single items put together,
none of these options). A round makes a step of each; the parts of a step are timed one after the
other on one thread, the data as well, which a training reads ahead on a second one. An epoch is an
estimate: the median step times the steps of 50 000 images. ``trained`` is the median step of the
trainer itself, over a few, and ``beside`` the same in two processes at once, as a suite trains on
two cores (measured if this process may use two). Images are random bytes of the same size: their
content takes no time. Times are the process's own on one thread: on a shared machine long work is
interrupted. The perturbation is noise, drawn anew (HSV of p = 1); plain training has none.

Rows of other setups stay in the file of results.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from measuring import ROOT, script, with_others
from torch import Tensor
from torch.utils.data import Dataset

from spikewvat import HSV, Gaussian, adapter_for
from spikewvat.data import make_loader
from spikewvat.data.stills import StillImages
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes.loaders import augmentation
from spikewvat.lab.recipes.resolve import Resolved, resolve
from spikewvat.lab.trainer import Trainer
from spikewvat.memory import keep_freed_memory
from spikewvat.weights import perturbed

IMAGES = 50_000
STEPS = 8  # of the trainer itself
SIGMA = 0.10
PARTS = ("data", "perturbation", "forward", "backward", "optimizer")
OLD = ("training.precision=32-true", "training.channels_last=false", "training.fused=false")
WAYS = {"before": OLD, "now": (), "compiled": ("training.compile=true",)}
# Name, recipe, changes of it, ways.
SETUPS = {
    "VGG-5": ("cifar10/vgg5_sgd.toml", (), tuple(WAYS)),
    "VGG-5, batch 128": ("cifar10/vgg5_sgd.toml", ("training.batch_size=128",), tuple(WAYS)),
    "VGG-16": ("cifar10/vgg16_sgd.toml", (), ("before", "now")),
    "ResNet-18": ("cifar10/resnet18_sgd.toml", (), ("before", "now")),
}
QUARTILES = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)


class Single(Dataset[Any]):
    """Hands out items one by one, as loaders took them before."""

    def __init__(self, images: StillImages) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        return list(self._images.__getitems__(indices))


def pictures(count: int) -> StillImages:
    """Return random images of CIFAR's size."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return StillImages(images, torch.arange(count) % 10, mean=0.5, std=0.5)


class Steps:
    """Makes steps of a recipe and notes how long their parts take.

    Args:
        resolved: The recipe.
        images: The data set.
        single: Whether items are handed out one by one.
    """

    def __init__(self, resolved: Resolved, images: StillImages, *, single: bool) -> None:
        settings = resolved.recipe.training
        self.model = resolved.build_model().train()
        self.optimizer = resolved.optimization(self.model.parameters())[0]
        self._loss = resolved.loss
        compiled = torch.compile(self.model, dynamic=False)
        self._called = compiled if settings.compile else self.model
        self._weights = adapter_for(self.model).synaptic_weights(self.model)
        self._noise, self._buffers = HSV(Gaussian(SIGMA, drawn=True)), {}
        self._generator = torch.Generator().manual_seed(0)
        self._bf16 = settings.precision == "bf16-mixed"
        dataset = Single(images) if single else images
        self._loader = make_loader(dataset, settings.batch_size, shuffle=True, drop_last=True)
        self._augment = augmentation(resolved.recipe, images.black)
        self._batches = self._endless()

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            for spikes, labels in self._loader:
                assert self._augment is not None
                yield self._augment(spikes), labels

    def step(self) -> dict[str, float]:
        """Make a step; return the seconds of its parts."""
        times = [time.process_time()]

        def note() -> None:
            times.append(time.process_time())

        inputs, labels = next(self._batches)
        note()
        plan = self._noise.plan(self._weights, generator=self._generator)
        with perturbed(self._weights, plan, buffers=self._buffers):
            note()
            with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
                output = self._called(inputs)
            loss = self._loss(output.float(), labels)
            note()
            loss.backward()
            note()
        note()
        self.optimizer.step()
        self.optimizer.zero_grad()
        note()
        data, enter, forward, backward, leave, optimizer = (
            end - start for start, end in itertools.pairwise(times)
        )
        return dict(zip(PARTS, (data, enter + leave, forward, backward, optimizer), strict=True))


def trained(resolved: Resolved) -> float:
    """Return the seconds of a step of the trainer, data on its thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    settings, began = resolved.recipe.training, []

    def loss(output: Any, labels: Tensor) -> Tensor:
        began.append(time.process_time())
        return resolved.loss(output, labels)

    model = resolved.build_model()
    optimizer, _ = resolved.optimization(model.parameters())
    images = pictures(STEPS * settings.batch_size)
    augment = augmentation(resolved.recipe, images.black)
    loader = make_loader(images, settings.batch_size, shuffle=True)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(folder, epochs=1, precision=settings.precision, progress=False)
        trainer.fit(model, loader, loss, optimizer, augment=augment)
    taken = [end - start for start, end in itertools.pairwise(began)]
    return float(torch.tensor(taken[3:]).median())  # what comes before warms up


def beside(path: str, given: tuple[str, ...], core: int) -> float:
    """Return the same in a process of its own, on one core."""
    os.sched_setaffinity(0, {core})
    return trained(resolve(read_recipe(ROOT / "recipes" / path, preset="paper", overrides=given)))


def summary(rounds: list[dict[str, float]], steps: int) -> dict[str, Any]:
    """Return median milliseconds of the parts, and an estimate of a plain epoch in seconds."""
    parts = torch.tensor([[row[part] for part in PARTS] for row in rounds], dtype=torch.float64)
    plain = parts.sum(1) - parts[:, PARTS.index("perturbation")]
    medians = dict(zip(PARTS, (1e3 * parts.median(0).values).tolist(), strict=True))
    return {
        "ms": {part: round(ms, 2) for part, ms in medians.items()},
        "plain_ms": [round(1e3 * t, 1) for t in plain.quantile(QUARTILES).tolist()],
        "epoch_s": round(steps * float(plain.median()), 1),
        "data_share": round(float((parts[:, 0] / plain).median()), 4),
    }


def measure(
    path: str, given: tuple[str, ...], chosen: tuple[str, ...], rounds: int
) -> dict[str, Any]:
    """Return what some ways take."""
    images = pictures(2048)
    recipes = {
        way: resolve(
            read_recipe(ROOT / "recipes" / path, preset="paper", overrides=given + WAYS[way])
        )
        for way in chosen
    }
    ways = {way: Steps(made, images, single=way == "before") for way, made in recipes.items()}
    taken: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(rounds + 1):  # the first one warms up
        for way, steps in ways.items():
            found = steps.step()
            if number:
                taken[way].append(found)
    batch = recipes["now"].recipe.training.batch_size
    row: dict[str, Any] = {"weights": sum(p.numel() for p in ways["now"].model.parameters())}
    row |= {"batch": batch, "rounds": rounds}
    row |= {way: summary(found, -(-IMAGES // batch)) for way, found in taken.items()}
    del ways, steps
    row["trained_ms"] = round(1e3 * trained(recipes["now"]), 1)
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) == 2:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            both = pool.starmap(beside, [(path, given, core) for core in cores])
        row["beside_ms"] = [round(1e3 * one, 1) for one in both]
    return {**row, "seconds": taken}


def rows(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a setup and print it; the result keeps the others."""
    name = arguments.setup
    torch.manual_seed(0)
    row = {"setup": name, **measure(*SETUPS[name], arguments.rounds)}
    print({key: value for key, value in row.items() if key != "seconds"})
    return {"sigma": SIGMA, "rows": with_others(row, arguments.out, SETUPS)}


if __name__ == "__main__":
    script(
        __file__,
        __doc__,
        rows,
        rounds=5,
        options=lambda parser: parser.add_argument("setup", choices=SETUPS),
    )
