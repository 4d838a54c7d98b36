"""The official binary versions of CIFAR: where they lie, what is in them, how to get them.

Nothing is unpickled: the Python versions are pickles, which run what is written in them.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import tarfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikewvat.data.cache import temporary_beside
from spikewvat.data.stills import check_labels, read_bytes
from spikewvat.errors import DataError, MissingDataError

_TIMEOUT_S = 10
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Official:
    """An official binary version: records of labels, the last one the finest, and pixels.

    Args:
        title: What the data set is called.
        files: Of each split.
        labels: Bytes of labels in front of the pixels of an image.
        classes: How many there are of the last label.
        folder: That the archive unpacks to.
        folders: Names of the folder around that one.
        url: Of the archive.
        md5: Of the archive, as the official page gives it.
    """

    title: str
    files: Mapping[str, tuple[str, ...]]
    labels: int
    classes: int
    folder: str
    folders: tuple[str, ...]
    url: str
    md5: str

    def find(self, root: Path, split: str) -> Path | None:
        """Return the folder with the first file of a split."""
        around = [root, *(root / folder for folder in self.folders)]
        for folder in (*around, *(place / self.folder for place in around)):
            if (folder / self.files[split][0]).is_file():
                return folder
        return None


TEN = Official(
    "CIFAR-10",
    {
        "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test": ("test_batch.bin",),
    },
    labels=1,
    classes=10,
    folder="cifar-10-batches-bin",
    folders=("cifar10", "CIFAR10"),
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
)
HUNDRED = Official(
    "CIFAR-100",
    {"train": ("train.bin",), "test": ("test.bin",)},
    labels=2,
    classes=100,
    folder="cifar-100-binary",
    folders=("cifar100", "CIFAR100"),
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
)


def data_folder(official: Official, root: Path, split: str, *, download: bool) -> Path:
    """Return the folder of a split's files.

    Args:
        official: What is looked for.
        root: Folder that the user gave.
        split: ``"train"`` or ``"test"``.
        download: Download the official files where they are missing.

    Raises:
        DataError: If they are missing or cannot be downloaded.
    """
    folder = official.find(root, split)
    if folder is None and download:
        _download(official, root)
        folder = official.find(root, split)
    if folder is None:
        raise MissingDataError(
            f"there is no {official.files[split][0]} in {str(root)!r}, nor in "
            f"{official.folders[0]!r} or {official.folder!r} in it. Unpack {official.url} there, "
            "or pass download=True where there is a network."
        )
    return folder


def read_batches(
    official: Official, folder: Path, split: str, *, limit: int | None
) -> tuple[Tensor, Tensor]:
    """Read the images of a split.

    Args:
        official: What they are.
        folder: See :func:`data_folder`.
        split: ``"train"`` or ``"test"``.
        limit: Read no more files than so many images need; ``None`` reads all.

    Returns:
        Images uint8 [N, 3, 32, 32] and labels int64 [N].

    Raises:
        DataError: If a file is missing or malformed.
    """
    record = official.labels + _PIXELS
    records: list[NDArray[np.uint8]] = []
    for name in official.files[split]:
        if limit is not None and sum(map(len, records)) >= limit:
            break
        content = read_bytes(folder / name)
        if not content or len(content) % record:
            raise DataError(
                f"{str(folder / name)!r} has {len(content)} bytes, expected a multiple of "
                f"{record} ({official.labels} of labels, 3 x 32 x 32 of pixels): it is cut off. "
                f"Unpack {official.url} again."
            )
        records.append(np.frombuffer(content, np.uint8).reshape(-1, record))
        check_labels(records[-1][:, official.labels - 1], folder / name, official.classes)
    everything = np.concatenate(records)
    labels = torch.from_numpy(everything[:, official.labels - 1].astype(np.int64))
    return torch.from_numpy(everything[:, official.labels :].reshape(-1, 3, 32, 32).copy()), labels


def _download(official: Official, root: Path) -> None:
    """Download the official archive and take the files out of it that are data."""
    try:
        with urllib.request.urlopen(official.url, timeout=_TIMEOUT_S) as answer:
            content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise DataError(
            f"cannot download {official.title} to {str(root)!r}: {error}. Check the network, or "
            f"unpack {official.url} there."
        ) from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != official.md5:
        raise DataError(
            f"{official.url} has the checksum {found}, expected {official.md5}: the download broke "
            "off or the file has changed. Try again."
        )
    unpack(official, content, root / official.folder)


def unpack(official: Official, content: bytes, folder: Path) -> None:
    """Write the data files of an official archive; nothing else in it is looked at.

    Args:
        official: Which it is.
        content: The archive, a packed tar file.
        folder: Where the files go; made where it is missing.

    Raises:
        DataError: If the archive is damaged or lacks a file, or the folder is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for name in (*official.files["train"], *official.files["test"]):
                member = archive.extractfile(f"{official.folder}/{name}")
                if member is None:
                    raise DataError(
                        f"{name} in the archive of {official.title} is no file. Try again."
                    )
                temporary = temporary_beside(folder / name)
                temporary.write_bytes(member.read())
                temporary.replace(folder / name)
    except (OSError, tarfile.TarError, KeyError, EOFError) as error:
        raise DataError(
            f"cannot unpack {official.title} into {str(folder)!r}: {error}. Choose another root, "
            f"or unpack {official.url} yourself."
        ) from error
