"""One training or conversion in a folder at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spikewvat import files
from spikewvat.errors import CheckpointError, require

filelock = require("filelock", extra="cli", purpose="training and running suites")

_LOCK, _PROCESS = ".train.lock", ".train.pid"
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


@contextmanager
def alone_in(folder: Path | str) -> Iterator[None]:
    """Keep others out of a folder within a block; the lock ends with its process.

    What writes that were killed have left there is removed.

    Of a distributed run the first process holds it for all.

    Args:
        folder: Of the run, made if it is missing.

    Raises:
        CheckpointError: If another process works there, or the folder is not writable.
    """
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        yield
        return
    folder = Path(folder)
    files.check_writable(folder)
    lock, process = filelock.FileLock(folder / _LOCK, timeout=0), folder / _PROCESS
    try:
        lock.acquire()
    except filelock.Timeout as error:
        who = process.read_text().strip() if process.exists() else ""
        raise CheckpointError(
            f"{f'process {who}' if who else 'another process'} is at work in {str(folder)!r}. "
            "Wait for its end, or choose another folder with --out."
        ) from error
    try:
        process.write_text(f"{os.getpid()}\n")
        files.remove_leftovers(folder)
        yield
    finally:
        process.unlink(missing_ok=True)
        lock.release()
