"""Noise that the forward pass sees and the backward pass does not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.devices.base import DeviceModel
from spikewvat.perturbations import HSV
from spikewvat.training import Backward, Closure, PerturbedGradient
from spikewvat.training.methods.synapses import hooked, synaptic_layers, weighed


class StraightThrough(PerturbedGradient):
    r"""Each layer computes with noisy weights and is differentiated as if there were no noise.

    .. math:: y_l = (w_l + w_v) * x_l, \qquad
              \frac{\partial L}{\partial x_l} = w_l^T \frac{\partial L}{\partial y_l}, \qquad
              \frac{\partial L}{\partial w_l} = \frac{\partial L}{\partial y_l} x_l^T

    Noise injection (:class:`~spikewvat.perturbations.HSV`) sends gradients back through the noisy
    weights; here only the inputs :math:`x_l` are those of the noisy chip. One gradient a step and
    the products of a forward pass more.

    Args:
        model: The model that the closure calls.
        device: The device model.
        gamma: Scale of the noise (dimensionless), at least 0.
        **options: ``p``, ``weights``, ``generator`` and others of
            :class:`spikewvat.training.GradientMethod`.

    Raises:
        ValueError: If ``gamma`` is negative.
        UnsupportedModelError: If synapses are not in linear or convolutional layers, or the model
            has unknown state.

    References:
        Extending Straight-Through Estimation for Robust Neural Networks on Analog CIM Hardware
        (Feng et al., 2025), https://arxiv.org/abs/2508.11940: "decouple forward noise simulation
        from backward gradient computation". Written from the abstract: which parts of the hardware
        the paper leaves out of the backward pass may differ; here it is all that the device does.
    """

    def __init__(
        self, model: nn.Module, device: DeviceModel, *, gamma: float = 1.0, **options: Any
    ) -> None:
        super().__init__(model, HSV(device, gamma), **options)
        self._on_change()

    def _on_change(self) -> None:
        self._layers = synaptic_layers(self.model, self.weights)

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        noise = self.perturbation(self.weights, generator=self._noise)
        noisy = {name: weight.detach() + noise[name] for name, weight in self.weights.items()}

        def exchange(layer: nn.Module, inputs: Tensor, output: Tensor) -> Tensor:
            with torch.no_grad():
                value = weighed(layer, noisy[self._layers[layer]], inputs, bias=True)
            return output + (value - output).detach()

        with hooked(self._layers, exchange):
            return self._pass(closure, backward)
