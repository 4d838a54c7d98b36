"""Damaged and odd inputs: each gives the right result or one clear error, never anything else.

Usage: ``python benchmarks/fuzz.py [--cases 5000] [--files 2000] [--seed 0]``. Recordings are
compared with a literal loop over events. Prints a table and exits 1 if anything was silently
wrong, refused without reason, or failed by an error that is none of the package's.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import tempfile
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikewvat import files
from spikewvat.data import NMNIST, bin_events, make_loader
from spikewvat.data.events import encode_events, make_events
from spikewvat.devices import Empirical
from spikewvat.devices.empirical import load_device
from spikewvat.devices.measurements import read_measurements
from spikewvat.errors import CheckpointError, DataError

CLEAR = (DataError, CheckpointError)
Found = collections.Counter[str]


def literal(
    columns: dict[str, list[Any]],
    steps: int | None,
    window: int | None,
    sensor: tuple[int, int, int],
    reduce: str | int,
) -> np.ndarray | None:
    """Return frames by a loop over events, None where there are no sensible ones."""
    if not columns["t"] or any(int(v) != v for column in columns.values() for v in column):
        return None
    if any(not 0 <= v < top for f, top in zip("xyp", sensor, strict=True) for v in columns[f]):
        return None
    times = columns["t"]
    if any(b < a for a, b in pairwise(times)) or max(map(abs, times)) >= 2**62:
        return None
    first, length = times[0], times[-1] - times[0]
    if steps and window:
        bins, first = steps, 0
    elif steps:
        bins, window = steps, length // steps
    else:
        bins = max(1, length // (window or 1))
    if not window or bins * sensor[0] * sensor[1] * sensor[2] > 2**32:
        return None
    frames = np.zeros((bins, *sensor[::-1]), int)
    for x, y, t, p in zip(*(columns[f] for f in "xytp"), strict=True):
        if 0 <= (t - first) // window < bins:
            frames[(t - first) // window, p, y, x] += 1
    if not frames.any() or (reduce == "count" and frames.max() > 255):
        return None
    return np.minimum(frames, 1 if reduce == "or" else 255 if reduce == "count" else reduce)


def columns_of(rng: np.random.Generator, sensor: tuple[int, int, int]) -> dict[str, list[int]]:
    """Return a recording's columns, in order of time."""
    count = int(rng.choice([0, 1, 2, 5, 40, 300], p=[0.03, 0.05, 0.07, 0.2, 0.6, 0.05]))
    longest = int(rng.choice([1, 20, 5_000, 300_000, 4 * 10**9]))
    found = {f: rng.integers(0, top, count).tolist() for f, top in zip("xyp", sensor, strict=True)}
    found["t"] = sorted(rng.integers(0, longest, count).tolist())
    return found


def mutate(rng: np.random.Generator, columns: dict[str, list[Any]]) -> None:
    """Damage columns as files, cameras and other libraries do."""
    times, count = columns["t"], len(columns["t"])
    kind = int(rng.integers(11))
    if count == 0:
        return
    at, other = (int(i) for i in rng.integers(0, count, 2))
    if kind == 0:
        times[at], times[other] = times[other], times[at]
    elif kind == 1:
        columns["t"] = times[at:] + times[:at]
    elif kind == 2:
        columns["t"] = [t / 1e6 for t in times]
    elif kind == 3:
        start = int(rng.choice([-50, -(10**6), 10**6, 7 * 10**9, 2**40]))
        columns["t"] = [t + start for t in times]
    elif kind == 4:
        field = str(rng.choice(["x", "y", "p"]))
        columns[field][at] += int(rng.choice([-1, 1, 40, 256, -(2**31), 2**31, 2**62]))
    elif kind == 5:
        columns["p"] = [2 * p - 1 for p in columns["p"]]
    elif kind == 6:
        columns["t"] = [times[at]] * count
    elif kind == 7:
        columns["t"][-1] += int(rng.choice([2**31, 2**33, 2**61]))
    elif kind == 8:
        columns["t"] = [max(0, t + int(rng.normal(0, 100))) for t in times]
    elif kind == 9:
        columns["x"] = [x + 0.5 for x in columns["x"]]
    # else: nothing


def fits(values: list[Any], dtype: np.dtype[Any]) -> bool:
    """Return whether a type holds all values exactly."""
    if dtype.kind == "f":
        return all(abs(v) < 2**50 for v in values)
    if any(isinstance(v, float) for v in values):
        return False
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return all(low <= v <= high for v in values)


def structured(rng: np.random.Generator, columns: dict[str, list[Any]]) -> tuple[Any, bool]:
    """Return events of random types that hold the columns, and whether these are whole numbers."""
    choices = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">i8", "?", "f4", "f8"]
    types = {}
    for field, values in columns.items():
        able = [np.dtype(t) for t in choices if fits(values, np.dtype(t))]
        whole = [t for t in able if t.kind != "f"]
        common = whole if whole and rng.random() < 0.9 else able
        types[field] = common[int(rng.integers(len(common)))] if common else np.dtype("f8")
    order = rng.permutation(list("xytp")).tolist()
    events = np.zeros(len(columns["t"]), [(f, types[f]) for f in order])
    for field, values in columns.items():
        events[field] = values
    return events, all(t.kind != "f" for t in types.values())


def options_of(rng: np.random.Generator) -> dict[str, Any]:
    """Return a way to cut time and to count."""
    steps, window = int(rng.choice([1, 2, 7, 30, 300])), int(rng.choice([1, 50, 3_000, 30_000]))
    kind = rng.integers(3)
    reduce: Any = ["or", "count", int(rng.integers(1, 256))][int(rng.integers(3))]
    return {
        "time_steps": None if kind == 0 else steps,
        "window_us": None if kind == 1 else window,
        "reduce": reduce,
    }


def judged(run: Callable[[], Any], expected: Any, same: Callable[[Any, Any], bool]) -> str:
    """Return what became of a case: right, clear error, or a fault."""
    try:
        found = run()
    except CLEAR as error:
        unclear = len(str(error)) < 30 or str(error)[-1] not in ".\"'"
        if expected is not None:
            return f"FAULT: refused without reason ({error})"
        return f"FAULT: unclear ({error})" if unclear else "clear error"
    except Exception:
        return f"FAULT: {traceback.format_exc(limit=-1).splitlines()[-1][:150]}"
    if expected is None:
        return "FAULT: a result where there is none"
    return "right" if same(found, expected) else "FAULT: silently wrong"


def recordings(rng: np.random.Generator, cases: int) -> Found:
    """Recordings of four sensors in all types, whole and damaged."""
    found: Found = collections.Counter()
    for _ in range(cases):
        sensor = [(5, 3, 2), (34, 34, 2), (1280, 720, 2), (700, 1, 1)][int(rng.integers(4))]
        columns: dict[str, list[Any]] = columns_of(rng, sensor)
        for _ in range(int(rng.integers(3))):
            mutate(rng, columns)
        events, whole = structured(rng, columns)
        options = options_of(rng)
        if sensor[0] == 1280 and (options["time_steps"] or 99) > 7:
            options |= {"time_steps": 3}
        steps, window, reduce = options.values()
        duration = columns["t"][-1] - columns["t"][0] if columns["t"] else 0
        if steps is None and sensor[0] * sensor[1] * duration / window > 1e7:
            options["window_us"] = window = int(max(1, abs(duration) // 5))
        expected = literal(columns, steps, window, sensor, reduce) if whole else None
        run = lambda e=events, o=options, s=sensor: bin_events(e, **o, sensor_size=s)  # noqa: E731
        found[judged(run, expected, np.array_equal)] += 1
    return found


def nmnist_files(rng: np.random.Generator, cases: int, folder: Path) -> Found:
    """Flip, cut, repeat and shuffle the bytes of N-MNIST files."""
    found: Found = collections.Counter()
    path = folder / "NMNIST" / "Train" / "0" / "00001.bin"
    path.parent.mkdir(parents=True)
    sensor = (34, 34, 2)
    for _ in range(cases):
        columns = columns_of(rng, sensor)
        columns["t"] = [t % 2**23 for t in columns["t"]]
        if rng.random() < 0.9:
            columns["t"].sort()
        content = bytearray(encode_events(make_events(**columns)))
        for _ in range(int(rng.integers(3))):
            if not content:
                break
            at, kind = int(rng.integers(len(content))), rng.integers(5)
            if kind == 0:
                content[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                del content[at:]
            elif kind == 2:
                content[at:at] = content[at : at + 5]
            elif kind == 3:  # the clock runs over
                content[at - at % 5 : at - at % 5] = bytes([0, 240, 0, 0, 0])
            else:
                del content[at - at % 5 : at - at % 5 + 5]
        path.write_bytes(content)
        options = options_of(rng)
        options["time_steps"] = options["time_steps"] or 5
        decoded: dict[str, list[Any]] = {f: [] for f in "xytp"}
        over = 0
        for at in range(0, len(content), 5):
            x, y, a, b, c = content[at : at + 5] if len(content) % 5 == 0 else (0, 0, 0, 0, 0)
            if y == 240:
                over += 1
                continue
            event = (x, y, ((a & 127) << 16 | b << 8 | c) + over * 2**13, a >> 7)
            for field, value in zip("xytp", event, strict=True):
                decoded[field].append(value)
        expected = None
        if len(content) % 5 == 0:
            steps, window, reduce = options.values()
            expected = literal(decoded, steps, window, sensor, reduce)
        cache: Any = folder / "cache" if rng.random() < 0.5 else False

        def run(options: dict[str, Any] = options, cache: Any = cache) -> Any:
            data = NMNIST(folder, "train", **options, classes=(0,), cache=cache)
            return data.batch([0])[0][:, 0].numpy()

        found[judged(run, expected, np.array_equal)] += 1
    return found


class Items(torch.utils.data.Dataset[Any]):
    """A data set of what it is given."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def loaders(rng: np.random.Generator, cases: int) -> Found:
    """Items of many shapes and types, of equal and unequal length."""
    found: Found = collections.Counter()
    kinds = ["?", "u1", "i2", "u2", "i4", ">i4", "u4", "i8", "f2", "f4", "f8", "O", "c8", "U3"]
    for _ in range(cases):
        shape = tuple(int(n) for n in rng.choice([1, 2, 3, 4, 6], int(rng.integers(0, 6))))
        first: Any = [None, True, False][int(rng.integers(3))]
        kind = str(rng.choice(kinds, p=[0.08] * 11 + [0.04] * 3))
        labels: list[Any] = rng.integers(0, 10, 3).tolist()
        arrays = [rng.integers(0, 2, shape).astype(kind) for _ in labels]
        ok = kind not in ("O", "c8", "U3")
        if rng.random() < 0.15 and shape:
            arrays[1] = np.concatenate([arrays[1]] * 2)
            ok = False
        if rng.random() < 0.1:
            labels[0] = [0.5, "one", None, np.ones(3)][int(rng.integers(4))]
            ok = False
        as_tensor = ok and kind not in (">i4",) and rng.random() < 0.5
        items = [
            (torch.from_numpy(a) if as_tensor else a, n)
            for a, n in zip(arrays, labels, strict=True)
        ]
        image = len(shape) == 1 or (len(shape) == 3 and shape[0] in (1, 3) and shape[1] > 1)
        sure = len(shape) == 4 or (len(shape) == 3 and shape[0] not in (1, 3) and shape[1] == 1)
        timed = first if first is not None else True if sure else False if image else None
        expected = None
        if ok and timed is not None and shape:
            stacked = np.stack(arrays, 1 if timed else 0).astype(np.float32)
            expected = stacked, np.array(labels)

        def run(items: list[Any] = items, first: Any = first) -> Any:
            return next(iter(make_loader(Items(items), 3, time_first=first)))

        found[
            judged(
                run,
                expected,
                lambda a, b: all(np.array_equal(x, y) for x, y in zip(a, b, strict=True)),
            )
        ] += 1
    return found


def flipped(rng: np.random.Generator, content: bytes, text: bool) -> bytes:
    """Return a damaged copy of a file's content."""
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        if not damaged:
            break
        at, kind = int(rng.integers(len(damaged))), rng.integers(6)
        if kind == 0:
            damaged[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del damaged[at : at + int(rng.integers(1, 40))]
        elif kind == 2:
            damaged[at:at] = damaged[at : at + int(rng.integers(1, 40))]
        elif kind == 3:
            del damaged[at:]
        elif text:
            words = [b"nan", b"-1", b"1e999", b'"', b"[", b"true", b"1.5", b"{}", b",", b"9" * 400]
            damaged[at : at + int(rng.integers(3))] = words[int(rng.integers(len(words)))]
        else:
            damaged[at] = int(rng.integers(256))
    return bytes(damaged)


def damaged_files(rng: np.random.Generator, cases: int, folder: Path) -> dict[str, Found]:
    """Device files, tables of measurements, checkpoints of two formats: load or a clear error."""
    rows = [f"{level},{level + 0.1 * rng.normal()},{60}" for level in range(4) for _ in range(12)]
    table = "\n".join(["level,value,time", *rows]).encode()
    (folder / "t.csv").write_bytes(table)
    device = Empirical.fit(folder / "t.csv", level_column="level", value_column="value")
    tree = {"model": torch.nn.Linear(9, 4).state_dict(), "epoch": 3, "rng": (1, "a")}
    files.save(folder / "c.safetensors", tree)
    torch.save({"model": tree["model"]}, folder / "c.pth")
    weights = {"w": torch.linspace(-1, 1, 50).view(5, 10)}

    def program(path: Path) -> bool:
        found = load_device(path).program(weights, generator=torch.Generator().manual_seed(0))
        return bool(found["w"].isfinite().all())

    def measured(path: Path) -> bool:
        found = read_measurements(path, level="level", value="value")
        return bool(np.isfinite(found.value).all() and np.isfinite(found.level).all())

    def restored(path: Path) -> bool:
        found = files.load(path)
        return all(torch.equal(found["model"][n], w) for n, w in tree["model"].items())

    kinds: dict[str, tuple[str, bytes, bool, Callable[[Path], bool]]] = {
        "device.toml": ("device.toml", device.to_toml().encode(), True, program),
        "table.csv": ("table.csv", table, True, measured),
        "table.csv.gz": ("table.csv.gz", gzip.compress(table), False, measured),
        "checkpoint.safetensors": (
            "x.safetensors",
            (folder / "c.safetensors").read_bytes(),
            False,
            restored,
        ),
        "weights.pth": (
            "x.pth",
            (folder / "c.pth").read_bytes(),
            False,
            lambda path: bool(files.load_weights(path)),
        ),
    }
    results = {}
    for kind, (name, content, text, read) in kinds.items():
        found: Found = collections.Counter()
        for _ in range(cases // len(kinds)):
            (folder / name).write_bytes(flipped(rng, content, text))
            try:
                found["right" if read(folder / name) else "FAULT: silently wrong"] += 1
            except CLEAR as error:
                found["clear error" if name in str(error) else f"FAULT: no file in {error}"] += 1
            except Exception:
                last = traceback.format_exc(limit=-1).splitlines()[-1]
                found[f"FAULT: {last[:150]}"] += 1
        results[kind] = found
    return results


def main() -> int:
    """Print a table; return 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="Recordings and items.")
    parser.add_argument("--files", type=int, default=2000, help="Device files and checkpoints.")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = {
            "recordings": recordings(rng, given.cases // 2),
            "N-MNIST files": nmnist_files(rng, given.cases // 4, folder),
            "items of loaders": loaders(rng, given.cases - given.cases // 2 - given.cases // 4),
            **damaged_files(rng, given.files, folder),
        }
    faults = 0
    print(f"{'inputs':24} {'cases':>6} {'right':>6} {'clear error':>12} {'faults':>7}")
    for kind, counts in found.items():
        bad = {what: n for what, n in counts.items() if what.startswith("FAULT")}
        faults += sum(bad.values())
        print(
            f"{kind:24} {counts.total():6} {counts['right']:6} {counts['clear error']:12} "
            f"{sum(bad.values()):7}"
        )
        for what, n in sorted(bad.items(), key=lambda pair: -pair[1])[:8]:
            print(f"    {n} x {what}")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
