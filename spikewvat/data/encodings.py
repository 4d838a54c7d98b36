"""Encodings of still images as spikes over time."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Generator, Tensor

_ROUNDING = 1e-4  # of resized pictures; no normalisation is that small


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
        """Return spikes [T, ...] of images [...] in 0..1, drawn on the generator's device.

        Raises:
            ValueError: If the images are no intensities in 0..1.
        """
        check_intensities(images, "rate encoding")
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
        """Return spikes [T, ...] of images [...] in 0..1; nothing is drawn.

        Raises:
            ValueError: If the images are no intensities in 0..1.
        """
        check_intensities(images, "latency encoding")
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


def check_intensities(images: Tensor, purpose: str) -> None:
    """Raise ValueError unless images are floating point numbers in 0..1, but for rounding."""
    if not isinstance(images, Tensor):
        raise ValueError(
            f"{purpose} needs a tensor of intensities, got {type(images).__name__}. Convert it: "
            "torch.as_tensor(images)."
        )
    if not images.is_floating_point():
        raise ValueError(
            f"{purpose} needs intensities in 0..1 as floating point numbers, got {images.dtype}. "
            "Divide bytes by 255: images.float() / 255."
        )
    if images.numel() == 0:
        return
    low, high = (float(bound) for bound in torch.aminmax(images))
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise ValueError(
            f"{purpose} needs intensities in 0..1, got {low:g} .. {high:g}. Leave out the "
            "normalisation (mean and standard deviation), or use direct encoding."
        )


def _check_steps(time_steps: int) -> None:
    if time_steps < 1:
        raise ValueError(f"time_steps must be at least 1, got {time_steps!r}.")
