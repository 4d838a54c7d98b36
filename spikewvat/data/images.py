"""MNIST from its original files, and encodings of still images as spikes."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from spikewvat.errors import DataError

_SPLITS = {"train": "train", "test": "t10k"}
_MEAN, _STD = 0.1307, 0.3081  # of the training images, as everyone rounds them
_FOLDERS = ("", "mnist", "MNIST/raw", "MNIST")


@dataclass(frozen=True)
class Rate:
    r"""Random spikes, as frequent as the pixel is bright.

    .. math:: s_t \sim \mathrm{Bernoulli}(\min(g\,x, 1))

    Args:
        time_steps: Number of steps T.
        gain: Probability g of a spike in a step at intensity 1, above 0; products above 1 are
            certain spikes.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> Rate(3)(torch.tensor([[[0.0, 1.0]]])).squeeze().tolist()
        [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    """

    time_steps: int
    gain: float = 1.0
    _: KW_ONLY
    name: Literal["rate"] = field(default="rate", repr=False)

    def __post_init__(self) -> None:
        _check_steps(self.time_steps)
        if not (self.gain > 0 and math.isfinite(self.gain)):
            raise ValueError(f"gain must be above 0, got {self.gain!r}.")

    def __call__(self, images: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return spikes [T, ...] of images [...] in 0..1, drawn on the generator's device."""
        device = images.device if generator is None else generator.device
        shape = (self.time_steps, *images.shape)
        draws = torch.rand(shape, generator=generator, device=device).to(images.device)
        return (draws < self.gain * images).to(images.dtype)


@dataclass(frozen=True)
class Latency:
    r"""One spike a pixel, the earlier the brighter; by ``snntorch.spikegen.latency``.

    Linear, or the time in which a leaky integrator driven by the pixel reaches its threshold:

    .. math:: t = (T - 1)\,(1 - x) \qquad\text{or}\qquad t = \tau \ln\frac{x}{x - \theta}

    Args:
        time_steps: Number of steps T; later spikes are lost.
        tau: Time constant of the integrator in steps, above 0; ``None`` is linear.
        threshold: Darker pixels never fire; above 0, below 1.

    Raises:
        ValueError: If an argument is out of range.
        MissingExtraError: When called without snnTorch.

    Example:
        >>> Latency(3)(torch.tensor([[[0.0, 0.5, 1.0]]])).squeeze().tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """

    time_steps: int
    tau: float | None = None
    threshold: float = 0.01
    _: KW_ONLY
    name: Literal["latency"] = field(default="latency", repr=False)

    def __post_init__(self) -> None:
        _check_steps(self.time_steps)
        if self.tau is not None and not (self.tau > 0 and math.isfinite(self.tau)):
            raise ValueError(f"tau must be above 0, got {self.tau!r}.")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold!r}.")

    def __call__(self, images: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return spikes [T, ...] of images [...] in 0..1; nothing is drawn."""
        from spikewvat.adapters.snntorch import spikegen

        linear = self.tau is None
        spikes: Tensor = spikegen.latency(
            images,
            num_steps=self.time_steps,
            threshold=self.threshold,
            # snnTorch's own normalisation would divide by the latest spike of the batch.
            tau=max(self.time_steps - 1, 1) if linear else self.tau,
            linear=linear,
            clip=True,
            bypass=True,
        )
        return spikes.to(images.dtype)


@dataclass(frozen=True)
class Direct:
    """The intensities themselves, as a constant input current in every step.

    Args:
        time_steps: Number of steps T.

    Raises:
        ValueError: If ``time_steps`` is below 1.
    """

    time_steps: int
    _: KW_ONLY
    name: Literal["direct"] = field(default="direct", repr=False)

    def __post_init__(self) -> None:
        _check_steps(self.time_steps)

    def __call__(self, images: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Return currents [T, ...] of images [...]; nothing is drawn."""
        return images.expand(self.time_steps, *images.shape)


Encoding: TypeAlias = Rate | Latency | Direct
"""How a still image becomes spikes."""


class MNIST(Dataset[tuple[Tensor, int]]):
    """MNIST, or any set in its format, from the four original idx files, packed or not.

    Items are ``(spikes float32 [T, 1, 28, 28], label)``, or still images ``([1, 28, 28], label)``
    in 0..1 without an encoding.

    Args:
        root: Folder that holds the files, in itself, in ``mnist`` or in ``MNIST/raw``.
        split: ``"train"`` or ``"test"``.
        encoding: How images become spikes; ``None`` leaves them as they are.
        limit: Take the first so many images; ``None`` takes all.
        seed: With a number, the spikes of an image are the same at every access; ``None`` draws
            them anew from torch's global generator, which a loader seeds in every worker.
        standardize: Shift and scale intensities by the mean and standard deviation of MNIST's
            training images, 0.1307 and 0.3081; for still images and direct encoding.

    Attributes:
        images: Intensities uint8 [N, 28, 28].
        targets: Labels int64 [N].

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
    ) -> None:
        if split not in _SPLITS:
            raise ValueError(f"split must be 'train' or 'test', got {split!r}.")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit!r}.")
        if standardize and not isinstance(encoding, Direct | None):
            raise ValueError(
                f"standardize=True gives intensities outside 0..1, which {encoding!r} cannot "
                "encode. Use direct encoding, or leave it out."
            )
        self._encoding, self._seed, self._standardize = encoding, seed, standardize
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
        self.images, self.targets = images[:limit], labels[:limit].long()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self._intensities(self.images[index][None])
        label = int(self.targets[index])
        if self._encoding is None:
            return image, label
        generator = None
        if self._seed is not None:
            # One stream per image; neighbouring seeds are unrelated in torch's Mersenne twister.
            generator = torch.Generator().manual_seed(self._seed * len(self) + index % len(self))
        return self._encoding(image, generator=generator), label

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        """Return several items; torch's loaders call this, still images come five times faster."""
        if self._encoding is not None:
            return [self[index] for index in indices]
        images = self._intensities(self.images[torch.as_tensor(indices), None])
        return list(zip(images.unbind(), self.targets[indices].tolist(), strict=True))

    def _intensities(self, images: Tensor) -> Tensor:
        images = images.float() / 255
        return (images - _MEAN) / _STD if self._standardize else images


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
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
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
    raise DataError(
        f"there is no {names[0]}, packed (.gz) or not, in {str(root)!r}, its folder 'mnist' or "
        "'MNIST/raw'. Put the four original files of MNIST there, or choose another root."
    )


def _check_steps(time_steps: int) -> None:
    if time_steps < 1:
        raise ValueError(f"time_steps must be at least 1, got {time_steps!r}.")
