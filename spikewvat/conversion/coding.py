"""Coding: how still images drive a converted network over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Direct:
    """Direct coding: the image is a constant input current, without randomness.

    The currents of the first layer are the same in every step and are computed once.
    """

    constant: ClassVar[bool] = True
    """Whether every step has the same input."""

    def generator(self) -> Generator | None:
        """Return None: nothing is drawn."""
        return None

    def __call__(
        self, images: Tensor, time_steps: int, *, generator: Generator | None = None
    ) -> Tensor:
        """Return the images with a time axis of length 1 that stands for all steps: [1, B, ...]."""
        return images[None]


@dataclass(frozen=True)
class Poisson:
    r"""Poisson coding: signed random spikes whose rate is the magnitude of the input.

    .. math:: s_t = \mathrm{sign}(x)\,[r_t \le |x|], \qquad r_t \sim U(0, 1)

    Inputs beyond 1 in magnitude saturate; normalise images with mean and standard deviation 0.5.

    Args:
        seed: Seed of the spikes, which are then the same in every pass, so that chips and numbers
            of steps are compared on equal input. ``None`` draws from torch's global generator.

    References:
        Rathi et al., 2020, section 2, https://arxiv.org/abs/2005.01807
    """

    seed: int | None = None
    constant: ClassVar[bool] = False

    def generator(self) -> Generator | None:
        """Return the source of randomness for one pass."""
        return None if self.seed is None else Generator().manual_seed(self.seed)

    def __call__(
        self, images: Tensor, time_steps: int, *, generator: Generator | None = None
    ) -> Tensor:
        """Return spikes [T, B, ...] with values -1, 0, 1; drawn on the generator's device."""
        device = images.device if generator is None else generator.device
        dtype = images.dtype if images.is_floating_point() else torch.get_default_dtype()
        spikes = torch.empty((time_steps, *images.shape), dtype=dtype, device=images.device)
        size, sign = images.abs(), images.sign()
        for step in spikes:  # one draw for each step: chunks of steps see the same spikes
            draw = torch.rand(images.shape, generator=generator, device=device)
            torch.mul(draw.to(images.device) <= size, sign, out=step)
        return spikes


Coding: TypeAlias = Direct | Poisson
"""A coding: turns an image into input over time."""
