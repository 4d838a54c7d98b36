"""Worst perturbations, with the length of a device's variation or of sharpness-aware training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import DeviceModel, check_at_least_zero, check_device, norm_of
from spikewvat.devices.ranges import sizes_kept
from spikewvat.perturbations.base import Perturbation, along, along_globally, total_norm
from spikewvat.perturbations.sources import GRADIENT, Source, check_source
from spikewvat.weights import Perturb, Weights, check_matching


class Worst(Perturbation):
    """Base class of the worst perturbations, which differ in length.

    Args:
        source: Source of the perturbation, a field of the subclass.
    """

    source: Source

    @property
    def parts(self) -> tuple[Source, ...]:
        """The source."""
        return (self.source,)

    def _direction(self, weights: Weights, grads: Weights | None) -> Weights:
        """Return the source's direction; raise where gradients are missing or do not fit."""
        if not self.needs_gradient:
            return self.source.direction(weights, {})
        if grads is None:
            raise ValueError(
                f"{type(self).__name__} needs the gradients of an unperturbed pass, got none. "
                "Pass grads={name: gradient}."
            )
        check_matching(weights, grads, what="grads")
        return self.source.direction(weights, grads)


@dataclass(frozen=True)
class GAV(Worst):
    r"""Gradient-ascent variation: the steepest ascent of the loss, with the length of an HSV draw.

    .. math:: v_l = \alpha \, \lVert \Delta_l \rVert_2 \, \frac{g_l}{\lVert g_l \rVert_2 + \epsilon}

    :math:`\gamma` is part of :math:`\Delta`, :math:`\alpha` scales GAV alone. A gradient that is
    not finite (a loss scaler that searches its scale) perturbs nothing.

    Args:
        device: The device model; its errors set the length.
        gamma: Scale of the perturbation (dimensionless), at least 0.
        alpha: Share of an HSV draw's length (dimensionless), at least 0.
        source: Where :math:`g` comes from: ``Gradient()`` is that of the minibatch, with a second
            pass; ``Momentum(optimizer)`` and ``Past()`` do without.
        per_tensor: Normalise each tensor on its own, as the range is a layer's; otherwise one
            norm over all tensors, which concentrates the step where gradients are large.
        draw_length: Take the length of an actual draw. By default it is the root mean square in
            closed form where the device has one, which needs no random numbers.

    Raises:
        TypeError: If ``device`` is not a device model.
        ValueError: If ``gamma`` or ``alpha`` is negative or not finite.

    References:
        Weight-variation-aware training (WVAT), section 3.3; the norm per tensor follows
        Adversarial weight perturbation (Wu et al., 2020).
    """

    device: DeviceModel
    gamma: float = 1.0
    alpha: float = 0.1
    source: Source = GRADIENT
    per_tensor: bool = True
    draw_length: bool = False

    def __post_init__(self) -> None:
        check_device(self.device)
        check_at_least_zero("gamma", self.gamma)
        check_at_least_zero("alpha", self.alpha)
        check_source("source", self.source)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Go up (see :meth:`Perturbation.plan`)."""
        direction = self._direction(weights, grads)
        scale = self.source.factor * self.alpha * self.gamma
        with sizes_kept():
            lengths = None if self.draw_length else self.device.expected_norms(weights)
        if lengths is None:
            errors = self.device.errors(weights, generator=generator)
            lengths = {name: norm_of(error) for name, error in errors.items()}
        if self.per_tensor:
            return along(direction, lengths, scale)
        return along_globally(direction, direction, total_norm(list(lengths.values())), scale)


@dataclass(frozen=True)
class SAM(Worst):
    r"""Sharpness-aware minimisation: one global step of length rho along the gradient.

    .. math:: e = \rho \, g / (\lVert g \rVert_2 + \epsilon)

    The original takes the norm over all parameters; pass ``weights=`` with all of them for that.

    Args:
        rho: Radius (L2, absolute), at least 0.
        source: Where :math:`g` comes from; ``Momentum(optimizer)`` makes it Momentum-SAM.

    Raises:
        ValueError: If ``rho`` is negative or not finite.

    References:
        Sharpness-Aware Minimization (Foret et al., 2021), Eq. 2, https://arxiv.org/abs/2010.01412
    """

    rho: float = 0.05
    source: Source = GRADIENT

    def __post_init__(self) -> None:
        check_at_least_zero("rho", self.rho)
        check_source("source", self.source)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Take the step (see :meth:`Perturbation.plan`)."""
        direction = self._direction(weights, grads)
        return along_globally(direction, direction, self.source.factor * self.rho)


@dataclass(frozen=True)
class ASAM(Worst):
    r"""Adaptive SAM: the neighbourhood scales with each weight's magnitude.

    .. math:: e = \rho \, w^2 g / (\lVert |w| \, g \rVert_2 + \epsilon)

    Args:
        rho: Radius (relative to the weights), at least 0.
        source: Where :math:`g` comes from.

    Raises:
        ValueError: If ``rho`` is negative or not finite.

    References:
        ASAM (Kwon et al., 2021), https://arxiv.org/abs/2102.11600; also the adaptive option of
        the common SAM implementations.
    """

    rho: float = 0.5
    source: Source = GRADIENT

    def __post_init__(self) -> None:
        check_at_least_zero("rho", self.rho)
        check_source("source", self.source)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Take the step (see :meth:`Perturbation.plan`)."""
        direction = self._direction(weights, grads)
        scaled = {name: direction[name] * w.detach().abs() for name, w in weights.items()}
        ascent = {name: scaled[name] * w.detach().abs() for name, w in weights.items()}
        return along_globally(ascent, scaled, self.source.factor * self.rho)


@dataclass(frozen=True)
class SAMSON(Worst):
    r"""Sharpness scaled by outliers: a weight moves by its size relative to its layer's range.

    .. math:: e = \rho \, t^2 g / (\lVert t \, g \rVert_2 + \epsilon), \qquad
              t = |w_l| / \lVert w_l \rVert_p

    ASAM with each layer's weights in units of their range: with :math:`p = \infty` of the largest
    magnitude, with 2 of their norm.

    Args:
        rho: Radius, at least 0.
        order: Order p of the norm, at least 1; infinity by default.
        source: Where :math:`g` comes from.

    Raises:
        ValueError: If ``rho`` is negative or not finite, or ``order`` below 1.

    References:
        SAMSON (Mordido et al., 2022), https://arxiv.org/abs/2211.11561. The formula is from memory
        of the paper; the norm over all layers below the fraction is that of ASAM.
    """

    rho: float = 0.1
    order: float = math.inf
    source: Source = GRADIENT

    def __post_init__(self) -> None:
        check_at_least_zero("rho", self.rho)
        if not self.order >= 1:
            raise ValueError(f"order must be at least 1, got {self.order!r}. Take 2 or infinity.")
        check_source("source", self.source)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Take the step (see :meth:`Perturbation.plan`)."""
        direction = self._direction(weights, grads)
        sizes = {name: _share_of_range(w.detach(), self.order) for name, w in weights.items()}
        scaled = {name: direction[name] * size for name, size in sizes.items()}
        ascent = {name: scaled[name] * size for name, size in sizes.items()}
        return along_globally(ascent, scaled, self.source.factor * self.rho)


def _share_of_range(weight: Tensor, order: float) -> Tensor:
    """Return magnitudes relative to the norm of a tensor, zeros where there is nothing else."""
    magnitude = weight.abs()
    norm = torch.linalg.vector_norm(magnitude, ord=order)
    share: Tensor = magnitude / norm.clamp_min(torch.finfo(norm.dtype).tiny)
    return share


@dataclass(frozen=True)
class AWP(Worst):
    r"""Adversarial weight perturbation: per tensor, a share of the weight's own norm.

    .. math:: v_l = \kappa \, \lVert w_l \rVert_2 \, g_l / (\lVert g_l \rVert_2 + \epsilon)

    The original steps at the perturbed point and subtracts afterwards; here the weights are
    restored first, which differs by weight decay times the perturbation.

    Args:
        kappa: Share of the tensor's norm (dimensionless; the paper's gamma), at least 0.
        source: Where :math:`g` comes from.

    Raises:
        ValueError: If ``kappa`` is negative or not finite.

    References:
        Adversarial Weight Perturbation (Wu et al., 2020), Eq. 8-10, https://arxiv.org/abs/2004.05884
    """

    kappa: float = 0.01
    source: Source = GRADIENT

    def __post_init__(self) -> None:
        check_at_least_zero("kappa", self.kappa)
        check_source("source", self.source)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Perturb:
        """Take the perturbation (see :meth:`Perturbation.plan`)."""
        direction = self._direction(weights, grads)
        lengths = {name: self.kappa * norm_of(weight) for name, weight in weights.items()}
        return along(direction, lengths, self.source.factor)
