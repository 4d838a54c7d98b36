"""The saccade camera beside reality: MNIST digits re-enacted, and real recordings of the same.

File number i of N-MNIST is MNIST training image i - 1. Needs a folder with NMNIST/{Train,Test} and
mnist/*.gz, in --data-root or $SPIKEWVAT_DATA; a part of N-MNIST's official training files will do.

    python benchmarks/simulator.py               figures and a picture
    python benchmarks/simulator.py --write DIR   DIR/NMNIST: Train re-enacted, Test real; train any
                                                 recipe on both roots to see how far re-enacted
                                                 recordings replace real ones
    python benchmarks/simulator.py --fit         the path of the saccades, from 200 recordings
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from spikewvat.data import NMNIST, SaccadeCamera
from spikewvat.data.events import Events
from spikewvat.data.images import MNIST
from spikewvat.data.saccades import write_recordings
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json

mpl.use("Agg")
from matplotlib import pyplot as plt

BENCHMARKS = Path(__file__).parent
RESULTS = BENCHMARKS / "results" / "data"
PICTURE = BENCHMARKS.parent / "docs" / "pictures" / "simulator.png"
SENSOR = 34
BIN_US = 5000
SHOWN_MS = (40, 60)  # in the middle of the first saccade
CALIBRATED_ON = 500  # the path was fitted to the first 200 of these, the rest chosen on all


class Pairs:
    """Real recordings and the images that they show, in order of their number."""

    def __init__(self, root: Path) -> None:
        files = []
        for split in ("train", "test"):
            data = NMNIST(root, split, time_steps=1, cache=False)  # type: ignore[arg-type]
            files += [(int(f.stem), split, data, i) for i, f in enumerate(data.files)]
        files.sort(key=lambda entry: entry[0])
        self.numbers = [number for number, *_ in files]
        self.train = [split == "train" for _, split, *_ in files]
        self.paths = [data.files[index] for _, _, data, index in files]
        self.labels = [data.targets[index] for _, _, data, index in files]
        self.recordings = [data.events(index) for _, _, data, index in files]
        mnist = MNIST(root, "train")
        indices = [number - 1 for number in self.numbers]
        self.images = mnist.images[indices]
        wrong = np.flatnonzero(np.not_equal(self.labels, mnist.targets[indices].numpy()))
        if len(wrong):
            raise SystemExit(
                f"{self.paths[wrong[0]]} does not show the MNIST training image before"
            )


def maps(recordings: Sequence[Events]) -> NDArray[np.float64]:
    """Return event counts [N, 2, 34, 34] over whole recordings."""
    size = 2 * SENSOR * SENSOR
    counts = [
        np.bincount((e["p"] * SENSOR + e["y"]) * SENSOR + e["x"], minlength=size)
        for e in recordings
    ]
    return np.stack(counts).reshape(-1, 2, SENSOR, SENSOR).astype(float)


def correlations(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Pearson correlation of each pair of maps."""
    one, other = (m.reshape(len(m), -1) for m in (one, other))
    one, other = (m - m.mean(1, keepdims=True) for m in (one, other))
    return (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))


def profile(recordings: Sequence[Events]) -> NDArray[np.float64]:
    """Return events per millisecond, in bins of 5 ms up to 320 ms."""
    edges = np.arange(0, 320_001, BIN_US)
    counts = sum(np.histogram(events["t"], edges)[0] for events in recordings)
    return np.asarray(counts) / len(recordings) / (BIN_US / 1000)


def bursts(rate: NDArray[np.float64]) -> list[dict[str, float]]:
    """Return the stretches with at least a quarter of the peak rate, in milliseconds."""
    busy = np.flatnonzero(np.diff(np.concatenate([[0], rate >= rate.max() / 4, [0]])))
    return [
        {
            "start_ms": float(start * BIN_US / 1000),
            "end_ms": float(end * BIN_US / 1000),
            "centre_ms": round(
                float(np.average(np.arange(start, end) + 0.5, weights=rate[start:end]))
                * BIN_US
                / 1000,
                1,
            ),
            "events": round(float(rate[start:end].sum() * BIN_US / 1000), 1),
        }
        for start, end in busy.reshape(-1, 2)
    ]


def described(recordings: Sequence[Events]) -> dict[str, Any]:
    """Return the figures of a set of recordings."""
    counts = np.array([len(events) for events in recordings])
    polarity = np.concatenate([events["p"] for events in recordings])
    return {
        "events_mean": round(float(counts.mean()), 1),
        "events_std": round(float(counts.std()), 1),
        "on_fraction": round(float(polarity.mean()), 4),
        "bursts": bursts(profile(recordings)),
    }


def compared(name: str, real: Sequence[Events], ours: Sequence[Events]) -> dict[str, Any]:
    """Return the figures of real and re-enacted recordings of the same digits."""
    a, b = maps(real), maps(ours)
    both, polar = correlations(a.sum(1), b.sum(1)), correlations(a, b)
    figures = {"real": described(real), "re_enacted": described(ours)}
    counts = [[len(events) for events in recordings] for recordings in (real, ours)]
    return {
        "digits": name,
        "recordings": len(real),
        **figures,
        "events_ratio": round(
            figures["re_enacted"]["events_mean"] / figures["real"]["events_mean"], 3
        ),
        "on_difference": round(
            figures["re_enacted"]["on_fraction"] - figures["real"]["on_fraction"], 4
        ),
        "map_correlation": {
            "mean": round(float(both.mean()), 3),
            "std": round(float(both.std()), 3),
            "lowest": round(float(both.min()), 3),
        },
        "map_correlation_by_polarity": round(float(polar.mean()), 3),
        "count_correlation": round(float(np.corrcoef(counts)[0, 1]), 3),
        "rate_correlation": round(float(np.corrcoef(profile(real), profile(ours))[0, 1]), 3),
    }


def compare(pairs: Pairs, camera: SaccadeCamera, seed: int) -> dict[str, Any]:
    """Re-enact the digits, print and return the figures, draw the picture."""
    ours = camera.record(pairs.images, generator=torch.Generator().manual_seed(seed))
    total = len(ours)
    first = min(CALIBRATED_ON, total)
    parts = {f"first {first}, calibrated on": range(first)}
    if total > first:
        parts[f"other {total - first}"] = range(first, total)
        parts["all"] = range(total)
    rows = []
    for name, indices in parts.items():
        row = compared(name, [pairs.recordings[i] for i in indices], [ours[i] for i in indices])
        rows.append(row)
        print(
            f"{name} ({row['recordings']}): events {row['re_enacted']['events_mean']:.0f} against "
            f"{row['real']['events_mean']:.0f} ({row['events_ratio']:.2f}), ON "
            f"{row['on_difference']:+.3f}, correlation of maps {row['map_correlation']['mean']:.3f}"
            f" (by polarity {row['map_correlation_by_polarity']:.3f}), of rates "
            f"{row['rate_correlation']:.3f}"
        )
        for kind in ("real", "re_enacted"):
            spans = [
                f"{b['centre_ms']:.0f} ({b['start_ms']:.0f} .. {b['end_ms']:.0f})"
                for b in row[kind]["bursts"]
            ]
            print(f"    {kind} bursts, ms: {', '.join(spans)}")
    draw(pairs, ours, PICTURE)
    return {"camera": vars(camera), "rows": rows}


def draw(pairs: Pairs, ours: Sequence[Events], path: Path) -> None:
    """Draw event maps of unseen digits side by side, and the rate of events over time."""
    unseen = range(min(CALIBRATED_ON, len(ours) - 10), len(ours))
    chosen: dict[int, int] = {}
    for index in unseen:
        chosen.setdefault(pairs.labels[index], index)
    shown = [chosen[label] for label in sorted(chosen)]
    rows = ("image", "real", "ours", "real_part", "ours_part")
    layout = [[f"{kind}{i}" for i in range(len(shown))] for kind in rows]
    layout += [["rate"] * len(shown)] * 2
    figure, axes = plt.subplot_mosaic(layout, figsize=(1.1 * len(shown), 7.8), layout="constrained")
    for column, index in enumerate(shown):
        axes[f"image{column}"].imshow(pairs.images[index], cmap="gray")
        pair = {"real": pairs.recordings[index], "ours": ours[index]}
        counts = {kind: maps([events])[0].sum(0) for kind, events in pair.items()}
        top = float(max(np.quantile(picture, 0.995) for picture in counts.values()))
        for kind, events in pair.items():
            axes[f"{kind}{column}"].imshow(counts[kind], cmap="magma", vmin=0, vmax=top)
            part = events[(events["t"] >= SHOWN_MS[0] * 1000) & (events["t"] < SHOWN_MS[1] * 1000)]
            zeros, ones = maps([part])[0]
            axes[f"{kind}_part{column}"].imshow(ones - zeros, cmap="RdBu", vmin=-3, vmax=3)
    window = f"{SHOWN_MS[0]}-{SHOWN_MS[1]} ms"
    for name, label in (
        ("image0", "MNIST"),
        ("real0", "real"),
        ("ours0", "re-enacted"),
        ("real_part0", f"real\n{window}"),
        ("ours_part0", f"re-enacted\n{window}"),
    ):
        axes[name].set_ylabel(label)
    for name, axis in axes.items():
        if name != "rate":
            axis.set(xticks=[], yticks=[])
    middle = (np.arange(64) + 0.5) * BIN_US / 1000
    for recordings, label in ((pairs.recordings, "real"), (ours, "re-enacted")):
        axes["rate"].plot(middle, profile(recordings), label=label)
    axes["rate"].set(xlabel="time, ms", ylabel="events per ms", xlim=(0, 320), ylim=(0, None))
    axes["rate"].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def write(pairs: Pairs, camera: SaccadeCamera, seed: int, folder: Path) -> None:
    """Write re-enacted training recordings beside copies of the real test recordings."""
    base = folder / "NMNIST"
    chosen = [index for index, train in enumerate(pairs.train) if train]
    write_recordings(
        base / "Train",
        pairs.images[chosen],
        [pairs.labels[index] for index in chosen],
        [pairs.numbers[index] for index in chosen],
        camera=camera,
        generator=torch.Generator().manual_seed(seed),
    )
    for index, train in enumerate(pairs.train):
        if not train:
            target = base / "Test" / str(pairs.labels[index]) / pairs.paths[index].name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(pairs.paths[index], target)
    print(f"{base}: Train {len(chosen)} re-enacted, Test {len(pairs.train) - len(chosen)} real")


def fit(pairs: Pairs, seed: int, *, recordings: int = 200, blur: float = 0.6) -> Tensor:
    """Return the position (x, y) of the image's corner every 10 ms, [32, 2].

    A pixel's events up to a time, summed with their signs, tell how far its intensity has moved
    since the start: ``a (I(x - r(t)) - I(x - r(0)))``. Gradient descent finds the ``r`` and ``a``
    for which that holds best for all pixels and times.
    """
    torch.manual_seed(seed)
    bins = 62  # of 5 ms
    size = bins * SENSOR * SENSOR
    moved = []
    for e in pairs.recordings[:recordings]:
        index = (np.minimum(e["t"] // BIN_US, bins - 1) * SENSOR + e["y"]) * SENSOR + e["x"]
        signed = np.bincount(index, weights=1 - 2 * e["p"], minlength=size)
        moved.append(signed.reshape(bins, SENSOR, SENSOR).cumsum(0))
    target = torch.from_numpy(np.stack(moved)).float()
    scene = SaccadeCamera(blur=blur)._scene(pairs.images[:recordings].float() / 255)
    margin, width = (scene.shape[-1] - 28) / 2, scene.shape[-1]
    knots = torch.full((32, 2), 3.0, requires_grad=True)
    scale = torch.tensor(5.0, requires_grad=True)
    optimizer = torch.optim.Adam([knots, scale], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    pixels = torch.arange(SENSOR).float()
    for _ in range(400):
        chosen = torch.randperm(len(scene))[:24]
        more = torch.cat([knots[:1], knots, knots[-1:]])
        between = (9 * (more[1:-2] + more[2:-1]) - more[:-3] - more[3:]) / 16  # as the camera does
        path = torch.stack([knots, torch.cat([between, knots[-1:]])], dim=1).reshape(-1, 2)[:-1]
        x = (pixels - path[:, :1] + margin + 0.5) / width * 2 - 1
        y = (pixels - path[:, 1:] + margin + 0.5) / width * 2 - 1
        grid = torch.stack(
            [x[:, None, :].expand(-1, SENSOR, -1), y[:, :, None].expand(-1, -1, SENSOR)], dim=-1
        )
        views = scene[chosen].expand(len(path), -1, -1, -1)
        seen = functional.grid_sample(views, grid, align_corners=False).transpose(0, 1)
        error = (scale * (seen[:, 1:] - seen[:, :1]) - target[chosen]).square().mean()
        bend = (knots[2:] - 2 * knots[1:-1] + knots[:-2]).square().mean()
        optimizer.zero_grad()
        (error + 0.01 * bend).backward()
        optimizer.step()
        schedule.step()
    print(f"mean squared error {error.item():.3f}, {scale.item():.2f} events per full intensity")
    return knots.detach()


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("SPIKEWVAT_DATA"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, metavar="DIR")
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "simulator.json")
    arguments = parser.parse_args()
    if not arguments.data_root:
        parser.error("set SPIKEWVAT_DATA or pass --data-root")
    pairs, camera = Pairs(Path(arguments.data_root)), SaccadeCamera()
    if arguments.fit:
        knots = fit(pairs, arguments.seed).tolist()
        print("\n".join(f"({x:.2f}, {y:.2f})," for x, y in knots))
    elif arguments.write:
        write(pairs, camera, arguments.seed, arguments.write)
    else:
        figures = compare(pairs, camera, arguments.seed)
        content = {"recipe": "benchmarks/simulator.py", "seeds": [arguments.seed], "scale": "quick"}
        write_json(arguments.out, {**content, **provenance(), **figures})


if __name__ == "__main__":
    main()
