"""Random weight perturbation, mixed with the clean gradient."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spikewvat.devices.base import DeviceModel, check_probability
from spikewvat.perturbations import HSV
from spikewvat.training import Backward, Closure, PerturbedGradient


class RandomPerturbation(PerturbedGradient):
    r"""m-RWP: the gradient at noisy weights, mixed with that at the clean ones.

    .. math:: g = \lambda \, \nabla L(w + w_v) + (1 - \lambda) \, \nabla L(w)

    Two gradients a step. Running statistics of batch norm change on the noisy pass.

    Args:
        model: The model that the closure calls.
        device: The device model.
        mix: Share :math:`\lambda` of the noisy gradient, between 0 and 1.
        gamma: Scale of the noise (dimensionless), at least 0.
        **options: ``p``, ``weights``, ``generator`` and others of
            :class:`spikewvat.training.GradientMethod`.

    Raises:
        ValueError: If ``mix`` lies outside [0, 1], or ``gamma`` is negative.
        UnsupportedModelError: If the model has no synaptic weights or unknown state.

    References:
        Revisiting Random Weight Perturbation for Efficiently Improving Generalization (Li et al.,
        2024), https://arxiv.org/abs/2404.00357. There the two gradients come from different
        minibatches, computed side by side, and the noise is in proportion to the norm of each
        filter; here both see the same minibatch, and the noise is the device's.
    """

    def __init__(
        self,
        model: nn.Module,
        device: DeviceModel,
        *,
        mix: float = 0.5,
        gamma: float = 1.0,
        **options: Any,
    ) -> None:
        check_probability("mix", mix)
        super().__init__(model, HSV(device, gamma), **options)
        self.mix = mix

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        mix = self.mix
        with self._on_the_side() as parameters:
            clean = self._pass(closure, lambda loss: backward((1 - mix) * loss))
            kept = self._kept(parameters)
        noisy = self._pass(
            closure,
            lambda loss: backward(mix * loss),
            self.perturbation.plan(self.weights, generator=self._noise),
        )
        self._add(parameters, kept)
        return mix * noisy + (1 - mix) * clean
