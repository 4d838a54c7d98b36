"""Directions of sharpness-aware training: ascent by an absolute or a relative length."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator

from spikewvat.devices.base import check_at_least_zero, norm_of
from spikewvat.perturbations.base import Planned, along, along_globally, checked_gradients
from spikewvat.weights import Displace, Weights


@dataclass(frozen=True)
class SAM(Planned):
    r"""Sharpness-aware minimisation: one global step of length rho along the gradient.

    .. math:: e = \rho \, g / (\lVert g \rVert_2 + \epsilon)

    The original takes the norm over all parameters; pass ``weights=`` with all of them for that.

    Args:
        rho: Radius (L2, absolute), at least 0.

    Raises:
        ValueError: If ``rho`` is negative or not finite.

    References:
        Sharpness-Aware Minimization (Foret et al., 2021), Eq. 2, https://arxiv.org/abs/2010.01412
    """

    rho: float = 0.05

    def __post_init__(self) -> None:
        check_at_least_zero("rho", self.rho)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Take the step (see :meth:`Direction.plan`)."""
        gradients = checked_gradients(weights, grads, self)
        return along_globally(gradients, gradients, self.rho)


@dataclass(frozen=True)
class ASAM(Planned):
    r"""Adaptive SAM: the neighbourhood scales with each weight's magnitude.

    .. math:: e = \rho \, w^2 g / (\lVert |w| \, g \rVert_2 + \epsilon)

    Args:
        rho: Radius (relative to the weights), at least 0.

    Raises:
        ValueError: If ``rho`` is negative or not finite.

    References:
        ASAM (Kwon et al., 2021), https://arxiv.org/abs/2102.11600; also the adaptive option of
        the common SAM implementations.
    """

    rho: float = 0.5

    def __post_init__(self) -> None:
        check_at_least_zero("rho", self.rho)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Take the step (see :meth:`Direction.plan`)."""
        gradients = checked_gradients(weights, grads, self)
        scaled = {name: gradients[name] * w.detach().abs() for name, w in weights.items()}
        ascent = {name: scaled[name] * w.detach().abs() for name, w in weights.items()}
        return along_globally(ascent, scaled, self.rho)


@dataclass(frozen=True)
class AWP(Planned):
    r"""Adversarial weight perturbation: per tensor, a share of the weight's own norm.

    .. math:: v_l = \kappa \, \lVert w_l \rVert_2 \, g_l / (\lVert g_l \rVert_2 + \epsilon)

    The original steps at the displaced point and subtracts afterwards; here the weights are
    restored first, which differs by weight decay times the displacement.

    Args:
        kappa: Share of the tensor's norm (dimensionless; the paper's gamma), at least 0.

    Raises:
        ValueError: If ``kappa`` is negative or not finite.

    References:
        Adversarial Weight Perturbation (Wu et al., 2020), Eq. 8-10, https://arxiv.org/abs/2004.05884
    """

    kappa: float = 0.01

    def __post_init__(self) -> None:
        check_at_least_zero("kappa", self.kappa)

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Take the displacement (see :meth:`Direction.plan`)."""
        gradients = checked_gradients(weights, grads, self)
        lengths = {name: self.kappa * norm_of(weight) for name, weight in weights.items()}
        return along(gradients, lengths)
