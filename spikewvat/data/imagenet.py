"""ImageNet, or any pictures sorted into folders by class, from a local folder."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Literal

from torch import Tensor
from torch.utils.data import Dataset

from spikewvat.data.pictures import RandomCrop, centre, pixels, read_picture
from spikewvat.data.stills import STATISTICS, scaled, scaled_black, stream
from spikewvat.errors import DataError, MissingDataError

_SPLITS = {"train": "train", "test": "val"}
_FOLDERS = ("", "imagenet", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")
_ENDINGS = (".jpeg", ".jpg", ".png")
_SITE = "https://www.image-net.org/challenges/LSVRC/2012"


class ImageNet(Dataset[tuple[Tensor, int]]):
    """Pictures in ``train/<class>/*.JPEG`` and ``val/<class>/*.JPEG``, as users have ImageNet.

    Items are ``(image float32 [3, size, size], label)``, standardised by the mean and standard
    deviation of ImageNet's channels; labels count the folders in the order of their names, which
    is that of the 1000 official classes. Training images are a random part, resized; test images
    the middle. Mirroring is left to the trainer (``flip``, :class:`RandomFlip`).

    Args:
        root: Folder that holds ``train`` and ``val``, in itself or in ``imagenet``.
        split: ``"train"`` or ``"test"``, which is the folder ``val``.
        size: Side of the images in pixels.
        resize: Length of the shorter side before the middle of a test image is cut out; by
            default 8/7 of ``size``, as 256 for 224.
        per_class: Number of pictures of each class to use, from the start; ``None`` uses all.
        scale: Smallest and largest area of a training image's random part, as shares.
        augment: Whether training images are a random part; else their middle, as test images.
        seed: With a number, the part of an image is the same at every access; ``None`` draws it
            anew from torch's global generator, which a loader seeds in every worker.

    Attributes:
        files: The pictures, in order.
        targets: Their labels.
        names: Names of the classes' folders.
        classes: How many classes there are.
        black: Value of a black pixel in each channel.

    Raises:
        DataError: If folders are missing or laid out otherwise, the classes of ``train`` and
            ``val`` differ, or, at access, a picture is damaged.
        ValueError: If an option is impossible.
        MissingExtraError: At access, if Pillow is not installed.

    References:
        ImageNet Large Scale Visual Recognition Challenge (Russakovsky et al., 2015),
        https://arxiv.org/abs/1409.0575
    """

    def __init__(
        self,
        root: Path | str,
        split: Literal["train", "test"],
        *,
        size: int = 224,
        resize: int | None = None,
        per_class: int | None = None,
        scale: tuple[float, float] = (0.08, 1.0),
        augment: bool = True,
        seed: int | None = None,
    ) -> None:
        if split not in _SPLITS:
            raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
        if per_class is not None and per_class < 1:
            raise ValueError(f"per_class must be at least 1, got {per_class!r}.")
        self._crop = RandomCrop(size, scale)
        self._resize = round(size * 8 / 7) if resize is None else resize
        if self._resize < size:
            raise ValueError(f"resize must be at least size={size}, got {self._resize}.")
        self._random, self._seed = augment and split == "train", seed
        folder = _find(Path(root).expanduser(), split)
        self.names = _classes(folder)
        self.classes = len(self.names)
        _check_same_classes(folder, self.names)
        self.files: list[Path] = []
        self.targets: list[int] = []
        for label, name in enumerate(self.names):
            pictures = _pictures(folder / name)[:per_class]
            self.files += pictures
            self.targets += [label] * len(pictures)
        self._scale = STATISTICS["imagenet"]
        self.black = scaled_black(*self._scale)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = read_picture(self.files[index], purpose="reading pictures")
        if self._random:
            generator = stream(self._seed, index, len(self))
            picture = self._crop(picture, generator=generator)
        else:
            picture = centre(picture, resize=self._resize, size=self._crop.size)
        image = scaled(pixels(picture).float() / 255, *self._scale)
        return image, self.targets[index]

    def without_augmentation(self) -> ImageNet:
        """Return the same pictures cut as test images are."""
        plain = copy.copy(self)
        plain._random = False
        return plain


def _find(root: Path, split: str) -> Path:
    """Return the folder of a split."""
    for around in _FOLDERS:
        folder = root / around / _SPLITS[split]
        if folder.is_dir():
            return folder
    raise MissingDataError(
        f"there is no folder {_SPLITS[split]!r} in {str(root)!r}, nor in 'imagenet' in it. "
        f"ImageNet cannot be downloaded without an account: get it from {_SITE} and unpack it "
        "into train/<class>/ and val/<class>/."
    )


def _classes(folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders, in order."""
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    names = sorted(entry.name for entry in entries if entry.is_dir())
    if names:
        return tuple(names)
    loose = sum(entry.name.lower().endswith(_ENDINGS) for entry in entries)
    found = f"{loose} pictures side by side" if loose else "nothing"
    raise DataError(
        f"{str(folder)!r} holds {found}, expected a folder for each class with its pictures in it. "
        "Sort the pictures into such folders, or unpack the archives of the classes."
    )


def _check_same_classes(folder: Path, names: tuple[str, ...]) -> None:
    """Raise unless the folder beside, where there is one, has the same classes."""
    other = folder.parent / {"train": "val", "val": "train"}[folder.name]
    if not other.is_dir():
        return
    there = _classes(other)
    if there == names:
        return
    only = sorted(set(names) ^ set(there))
    where = folder if only[0] in names else other
    raise DataError(
        f"{str(folder)!r} has {len(names)} classes and {str(other)!r} {len(there)}, expected the "
        f"same: {only[0]!r} is only in {where.name!r}. Add or remove the folders that differ."
    )


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures of a class, in the order of their names."""
    found = sorted(e.name for e in os.scandir(folder) if e.name.lower().endswith(_ENDINGS))
    if not found:
        raise DataError(
            f"the class folder {str(folder)!r} holds no picture ({', '.join(_ENDINGS)}). "
            "Unpack the archive of the class there, or remove the folder in train and val."
        )
    return [folder / name for name in found]
