"""Trainings and benches that are killed at random moments and started again: nothing is lost.

    python benchmarks/kills.py [--trainings 30] [--benches 5] [--seed 0]

A training is killed (SIGKILL) one to three times, each time at a random moment of what is left of
it, and resumed with ``--resume``. In the end its weights, checkpoint and accuracies on chips must
equal those of a training that ran through bit for bit, with the same files. A bench of two
processes is killed once: none of its processes may be left, and starting it again must end with the
same results. Prints what was killed and what was wrong; exits 1 if anything was.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from spikewvat import files
from spikewvat.lab.recipes.results import RunResult
from spikewvat.results import RowResult
from spikewvat.serialisation import plain, read

RECIPE = """
name = "small"
[data]
name = "embedded"
per_class = 2
time_steps = 2
[model]
name = "snntorch-cnn"
channels = [2]
stride = 4
[training]
epochs = 30
batch_size = 5
shift = 1
schedule = "decay"
accelerator = "cpu"
[averaging]
enabled = true
start = 0.25
[method]
name = "wvat"
device = "gaussian:sigma=0.05"
worst = "momentum"
[evaluation]
sigmas = [0.0, 0.1]
chips = 3
"""
SUITE = """
title = "Small"
[seeds]
quick = [0, 1, 2]
[[setups]]
name = "CNN"
rows = [{ method = "WVAT", recipe = "small.toml" }]
"""
SEEDS = 5
"""Trainings that run through; those that are killed take turns at their seeds."""
WEIGHTS = ("model.safetensors", "best.safetensors", "checkpoint.safetensors")


def started(*words: str | Path) -> subprocess.Popen[str]:
    """Start the program in a session of its own, silently."""
    command = [sys.executable, "-m", "spikewvat", *map(str, words)]
    pipes: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True, start_new_session=True)


def training(recipe: Path, out: Path, seed: int) -> subprocess.Popen[str]:
    """Start a training, or go on with it."""
    return started("train", recipe, "--out", out, f"--seed={seed}", "--resume", "--no-progress")


def ended(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a process that must do its work."""
    _, said = process.communicate(timeout=600)
    if process.returncode != 0:
        raise RuntimeError(f"{process.args} failed: {said}")


def at_work(process: subprocess.Popen[str], sign: Path) -> bool:
    """Wait until a file shows that a process has begun its work; return whether it still runs."""
    while process.poll() is None and not sign.exists():
        time.sleep(0.01)
    return process.poll() is None


def lasted(process: subprocess.Popen[str], sign: Path) -> float:
    """Wait for the end of a process; return the seconds from the beginning of its work."""
    at_work(process, sign)
    begun = time.monotonic()
    ended(process)
    return time.monotonic() - begun


def killed(recipe: Path, out: Path, seed: int, after: float) -> bool:
    """Kill a training some seconds after it has begun; return whether it was still at work."""
    process, sign = training(recipe, out, seed), out / ".train.pid"
    sign.unlink(missing_ok=True)  # of one that was killed
    if at_work(process, sign):
        time.sleep(after)
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def outcome(out: Path) -> dict[str, Any]:
    """Return everything that a training has left, but for times and the commit."""
    found: dict[str, Any] = {name: files.load(out / name) for name in WEIGHTS}
    result = plain(read(out / "result.json", RunResult))
    del result["commit"]
    for history in (found[WEIGHTS[-1]]["position"]["history"], result["training"]["history"]):
        for row in history:
            del row["seconds"]
    left = sorted(path.name for path in out.iterdir() if path.name != ".train.pid")
    return {**found, "result.json": result, "files": left}


def same(one: Any, other: Any) -> bool:
    """Return whether nested values are equal, tensors bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


def trainings(number: int, draw: random.Random, folder: Path) -> tuple[int, Counter[str]]:
    """Kill trainings and resume them.

    Returns:
        How many kills there were, and how often what differed from a training that ran through.
    """
    recipe = folder / "small.toml"
    recipe.write_text(RECIPE)
    seeds = range(min(SEEDS, number))
    whole, seconds = [], 0.0
    for seed in seeds:
        out = folder / f"whole-{seed}"
        seconds = max(seconds, lasted(training(recipe, out, seed), out / ".train.pid"))
        whole.append(outcome(out))
    kills, wrong = 0, Counter[str]()
    for index in range(number):
        seed, out, left = seeds[index % len(seeds)], folder / f"killed-{index}", seconds
        hits, wanted = 0, draw.randint(1, 3)
        while hits < wanted:
            after = draw.uniform(0, left)
            if killed(recipe, out, seed, after):
                hits, left = hits + 1, left - after
            elif hits:
                break  # it was done before
            else:
                shutil.rmtree(out)
        ended(training(recipe, out, seed))
        kills += hits
        found = outcome(out)
        wrong.update(name for name in found if not same(found[name], whole[seed][name]))
        print(f"training {index}: killed {hits} times", file=sys.stderr, flush=True)
    return kills, wrong


def benches(number: int, draw: random.Random, folder: Path) -> tuple[int, Counter[str]]:
    """Kill benches and start them again.

    Returns:
        How many were killed at work, and how often processes were left or results differed.
    """
    suite = folder / "small"
    suite.mkdir()
    (suite / "suite.toml").write_text(SUITE)
    (suite / "small.toml").write_text(RECIPE)

    def bench(out: Path) -> subprocess.Popen[str]:
        return started("bench", suite, "--out", out, "--jobs", "2")

    def found(out: Path) -> list[Any]:
        return [plain(curve) for curve in read(out / "small" / "small.json", RowResult).curves]

    out = folder / "bench-whole"
    seconds, whole = lasted(bench(out), out / "trained"), found(out)
    kills, wrong = 0, Counter[str]()
    for index in range(number):
        out = folder / f"bench-{index}"
        process = bench(out)
        if at_work(process, out / "trained"):
            time.sleep(draw.uniform(0, 0.8 * seconds))
        workers = descendants(process.pid)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        deadline = time.monotonic() + 20
        while any(map(running, workers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        wrong["processes left"] += sum(map(running, workers))
        ended(bench(out))
        wrong["results"] += found(out) != whole
        print(f"bench {index}: {len(workers)} processes", file=sys.stderr, flush=True)
    return kills, +wrong


def descendants(pid: int) -> list[int]:
    """Return the processes that one has started, and those that they have; Linux only."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, tasks.read_text().split()):
            found += [child, *descendants(child)]
    return found


def running(pid: int) -> bool:
    """Return whether a process is there and more than a dead one that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def main() -> int:
    """Print a line for each kind; return 1 if anything was lost or left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trainings", type=int, default=30)
    parser.add_argument("--benches", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    faults = 0
    kinds = ((trainings, given.trainings), (benches, given.benches))
    for what, number in kinds:
        if not number:
            continue
        with tempfile.TemporaryDirectory() as name:
            kills, wrong = what(number, random.Random(given.seed), Path(name))
        faults += wrong.total()
        print(f"{number} {what.__name__}, {kills} kills, not as without: {dict(wrong) or 0}")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
