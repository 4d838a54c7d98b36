"""Sheets of CIFAR-10, 1000 images in one losslessly packed picture, to the official binary files.

    python benchmarks/cifar_sheets.py SHEETS OUT

SHEETS holds ``{train,test}_NN.webp`` of 25 rows of 40 images and ``{train,test}_labels.npy``, in
the official order. Images that ``{train,test}_inexact_indices.npy`` names are not the official ones
and are left out, so OUT may have fewer than 10 000 test images. OUT serves as ``--data-root``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spikewvat.data.cifar_files import TEN
from spikewvat.data.pictures import read_picture

ROWS, COLUMNS, SIDE = 25, 40, 32
SHEET = ROWS * COLUMNS


def read_sheet(path: Path) -> NDArray[np.uint8]:
    """Return the images uint8 [1000, 3, 32, 32] of a sheet."""
    pixels = np.asarray(read_picture(path, purpose="reading sheets"))
    expected = (ROWS * SIDE, COLUMNS * SIDE, 3)
    if pixels.shape != expected:
        raise SystemExit(f"{path} has the shape {pixels.shape}, expected {expected}.")
    tiles = pixels.reshape(ROWS, SIDE, COLUMNS, SIDE, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiles).reshape(SHEET, 3, SIDE, SIDE)


def records(folder: Path, split: str) -> NDArray[np.uint8]:
    """Return the records uint8 [N, 3073] of a split, each a label and the pixels of an image."""
    labels = np.load(folder / f"{split}_labels.npy", allow_pickle=False)
    sheets = sorted(folder.glob(f"{split}_[0-9][0-9].webp"))
    if not sheets or len(sheets) * SHEET != len(labels):
        raise SystemExit(
            f"{folder} holds {len(sheets)} {split} sheets of {SHEET} images, but {len(labels)} "
            "labels. Replace them by files of the same set."
        )
    images = np.concatenate([read_sheet(path) for path in sheets])
    inexact = folder / f"{split}_inexact_indices.npy"
    wrong = np.load(inexact, allow_pickle=False) if inexact.is_file() else np.empty(0, np.int64)
    every = np.concatenate([labels.astype(np.uint8)[:, None], images.reshape(len(images), -1)], 1)
    return np.delete(every, wrong, axis=0)


def convert(folder: Path, out: Path) -> dict[str, int]:
    """Write the official files of what ``folder`` holds; return how many images each split has."""
    place = out / TEN.folder
    place.mkdir(parents=True, exist_ok=True)
    counts = {}
    for split, names in TEN.files.items():
        found = records(folder, split)
        counts[split] = len(found)
        for name, part in zip(names, np.array_split(found, len(names)), strict=True):
            (place / name).write_bytes(part.tobytes())
    return counts


def main() -> None:
    """Convert a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sheets", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    counts = convert(options.sheets, options.out)
    print(f"{options.out}: {counts['train']} training and {counts['test']} test images")


if __name__ == "__main__":
    main()
