"""Sheets: a thousand images of 32 x 32 in one losslessly packed picture, labels beside."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spikewvat.data.pictures import read_picture
from spikewvat.data.stills import check_labels, read_bytes
from spikewvat.errors import DataError

_ROWS, _COLUMNS = 25, 40
_SHEET = _ROWS * _COLUMNS
_SIDE = 32


def first_sheet(split: str) -> str:
    """Return the name of a split's first sheet."""
    return f"{split}_00.webp"


def read_sheets(
    folder: Path, split: str, *, classes: int, limit: int | None
) -> tuple[Tensor, Tensor, int]:
    """Read the images of a split.

    Args:
        folder: Holds ``<split>_00.webp``, ..., ``<split>_labels.npy`` and, where some images are
            not the official ones, ``<split>_inexact_indices.npy``: those are left out.
        split: ``"train"`` or ``"test"``.
        classes: How many labels there are.
        limit: Read the first so many images; ``None`` reads all.

    Returns:
        Images uint8 [N, 3, 32, 32], labels int64 [N], and how many images were left out.

    Raises:
        DataError: If a file is missing or malformed, or sheets and labels differ in number.
        MissingExtraError: If Pillow is not installed.
    """
    labels = _numbers(folder / f"{split}_labels.npy")
    check_labels(labels, folder / f"{split}_labels.npy", classes)
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
    pixels = np.asarray(read_picture(path, purpose="reading CIFAR-10 sheets"))
    expected = (_SIDE * _ROWS, _SIDE * _COLUMNS, 3)
    if pixels.shape != expected:
        raise DataError(
            f"{str(path)!r} has {pixels.shape[1]} x {pixels.shape[0]} pixels, expected "
            f"{expected[1]} x {expected[0]}: {_ROWS} rows of {_COLUMNS} images. Replace the file."
        )
    tiles = pixels.reshape(_ROWS, _SIDE, _COLUMNS, _SIDE, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiles).reshape(_SHEET, 3, _SIDE, _SIDE)


def _numbers(path: Path) -> NDArray[Any]:
    """Return a row of integers."""
    try:
        values: NDArray[Any] = np.load(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}. Replace the file.") from error
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise DataError(
            f"{str(path)!r} holds {values.dtype} {values.shape}, expected a row of integers. "
            "Replace the file."
        )
    return values
