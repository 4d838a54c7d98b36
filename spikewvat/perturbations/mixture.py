"""Combine noise and the worst perturbation: either one in each step, or both at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import (
    DeviceModel,
    check_at_least_zero,
    check_probability,
    generator_device,
)
from spikewvat.devices.ranges import sizes_kept
from spikewvat.perturbations.base import Perturbation
from spikewvat.perturbations.noise import HSV
from spikewvat.perturbations.sources import GRADIENT, Source, check_source
from spikewvat.perturbations.worst import GAV
from spikewvat.pieces import InPieces, Together
from spikewvat.weights import Perturb, Weights

Mix: TypeAlias = Literal["either", "both"]
"""``"either"`` uses noise or the worst perturbation in a step, ``"both"`` adds them in each."""
STRENGTHS: Mapping[Mix, tuple[float, float]] = {"either": (1.0, 0.03), "both": (0.5, 0.1)}
"""Defaults of gamma and alpha by mix: of the strengths that were tried on held-out data, those that
lose least on the network that suits them worst (docs/how-to/how-long.md)."""


@dataclass(frozen=True)
class Mixture(Perturbation):
    """Random noise or the worst perturbation, chosen at random for every minibatch.

    ``x ~ U(0, 1)`` is drawn, and ``noise`` is used if ``x >= w_th``: ``w_th = 0`` is noise only,
    ``w_th = 1`` the worst perturbation only. (The equation in the WVAT paper has the comparison
    reversed; its text, ablation and timings agree with this form.)

    Args:
        noise: Used with probability ``1 - w_th``, usually an HSV.
        worst: Used with probability ``w_th``, usually a GAV.
        w_th: Threshold in [0, 1].

    Raises:
        ValueError: If ``w_th`` lies outside [0, 1].
    """

    noise: Perturbation
    worst: Perturbation
    w_th: float = 0.5

    def __post_init__(self) -> None:
        check_probability("w_th", self.w_th)

    @property
    def parts(self) -> tuple[Perturbation, ...]:
        """The two."""
        return self.noise, self.worst

    @property
    def needs_gradient(self) -> bool:
        """Whether either of the two may ask for gradients; :meth:`pick` decides."""
        picks_worst = self.w_th > 0 and self.worst.needs_gradient
        return picks_worst or (self.w_th < 1 and self.noise.needs_gradient)

    def pick(self, *, generator: Generator | None = None) -> Perturbation:
        """Choose one of the two."""
        x = float(torch.rand((), generator=generator, device=generator_device(generator)))
        chosen = self.noise if x >= self.w_th else self.worst
        return chosen.pick(generator=generator)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Choose, then perturb (see :meth:`Perturbation.plan`)."""
        return self.pick(generator=generator).plan(weights, grads, generator=generator)


@dataclass(frozen=True)
class Sum(Perturbation):
    """The sum of two perturbations.

    Args:
        first: Drawn first.
        second: Added to it.
    """

    first: Perturbation
    second: Perturbation

    @property
    def parts(self) -> tuple[Perturbation, ...]:
        """The two."""
        return self.first, self.second

    def pick(self, *, generator: Generator | None = None) -> Perturbation:
        """Let both choose."""
        return Sum(*(part.pick(generator=generator) for part in self.parts))

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Take both (see :meth:`Perturbation.plan`)."""
        with sizes_kept():
            both = [part.plan(weights, grads, generator=generator) for part in self.parts]
        pieces = [one for one in both if isinstance(one, InPieces)]
        if len(pieces) == len(both) and not all(one.draws for one in pieces):
            return Together(pieces)

        def add(perturbed: Mapping[str, Tensor]) -> None:
            for one in both:
                one(perturbed)

        return add


def variation(
    device: DeviceModel,
    *,
    w_th: float | None = None,
    gamma: float | None = None,
    alpha: float | None = None,
    worst: Source = GRADIENT,
    mix: Mix = "either",
) -> Perturbation:
    """Return WVAT's perturbation: noise, the worst perturbation, or both.

    Args:
        device: The device model.
        w_th: Share of steps that use the worst perturbation, 0.5 by default; 0 is noise only.
        gamma: Scale of the perturbation: 1 trains at the tested size of variation, 0.5 at half.
            By default 1, with ``mix="both"`` 0.5.
        alpha: Length of the worst perturbation as a share of a noise draw's length. By default
            0.03, with ``mix="both"`` 0.1.
        worst: Source of the worst perturbation.
        mix: ``"either"`` uses noise or the worst perturbation in a step; ``"both"`` adds them in
            every step, without ``w_th``.

    Raises:
        ValueError: If a parameter is out of range or has the wrong type.
    """
    if mix not in get_args(Mix):
        raise ValueError(f"mix must be 'either' or 'both', got {mix!r}.")
    usual = STRENGTHS[mix]
    gamma = usual[0] if gamma is None else gamma
    alpha = usual[1] if alpha is None else alpha
    # Checked first, so that the message names the argument that was passed here.
    check_at_least_zero("gamma", gamma)
    check_at_least_zero("alpha", alpha)
    check_source("worst", worst)
    noise, ascent = HSV(device, gamma), GAV(device, gamma, alpha, worst)
    if mix == "either":
        return Mixture(noise, ascent, 0.5 if w_th is None else w_th)
    if w_th is not None:
        raise ValueError(
            f"w_th = {w_th!r} has no meaning with mix='both', which takes noise and the worst "
            "direction in every step. Leave w_th out, or take mix='either'."
        )
    return Sum(noise, ascent)
