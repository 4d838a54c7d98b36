"""Folders and files of the cache: written once, whole or not at all, and checked when read."""

from __future__ import annotations

import os
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikewvat.errors import DataError

ENVIRONMENT = "SPIKEWVAT_CACHE"
_CHECKSUM = 4


def cache_folder(cache: Path | str | None = None) -> Path:
    """Return the folder for generated files; it need not exist yet.

    Args:
        cache: The folder; ``None`` takes the environment variable ``SPIKEWVAT_CACHE``, and
            ``~/.cache/spikewvat`` where that is unset.
    """
    chosen = cache or os.environ.get(ENVIRONMENT) or Path("~/.cache/spikewvat")
    return Path(chosen).expanduser()


def cache_error(path: Path, error: OSError) -> DataError:
    """Return what to raise when the cache cannot be written."""
    return DataError(
        f"cannot write the cache {str(path)!r}: {error.strerror or error}. Free some space, or "
        f"choose another folder with cache=... or the environment variable {ENVIRONMENT}."
    )


def temporary_beside(path: Path) -> Path:
    """Return a name for what is to take the place of ``path`` once it is complete."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def written_whole(folder: Path, write: Callable[[Path], object]) -> Path:
    """Write a folder, which appears complete or not at all; several processes may try at once.

    Args:
        folder: The folder, which is not there yet.
        write: Writes its content into the folder that it is given.

    Returns:
        The folder.

    Raises:
        DataError: If it cannot be written.
    """
    temporary = temporary_beside(folder)
    try:
        try:
            write(temporary)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if not folder.is_dir():  # else another process was faster
            raise cache_error(folder, error) from error
    return folder


class RowCache:
    """Rows of bytes in one memory-mapped file, each with its checksum, and where each one starts.

    Two processes may write the same cache at once: each writes its own temporary file, and the
    last one to finish takes the place of the other, with the same content.

    Args:
        path: The file.
        rows: Number of rows.
    """

    def __init__(self, path: Path, rows: int) -> None:
        self.path, self._rows = path, rows
        self._data: NDArray[np.uint8] | None = None
        self._starts: list[int] = []

    def open(self) -> bool:
        """Map the file; return whether it is there and whole, but for what is in the rows."""
        table = 8 * (self._rows + 1)
        try:
            # As a plain array: slices of a memory map cost several times as much.
            data = np.asarray(np.memmap(self.path, np.uint8, "r"))
        except (OSError, ValueError):  # a ValueError where it is empty
            return False
        end = len(data) - table - _CHECKSUM
        if end < 0 or not _matches(data[end:]):
            return False
        starts = data[end:-_CHECKSUM].view("<u8").tolist()
        if starts[0] != 0 or starts[-1] != end:
            return False
        self._data, self._starts = data, starts
        return True

    def write(self, rows: Iterable[NDArray[np.uint8]]) -> None:
        """Write all rows and map the new file.

        Raises:
            DataError: If the folder is not writable or the disk is full.
        """
        temporary = temporary_beside(self.path)
        starts = [0]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    for row in rows:
                        starts.append(starts[-1] + file.write(_with_checksum(row.tobytes())))
                    file.write(_with_checksum(np.array(starts, "<u8").tobytes()))
                temporary.replace(self.path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise cache_error(self.path, error) from error
        self.open()

    def read(self, index: int) -> NDArray[np.uint8] | None:
        """Return a row, None where it is damaged."""
        if self._data is None:
            return None
        row = self._data[self._starts[index] : self._starts[index + 1]]
        return np.asarray(row[:-_CHECKSUM]) if _matches(row) else None


def _with_checksum(data: bytes) -> bytes:
    return data + zlib.crc32(data).to_bytes(_CHECKSUM, "big")


def _matches(data: NDArray[np.uint8]) -> bool:
    """Return whether data ends with the checksum of what is in front of it."""
    return zlib.crc32(data[:-_CHECKSUM].data) == int.from_bytes(data[-_CHECKSUM:].tobytes(), "big")
