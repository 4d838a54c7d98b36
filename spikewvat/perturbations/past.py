"""A direction along gradients of earlier steps: no pass of its own, whatever the optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import DeviceModel, check_at_least_zero, norm_of
from spikewvat.perturbations.momentum import Sign, factor_of
from spikewvat.perturbations.variation import AsLongAsVariation
from spikewvat.weights import Displace, Weights, check_matching


@dataclass(eq=False)
class PastVariation(AsLongAsVariation):
    r"""As long as a device's variation, along the gradients of earlier steps.

    .. math:: v_l = \mp \alpha \, \lVert \Delta_l \rVert_2 \,
              \frac{a_l}{\lVert a_l \rVert_2 + \epsilon}, \qquad
              a \leftarrow d \, a + (1 - d) \, g

    :math:`g` is the gradient that a step has left in ``.grad``, taken at displaced weights, so
    that :math:`a` averages over displaced points too; with ``decay=0`` it is that of the last
    step. :class:`MomentumVariation` is the same with the optimizer's own average, and needs no
    copy of the gradients. Nothing is displaced in the first step.

    Args:
        device: What the chip does to weights; its displacement sets the length.
        gamma: Scale of the displacement (dimensionless), at least 0.
        alpha: Share of an HSV draw's length (dimensionless), at least 0.
        decay: Share of the average that a step leaves, in [0, 1).
        sign: ``"ahead"`` goes on along the descent, ``"back"`` up the gradient, as GAV does.
        per_tensor: Normalise each tensor on its own; otherwise one norm over all tensors.
        draw_length: Take the length of an actual draw instead of the closed form.

    Raises:
        ValueError: If ``gamma`` or ``alpha`` is negative or not finite, ``decay`` lies outside
            [0, 1), or ``sign`` is unknown.

    References:
        LookSAM (Liu et al., 2022), https://arxiv.org/abs/2203.02714, for a direction that serves
        later steps; the length per tensor is ours, that of GAV.
    """

    device: DeviceModel
    gamma: float = 1.0
    alpha: float = 0.1
    decay: float = 0.0
    sign: Sign = "ahead"
    per_tensor: bool = True
    draw_length: bool = False
    _average: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_at_least_zero("gamma", self.gamma)
        check_at_least_zero("alpha", self.alpha)
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {self.decay!r}. 0 keeps one gradient.")
        factor_of(self.sign)

    @property
    def needs_gradient(self) -> bool:
        """False: those of earlier steps serve."""
        return False

    @property
    def remembers(self) -> bool:
        """True."""
        return True

    def note(self, grads: Weights) -> None:
        """Add the step's gradients to the average; one that is not finite changes nothing."""
        for name, grad in grads.items():
            kept = self._average.get(name)
            if kept is None:
                kept = self._average[name] = torch.zeros_like(grad)
                share = 1.0
            else:
                share = 1 - self.decay
            grad, norm = grad.detach(), norm_of(grad)
            if grad.device.type == "cpu":
                if math.isfinite(float(norm)):
                    kept.lerp_(grad, share)
            else:  # decided on the device: a comparison in Python would wait for it
                kept.lerp_(torch.where(torch.isfinite(norm), grad, kept), share)

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return {"average": {name: kept.clone() for name, kept in self._average.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a saved average."""
        self._average = {name: kept.clone() for name, kept in state["average"].items()}

    def plan(
        self, weights: Weights, grads: Weights | None = None, *, generator: Generator | None = None
    ) -> Displace:
        """Take the displacement (see :meth:`Direction.plan`)."""
        average = {name: self._of(name, weight) for name, weight in weights.items()}
        check_matching(weights, average, what="gradients of earlier steps")
        factor = factor_of(self.sign)
        return self._stretched(average, weights, generator, factor=factor)

    def _of(self, name: str, weight: Tensor) -> Tensor:
        kept = self._average.get(name)
        return torch.zeros_like(weight).detach() if kept is None else kept.to(weight.device)
