"""The embedded event digits: scikit-learn's handwritten digits before the saccade camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from spikewvat.data.cache import cache_folder, written_whole
from spikewvat.data.saccades import write_recordings
from spikewvat.errors import require

_VERSION = 4  # count up whenever the recordings change
_SEED = 2015
_TEST_SHARE = 0.22
_SCALE = 3  # gives about as many events as recordings of MNIST digits have


def digit_images() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's 1797 digits as MNIST would show them.

    Returns:
        Intensities float32 [1797, 28, 28] in 0..1, the 8 x 8 originals enlarged smoothly to
        24 x 24 pixels, and labels int64 [1797].

    Raises:
        MissingExtraError: If scikit-learn is not installed.

    References:
        Optical Recognition of Handwritten Digits (Alpaydin & Kaynak, 1998),
        https://doi.org/10.24432/C50P49
    """
    datasets: Any = require("sklearn.datasets", extra="digits", purpose="The embedded event digits")
    digits = datasets.load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] / 16
    # With an empty border before, strokes at the edge of the original end smoothly, too.
    bordered = functional.pad(small, (1,) * 4)
    large = functional.interpolate(
        bordered, scale_factor=_SCALE, mode="bicubic", align_corners=False
    )
    return large[:, 0, 1:-1, 1:-1].clamp(0, 1), torch.from_numpy(digits.target).long()


def split_indices(labels: Tensor) -> dict[str, list[int]]:
    """Return the fixed split by source image: ``{"Train": [...], "Test": [...]}``, in order.

    Every class gives the same share to the test set.

    Args:
        labels: Classes int64 [N].
    """
    generator = torch.Generator().manual_seed(_SEED)
    test: set[int] = set()
    for label in sorted(set(labels.tolist())):
        own = (labels == label).nonzero()[:, 0]
        order = torch.randperm(len(own), generator=generator)
        test.update(own[order[: round(_TEST_SHARE * len(own))]].tolist())
    indices = range(len(labels))
    return {
        "Train": [index for index in indices if index not in test],
        "Test": [index for index in indices if index in test],
    }


def embedded_root(cache: Path | str | None = None) -> Path:
    """Return the folder with the embedded event digits, generated where it is missing.

    Recordings of scikit-learn's digits by a :class:`~spikewvat.data.saccades.SaccadeCamera`, in
    the files and folders of N-MNIST: ``NMNIST/{Train,Test}/<label>/<id>.bin``, where ``id`` is
    the number of the source image plus 1. Read it as ``NMNIST(embedded_root(), "train", ...)``.
    Several processes may ask for it at once; it appears complete or not at all.

    Args:
        cache: Folder to keep it in; ``None`` takes the environment variable ``SPIKEWVAT_CACHE``,
            and ``~/.cache/spikewvat`` where that is unset.

    Returns:
        The root folder.

    Raises:
        DataError: If the cache cannot be written.
        MissingExtraError: If they must be generated and scikit-learn is not installed.
    """
    root = cache_folder(cache) / f"digits-v{_VERSION}"
    if root.is_dir():
        return root
    return written_whole(root, lambda folder: _write(folder / "NMNIST"))


def _write(folder: Path) -> None:
    folder.mkdir(parents=True)
    images, labels = digit_images()
    for number, (part, indices) in enumerate(split_indices(labels).items()):
        generator = torch.Generator().manual_seed(_SEED + number)
        names = [index + 1 for index in indices]
        write_recordings(
            folder / part, images[indices], labels[indices].tolist(), names, generator=generator
        )
