"""Noise: the variation of a device, redrawn in every training step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator

from spikewvat.devices.base import (
    DeviceModel,
    check_at_least_zero,
    check_device,
    generator_device,
)
from spikewvat.perturbations.base import Perturbation
from spikewvat.weights import Perturb, Weights


@dataclass(frozen=True)
class HSV(Perturbation):
    r"""Hardware-simulated variation: the variation of a device, redrawn in every step.

    .. math:: \Delta_l = \gamma \, (\mathrm{program}(w_l) - w_l)

    For Gaussian variation this is :math:`\gamma R_l \sigma_v \xi_l` with :math:`\xi \sim N(0, I)`.

    Args:
        device: The device model.
        gamma: Scale of the perturbation (dimensionless), at least 0.

    Raises:
        TypeError: If ``device`` is no device model.
        ValueError: If ``gamma`` is negative or not finite.

    References:
        Weight-variation-aware training (WVAT), section 3.3.
    """

    device: DeviceModel
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_device(self.device)
        check_at_least_zero("gamma", self.gamma)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Draw once (see :meth:`Perturbation.plan`)."""
        return self.device.plan(weights, scale=self.gamma, generator=generator)


@dataclass(frozen=True)
class VariableNoise(Perturbation):
    r"""The variation of a device with a random size in every step.

    .. math:: \Delta_l = \gamma \, \max(0, 1 + s \, \epsilon) \, (\mathrm{program}(w_l) - w_l),
              \qquad \epsilon \sim N(0, 1)

    One :math:`\epsilon` is shared by all tensors in a step: the whole chip is less or more noisy,
    as when temperature or age change the noise from its assumed size.

    Args:
        device: The device model at its usual size of variation.
        gamma: Mean scale of the perturbation (dimensionless), at least 0.
        spread: Standard deviation s of the scale, as a share of the mean, at least 0.

    Raises:
        TypeError: If ``device`` is no device model.
        ValueError: If ``gamma`` or ``spread`` is negative or not finite.

    References:
        Variance-Aware Noisy Training (Wang et al., 2025), https://arxiv.org/abs/2503.16183. That
        paper perturbs activations and uses a schedule; the use on weights, with a normal
        distribution cut off at 0, is our interpretation.
    """

    device: DeviceModel
    gamma: float = 1.0
    spread: float = 0.3

    def __post_init__(self) -> None:
        check_device(self.device)
        check_at_least_zero("gamma", self.gamma)
        check_at_least_zero("spread", self.spread)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Draw a width, then the noise (see :meth:`Perturbation.plan`)."""
        epsilon = torch.randn((), generator=generator, device=generator_device(generator))
        scale = self.gamma * max(0.0, 1 + self.spread * float(epsilon))
        return self.device.plan(weights, scale=scale, generator=generator)
