"""Folders and files of the cache: written once, whole or not at all, and checked when read."""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Iterable
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


class RowCache:
    """Rows of equal length in one memory-mapped ``.npy`` file, each with its checksum.

    Two processes may write the same cache at once: each writes its own temporary file, and the
    last one to finish takes the place of the other, with the same content.

    Args:
        path: The file.
        rows: Number of rows.
        width: Bytes in a row.
    """

    def __init__(self, path: Path, rows: int, width: int) -> None:
        self.path = path
        self._shape = (rows, width + _CHECKSUM)
        self._data: NDArray[np.uint8] | None = None

    def open(self) -> bool:
        """Map the file; return whether it is there and has the expected shape."""
        try:
            data = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return False
        if data.shape != self._shape or data.dtype != np.uint8:
            return False
        self._data = data
        return True

    def write(self, rows: Iterable[NDArray[np.uint8]]) -> None:
        """Write all rows and map the new file.

        Raises:
            DataError: If the folder is not writable or the disk is full.
        """
        temporary = temporary_beside(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    header = {"descr": "|u1", "fortran_order": False, "shape": self._shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    for row in rows:
                        data = row.tobytes()
                        file.write(data + zlib.crc32(data).to_bytes(_CHECKSUM, "big"))
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
        row = np.asarray(self._data[index])
        data, checksum = row[:-_CHECKSUM], row[-_CHECKSUM:].tobytes()
        return data if zlib.crc32(data.tobytes()) == int.from_bytes(checksum, "big") else None
