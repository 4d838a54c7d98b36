"""A camera that simulates N-MNIST recordings: three saccades of an event sensor before an image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from spikewvat.data.events import Events, make_events, write_events
from spikewvat.errors import DataError

_SIDE = 34
_IMAGE = 28
_CHUNK = 256
_MARGIN = 10
_KNOT_US = 10_000
# Where the image's left upper corner lies on the sensor, (x, y) in pixels, every 10 ms: fitted to
# the signed event maps of 200 real recordings by `benchmarks/simulator.py --fit`.
_PATH = (
    (0.54, 1.18), (0.52, 1.25), (0.46, 1.57), (0.37, 2.34), (0.34, 3.40), (0.45, 4.59),
    (0.92, 5.66), (1.53, 6.32), (1.86, 6.54), (1.94, 6.56), (2.00, 6.52), (2.11, 6.48),
    (2.37, 6.44), (2.85, 6.20), (3.53, 5.53), (4.14, 4.42), (4.45, 3.22), (4.81, 2.19),
    (5.10, 1.67), (5.27, 1.52), (5.45, 1.49), (5.67, 1.47), (5.78, 1.43), (5.72, 1.42),
    (5.06, 1.47), (4.05, 1.49), (3.01, 1.46), (2.07, 1.36), (1.44, 1.23), (0.92, 1.19),
    (0.69, 1.20), (0.67, 1.20),
)  # fmt: skip


@dataclass(frozen=True)
class SaccadeCamera:
    r"""An event sensor of 34 x 34 pixels that makes the three saccades of N-MNIST.

    A still image moves over the sensor along the measured path. A pixel emits an event whenever
    the intensity it sees has changed by its threshold since its last event:

    .. math:: |I(x - r(t)) - I_\text{ref}(x)| \ge \theta_x, \qquad
              I_\text{ref} \leftarrow I_\text{ref} \pm \theta_x

    Polarity 1 is falling intensity, as in N-MNIST: a bright stroke leaves ones behind it.

    Args:
        threshold: Mean change of intensity (white is 1) between two events of a pixel.
        spread: Standard deviation of the thresholds over pixels, as a fraction of their mean.
        blur: Standard deviation of the optics' blur in pixels.
        noise: Mean number of background events in a recording, uniform over pixels and time.
        refractory_us: Shortest time between two events of a pixel, in microseconds; a change that
            comes sooner is reported once it has passed.
        jitter_us: Standard deviation of an event's time, in microseconds.
        step_us: Time step of the motion in microseconds; events lie between steps.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades (Orchard
        et al., 2015), https://doi.org/10.3389/fnins.2015.00437
    """

    threshold: float = 0.14
    spread: float = 0.05
    blur: float = 0.6
    noise: float = 75.0
    refractory_us: float = 2000.0
    jitter_us: float = 200.0
    step_us: int = 2500

    def __post_init__(self) -> None:
        for name in ("threshold", "step_us"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}.")
        for name in ("spread", "blur", "noise", "refractory_us", "jitter_us"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)!r}.")
        for name, value in vars(self).items():
            if not math.isfinite(value):
                raise ValueError(f"{name} must be finite, got {value!r}.")

    @property
    def duration_us(self) -> int:
        """Length of a recording in microseconds."""
        return (len(_PATH) - 1) * _KNOT_US

    def record(self, images: Tensor, *, generator: Generator | None = None) -> list[Events]:
        """Record still images, one recording for each.

        Args:
            images: Intensities [N, 28, 28], floating point in 0..1 or uint8 in 0..255.
            generator: Source of one seed per image, on the CPU; ``None`` uses torch's global one.
                A recording depends on its image and its seed only.

        Returns:
            Events of each image in order of time, on a sensor of 34 x 34 pixels.

        Raises:
            ValueError: If ``images`` has another shape or range.
        """
        images = _checked(images)
        seeds = torch.randint(2**62, (len(images),), generator=generator).tolist()
        recordings: list[Events] = []
        for start in range(0, len(images), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            recordings += self._record(images[chunk], seeds[chunk])
        return recordings

    def _record(self, images: Tensor, seeds: Sequence[int]) -> list[Events]:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        size = (_SIDE, _SIDE)
        spread = torch.stack([torch.randn(size, generator=g) for g in generators])
        # A pixel may differ in its threshold, but none is so sensitive that it never rests.
        threshold = (self.threshold * (1 + self.spread * spread)).clamp_(min=self.threshold / 2)
        # What a pixel reported last lies anywhere within a threshold of what it sees now.
        phase = torch.stack([torch.rand(size, generator=g) for g in generators])
        scene = self._scene(images)
        before = _seen(scene, *self._position(0))
        pixels = _Pixels(threshold, before + (2 * phase - 1) * threshold, self.refractory_us)
        columns = [np.empty((5, 0), np.int64)]
        for time in range(0, self.duration_us, self.step_us):
            now = _seen(scene, *self._position(time + self.step_us))
            columns += pixels.watch(before, now, time, self.step_us)
            before = now
        return self._assembled(np.concatenate(columns, axis=1), generators)

    def _assembled(
        self, columns: NDArray[np.int64], generators: Sequence[Generator]
    ) -> list[Events]:
        """Split events by image, add noise and jitter, and sort by time."""
        columns = columns[:, np.argsort(columns[0], kind="stable")]
        ends = np.searchsorted(columns[0], np.arange(1, len(generators) + 1))
        recordings = []
        for own, generator in zip(np.split(columns, ends[:-1], axis=1), generators, strict=True):
            _, y, x, p, t = own
            jitter = torch.randn(len(t), generator=generator).numpy() * self.jitter_us
            t = np.clip(t + jitter.astype(np.int64), 0, self.duration_us - 1)
            count = int(torch.poisson(torch.tensor(float(self.noise)), generator=generator))
            limits = (_SIDE, _SIDE, 2, self.duration_us)
            noise = [torch.randint(top, (count,), generator=generator).numpy() for top in limits]
            y, x, p, t = (np.concatenate(pair) for pair in zip((y, x, p, t), noise, strict=True))
            order = np.argsort(t, kind="stable")
            recordings.append(make_events(x[order], y[order], t[order], p[order]))
        return recordings

    def _scene(self, images: Tensor) -> Tensor:
        return _blurred(functional.pad(images, (_MARGIN,) * 4), self.blur)

    def _position(self, time: int) -> tuple[float, float]:
        """Return where the image's corner lies on the sensor, (x, y) in pixels.

        A Catmull-Rom spline goes smoothly through the measured positions.
        """
        knot = min(time // _KNOT_US, len(_PATH) - 2)
        u = time / _KNOT_US - knot
        around = np.clip(np.arange(knot - 1, knot + 3), 0, len(_PATH) - 1)
        a, b, c, d = np.array(_PATH)[around]
        position = b + u / 2 * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))
        return float(position[0]), float(position[1])


class _Pixels:
    """The pixels [N, 34, 34] of the sensor, which remember what they reported last, and when."""

    def __init__(self, threshold: Tensor, reference: Tensor, refractory: float) -> None:
        self._threshold, self._reference, self._refractory = threshold, reference, refractory
        self._rested = torch.zeros_like(threshold)

    def watch(self, before: Tensor, now: Tensor, time: int, step: int) -> list[NDArray[np.int64]]:
        """Return the events of one step as columns (image, y, x, p, t)."""
        found: list[NDArray[np.int64]] = []
        while True:  # as many rounds as the busiest pixel has events in this step
            firing = (now - self._reference).abs() >= self._threshold
            where = firing.nonzero(as_tuple=True)
            reference, threshold = self._reference[where], self._threshold[where]
            start, end = before[where], now[where]
            rising = end > reference
            level = torch.where(rising, reference + threshold, reference - threshold)
            travel = end - start
            # A change that had to wait for the pixel to rest is reported as soon as it has.
            share = ((level - start) / travel).nan_to_num_(0).clamp_(0, 1)
            moment = torch.maximum(time + share * step, self._rested[where])
            due = moment < time + step
            if not due.any():
                return found
            where = tuple(index[due] for index in where)
            self._reference[where] = level[due]
            self._rested[where] = moment[due] + self._refractory
            columns = (*where, ~rising[due], moment[due])
            found.append(np.stack([column.numpy().astype(np.int64) for column in columns]))


def write_recordings(
    folder: Path | str,
    images: Tensor,
    labels: Iterable[int],
    names: Iterable[int],
    *,
    camera: SaccadeCamera | None = None,
    generator: Generator | None = None,
) -> None:
    """Record images and write them in the layout of N-MNIST: ``<folder>/<label>/<name>.bin``.

    Args:
        folder: Where the class folders go, such as ``<root>/NMNIST/Train``; made if missing.
        images: Intensities [N, 28, 28] (see :meth:`SaccadeCamera.record`).
        labels: Digit 0..9 of each image.
        names: Number of each file, written with five digits.
        camera: The camera; ``None`` is the default one.
        generator: Source of one seed per image; ``None`` uses torch's global one.

    Raises:
        DataError: If a label is no digit.
        ValueError: If ``images`` has another shape or range.
    """
    labels = [int(label) for label in labels]
    for index, label in enumerate(labels):
        if not 0 <= label <= 9:
            raise DataError(f"label {label} of image {index} is no digit from 0 to 9.")
    recordings = (camera or SaccadeCamera()).record(images, generator=generator)
    for digit in range(10):
        (Path(folder) / str(digit)).mkdir(parents=True, exist_ok=True)
    for events, label, name in zip(recordings, labels, names, strict=True):
        write_events(Path(folder) / str(label) / f"{int(name):05d}.bin", events)


def _checked(images: Tensor) -> Tensor:
    """Return images as float32 in 0..1."""
    if images.dim() != 3 or images.shape[1:] != (_IMAGE, _IMAGE):
        raise ValueError(
            f"images must be [N, 28, 28], got {tuple(images.shape)}. Resize them first."
        )
    if images.dtype == torch.uint8:
        return images.float() / 255
    images = images.float()
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        raise ValueError(
            f"images must lie in 0..1, got {float(images.min()):g}..{float(images.max()):g}. "
            "Scale them first."
        )
    return images


def _blurred(images: Tensor, sigma: float) -> Tensor:
    """Return images [N, H, W] after a Gaussian blur."""
    if sigma == 0:
        return images
    radius = int(3 * sigma) + 1
    kernel = torch.exp(-torch.arange(-radius, radius + 1).square() / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    rows = functional.conv2d(images[:, None], kernel[None, None, :, None], padding=(radius, 0))
    return functional.conv2d(rows, kernel[None, None, None, :], padding=(0, radius))[:, 0]


def _seen(scene: Tensor, x: float, y: float) -> Tensor:
    """Return what the sensor sees with the image's corner at (x, y), bilinear in between."""
    left, top = _MARGIN - int(np.ceil(x)), _MARGIN - int(np.ceil(y))
    fx, fy = float(np.ceil(x) - x), float(np.ceil(y) - y)

    def part(dy: int, dx: int) -> Tensor:
        return scene[:, top + dy : top + dy + _SIDE, left + dx : left + dx + _SIDE]

    upper = (1 - fx) * part(0, 0) + fx * part(0, 1)
    lower = (1 - fx) * part(1, 0) + fx * part(1, 1)
    return (1 - fy) * upper + fy * lower
