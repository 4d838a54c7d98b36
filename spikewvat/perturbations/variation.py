"""Displacements as long as a device's variation: a draw of it, or the worst direction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator

from spikewvat.devices.base import DeviceModel, check_at_least_zero, generator_device, norm_of
from spikewvat.perturbations.base import (
    Planned,
    along,
    along_globally,
    checked_gradients,
    total_norm,
)
from spikewvat.weights import Displace, Weights


@dataclass(frozen=True)
class HSV(Planned):
    r"""Hardware-simulated variation: what a device would do to the weights, a fresh draw a step.

    .. math:: \Delta_l = \gamma \, (\mathrm{program}(w_l) - w_l)

    For Gaussian variation that is :math:`\gamma R_l \sigma_v \xi_l` with :math:`\xi \sim N(0, I)`.

    Args:
        device: What the chip does to weights.
        gamma: Scale of the displacement (dimensionless), at least 0.

    Raises:
        ValueError: If ``gamma`` is negative or not finite.

    References:
        Weight-variation-aware training (WVAT), section 3.3.
    """

    device: DeviceModel
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_at_least_zero("gamma", self.gamma)

    @property
    def needs_gradient(self) -> bool:
        """False: noise needs no gradient."""
        return False

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Draw one displacement (see :meth:`Direction.plan`)."""
        return self.device.plan(weights, scale=self.gamma, generator=generator)


class AsLongAsVariation(Planned):
    """A direction whose length is a share of a device's variation."""

    device: DeviceModel
    gamma: float
    alpha: float
    per_tensor: bool
    draw_length: bool

    def _stretched(
        self, ascent: Weights, weights: Weights, generator: Generator | None, *, factor: int = 1
    ) -> Displace:
        """Return what adds the ascent, ``alpha gamma`` times as long as the variation.

        Args:
            ascent: A direction by name, shapes of the weights.
            weights: Synaptic weights by name.
            generator: Source of a draw, where the length is that of one.
            factor: 1, or -1 to go the other way.
        """
        scale = factor * self.alpha * self.gamma
        lengths = None if self.draw_length else self.device.expected_norms(weights)
        if lengths is None:
            draw = self.device.displacement(weights, generator=generator)
            lengths = {name: norm_of(delta) for name, delta in draw.items()}
        if self.per_tensor:
            return along(ascent, lengths, scale)
        return along_globally(ascent, ascent, total_norm(list(lengths.values())), scale)


@dataclass(frozen=True)
class GAV(AsLongAsVariation):
    r"""Gradient-ascent variation: the steepest ascent of the loss, as long as an HSV draw.

    .. math:: v_l = \alpha \, \lVert \Delta_l \rVert_2 \, \frac{g_l}{\lVert g_l \rVert_2 + \epsilon}

    :math:`\gamma` is part of :math:`\Delta`, :math:`\alpha` scales GAV alone. A gradient that is
    not finite (a loss scaler that searches its scale) displaces nothing.

    Args:
        device: What the chip does to weights; its displacement sets the length.
        gamma: Scale of the displacement (dimensionless), at least 0.
        alpha: Share of an HSV draw's length (dimensionless), at least 0.
        per_tensor: Normalise each tensor on its own, as the range is a layer's; otherwise one
            norm over all tensors, which concentrates the step where gradients are large.
        draw_length: Take the length of an actual draw. By default it is the root mean square in
            closed form where the device has one, which needs no random numbers.

    Raises:
        ValueError: If ``gamma`` or ``alpha`` is negative or not finite.

    References:
        Weight-variation-aware training (WVAT), section 3.3; the norm per tensor follows
        Adversarial weight perturbation (Wu et al., 2020).
    """

    device: DeviceModel
    gamma: float = 1.0
    alpha: float = 0.1
    per_tensor: bool = True
    draw_length: bool = False

    def __post_init__(self) -> None:
        check_at_least_zero("gamma", self.gamma)
        check_at_least_zero("alpha", self.alpha)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Take the steepest ascent (see :meth:`Direction.plan`)."""
        gradients = checked_gradients(weights, grads, self)
        return self._stretched(gradients, weights, generator)


@dataclass(frozen=True)
class VariableNoise(Planned):
    r"""A device's variation whose width is itself drawn in every step.

    .. math:: \Delta_l = \gamma \, \max(0, 1 + s \, \epsilon) \, (\mathrm{program}(w_l) - w_l),
              \qquad \epsilon \sim N(0, 1)

    One :math:`\epsilon` serves all tensors of a step: the whole chip is in a quieter or a noisier
    state, as when temperature or age move the noise away from the width that was assumed.

    Args:
        device: What the chip does to weights at its usual width.
        gamma: Mean scale of the displacement (dimensionless), at least 0.
        spread: Standard deviation s of the scale, as a share of the mean, at least 0.

    Raises:
        ValueError: If ``gamma`` or ``spread`` is negative or not finite.

    References:
        Variance-Aware Noisy Training (Wang et al., 2025), https://arxiv.org/abs/2503.16183. There
        the noise sits on activations and follows a schedule; on weights, with a normal law that
        is cut off at 0, it is our reading.
    """

    device: DeviceModel
    gamma: float = 1.0
    spread: float = 0.3

    def __post_init__(self) -> None:
        check_at_least_zero("gamma", self.gamma)
        check_at_least_zero("spread", self.spread)

    @property
    def needs_gradient(self) -> bool:
        """False: noise needs no gradient."""
        return False

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Draw a width, then a displacement (see :meth:`Direction.plan`)."""
        epsilon = torch.randn((), generator=generator, device=generator_device(generator))
        scale = self.gamma * max(0.0, 1 + self.spread * float(epsilon))
        return self.device.plan(weights, scale=scale, generator=generator)
