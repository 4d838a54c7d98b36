"""What the scripts of this folder share: paired rounds, what the machine can do, their results."""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikewvat.memory import keep_freed_memory
from spikewvat.provenance import provenance
from spikewvat.serialisation import read_json, write_json

ROOT = Path(__file__).parents[1]
_QUARTILES = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)


def script(
    file: str,
    doc: str | None,
    measure: Callable[[argparse.Namespace], Mapping[str, Any]],
    *,
    rounds: int,
    options: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> None:
    """Run a script: measure on one thread, freed memory kept as in programs, write the result.

    Args:
        file: The script, whose name is that of the result.
        doc: Its docstring.
        measure: From the options to what the result holds.
        rounds: Default of ``--rounds``.
        options: Adds options to the parser.
    """
    name = Path(file).stem
    parser = argparse.ArgumentParser(description=str(doc).splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "speed" / f"{name}.json")
    options(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    content = {"recipe": f"benchmarks/speed/{name}.py", "seeds": [0]}
    write_json(arguments.out, {**content, **provenance(), **measure(arguments)})


def with_others(row: Mapping[str, Any], out: Path, setups: Iterable[str]) -> list[Any]:
    """Return the row of one setup among those that a result file has of others, in their order."""
    others = read_json(out)["rows"] if out.exists() else []
    rows = {other["setup"]: other for other in others} | {row["setup"]: row}
    return [rows[name] for name in setups if name in rows]


def seconds(function: Callable[[], object]) -> float:
    """Return the process's own time of one call: work on one thread, not interruptions."""
    start = time.process_time()
    function()
    return time.process_time() - start


def interleaved(timed: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call every function, which returns its seconds, once a round in random order.

    The first round warms up.
    """
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds + 1):
        for name in order.sample(list(timed), len(timed)):
            times[name].append(timed[name]())
    return {name: taken[1:] for name, taken in times.items()}


def quartiles(values: Sequence[float] | Tensor) -> list[float]:
    """Return the lower quartile, the median and the upper quartile."""
    found: list[float] = torch.as_tensor(values, dtype=torch.float64).quantile(_QUARTILES).tolist()
    return found


def milliseconds(taken: Sequence[float]) -> dict[str, Any]:
    """Return the median of seconds in ms, and every round."""
    rounds = [round(1e3 * second, 2) for second in taken]
    return {"ms": round(quartiles(rounds)[1], 2), "rounds_ms": rounds}


def speed_up(over: str, peer: Sequence[float], own: Sequence[float]) -> dict[str, Any]:
    """Return by how much a peer takes longer: median and quartiles of the rounds' ratios."""
    low, middle, high = quartiles([a / b for a, b in zip(peer, own, strict=True)])
    between = [round(low, 2), round(high, 2)]
    return {"over": over, "speed_up": round(middle, 2), "quartiles": between}


def compared(times: Mapping[str, Sequence[float]], own: str) -> dict[str, dict[str, Any]]:
    """Return every side's time, and of sides of this name the speed-up over the fastest other."""
    peers = {name: quartiles(t)[1] for name, t in times.items() if not name.startswith(own)}
    fastest = min(peers, key=lambda name: peers[name])
    return {
        name: milliseconds(taken)
        | ({} if name in peers else speed_up(fastest, times[fastest], taken))
        for name, taken in times.items()
    }


def rates() -> dict[str, float]:
    """Return what this core does at best: products in 1e9 operations/s, copies in 1e9 bytes/s.

    Products are square ones, and that of a large layer with all samples and steps.
    """
    shapes = ((1024, 1024, 1024), (2048, 2048, 2048), (400, 1920, 2312))
    long = torch.rand(2**24)
    copy = torch.empty_like(long)

    def best(function: Callable[[], object]) -> float:
        return min(seconds(function) for _ in range(5))

    def products(dtype: torch.dtype) -> float:
        found = []
        for m, k, n in shapes:
            a, b = torch.rand(m, k).to(dtype), torch.rand(k, n).to(dtype)
            found.append(2 * m * k * n / best(lambda a=a, b=b: a @ b) / 1e9)  # type: ignore[misc]
        return round(max(found), 1)

    return {
        "products": products(torch.float32),
        "products_bf16": products(torch.bfloat16),
        "memory": round(2 * long.nbytes / best(lambda: copy.copy_(long)) / 1e9, 1),
    }


def peak_memory(file: str, *which: str) -> float:
    """Return what three steps add to the peak memory of a fresh process, MiB.

    Args:
        file: A script that answers ``--memory`` with :func:`print_peak`.
        which: What it is to run.
    """
    command = [sys.executable, file, "--memory", *which]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    return float(done.stdout.split()[-1])


def status(entry: str) -> int:
    """Return bytes that the system reports of this process, such as its peak, ``"VmHWM"``."""
    found = re.search(rf"{entry}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise LookupError(entry)
    return 1024 * int(found[1])


def print_peak(step: Callable[[], object]) -> None:
    """Make three steps and print the peak beyond the state before them, in MiB."""
    before = status("VmHWM")  # ru_maxrss would be that of the parent process
    for _ in range(3):
        step()
    print(round((status("VmHWM") - before) / 2**20, 1))
