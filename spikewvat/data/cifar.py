"""CIFAR-10 and CIFAR-100: the official binary versions."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from spikewvat.data.cifar_files import HUNDRED, TEN, Official, data_folder, read_batches
from spikewvat.data.encodings import Encoding
from spikewvat.data.stills import AS_IS, STATISTICS, SYMMETRIC, StillImages, check_options

Statistics = Literal["cifar", "imagenet"]
"""Of which data set the mean and standard deviation of each channel are."""


class _CIFAR(StillImages):
    """The official binary version that a subclass names."""

    official: ClassVar[Official]

    def __init__(
        self,
        root: Path | str,
        split: Literal["train", "test"],
        *,
        encoding: Encoding | None = None,
        limit: int | None = None,
        seed: int | None = 0,
        symmetric: bool | None = None,
        standardize: Statistics | None = None,
        download: bool = False,
    ) -> None:
        if standardize is not None and standardize not in STATISTICS:
            raise ValueError(f"standardize must be 'cifar' or 'imagenet', got {standardize!r}.")
        if symmetric and standardize:
            raise ValueError(
                f"symmetric=True and standardize={standardize!r} exclude each other. Choose one."
            )
        if symmetric is None:
            symmetric = standardize is None
        scalings = {"symmetric": symmetric, "standardize": standardize is not None}
        check_options(split, limit, encoding, **scalings)
        mean, std = STATISTICS[standardize] if standardize else SYMMETRIC if symmetric else AS_IS
        folder = data_folder(self.official, Path(root).expanduser(), split, download=download)
        self.classes = self.official.classes
        images, labels = read_batches(self.official, folder, split, limit=limit)
        super().__init__(
            images[:limit], labels[:limit], encoding=encoding, seed=seed, mean=mean, std=std
        )


class CIFAR10(_CIFAR):
    """CIFAR-10 from its official binary version, ``cifar-10-batches-bin/*.bin``.

    Items are ``(image float32 [3, 32, 32], label)``, with an encoding ``([T, 3, 32, 32], label)``.

    Args:
        root: Folder that holds the files, in itself, in ``cifar10`` or in
            ``cifar-10-batches-bin``.
        split: ``"train"`` or ``"test"``.
        encoding: How images become spikes; ``None`` leaves them as they are.
        limit: Number of images to use, from the start; ``None`` uses all.
        seed: Of an encoding that draws, see :class:`spikewvat.data.images.MNIST`.
        symmetric: Shift and scale intensities to -1..1 (mean and standard deviation 0.5), as
            networks take them that are converted; the default unless ``standardize`` is given.
            Where it is off they lie in 0..1.
        standardize: Shift and scale each channel by its mean and standard deviation in the
            training images of ``"cifar"`` or ``"imagenet"`` instead.
        download: Where the files are missing, download the official ones (162 MB).

    Attributes:
        images: Intensities uint8 [N, 3, 32, 32].
        targets: Labels int64 [N].
        classes: How many classes there are.
        black: Value of a black pixel, for each channel where they are standardised.

    Raises:
        DataError: If files are missing or malformed, or cannot be downloaded.
        ValueError: If an option is impossible.

    References:
        Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009),
        https://www.cs.toronto.edu/~kriz/cifar.html
    """

    official = TEN


class CIFAR100(_CIFAR):
    """CIFAR-100 from its official binary version, ``cifar-100-binary/{train,test}.bin``.

    Items are ``(image float32 [3, 32, 32], label)``, with an encoding ``([T, 3, 32, 32], label)``;
    labels are the 100 fine ones.

    Args:
        root: Folder that holds the files, in itself, in ``cifar100`` or in ``cifar-100-binary``.
        split: ``"train"`` or ``"test"``.
        encoding: How images become spikes; ``None`` leaves them as they are.
        limit: Number of images to use, from the start; ``None`` uses all.
        seed: Of an encoding that draws, see :class:`spikewvat.data.images.MNIST`.
        symmetric: See :class:`CIFAR10`.
        standardize: See :class:`CIFAR10`; ``"cifar"`` are the figures of CIFAR-10, as the code of
            Izmailov et al., 2018, has them for both.
        download: Where the files are missing, download the official ones (161 MB).

    Attributes:
        images: Intensities uint8 [N, 3, 32, 32].
        targets: Fine labels int64 [N].
        classes: How many classes there are.
        black: Value of a black pixel, for each channel where they are standardised.

    Raises:
        DataError: If files are missing or malformed, or cannot be downloaded.
        ValueError: If an option is impossible.

    References:
        Krizhevsky, 2009, https://www.cs.toronto.edu/~kriz/cifar.html
    """

    official = HUNDRED
