"""How still images drive a converted network over time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Direct:
    """The image itself as a constant input current; nothing is drawn.

    The first layer's currents are then the same in every step and are computed once.
    """

    constant: ClassVar[bool] = True
    """Every step sees the same."""

    def generator(self) -> Generator | None:
        """Return nothing: there is nothing to draw."""
        return None

    def __call__(
        self, images: Tensor, time_steps: int, *, generator: Generator | None = None
    ) -> Tensor:
        """Return the images with a time axis of one step, which stands for all: [1, B, ...]."""
        return images[None]


@dataclass(frozen=True)
class Poisson:
    r"""Signed random spikes, as frequent as the input is large.

    .. math:: s_t = \mathrm{sign}(x)\,[r_t \le |x|], \qquad r_t \sim U(0, 1)

    Inputs beyond 1 in magnitude saturate; normalise images with mean and standard deviation 0.5.

    Args:
        seed: With a number, the same spikes are drawn in every pass: chips and time steps are
            compared on equal input. ``None`` draws from torch's global generator.

    References:
        Rathi et al., 2020, section 2, https://arxiv.org/abs/2005.01807
    """

    seed: int | None = None
    constant: ClassVar[bool] = False

    def generator(self) -> Generator | None:
        """Return the source of one pass."""
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
"""How an image becomes input over time."""
