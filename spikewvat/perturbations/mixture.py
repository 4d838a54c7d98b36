"""Two directions: one of them, chosen anew in every step, or both at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import check_probability, generator_device
from spikewvat.devices.ranges import sizes_kept
from spikewvat.perturbations.base import Choosing, Direction, Planned
from spikewvat.weights import Displace, Weights


@dataclass(frozen=True)
class Mixture(Choosing):
    """Random noise or the worst direction, chosen anew for every minibatch.

    ``x ~ U(0, 1)`` is drawn and ``noise`` is used where ``x >= w_th``: ``w_th = 0`` is noise
    only, ``w_th = 1`` the worst direction only. (The WVAT paper's equation compares the other
    way round; its text, its ablation and its timings all say this.)

    Args:
        noise: Used with probability ``1 - w_th``, usually an HSV.
        ascent: Used with probability ``w_th``, usually a GAV.
        w_th: Threshold in [0, 1].

    Raises:
        ValueError: If ``w_th`` lies outside [0, 1].
    """

    noise: Direction
    ascent: Direction
    w_th: float = 0.5

    def __post_init__(self) -> None:
        check_probability("w_th", self.w_th)

    @property
    def parts(self) -> tuple[Direction, ...]:
        """The two."""
        return self.noise, self.ascent

    @property
    def needs_gradient(self) -> bool:
        """Whether either of the two may ask for gradients; :meth:`pick` decides."""
        picks_ascent = self.w_th > 0 and self.ascent.needs_gradient
        return picks_ascent or (self.w_th < 1 and self.noise.needs_gradient)

    def pick(self, *, generator: Generator | None = None) -> Direction:
        """Choose one of the two."""
        x = float(torch.rand((), generator=generator, device=generator_device(generator)))
        chosen = self.noise if x >= self.w_th else self.ascent
        return chosen.pick(generator=generator)


@dataclass(frozen=True)
class Sum(Planned):
    """Two displacements at once, such as noise around a place ahead.

    Args:
        first: Drawn first.
        second: Added to it.
    """

    first: Direction
    second: Direction

    @property
    def parts(self) -> tuple[Direction, ...]:
        """The two."""
        return self.first, self.second

    def pick(self, *, generator: Generator | None = None) -> Direction:
        """Let both choose."""
        return Sum(*(part.pick(generator=generator) for part in self.parts))

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Take both (see :meth:`Direction.plan`)."""
        with sizes_kept():
            both = [part.plan(weights, grads, generator=generator) for part in self.parts]

        def add(displaced: Mapping[str, Tensor]) -> None:
            for displace in both:
                displace(displaced)

        return add
