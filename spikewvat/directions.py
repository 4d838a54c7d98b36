"""Where the weights are displaced to: pure functions of weights and gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import (
    DeviceModel,
    check_at_least_zero,
    check_probability,
    generator_device,
)
from spikewvat.weights import Weights, check_matching

EPSILON = 1e-12
"""Added to gradient norms before division (the value of Foret et al. 2021)."""


class Direction(ABC):
    """A displacement of the weights, at which the training gradient is then taken."""

    @property
    def needs_gradient(self) -> bool:
        """Whether a clean pass has to bring the gradients first."""
        return True

    def pick(self, *, generator: Generator | None = None) -> Direction:
        """Return the direction to use in this step; only mixtures choose."""
        return self

    @abstractmethod
    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        """Return the displacement.

        Args:
            weights: Synaptic weights by name, any shapes; read, never modified.
            grads: Gradients of the clean loss, equal keys and shapes; needed where
                ``needs_gradient`` is true.
            generator: Source of randomness; ``None`` uses torch's global one.

        Returns:
            Changes with the keys, shapes, dtypes and devices of ``weights``.

        Raises:
            ValueError: If gradients are needed and missing, or do not fit.
        """


@dataclass(frozen=True)
class HSV(Direction):
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

    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        """Draw one displacement (see :meth:`Direction.__call__`)."""
        delta = self.device.displacement(weights, generator=generator)
        if self.gamma != 1:
            torch._foreach_mul_(list(delta.values()), self.gamma)
        return delta


@dataclass(frozen=True)
class GAV(Direction):
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

    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        """Return the steepest ascent (see :meth:`Direction.__call__`)."""
        gradients = _checked(weights, grads, self)
        lengths = None if self.draw_length else self.device.expected_norms(weights)
        if lengths is None:
            draw = self.device.displacement(weights, generator=generator)
            lengths = {name: _norm(delta) for name, delta in draw.items()}
        scale = self.alpha * self.gamma
        if self.per_tensor:
            return _along(gradients, {name: scale * length for name, length in lengths.items()})
        total = scale * _total(list(lengths.values()))
        return _along_globally(gradients, gradients, total)


@dataclass(frozen=True)
class SAM(Direction):
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

    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        """Return the step (see :meth:`Direction.__call__`)."""
        gradients = _checked(weights, grads, self)
        return _along_globally(gradients, gradients, self.rho)


@dataclass(frozen=True)
class ASAM(Direction):
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

    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        """Return the step (see :meth:`Direction.__call__`)."""
        gradients = _checked(weights, grads, self)
        scaled = {name: gradients[name] * w.detach().abs() for name, w in weights.items()}
        ascent = {name: scaled[name] * w.detach().abs() for name, w in weights.items()}
        return _along_globally(ascent, scaled, self.rho)


@dataclass(frozen=True)
class AWP(Direction):
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

    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        """Return the displacement (see :meth:`Direction.__call__`)."""
        gradients = _checked(weights, grads, self)
        lengths = {name: self.kappa * _norm(weight) for name, weight in weights.items()}
        return _along(gradients, lengths)


@dataclass(frozen=True)
class Mixture(Direction):
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
    def needs_gradient(self) -> bool:
        """Whether either of the two may ask for gradients; :meth:`pick` decides."""
        picks_ascent = self.w_th > 0 and self.ascent.needs_gradient
        return picks_ascent or (self.w_th < 1 and self.noise.needs_gradient)

    def pick(self, *, generator: Generator | None = None) -> Direction:
        """Choose one of the two."""
        x = float(torch.rand((), generator=generator, device=generator_device(generator)))
        chosen = self.noise if x >= self.w_th else self.ascent
        return chosen.pick(generator=generator)

    def __call__(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Weights:
        """Choose, then displace (see :meth:`Direction.__call__`)."""
        return self.pick(generator=generator)(weights, grads, generator=generator)


def _checked(weights: Weights, grads: Weights | None, direction: Direction) -> Weights:
    if grads is None:
        raise ValueError(
            f"{type(direction).__name__} needs the gradients of a clean pass, got none. "
            "Pass grads={name: gradient}."
        )
    check_matching(weights, grads, what="grads")
    return {name: grads[name].detach() for name in weights}


def _norm(tensor: Tensor) -> Tensor:
    """Return the L2 norm, accumulated in at least float32."""
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    norm: Tensor = torch.linalg.vector_norm(tensor.detach(), dtype=dtype)
    return norm


def _total(norms: list[Tensor]) -> Tensor:
    """Return the norm over all tensors from the norm of each, on the first one's device."""
    together = torch.stack([norm.to(norms[0].device) for norm in norms])
    total: Tensor = torch.linalg.vector_norm(together)
    return total


def _along(grads: Weights, lengths: dict[str, Tensor]) -> Weights:
    """Return each gradient stretched to its length."""
    return {name: _stretched(g, _norm(g), lengths[name]) for name, g in grads.items()}


def _along_globally(ascent: Weights, measured: Weights, length: Tensor | float) -> Weights:
    """Return ``ascent`` times length over the global norm of ``measured``."""
    norm = _total([_norm(tensor) for tensor in measured.values()])
    return {name: _stretched(g, norm, length) for name, g in ascent.items()}


def _stretched(grad: Tensor, norm: Tensor, length: Tensor | float) -> Tensor:
    """Return ``length * grad / (norm + epsilon)``, zero where the norm is not finite.

    Decided on the device: a comparison in Python would wait for a GPU at every step.
    """
    if isinstance(length, Tensor):
        length = length.to(norm.device)
    factor = torch.as_tensor(length / (norm + EPSILON)).to(device=grad.device, dtype=grad.dtype)
    finite = torch.isfinite(norm).to(grad.device)
    if grad.device.type == "cpu":
        return grad * factor if bool(finite) else torch.zeros_like(grad)
    return torch.where(finite, grad * factor, torch.zeros((), dtype=grad.dtype, device=grad.device))
