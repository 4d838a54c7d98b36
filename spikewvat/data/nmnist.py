"""N-MNIST, whole or in part; downloads and transforms through tonic, which only this file imports.

Reading a folder needs no tonic: :func:`~spikewvat.data.events.decode_events` decodes the files.
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from spikewvat.data.cache import RowCache, cache_folder
from spikewvat.data.events import (
    NMNIST_SENSOR,
    Events,
    Reduce,
    bin_checked,
    check_events,
    decode_events,
    frame_shape,
)
from spikewvat.data.packed import Packing, Row, Together
from spikewvat.errors import DataError, MissingDataError, require

_FOLDERS = {"train": "Train", "test": "Test"}
_DIGITS = tuple("0123456789")
_TIMEOUT_S = 10
_CACHE_VERSION = 3
_LATE = 0.1  # share of events behind the last window that is more than the end of a saccade


class NMNIST(Dataset[tuple[Tensor, int]]):
    """Recordings in the layout of N-MNIST, binned to spikes.

    Items are ``(spikes uint8 [T, 2, 34, 34], label)``, dense or sparse. The recordings are
    binned once, and only where there are spikes is kept in a cache on disk, under the digest of
    their content; without a cache they are read and binned at every access.

    Args:
        root: Folder that holds ``NMNIST/Train`` and ``NMNIST/Test``, or these two themselves; a
            part of the official files will do.
        split: ``"train"`` or ``"test"``.
        time_steps: Number of bins T.
        window_us: Length of a bin in microseconds, from time 0 on. By default, as users of
            ``ToFrame(n_time_bins=T)`` expect, every recording is cut into T equal bins from its
            first to its last event (see :func:`~spikewvat.data.events.bin_events`). Warns once
            where more than a tenth of a recording's events come behind the last window.
        reduce: What several events in one bin become: ``"or"``, ``"count"``, or an integer at
            which the count is clipped.
        first_saccade_only: Keep the first 100 ms.
        stabilize: Take the camera's motion out of the coordinates; needs tonic.
        denoise_us: Drop events that have had no event beside them for so many microseconds;
            ``None`` keeps all; otherwise tonic is needed.
        classes: Digits to read; their folders must be there.
        per_class: Number of recordings of each class to use, from the start; ``None`` uses all.
        indices: Take these of the recordings (in order of class, then of file name), after
            ``per_class``; ``None`` takes all.
        sparse: Yield sparse tensors, which event-driven first layers take
            (:mod:`spikewvat.spiking.events`); worth it for hundreds of time steps.
        cache: Folder for the binned recordings; ``None`` takes the environment variable
            ``SPIKEWVAT_CACHE``, and ``~/.cache/spikewvat`` where that is unset; ``False``
            caches nothing.
        download: Where the split is missing, download the official files (1.2 GB) through tonic.

    Attributes:
        files: The recordings, in order.
        targets: Their labels.
        sample_shape: Shape [T, C, H, W] of an item.
        packing: How binned recordings are packed.
        repeatable: Reading draws nothing from global generators.

    Raises:
        DataError: If the recordings are missing, incomplete or malformed, would become blank, or
            cannot be downloaded.
        ValueError: If an option is impossible.
        MissingExtraError: If tonic is not installed and ``stabilize``, ``denoise_us`` or a
            download needs it.

    References:
        Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades (Orchard
        et al., 2015), https://doi.org/10.3389/fnins.2015.00437
    """

    def __init__(
        self,
        root: Path | str,
        split: Literal["train", "test"],
        *,
        time_steps: int,
        window_us: int | None = None,
        reduce: Reduce = "or",
        first_saccade_only: bool = False,
        stabilize: bool = False,
        denoise_us: int | None = None,
        classes: Sequence[int] = tuple(range(10)),
        per_class: int | None = None,
        indices: Sequence[int] | None = None,
        sparse: bool = False,
        cache: Path | str | Literal[False] | None = None,
        download: bool = False,
    ) -> None:
        if split not in _FOLDERS:
            raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
        for name, value in (("denoise_us", denoise_us), ("per_class", per_class)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}.")
        self._time_steps, self._window_us, self._reduce = time_steps, window_us, reduce
        self._first_saccade_only, self._stabilize = first_saccade_only, stabilize
        self._denoise_us, self._sparse = denoise_us, sparse
        self._told = False
        if stabilize:
            _source("stabilize")
        if denoise_us is not None:
            _transforms()
        self.repeatable = True
        self.sample_shape = frame_shape(time_steps, window_us, NMNIST_SENSOR, reduce)
        self.packing = Packing(self.sample_shape, counted=reduce != "or")
        folder = _folder(Path(root).expanduser(), split, download)
        self.files = _choose(_recordings(folder, classes), classes, per_class, indices)
        self.targets = [_digit(path) for path in self.files]
        _check_sizes(self.files)
        self._cache = None if cache is False else self._opened(cache_folder(cache), folder)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index = self._position(index)
        return self._made([index], torch.uint8)[:, 0], self.targets[index]

    def __getitems__(self, indices: Sequence[int]) -> Together:
        """Return items that a loader of this package makes together."""
        return Together(self, indices)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return recordings as a batch, without making the single items.

        Args:
            indices: Which ones.

        Returns:
            Spikes float32 [T, B, C, H, W], sparse where items are, and labels int64 [B].
        """
        places = [self._position(index) for index in indices]
        labels = torch.tensor([self.targets[place] for place in places], dtype=torch.int64)
        return self._made(places, torch.float32), labels

    def _position(self, index: int) -> int:
        """Return an index counted from the front."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is outside of {len(self)} recordings.")
        return index % len(self)

    def _made(self, indices: Sequence[int], dtype: torch.dtype) -> Tensor:
        rows = [self.row(index) for index in indices]
        return self.packing.unpack(rows, dtype, sparse=self._sparse)

    def events(self, index: int) -> Events:
        """Return the events of a recording, after the optional transforms.

        Raises:
            DataError: If the file is malformed.
        """
        path = self.files[index]
        _check_sizes([path])
        events = check_events(decode_events(path.read_bytes()), name=repr(str(path)))
        if self._first_saccade_only:
            events = events[events["t"] < 100_000]
        if self._stabilize:
            events = _source("stabilize").stabilize(events)
        if self._denoise_us is not None and len(events):
            events = _transforms().Denoise(filter_time=self._denoise_us)(events)
        if len(events) == 0:
            raise DataError(
                f"{str(path)!r} has no events left after first_saccade_only and denoise_us. "
                "Change these options, or remove the file."
            )
        return events

    def _binned(self, index: int) -> NDArray[np.uint8]:
        events = self.events(index)
        self._tell_of_late(events, self.files[index])
        return bin_checked(
            events,
            self._time_steps,
            self._window_us,
            NMNIST_SENSOR,
            self._reduce,
            name=repr(str(self.files[index])),
        )

    def _tell_of_late(self, events: Events, path: Path) -> None:
        """Tell once of a recording that goes on behind the last window."""
        if self._told or self._window_us is None:
            return
        end = self._time_steps * self._window_us
        late = float((events["t"] >= end).mean())
        if late > _LATE:
            self._told = True
            warnings.warn(
                f"{str(path)!r} lasts {events['t'][-1]} us, but the windows end at {end} us: "
                f"{100 * late:.0f} % of its events come later and are dropped, and so are those "
                "of other recordings. Use more time_steps or a longer window_us, or time_steps "
                "alone for windows over the whole recording.",
                stacklevel=2,
            )

    def row(self, index: int) -> Row:
        """Return a packed recording; in the cache it is written anew where it is damaged."""
        if self._cache is None:
            return self.packing.pack(self._binned(index))
        row = self._cache.read(index)
        if row is None:  # damaged since it was opened
            self._cache.write(self._rows())
            row = self._cache.read(index)
            assert row is not None
        return row

    def _rows(self) -> Iterator[Row]:
        for index in range(len(self)):
            yield self.packing.pack(self._binned(index))

    def _opened(self, cache: Path, folder: Path) -> RowCache:
        """Return the cache of these recordings, binned and written where it is missing."""
        content = hashlib.sha256()
        options = (_CACHE_VERSION, *self.sample_shape, self._window_us, self._reduce)
        transforms = (self._first_saccade_only, self._stabilize, self._denoise_us)
        content.update(repr((*options, *transforms)).encode())
        # The content itself: copies that keep dates make size and time equal. 36 us a recording.
        for path in self.files:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            content.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
        rows = RowCache(cache / "binned" / f"{content.hexdigest()[:32]}.rows", len(self))
        if not rows.open():
            rows.write(self._rows())
        return rows


def _source(purpose: str) -> Any:
    """Return tonic's module of N-MNIST."""
    return require("tonic.datasets.nmnist", extra="tonic", purpose=f"{purpose} for N-MNIST")


def _transforms() -> Any:
    """Return tonic's transforms."""
    return require("tonic.transforms", extra="tonic", purpose="denoise_us for N-MNIST")


def _folder(root: Path, split: str, download: bool) -> Path:
    """Return the folder with the class folders of a split, downloaded if that is asked for."""
    name = _FOLDERS[split]
    places = [root / "NMNIST" / name, root / name]
    if download and not _complete(places, split):
        _download(root, split)
    for place in places:
        if place.is_dir():
            return place
    raise MissingDataError(
        f"there is no folder {str(places[0])!r} nor {str(places[1])!r}. Choose the root that holds "
        f"NMNIST/{name}/<digit>/*.bin, or pass download=True where there is a network."
    )


def _complete(places: Sequence[Path], split: str) -> bool:
    """Return whether a split is there, and not just a part of a download that broke off."""
    zipped = (places[0].parent / f"{split}.zip").exists()
    if zipped and places[0].is_dir():
        return sum(1 for _ in places[0].rglob("*.bin")) >= 10_000
    return any(place.is_dir() for place in places)


def _download(root: Path, split: str) -> None:
    """Download and unpack the official files through tonic."""
    source = _source("download").NMNIST
    url = source.train_url if split == "train" else source.test_url
    try:
        # tonic waits for as long as the system does; ask briefly whether anyone is there.
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()
        except urllib.error.HTTPError:
            pass  # someone is, and dislikes the question
        source(str(root), train=split == "train")
    # tonic raises a RuntimeError where the checksum is wrong.
    except (OSError, RuntimeError, http.client.HTTPException, zipfile.BadZipFile) as error:
        raise DataError(
            f"cannot download N-MNIST to {str(root)!r}: {error}. Check the network, or put the "
            f"official {split}.zip, unpacked, into {str(root / 'NMNIST')!r}. Without them, "
            "embedded_root() gives event digits offline."
        ) from error


def _recordings(folder: Path, classes: Sequence[int]) -> list[Path]:
    """Return all ``<digit>/*.bin`` in order; raise unless all wanted digits are there and no other.

    The order is tonic's: by digit, then by name.
    """
    paths = sorted(folder.rglob("*.bin"))
    for path in paths:
        parent = path.parent
        if parent.parent != folder or parent.name not in _DIGITS:
            raise DataError(
                f"{str(path)!r} does not lie in a folder named after a digit. Expected "
                f"{str(folder / '<digit>' / path.name)!r}: move or remove it."
            )
    if not paths:
        raise DataError(
            f"{str(folder)!r} holds no recordings. Expected <digit>/*.bin: choose another root, or "
            "pass download=True where there is a network."
        )
    found = {_digit(path) for path in paths}
    missing = sorted(set(classes) - found)
    if missing:
        names = ", ".join(str(folder / str(digit)) for digit in missing)
        raise DataError(
            f"there are no recordings in {names}. Add them, or pass "
            f"classes={tuple(sorted(found))} to read the classes that are there."
        )
    return paths


def _digit(path: Path) -> int:
    """Return the label of a recording, the name of its folder."""
    return int(path.parent.name)


def _check_sizes(files: Sequence[Path]) -> None:
    """Raise unless every file holds a whole number of events, at least one."""
    for path in files:
        size = path.stat().st_size
        if size == 0:
            raise DataError(f"{str(path)!r} is empty. Replace or remove it.")
        if size % 5:
            raise DataError(
                f"{str(path)!r} has {size} bytes, not a multiple of 5 (an event is 5 bytes): it is "
                "cut off. Replace or remove it."
            )


def _choose(
    paths: Sequence[Path],
    classes: Sequence[int],
    per_class: int | None,
    indices: Sequence[int] | None,
) -> list[Path]:
    """Return the wanted recordings."""
    chosen: list[Path] = []
    for digit in sorted(set(classes)):
        chosen += [path for path in paths if _digit(path) == digit][:per_class]
    if indices is None:
        return chosen
    outside = [index for index in indices if not 0 <= index < len(chosen)]
    if outside:
        raise ValueError(f"indices must lie in 0..{len(chosen) - 1}, got {outside[0]}.")
    return [chosen[index] for index in indices]
