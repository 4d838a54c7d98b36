"""Processes of joblib's that share work: each holds one worker and calls it for every task."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, Self

import torch

from spikewvat.errors import UnsupportedModelError, require
from spikewvat.memory import keep_freed_memory

_HEARTBEAT = 0.5  # seconds between two looks at whether the parent is there
_IDLE = 10  # seconds after which a process without a task ends


def joblib_for(purpose: str) -> ModuleType:
    """Return joblib, or raise an error that says how to install it.

    Args:
        purpose: What needs it, for the message.

    Raises:
        MissingExtraError: If it is not installed.
    """
    return require("joblib", extra="cli", purpose=purpose)


class Processes:
    """Some processes that each load the same worker once; use it in a ``with`` statement.

    Main modules need no guard, and functions of notebooks are no obstacle. The processes share the
    memory of the worker's tensors, and torch's threads are divided among them.

    Args:
        count: How many there are.
        worker: Called with the arguments of each task; without gradients.
        purpose: What they are for, as the subject of messages.

    Raises:
        MissingExtraError: If joblib is not installed.
        UnsupportedModelError: If the worker cannot be sent to other processes.
    """

    def __init__(self, count: int, worker: Callable[..., Any], purpose: str) -> None:
        self._loky = require("joblib.externals.loky", extra="cli", purpose=purpose)
        self._pickle = require("cloudpickle", extra="cli", purpose=purpose)
        self._count, self._purpose = count, purpose
        self._threads = max(1, torch.get_num_threads() // count)
        self._folder = TemporaryDirectory(prefix="spikewvat-", ignore_cleanup_errors=True)
        self._file = str(Path(self._folder.name) / "worker")
        try:
            torch.save(worker, self._file, pickle_module=self._pickle)
        except Exception as error:  # whatever the parts of somebody's network raise
            self._folder.cleanup()
            raise UnsupportedModelError(
                f"{purpose} sends the network to other processes, which it does not support "
                f"({type(error).__name__}: {error}). Use one process."
            ) from error

    def __enter__(self) -> Self:
        """Do nothing: the processes begin with the first task."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the worker; processes without a task end by themselves."""
        self._folder.cleanup()

    def each(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield the worker's result for each task, in order.

        A few tasks are begun ahead, and dropped if no more results are wanted.

        Args:
            tasks: Arguments of the worker.

        Raises:
            RuntimeError: If a process was killed.
        """
        state = self._threads, torch.get_default_dtype(), os.getpid()
        # Shared with joblib's, and made anew after a death.
        executor = self._loky.get_reusable_executor(self._count, timeout=_IDLE)
        waiting: deque[Any] = deque()
        try:
            for task in tasks:
                packed = self._pickle.dumps(task)
                waiting.append(executor.submit(_call, self._file, packed, *state))
                if len(waiting) > self._count:  # each has one, and one waits
                    yield pickle.loads(waiting.popleft().result())
            while waiting:
                yield pickle.loads(waiting.popleft().result())
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"{self._purpose}: one of the {self._count} processes was killed "
                f"({type(error).__name__}). The usual cause is memory: use fewer."
            ) from error
        finally:
            for future in waiting:
                future.cancel()


@functools.lru_cache(maxsize=1)
def _loaded(file: str) -> Callable[..., Any]:
    """Return the worker in a file that another process of this program has written."""
    worker: Callable[..., Any] = torch.load(file, weights_only=False, mmap=True)
    return worker


def _call(file: str, task: bytes, threads: int, dtype: torch.dtype, parent: int) -> bytes:
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with
    end_with(parent)
    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    with torch.no_grad():
        # Bytes, since torch would hand over its tensors in shared memory.
        return pickle.dumps(_loaded(file)(*pickle.loads(task)))


@functools.cache
def end_with(parent: int) -> None:
    """End this process, whatever it does, once its parent is gone.

    A parent that is killed outright cannot stop its workers: they would go on for hours.

    Args:
        parent: Id of the parent's process.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_HEARTBEAT)
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
