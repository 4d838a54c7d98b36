"""Who works in a folder: one process at a time, and a trace of those that were killed there.

The lock is the kernel's and ends with its process, however that ends. The file stays: it holds a
line while somebody works, so that a line in a file that nobody holds tells of one that was killed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none; there, run one bench at a time
    fcntl = None  # type: ignore[assignment]

LOCK = "job.lock"


@contextmanager
def held(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a folder, made if it is missing.

    Args:
        folder: What is worked in.
        wait: Wait while another process holds it.

    Yields:
        Whether it is held; False only where another process holds it and ``wait`` is off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _locked(descriptor, wait=wait):
            yield False
            return
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
        try:
            yield True
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)  # which unlocks


def was_cut_off(folder: Path) -> bool:
    """Return whether the last one to work in a folder was killed there."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        return _locked(descriptor, wait=False) and os.fstat(descriptor).st_size > 0
    finally:
        os.close(descriptor)


def _locked(descriptor: int, *, wait: bool) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
