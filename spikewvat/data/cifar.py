"""CIFAR-10 from the official binary version, or from lossless sheets: the file that needs Pillow.

Nothing is unpickled: the Python version of CIFAR-10 is a pickle, which runs what is written in it.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import tarfile
import urllib.request
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikewvat.data.cache import temporary_beside
from spikewvat.data.encodings import Encoding
from spikewvat.data.stills import StillImages, check_options
from spikewvat.errors import DataError, require

_BINARY = "cifar-10-batches-bin"
_BATCHES = {
    "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    "test": ("test_batch.bin",),
}
_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # as the official page gives it
_TIMEOUT_S = 10
_FOLDERS = ("", "cifar10", "CIFAR10", _BINARY, f"cifar10/{_BINARY}", f"CIFAR10/{_BINARY}")
_RECORD = 1 + 3 * 32 * 32
_ROWS, _COLUMNS = 25, 40
_SHEET = _ROWS * _COLUMNS


class CIFAR10(StillImages):
    """CIFAR-10 as users have it: the official binary version, or lossless sheets.

    The binary version is ``cifar-10-batches-bin/*.bin``. Sheets are ``train_00.webp``, ... of 1000
    images each, 25 rows of 40, with ``train_labels.npy``; test images that
    ``test_inexact_indices.npy`` names are not the official ones and are left out.

    Items are ``(image float32 [3, 32, 32], label)``, with an encoding ``([T, 3, 32, 32], label)``.

    Args:
        root: Folder that holds the files, in itself, in ``cifar10`` or in
            ``cifar-10-batches-bin``.
        split: ``"train"`` or ``"test"``.
        encoding: How images become spikes; ``None`` leaves them as they are.
        limit: Take the first so many images; ``None`` takes all.
        seed: Of an encoding that draws, see :class:`spikewvat.data.images.MNIST`.
        symmetric: Shift and scale intensities to -1..1 (mean and standard deviation 0.5), as
            networks take them that are converted; else they lie in 0..1.
        download: Where the files are missing, download the official ones (162 MB).

    Attributes:
        images: Intensities uint8 [N, 3, 32, 32].
        targets: Labels int64 [N].
        black: Value of a black pixel.
        left_out: How many inexact images were left out.

    Raises:
        DataError: If files are missing or malformed, or cannot be downloaded.
        ValueError: If an option is impossible.
        MissingExtraError: If there are sheets, and Pillow is not installed.

    References:
        Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009),
        https://www.cs.toronto.edu/~kriz/cifar.html
    """

    def __init__(
        self,
        root: Path | str,
        split: Literal["train", "test"],
        *,
        encoding: Encoding | None = None,
        limit: int | None = None,
        seed: int | None = 0,
        symmetric: bool = True,
        download: bool = False,
    ) -> None:
        check_options(split, limit, encoding, symmetric=symmetric)
        root = Path(root).expanduser()
        folder = _find(root, split)
        if folder is None and download:
            _download(root)
            folder = _find(root, split)
        if folder is None:
            raise DataError(
                f"there is no {_BATCHES[split][0]} nor {split}_00.webp in {str(root)!r}, nor in "
                f"'cifar10' or {_BINARY!r} in it. Unpack {_URL} there, or pass download=True "
                "where there is a network."
            )
        self.left_out = 0
        if (folder / _BATCHES[split][0]).is_file():
            images, labels = _read_batches(folder, split, limit)
        else:
            images, labels, self.left_out = _read_sheets(folder, split, limit)
        images, labels = images[:limit], labels[:limit]
        mean, std = (0.5, 0.5) if symmetric else (0.0, 1.0)
        super().__init__(images, labels, encoding=encoding, seed=seed, mean=mean, std=std)


def _find(root: Path, split: str) -> Path | None:
    """Return the folder with the first file of a split, in either form."""
    for folder in _FOLDERS:
        for name in (_BATCHES[split][0], f"{split}_00.webp"):
            if (root / folder / name).is_file():
                return root / folder
    return None


def _read_batches(folder: Path, split: str, limit: int | None) -> tuple[Tensor, Tensor]:
    """Return images and labels of the binary version: records of a label and 3 x 32 x 32 bytes."""
    records: list[NDArray[np.uint8]] = []
    for name in _BATCHES[split]:
        if limit is not None and sum(map(len, records)) >= limit:
            break
        content = _bytes(folder / name)
        if not content or len(content) % _RECORD:
            raise DataError(
                f"{str(folder / name)!r} has {len(content)} bytes, expected a multiple of "
                f"{_RECORD} (a label and 3 x 32 x 32 pixels): it is cut off. Unpack {_URL} again."
            )
        records.append(np.frombuffer(content, np.uint8).reshape(-1, _RECORD))
        _check_labels(records[-1][:, 0], folder / name)
    everything = np.concatenate(records)
    labels = torch.from_numpy(everything[:, 0].astype(np.int64))
    return torch.from_numpy(everything[:, 1:].reshape(-1, 3, 32, 32).copy()), labels


def _read_sheets(folder: Path, split: str, limit: int | None) -> tuple[Tensor, Tensor, int]:
    """Return images and labels of lossless sheets, and how many inexact ones were left out."""
    labels = _numbers(folder / f"{split}_labels.npy")
    _check_labels(labels, folder / f"{split}_labels.npy")
    sheets = sorted(folder.glob(f"{split}_[0-9][0-9].webp"))
    if len(sheets) * _SHEET != len(labels):
        raise DataError(
            f"{str(folder)!r} holds {len(sheets)} {split} sheets of {_SHEET} images, but "
            f"{len(labels)} labels. Replace them by files of the same set."
        )
    inexact = folder / f"{split}_inexact_indices.npy"
    wrong = _numbers(inexact) if inexact.is_file() else np.empty(0, np.int64)
    if len(wrong) and not (wrong.min() >= 0 and wrong.max() < len(labels)):
        raise DataError(
            f"{str(inexact)!r} names image {wrong.max()}, expected 0..{len(labels) - 1}. "
            "Replace the file."
        )
    kept = np.setdiff1d(np.arange(len(labels)), wrong)[:limit]
    last = int(kept[-1]) + 1 if len(kept) else 0
    images = np.concatenate([_sheet(sheets[n]) for n in range(-(-last // _SHEET))])[kept]
    left_out = int((wrong < last).sum()) if limit is not None else len(wrong)
    return torch.from_numpy(images), torch.from_numpy(labels[kept].astype(np.int64)), left_out


def _sheet(path: Path) -> NDArray[np.uint8]:
    """Return the images uint8 [1000, 3, 32, 32] of a sheet."""
    pillow: Any = require("PIL.Image", extra="vision", purpose="reading CIFAR-10 sheets")
    try:
        with pillow.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}. Replace the file.") from error
    expected = (32 * _ROWS, 32 * _COLUMNS, 3)
    if pixels.shape != expected:
        raise DataError(
            f"{str(path)!r} has {pixels.shape[1]} x {pixels.shape[0]} pixels, expected "
            f"{expected[1]} x {expected[0]}: {_ROWS} rows of {_COLUMNS} images. Replace the file."
        )
    tiles = pixels.reshape(_ROWS, 32, _COLUMNS, 32, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiles).reshape(_SHEET, 3, 32, 32)


def _numbers(path: Path) -> NDArray[Any]:
    """Return a row of integers."""
    try:
        values: NDArray[Any] = np.load(io.BytesIO(_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}. Replace the file.") from error
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError(
            f"{str(path)!r} holds {values.dtype} {values.shape}, expected a row of integers. "
            "Replace the file."
        )
    return values


def _check_labels(labels: NDArray[Any], path: Path) -> None:
    if len(labels) and not (labels.min() >= 0 and labels.max() < 10):
        wrong = labels[(labels < 0) | (labels >= 10)][0]
        raise DataError(
            f"{str(path)!r} holds the label {wrong}, expected 0..9: it is damaged or no CIFAR-10. "
            "Replace the file."
        )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {str(path)!r}: {error.strerror or error}. Add the missing file."
        ) from error


def _download(root: Path) -> None:
    """Download the official archive and take the six files out of it that are data."""
    try:
        with urllib.request.urlopen(_URL, timeout=_TIMEOUT_S) as answer:
            content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"cannot download CIFAR-10 to {str(root)!r}: {error}. Check the network, or unpack "
            f"{_URL} there."
        ) from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != _MD5:
        raise DataError(
            f"{_URL} has the checksum {found}, expected {_MD5}: the download broke off or the "
            "file has changed. Try again."
        )
    unpack(content, root / _BINARY)


def unpack(content: bytes, folder: Path) -> None:
    """Write the data files of the official archive; nothing else in it is looked at.

    Args:
        content: The archive, a packed tar file.
        folder: Where the files go; made where it is missing.

    Raises:
        DataError: If the archive is damaged or lacks a file, or the folder is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for name in (*_BATCHES["train"], *_BATCHES["test"]):
                member = archive.extractfile(f"{_BINARY}/{name}")
                if member is None:
                    raise DataError(f"{name} in the archive of CIFAR-10 is no file. Try again.")
                temporary = temporary_beside(folder / name)
                temporary.write_bytes(member.read())
                temporary.replace(folder / name)
    except (OSError, tarfile.TarError, KeyError, EOFError) as error:
        raise DataError(
            f"cannot unpack CIFAR-10 into {str(folder)!r}: {error}. Choose another root, or unpack "
            f"{_URL} yourself."
        ) from error
