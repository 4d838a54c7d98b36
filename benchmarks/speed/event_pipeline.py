"""From recordings to batches beside tonic: reading and binning, and a second epoch from the cache.

    python benchmarks/speed/event_pipeline.py [--data-root DIR] [--rounds 7]

Every round makes an epoch in each way, of single recordings or of batches, in random order, one
process, one thread. tonic reads and bins (``NMNIST``, ``ToFrame``) and joins the frames as its
documentation says (``PadTensors``). All batches hold the same spikes. Then two epochs of the demo
recipe are trained with recordings from the cache, and the share of them is taken in which the
trainer waits for batches.

Uses the recordings in --data-root or $SPIKEWVAT_DATA, the embedded event digits without either.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tonic
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from spikewvat import adapter_for
from spikewvat.data import NMNIST, embedded_root, make_loader
from spikewvat.data.events import NMNIST_SENSOR
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes.loaders import augmentation
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.memory import keep_freed_memory
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json

ROOT = Path(__file__).parents[1]
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
    order = random.Random(0)
    times: dict[str, list[float]] = {way: [] for way in loaders}
    for _ in range(rounds):
        for way in order.sample(list(loaders), len(loaders)):
            start = time.perf_counter()
            epoch(loaders[way])
            times[way].append((time.perf_counter() - start) / len(read))
    rows = []
    for way, taken in times.items():
        peer = ONE if way.endswith("one by one") else ALL
        ratios = torch.tensor(times[peer]) / torch.tensor(taken)
        low, ratio, high = ratios.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        rows.append(
            {
                "way": way,
                "over": peer,
                "ms": round(1e3 * float(torch.tensor(taken).median()), 3),
                "speed_up": round(ratio, 2),
                "quartiles": [round(low, 2), round(high, 2)],
            }
        )
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


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("SPIKEWVAT_DATA"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--per-class", type=int, default=32)
    out = ROOT / "results" / "speed" / "event_pipeline.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    root = arguments.data_root or embedded_root()
    keep_freed_memory()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    for steps in STEPS:
        with tempfile.TemporaryDirectory() as folder:
            cache, count = Path(folder), arguments.per_class
            found.append(measure(root, cache, steps, count, arguments.rounds))
        print(found[-1])
    with tempfile.TemporaryDirectory() as folder:
        share = share_of_loading(root, Path(folder))
    print(share)
    content = {
        "recipe": "benchmarks/speed/event_pipeline.py",
        "data": "N-MNIST" if arguments.data_root else "embedded event digits",
        "seeds": [0],
        "scale": "quick",
    }
    write_json(arguments.out, {**content, **provenance(), "setups": found, "training": share})


if __name__ == "__main__":
    main()
