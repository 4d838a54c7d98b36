"""Progress of jobs, and of the trainings among them that run in other processes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeAlias

from spikewvat.lab.trainer.console import Bar

LOG = "epochs.txt"
"""A line an epoch, in the folder of a training."""
OnEpoch: TypeAlias = Callable[[str, int, int, str], None]
"""Takes the training, the epochs it has finished, those it has in all, and the rest of the line."""

_LINE = re.compile(r"epoch (\d+)/(\d+)(.*)")
_PAUSE = 0.5  # seconds between two looks at the logs


class JobsProgress(Bar):
    """A bar over jobs and, below it, one for each of their trainings; a job that ends is a line.

    Elsewhere than on a terminal, each epoch of a training is a line too.

    Args:
        jobs: How many there are.
        enabled: Show anything at all.
        console: A ``rich.console.Console``; by default standard error.
    """

    def __init__(self, jobs: int, *, enabled: bool = True, console: Any = None) -> None:
        super().__init__(
            "{task.fields[text]}",
            enabled=enabled,
            console=console,
            elapsed=True,
            total=jobs,
            text=f"0 of {jobs} done",
        )
        self._jobs, self._done = jobs, 0
        self._trainings: dict[str, Any] = {}

    def epoch(self, job: str, done: int, epochs: int, text: str = "") -> None:
        """Note that a training has finished an epoch.

        Args:
            job: Its name.
            done: How many epochs it has finished.
            epochs: How many it has in all.
            text: What else a line says, such as its loss.
        """
        if self._bar is None:
            return
        line = f"{job}: epoch {done}/{epochs}"
        if not self._console.is_terminal:
            self._print(line + text)
            return
        if job not in self._trainings:
            self._trainings[job] = self._bar.add_task("", total=epochs, text=line)
        self._bar.update(self._trainings[job], completed=done, text=line)

    def job(self, text: str = "", *, name: str = "") -> None:
        """Note a job that has ended.

        Args:
            text: How; nothing is printed without.
            name: The job's name, if its epochs were noted.
        """
        if self._bar is None:
            return
        if text:
            self._print(text)
        if name in self._trainings:
            self._bar.remove_task(self._trainings.pop(name))
        self._done += 1
        self._update(advance=1, text=f"{self._done} of {self._jobs} done")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class Epochs:
    """Reads what trainings in other processes add to their logs while a ``with`` statement runs.

    Args:
        logs: Log files by the name of their training; they need not exist yet.
        on_epoch: Called for each new epoch, from a thread.
    """

    def __init__(self, logs: Mapping[str, Path], on_epoch: OnEpoch) -> None:
        self._on_epoch = on_epoch
        self._logs = dict(logs)
        self._read = {name: _size(path) for name, path in logs.items()}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="epochs", daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._end.set()
        self._thread.join()

    def ended(self, name: str) -> None:
        """Note the last epochs of a training that has ended, if it is one of these."""
        self._look(name)
        self._logs.pop(name, None)

    def _watch(self) -> None:
        while not self._end.wait(_PAUSE):
            for name in tuple(self._logs):
                self._look(name)

    def _look(self, name: str) -> None:
        with self._lock:
            path = self._logs.get(name)
            if path is None or _size(path) <= self._read[name]:
                return
            with path.open("rb") as file:
                file.seek(self._read[name])
                lines = file.read().splitlines(keepends=True)
            for line in lines:
                if line.endswith(b"\n"):  # else it is still being written
                    self._read[name] += len(line)
                    found = _LINE.match(line.decode().rstrip())
                    if found:
                        self._on_epoch(name, int(found[1]), int(found[2]), found[3])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
