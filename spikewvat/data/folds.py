"""Cross-validation on a part of N-MNIST, with simulated recordings of other digits to train on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from spikewvat.data.cache import cache_folder, written_whole
from spikewvat.data.images import MNIST
from spikewvat.data.nmnist import NMNIST
from spikewvat.data.packed import Together
from spikewvat.data.saccades import write_recordings
from spikewvat.errors import DataError

_SEED = 2015
_Place = tuple[NMNIST, int]


class NMNISTFolds(Dataset[tuple[Tensor, int]]):
    """Real recordings in folds, each tested once, and simulated ones of other images.

    Recording i of N-MNIST's official training part shows MNIST's training image i - 1. The root
    holds some of these recordings, anywhere in ``NMNIST/{Train,Test}``, and MNIST. In order of
    digit and number they are dealt to the folds in turn, so that every digit is spread evenly. One
    fold is tested; the others are trained on, together with simulated recordings of the first
    training images of MNIST that no real recording shows. They are written once, to the cache.

    Items are those of :class:`~spikewvat.data.nmnist.NMNIST`.

    Args:
        root: Folder that holds ``NMNIST`` and MNIST's files.
        split: ``"train"`` or ``"test"``.
        time_steps: Number of bins, as for :class:`~spikewvat.data.nmnist.NMNIST`.
        fold: The fold that is tested, from 0; ``None`` trains on simulated recordings alone, to
            choose settings without any real one.
        folds: Number of folds, at least 2.
        simulated: Number of simulated recordings.
        window_us: Length of a bin in microseconds, as there.
        sparse: Yield sparse tensors.
        cache: Folder for binned and simulated recordings, as there; ``False`` bins at every access
            and writes simulated recordings to the default folder.

    Attributes:
        targets: Labels.
        sample_shape: Shape [T, C, H, W] of an item.
        repeatable: Reading draws nothing from global generators.

    Raises:
        DataError: If recordings or MNIST are missing or malformed, or a recording is not of the
            MNIST image of its number.
        ValueError: If an option is impossible.
    """

    def __init__(
        self,
        root: Path | str,
        split: Literal["train", "test"],
        *,
        time_steps: int,
        fold: int | None = None,
        folds: int = 5,
        simulated: int = 10_000,
        window_us: int | None = None,
        sparse: bool = False,
        cache: Path | str | Literal[False] | None = None,
    ) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
        if folds < 2 or not (fold is None or 0 <= fold < folds):
            raise ValueError(f"expected 2 folds or more and a fold below, got {fold!r} of {folds}.")
        if fold is None and split == "test":
            raise ValueError("without a fold there is no test data. Choose a fold from 0.")
        options: dict[str, Any] = {"time_steps": time_steps, "window_us": window_us}
        options |= {"sparse": sparse, "cache": cache}
        real = _recordings(Path(root).expanduser(), options)
        self._places = [] if fold is None else _chosen(real, split, fold, folds)
        if split == "train":
            numbers = [_number(place) for place in real]
            folder = _simulated(Path(root), simulated, numbers, cache)
            drawn = NMNIST(folder, "train", **options)
            self._places += [(drawn, index) for index in range(len(drawn))]
        first = self._places[0][0]
        self.repeatable = True
        self.targets = [part.targets[index] for part, index in self._places]
        self.sample_shape, self._packing, self._sparse = first.sample_shape, first.packing, sparse

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        part, place = self._places[index]
        return part[place]

    def __getitems__(self, indices: Sequence[int]) -> Together:
        """Return items that a loader of this package makes together."""
        return Together(self, indices)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return recordings as a batch (see :meth:`spikewvat.data.nmnist.NMNIST.batch`)."""
        places = [self._places[index] for index in indices]
        rows = [part.row(place) for part, place in places]
        labels = torch.tensor([part.targets[place] for part, place in places], dtype=torch.int64)
        return self._packing.unpack(rows, torch.float32, sparse=self._sparse), labels


def _number(place: _Place) -> int:
    """Return the number of a recording, one more than that of its image."""
    part, index = place
    return int(part.files[index].stem)


def _recordings(root: Path, options: dict[str, Any]) -> list[_Place]:
    """Return all real recordings in order of digit and number, checked against MNIST."""
    parts = [NMNIST(root, split, **options) for split in ("train", "test")]
    places = [(part, index) for part in parts for index in range(len(part))]
    places.sort(key=lambda place: (place[0].targets[place[1]], _number(place)))
    digits = MNIST(root, "train").targets
    for place in places:
        part, index = place
        number = _number(place)
        if not 1 <= number <= len(digits) or int(digits[number - 1]) != part.targets[index]:
            raise DataError(
                f"{str(part.files[index])!r} is not a recording of training image {number - 1} of "
                "MNIST. Use recordings of N-MNIST's official training part only."
            )
    return places


def _chosen(places: Sequence[_Place], split: str, fold: int, folds: int) -> list[_Place]:
    tested = split == "test"
    return [place for n, place in enumerate(places) if (n % folds == fold) is tested]


def _simulated(
    root: Path, count: int, numbers: Sequence[int], cache: Path | str | Literal[False] | None
) -> Path:
    """Return the root of simulated recordings of other images, written where it is missing."""
    known = hashlib.sha256(repr((_SEED, count, sorted(numbers))).encode()).hexdigest()[:12]
    folder = cache_folder(cache or None) / f"simulated-{known}"
    if folder.is_dir():
        return folder
    mnist = MNIST(root, "train")
    shown = {number - 1 for number in numbers}
    others = [index for index in range(len(mnist.targets)) if index not in shown][:count]

    def write(into: Path) -> None:
        write_recordings(
            into / "NMNIST" / "Train",
            mnist.images[others],
            mnist.targets[others].tolist(),
            [index + 1 for index in others],
            generator=torch.Generator().manual_seed(_SEED),
        )

    return written_whole(folder, write)
