"""Binning of events beside tonic's ToFrame: the same frames, and how much sooner.

Every recording is binned both ways and compared entry by entry. Then each round bins some of the
recordings both ways, in random order; the speed-up is the ratio of the two times in a round, so
that whatever else the machine does hits both alike.

    python benchmarks/event_binning.py [--data-root DIR] [--rounds 40]

Uses the recordings in --data-root or $SPIKEWVAT_DATA, the embedded event digits without either.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tonic

from spikewvat.data import NMNIST, bin_events, embedded_root
from spikewvat.data.events import NMNIST_SENSOR, Events
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json

BATCH = 20  # recordings in a round
SETTINGS: tuple[tuple[dict[str, int], dict[str, int]], ...] = (
    ({"time_steps": 10}, {"n_time_bins": 10}),
    ({"time_steps": 30}, {"n_time_bins": 30}),
    ({"time_steps": 300}, {"n_time_bins": 300}),
    ({"window_us": 10_000}, {"time_window": 10_000}),
    (
        {"time_steps": 30, "window_us": 10_000},
        {"time_window": 10_000, "start_time": 0, "end_time": 300_000},
    ),
)


def measure(
    ours: dict[str, int],
    theirs: dict[str, int],
    recordings: Sequence[Events],
    rounds: int,
    seed: int,
) -> dict[str, Any]:
    """Return equality and speed-up for one way to cut time."""
    to_frame = tonic.transforms.ToFrame(NMNIST_SENSOR, **theirs)
    ways: dict[str, Callable[[Events], Any]] = {
        "tonic": to_frame,
        "count": lambda events: bin_events(events, **ours, reduce="count"),
        "or": lambda events: bin_events(events, **ours, reduce="or"),
    }
    equal = sum(
        np.array_equal(ways["count"](events), frames)
        and np.array_equal(ways["or"](events), frames > 0)
        for events in recordings
        for frames in [to_frame(events)]
    )
    order = random.Random(seed)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        chosen = order.sample(range(len(recordings)), BATCH)
        for way in order.sample(sorted(ways), len(ways)):
            start = time.perf_counter()
            for index in chosen:
                ways[way](recordings[index])
            times[way].append((time.perf_counter() - start) / BATCH)
    row: dict[str, Any] = {
        "binning": ours,
        "tonic": theirs,
        "recordings": len(recordings),
        "equal": int(equal),
        "rounds": rounds,
        "ms": {way: round(1e3 * float(np.median(taken)), 3) for way, taken in times.items()},
    }
    for way in ("count", "or"):
        ratio = np.quantile(np.divide(times["tonic"], times[way]), [0.25, 0.5, 0.75])
        row[f"speed_up_{way}"] = round(float(ratio[1]), 2)
        row[f"quartiles_{way}"] = [round(float(ratio[0]), 2), round(float(ratio[2]), 2)]
    return row


def main() -> None:
    """Compare, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("SPIKEWVAT_DATA"))
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results/data/event_binning.json"
    )
    arguments = parser.parse_args()
    root = arguments.data_root or embedded_root()
    recordings = []
    for split in ("train", "test"):
        data = NMNIST(root, split, time_steps=1, cache=False)
        recordings += [data.events(index) for index in range(len(data))]
    rows = []
    for ours, theirs in SETTINGS:
        row = measure(ours, theirs, recordings, arguments.rounds, arguments.seed)
        rows.append(row)
        name = ", ".join(f"{key}={value}" for key, value in theirs.items())
        ms = row["ms"]
        print(f"{name}: equal {row['equal']} of {row['recordings']}, tonic {ms['tonic']:.2f} ms")
        for way in ("or", "count"):
            low, high = row[f"quartiles_{way}"]
            speed_up = row[f"speed_up_{way}"]
            print(f"    {way:<6}{ms[way]:.2f} ms, {speed_up:.1f} times ({low:.1f} .. {high:.1f})")
    write_json(
        arguments.out,
        {
            "recipe": "benchmarks/event_binning.py",
            "data": "N-MNIST" if arguments.data_root else "embedded event digits",
            "recordings": len(recordings),
            "events_per_recording": round(float(np.mean([len(e) for e in recordings])), 1),
            "seeds": [arguments.seed],
            "scale": "quick",
            **provenance(),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
