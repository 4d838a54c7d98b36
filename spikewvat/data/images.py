"""MNIST from its original files."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from spikewvat.data.encodings import Direct, Encoding, Latency, Rate
from spikewvat.data.stills import AS_IS, SYMMETRIC, StillImages, check_options
from spikewvat.errors import DataError, MissingDataError
from spikewvat.files import gunzip

__all__ = ["MNIST", "Direct", "Encoding", "Latency", "Rate", "read_idx"]

_SPLITS = {"train": "train", "test": "t10k"}
_MEAN, _STD = 0.1307, 0.3081  # of the training images, as everyone rounds them
_LARGEST = 2**30  # bytes of a packed file; the largest set in this format has half of that
_FOLDERS = ("", "mnist", "MNIST/raw", "MNIST")


class MNIST(StillImages):
    """MNIST, or any set in its format, from the four original idx files, packed or not.

    Items are ``(spikes float32 [T, 1, 28, 28], label)``, or still images ``([1, 28, 28], label)``
    in 0..1 without an encoding.

    Args:
        root: Folder that holds the files, in itself, in ``mnist`` or in ``MNIST/raw``.
        split: ``"train"`` or ``"test"``.
        encoding: How images become spikes; ``None`` leaves them as they are.
        limit: Number of images to use, from the start; ``None`` uses all.
        seed: With a number, the spikes of an image are the same at every access; ``None`` draws
            them anew from torch's global generator, which a loader seeds in every worker.
        standardize: Shift and scale intensities by the mean and standard deviation of MNIST's
            training images, 0.1307 and 0.3081; for still images and direct encoding.
        symmetric: Shift and scale them to -1..1 (mean and standard deviation 0.5), as networks
            take them that are converted; for still images and direct encoding.

    Attributes:
        images: Intensities uint8 [N, 28, 28].
        targets: Labels int64 [N].
        black: Value of a black pixel.

    Raises:
        DataError: If a file is missing or malformed.
        ValueError: If an option is impossible.

    References:
        Gradient-Based Learning Applied to Document Recognition (LeCun et al., 1998),
        https://doi.org/10.1109/5.726791
    """

    def __init__(
        self,
        root: Path | str,
        split: Literal["train", "test"],
        *,
        encoding: Encoding | None = None,
        limit: int | None = None,
        seed: int | None = 0,
        standardize: bool = False,
        symmetric: bool = False,
    ) -> None:
        if standardize and symmetric:
            raise ValueError("standardize=True and symmetric=True exclude each other. Choose one.")
        check_options(split, limit, encoding, standardize=standardize, symmetric=symmetric)
        root = Path(root).expanduser()
        images_file = _find(root, f"{_SPLITS[split]}-images", "idx3")
        labels_file = _find(root, f"{_SPLITS[split]}-labels", "idx1")
        images, labels = read_idx(images_file), read_idx(labels_file)
        if images.dim() != 3 or labels.dim() != 1:
            raise DataError(
                f"expected images [N, H, W] and labels [N], got {tuple(images.shape)} from "
                f"{str(images_file)!r} and {tuple(labels.shape)} from {str(labels_file)!r}. "
                "Replace them by the original files."
            )
        if len(images) != len(labels):
            raise DataError(
                f"{str(images_file)!r} holds {len(images)} images, but {str(labels_file)!r} "
                f"{len(labels)} labels. Replace them by files of the same set."
            )
        mean, std = (_MEAN, _STD) if standardize else SYMMETRIC if symmetric else AS_IS
        super().__init__(
            images[:limit], labels[:limit].long(), encoding=encoding, seed=seed, mean=mean, std=std
        )


def read_idx(path: Path | str) -> Tensor:
    """Read a file of bytes in the idx format, packed with gzip or not.

    Args:
        path: The file; packed if its name ends in ``.gz``.

    Returns:
        uint8 tensor of the shape in the header.

    Raises:
        DataError: If the file is damaged, of another format or of another type than bytes.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gunzip(content, limit=_LARGEST)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}. Replace the file.") from error
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(
            f"{str(path)!r} is no idx file of bytes: it begins with {content[:4].hex()!r}, "
            "expected '000008' and the number of dimensions. Replace the file."
        )
    header = 4 + 4 * content[3]
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    expected = header + math.prod(shape)
    if len(content) != expected:
        raise DataError(
            f"{str(path)!r} holds {len(content)} bytes, but its header announces {expected}: it "
            "is damaged. Replace the file."
        )
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).copy()).view(shape)


def _find(root: Path, stem: str, kind: str) -> Path:
    """Return the file, under any of the names in use."""
    names = [f"{stem}{dot}{kind}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    for folder in _FOLDERS:
        for name in names:
            if (root / folder / name).is_file():
                return root / folder / name
    raise MissingDataError(
        f"there is no {names[0]}, packed (.gz) or not, in {str(root)!r}, its folder 'mnist' or "
        "'MNIST/raw'. Put the four original files of MNIST there, or choose another root."
    )
