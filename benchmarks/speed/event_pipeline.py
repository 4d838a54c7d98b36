"""From recordings to batches beside tonic: reading and binning, and a second epoch from the cache.

    python benchmarks/speed/event_pipeline.py [--data-root DIR] [--rounds 7]

Every round makes an epoch in each way, of single recordings or of batches, in random order, in one
process on one thread; times are its own. tonic reads and bins (``NMNIST``, ``ToFrame``) and joins
the frames as its documentation says (``PadTensors``). All batches hold the same spikes. Then two
epochs of the demo recipe are trained with recordings from the cache, and the share of them is taken
in which the trainer waits for batches.

Uses the recordings in --data-root or $SPIKEWVAT_DATA, the embedded event digits without either.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tonic
import torch
from measuring import ROOT, interleaved, quartiles, script, seconds, speed_up
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from spikewvat import adapter_for
from spikewvat.data import NMNIST, embedded_root, make_loader
from spikewvat.data.events import NMNIST_SENSOR
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes.loaders import augmentation
from spikewvat.lab.recipes.resolve import resolve

STEPS = (10, 30, 300)
BATCH = 32
ONE, ALL = "tonic, one by one", "tonic, batches"
WAYS = (ALL, "read and binned, batches", "cache, batches", "cache, sparse batches")


class Theirs(Dataset[Any]):
    """tonic's reader and frames of the same files."""

    def __init__(self, files: Iterable[Path], labels: Iterable[int], steps: int) -> None:
        self.samples = list(zip(map(str, files), labels, strict=True))
        self.frames = tonic.transforms.ToFrame(NMNIST_SENSOR, n_time_bins=steps)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        file, label = self.samples[index]
        events = tonic.io.read_mnist_file(file, dtype=tonic.datasets.nmnist.NMNIST.dtype)
        return self.frames(events), label


def epoch(loader: Iterable[Any]) -> None:
    """Make all batches."""
    for _ in loader:
        pass


def measure(root: Path, cache: Path, steps: int, count: int, rounds: int) -> dict[str, Any]:
    """Return times of a recording in each way, and what the cache takes."""

    def ours(**options: Any) -> NMNIST:
        return NMNIST(root, "train", time_steps=steps, per_class=count, **options)

    read, cached = ours(cache=False), ours(cache=cache)
    theirs = Theirs(read.files, read.targets, steps)
    collate = tonic.collation.PadTensors(batch_first=False)
    batched = dict(
        zip(
            WAYS,
            (
                DataLoader(theirs, BATCH, collate_fn=collate),
                make_loader(read, BATCH),
                make_loader(cached, BATCH),
                make_loader(ours(cache=cache, sparse=True), BATCH),
            ),
            strict=True,
        )
    )
    equal = all(
        torch.equal(batches[0][0] > 0, (b[0].to_dense() if b[0].is_sparse else b[0]) > 0)
        for batches in zip(*batched.values(), strict=True)
        for b in batches[1:]
    )
    loaders: dict[str, Any] = {ONE: theirs, "read and binned, one by one": read, **batched}
    calls = {way: functools.partial(epoch, loader) for way, loader in loaders.items()}
    timed = {way: functools.partial(seconds, call) for way, call in calls.items()}
    times = interleaved(timed, rounds)
    rows = []
    for way, taken in times.items():
        peer = ONE if way.endswith("one by one") else ALL
        middle = round(1e3 * quartiles(taken)[1] / len(read), 3)
        rows.append({"way": way, "ms": middle, **speed_up(peer, times[peer], taken)})
    (file,) = (cache / "binned").iterdir()
    sizes = {
        "cache": file.stat().st_size / len(read),
        "frames": float(read[0][0].numel()),
        "files": sum(path.stat().st_size for path in read.files) / len(read),
    }
    return {"time_steps": steps, "recordings": len(read), "equal": equal, "rows": rows} | {
        "bytes_a_recording": {name: round(size) for name, size in sizes.items()}
    }


def share_of_loading(root: Path, cache: Path) -> dict[str, Any]:
    """Train an epoch of the demo recipe; return the share of the time that waits for batches."""
    recipe = read_recipe(ROOT / "recipes" / "demo" / "adam.toml", preset="quick")
    steps = recipe.data.parameters["time_steps"]
    data = NMNIST(root, "train", time_steps=steps, cache=cache)
    order = torch.Generator().manual_seed(0)
    loader = make_loader(data, recipe.training.batch_size, shuffle=True, generator=order)
    model, augment = resolve(recipe).build_model(), augmentation(recipe)
    adapter, optimizer = adapter_for(model), torch.optim.Adam(model.parameters(), 1e-3)

    def step(spikes: Tensor, labels: Tensor) -> None:
        if augment is not None:
            spikes = augment(spikes, generator=order)
        adapter.reset_state(model)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(spikes).sum(0), labels).backward()
        optimizer.step()

    waited = total = 0.0
    for number in range(3):  # the first epoch warms up
        start = time.perf_counter()
        batches = iter(loader)
        waiting, begin = 0.0, start
        while (batch := next(batches, None)) is not None:
            waiting += time.perf_counter() - begin
            step(*batch)
            begin = time.perf_counter()
        if number > 0:
            waited, total = waited + waiting, total + begin - start
    return {"recipe": "demo/adam.toml", "recordings": len(data), "share": round(waited / total, 4)}


def pipelines(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure every length, and training."""
    root = arguments.data_root or embedded_root()
    found: list[dict[str, Any]] = []
    for steps in STEPS:
        with tempfile.TemporaryDirectory() as folder:
            cache, count = Path(folder), arguments.per_class
            found.append(measure(root, cache, steps, count, arguments.rounds))
        print(found[-1])
    with tempfile.TemporaryDirectory() as folder:
        share = share_of_loading(root, Path(folder))
    print(share)
    data = "N-MNIST" if arguments.data_root else "embedded event digits"
    return {"data": data, "scale": "quick", "setups": found, "training": share}


def options(parser: argparse.ArgumentParser) -> None:
    """Add what is read, and how much of it."""
    parser.add_argument("--data-root", type=Path, default=os.environ.get("SPIKEWVAT_DATA"))
    parser.add_argument("--per-class", type=int, default=32)


if __name__ == "__main__":
    script(__file__, __doc__, pipelines, rounds=7, options=options)
