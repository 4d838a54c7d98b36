"""Pictures from files, cropped and resized as everyone does: the only file that needs Pillow."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Generator, Tensor

from spikewvat.errors import DataError, require

Picture: TypeAlias = Any
"""A Pillow image in RGB."""

_ATTEMPTS = 10


def read_picture(path: Path, *, purpose: str) -> Picture:
    """Read a picture of any format that Pillow knows.

    Args:
        path: The file.
        purpose: What pictures are needed for, the start of the error's sentence without Pillow.

    Returns:
        The picture in RGB.

    Raises:
        DataError: If the file is missing, damaged or no picture.
        MissingExtraError: If Pillow is not installed.
    """
    pillow: Any = require("PIL.Image", extra="vision", purpose=purpose)
    try:
        with pillow.open(path) as picture:
            return picture.convert("RGB")
    # Pillow reports a damaged PNG by a SyntaxError.
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}. Replace the file.") from error


def pixels(picture: Picture) -> Tensor:
    """Return intensities uint8 [3, H, W]."""
    return torch.from_numpy(np.array(picture).transpose(2, 0, 1).copy())


def centre(picture: Picture, *, resize: int, size: int) -> Picture:
    """Return the middle of a picture, as networks for ImageNet are tested.

    Args:
        picture: Of any size.
        resize: Length in pixels to which the shorter side is brought, the longer in proportion.
        size: Side of the square that is cut out.
    """
    width, height = picture.size
    shorter = min(width, height)
    wide, high = (int(resize * side / shorter) for side in (width, height))
    left, top = round((wide - size) / 2), round((high - size) / 2)
    resized = picture.resize((wide, high), _bilinear())
    return resized.crop((left, top, left + size, top + size))


@dataclass(frozen=True)
class RandomCrop:
    """Cut a random part out of a picture and resize it, as networks for ImageNet are trained.

    Area and aspect ratio are drawn, the ratio uniformly in its logarithm; where ten draws do not
    fit into the picture, the largest part in its middle of a permitted ratio is taken.

    Args:
        size: Side of the square that the part becomes.
        scale: Smallest and largest area of the part, as shares of the picture's.
        ratio: Smallest and largest width over height.

    Raises:
        ValueError: If ``size`` is below 1, or the bounds are not above 0 and in order.

    References:
        Going Deeper with Convolutions (Szegedy et al., 2015), section 6,
        https://arxiv.org/abs/1409.4842
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size!r}.")
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not (0 < low <= high < math.inf):
                raise ValueError(f"{name} must be two numbers above 0 in order, got {low}, {high}.")

    def box(
        self, width: int, height: int, *, generator: Generator | None = None
    ) -> tuple[int, int, int, int]:
        """Return left, top, width and height of a part of a picture of so many pixels.

        Args:
            width: Of the picture.
            height: Of the picture.
            generator: Source of the draws, on the CPU; ``None`` uses torch's global one.
        """
        low, high = (math.log(ratio) for ratio in self.ratio)
        for _ in range(_ATTEMPTS):
            share, shape = torch.rand(2, generator=generator).tolist()
            area = width * height * (self.scale[0] + share * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + shape * (high - low))
            wide, high_ = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < high_ <= height:
                left = int(torch.randint(width - wide + 1, (), generator=generator))
                top = int(torch.randint(height - high_ + 1, (), generator=generator))
                return left, top, wide, high_
        nearest = min(max(width / height, self.ratio[0]), self.ratio[1])
        wide = max(1, min(width, round(height * nearest)))
        tall = max(1, min(height, round(width / nearest)))
        return (width - wide) // 2, (height - tall) // 2, wide, tall

    def __call__(self, picture: Picture, *, generator: Generator | None = None) -> Picture:
        """Return a square picture made of a random part.

        Args:
            picture: Of any size.
            generator: See :meth:`box`.
        """
        left, top, wide, high = self.box(*picture.size, generator=generator)
        part = picture.crop((left, top, left + wide, top + high))
        return part.resize((self.size, self.size), _bilinear())


def with_palette(png: bytes) -> bytes:
    """Return a PNG with at most 256 colours, a third of the size for charts.

    Args:
        png: Content of a PNG file.
    """
    pillow: Any = require("PIL.Image", extra="cli", purpose="pictures in a page")
    smaller = io.BytesIO()
    with pillow.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(256).save(smaller, "png", optimize=True)
    return smaller.getvalue()


def _bilinear() -> Any:
    pillow: Any = require("PIL.Image", extra="vision", purpose="resizing pictures")
    return pillow.Resampling.BILINEAR
