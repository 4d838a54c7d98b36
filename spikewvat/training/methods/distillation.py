"""Distillation: on a noisy chip, the network learns the scores that it has without variation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.devices.base import DeviceModel, check_above_zero, check_probability
from spikewvat.perturbations import HSV
from spikewvat.spiking.losses import class_scores
from spikewvat.training import Backward, Closure, PerturbedGradient
from spikewvat.training.checks import differentiate
from spikewvat.training.methods.adversary import divergence
from spikewvat.weights import perturbed


class Distillation(PerturbedGradient):
    r"""The loss at noisy weights, and how far the noise moves the scores.

    .. math:: (1 - \lambda) \, L(w + w_v) + \lambda \, T^2 \, \mathrm{KL}\left(
              \sigma(f(w) / T) \,\Vert\, \sigma(f(w + w_v) / T)\right)

    :math:`\sigma` is the softmax of the class scores, :math:`w_v` a draw of the device. The scores
    without variation, the teacher's, are constants. One gradient and a forward pass more a step;
    the closure has to return ``(loss, output)``. Running statistics of batch norm change on the
    noisy pass.

    Args:
        model: The model that the closure calls.
        device: The device model.
        gamma: Scale of the noise (dimensionless), at least 0.
        share: Share :math:`\lambda` of the divergence, between 0 and 1.
        temperature: Temperature T of both softmax functions, above 0.
        **options: ``p``, ``weights``, ``generator`` and others of
            :class:`spikewvat.training.GradientMethod`.

    Raises:
        ValueError: If a parameter is out of range, or the closure returns the loss alone.
        UnsupportedModelError: If the model has no synaptic weights or unknown state.

    References:
        Noisy Machines (Zhou et al., 2020), https://arxiv.org/abs/2001.04974, which distils noisy
        training from a network that was trained before without noise; the loss is that of Hinton et
        al., 2015, https://arxiv.org/abs/1503.02531. Here the teacher is the network itself at its
        present weights, so that nothing has to be trained before.
    """

    def __init__(
        self,
        model: nn.Module,
        device: DeviceModel,
        *,
        gamma: float = 1.0,
        share: float = 0.5,
        temperature: float = 2.0,
        **options: Any,
    ) -> None:
        check_probability("share", share)
        check_above_zero("temperature", temperature)
        super().__init__(model, HSV(device, gamma), **options)
        self.share, self.temperature = share, temperature

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        t = self.temperature
        with self._on_the_side(), torch.no_grad():
            teacher = class_scores(self._run_with_output(closure)[1]) / t
        noise = self.perturbation.plan(self.weights, generator=self._noise)
        with perturbed(self.weights, noise, buffers=self._buffers):
            loss, output = self._run_with_output(closure)
            moved = t * t * divergence(teacher, class_scores(output) / t)
            total = (1 - self.share) * loss + self.share * moved
            differentiate(total, backward)
        return total.detach()
