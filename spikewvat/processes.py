"""Processes that share work: each loads the same worker once and calls it for every task."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import IO, Any, Self

import torch

from spikewvat.errors import UnsupportedModelError, require
from spikewvat.memory import keep_freed_memory

Worker = Callable[..., Any]


class Processes:
    """Some processes with a worker; use it in a ``with`` statement, at whose end they end.

    Main modules need no guard, functions of notebooks are no obstacle, and a process ends with its
    parent, however that ends. The processes share the memory of the worker's tensors, and torch's
    threads are divided among them.

    Args:
        count: How many there are.
        worker: Called with the arguments of each task; without gradients.
        purpose: What they are for, as the subject of messages.

    Raises:
        MissingExtraError: If cloudpickle is not installed.
        UnsupportedModelError: If the worker cannot be sent to other processes.
    """

    def __init__(self, count: int, worker: Worker, purpose: str) -> None:
        self._pickle = require("cloudpickle", extra="cli", purpose=purpose)
        self._count, self._purpose = count, purpose
        self._folder = TemporaryDirectory(prefix="spikewvat-", ignore_cleanup_errors=True)
        self._file = Path(self._folder.name) / "worker"
        try:
            torch.save(worker, self._file, pickle_module=self._pickle)
        except Exception as error:  # whatever the parts of somebody's network raise
            self._folder.cleanup()
            raise UnsupportedModelError(
                f"{purpose} sends the network to other processes, which it does not support "
                f"({type(error).__name__}: {error}). Use one process."
            ) from error

    def __enter__(self) -> Self:
        """Start the processes."""
        self._threads = ThreadPoolExecutor(self._count)  # each waits for a process
        self._processes = [self._started() for _ in range(self._count)]
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        return self

    def __exit__(self, *_: object) -> None:
        """End them, whatever they do."""
        for process in self._processes:
            process.terminate()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.communicate()
        self._folder.cleanup()

    def each(self, tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Yield the worker's result for each task, in order.

        A task for each process is begun ahead; those that wait are dropped if no more results are
        wanted.

        Args:
            tasks: Arguments of the worker.

        Raises:
            RuntimeError: If a process was killed.
        """
        begun: deque[Future[Any]] = deque()
        try:
            for task in tasks:
                begun.append(self._threads.submit(self._done, self._pickle.dumps(task)))
                if len(begun) > self._count:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()

    def _started(self) -> subprocess.Popen[bytes]:
        threads = max(1, torch.get_num_threads() // self._count)
        process = subprocess.Popen(
            [sys.executable, "-c", "from spikewvat.processes import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "OMP_NUM_THREADS": str(threads),
                "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
            },
        )
        assert process.stdin is not None
        pickle.dump((str(self._file), threads, torch.get_default_dtype()), process.stdin)
        return process

    def _done(self, task: bytes) -> Any:
        """Return the result of a task from a process that has nothing to do."""
        process = self._idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(task, process.stdin)
            process.stdin.flush()
            result, error = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as broken:
            raise RuntimeError(
                f"{self._purpose}: one of the {self._count} processes was killed. The usual cause "
                "is memory: use fewer."
            ) from broken
        finally:
            self._idle.put(process)
        if error is not None:
            raise error
        return result


def serve() -> None:
    """Work on the tasks that come in until no more can come: the body of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to deal with
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a network prints is no answer
    keep_freed_memory()
    file, threads, dtype = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
    worker: Worker | None = None
    while (task := _next(sys.stdin.buffer)) is not None:
        try:
            if worker is None:
                worker = torch.load(file, weights_only=False, mmap=True)
            with torch.no_grad():
                answer = pickle.dumps((worker(*pickle.loads(task)), None))
        except Exception as error:  # the parent raises it
            answer = _told(error)
        answers.write(answer)
        answers.flush()


def _next(tasks: IO[bytes]) -> bytes | None:
    try:
        task: bytes = pickle.load(tasks)
    except EOFError:
        return None
    return task


def _told(error: Exception) -> bytes:
    """Return an error for the parent, in words if it cannot be sent itself."""
    try:
        error.add_note("".join(traceback.format_exception(error)))
        return pickle.dumps((None, error))
    except Exception:  # an error of somebody's own making
        return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
