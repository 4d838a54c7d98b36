"""Jobs of a bench, in a module of their own so that other processes can import them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from spikewvat.lab.recipes.results import RunResult
from spikewvat.robustness import Degradation
from spikewvat.serialisation import write


@dataclass(frozen=True, eq=False)
class Job:
    """Notes every run in a file; may die in some of them, or take a while.

    Args:
        name: Names its folder.
        deaths: How many of its first runs kill their process.
        seconds: How long a run takes.
        wait_for: A file that has to be there before it ends.
    """

    name: str
    deaths: int = 0
    seconds: float = 0.0
    wait_for: Path | None = None
    recipe: SimpleNamespace = field(
        default_factory=lambda: SimpleNamespace(data=SimpleNamespace(name="none"))
    )

    def __str__(self):
        return self.name

    def folder(self, out):
        return out / self.name

    def runs(self, out):
        """Return the processes that have run it."""
        path = self.folder(out) / "runs.txt"
        return path.read_text().split() if path.exists() else []

    def run(self, out, data_root):
        with (self.folder(out) / "runs.txt").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len(self.runs(out)) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        while self.wait_for is not None and not self.wait_for.exists():
            time.sleep(0.02)
        named = {"recipe": {}, "method": self.name, "run": str(os.getpid()), "scale": "quick"}
        found = RunResult(**named, seed=0, split="test", device="", curve=Degradation(0.5, ()))
        write(self.folder(out) / "result.json", found)
        return found
