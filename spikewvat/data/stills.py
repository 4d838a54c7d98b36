"""Sets of still images in memory: items, whole batches at once, scaling and encoding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from spikewvat.data.encodings import Direct, Encoding
from spikewvat.data.packed import Together
from spikewvat.errors import DataError

Level: TypeAlias = float | tuple[float, ...]
"""An intensity, the same for all channels or one for each."""

STATISTICS: dict[str, tuple[Level, Level]] = {
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of each channel in a set's training images, as everyone has them."""
AS_IS: tuple[Level, Level] = (0.0, 1.0)
SYMMETRIC: tuple[Level, Level] = (0.5, 0.5)


class StillImages(Dataset[tuple[Tensor, int]]):
    """Images and labels in memory, scaled and encoded at every access.

    Items are ``(image float32 [C, H, W], label)``, with an encoding ``([T, C, H, W], label)``.

    Args:
        images: Intensities uint8 [N, H, W] or [N, C, H, W].
        targets: Labels int64 [N].
        encoding: How images become spikes; ``None`` leaves them as they are.
        seed: With a number, the spikes of an image are the same at every access; ``None`` draws
            them anew from torch's global generator.
        mean: Subtracted from intensities in 0..1, the same for all channels or one for each.
        std: What they are then divided by.

    Attributes:
        images: As given.
        targets: As given.
        black: Value of a black pixel.
        repeatable: Whether reading an image draws nothing from global generators.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        *,
        encoding: Encoding | None = None,
        seed: int | None = 0,
        mean: Level = 0.0,
        std: Level = 1.0,
    ) -> None:
        self.images, self.targets = images, targets
        self.black = scaled_black(mean, std)
        self._encoding, self._seed = encoding, seed
        self.repeatable = isinstance(encoding, Direct | None) or seed is not None
        self._scale = (mean, std)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self._intensities(self.images[index][None])[0]
        label = int(self.targets[index])
        if self._encoding is None:
            return image, label
        return self._encoding(image, generator=stream(self._seed, index, len(self))), label

    def __getitems__(self, indices: Sequence[int]) -> Sequence[tuple[Tensor, int]]:
        """Return several items; a loader of this package makes still images together."""
        if self._encoding is not None:
            return [self[index] for index in indices]
        return Together(self, indices, time_first=False)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return still images float [B, C, H, W] and labels int64 [B], without single items."""
        chosen = torch.as_tensor(indices)
        return self._intensities(self.images[chosen]), self.targets[chosen]

    def _intensities(self, images: Tensor) -> Tensor:
        """Return float [B, C, H, W] of bytes [B, H, W] or [B, C, H, W]."""
        images = images.float() / 255
        if images.dim() == 3:
            images = images[:, None]
        return scaled(images, *self._scale)


def stream(seed: int | None, index: int, items: int) -> torch.Generator | None:
    """Return the generator of one item of so many, None (torch's global one) without a seed."""
    if seed is None:
        return None
    # One stream per image; neighbouring seeds are unrelated in torch's Mersenne twister.
    return torch.Generator().manual_seed(seed * items + index % items)


def scaled(images: Tensor, mean: Level, std: Level) -> Tensor:
    """Return images [..., C, H, W], shifted by minus the mean and divided by std."""
    if (mean, std) == (0, 1):
        return images
    return (images - _of_channels(mean)) / _of_channels(std)


def scaled_black(mean: Level, std: Level) -> Level:
    """Return the value of a black pixel, for each channel where the scaling is by channel."""
    if isinstance(mean, tuple) and isinstance(std, tuple):
        return tuple(-m / s for m, s in zip(mean, std, strict=True))
    assert not isinstance(mean, tuple)
    assert not isinstance(std, tuple)
    return -mean / std


def _of_channels(level: Level) -> Tensor | float:
    return torch.tensor(level)[:, None, None] if isinstance(level, tuple) else level


def read_bytes(path: Path) -> bytes:
    """Return the content of a file that a data set cannot do without.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read {str(path)!r}: {error.strerror or error}. Add the missing file."
        ) from error


def check_labels(labels: NDArray[Any], path: Path, classes: int) -> None:
    """Raise DataError for the first label that is not one of 0..classes - 1."""
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise DataError(
            f"{str(path)!r} holds the label {wrong}, expected 0..{classes - 1}: it is damaged or "
            "of another data set. Replace the file."
        )


def check_options(
    split: str, limit: int | None, encoding: Encoding | None, **scalings: bool
) -> None:
    """Raise for options that no set of still images has.

    Args:
        split: Must be ``"train"`` or ``"test"``.
        limit: Must be at least 1, or None.
        encoding: Must take intensities outside of 0..1 where a scaling makes such.
        **scalings: Options that make such, by name.

    Raises:
        ValueError: Naming the option.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit!r}.")
    for name, wanted in scalings.items():
        if wanted and not isinstance(encoding, Direct | None):
            raise ValueError(
                f"{name}=True gives intensities outside 0..1, which {encoding!r} cannot encode. "
                f"Use direct encoding, or {name}=False."
            )
