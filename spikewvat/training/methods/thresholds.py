"""Stochastic thresholds: spiking neurons whose thresholds are drawn anew in every step."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spikewvat.devices import DeviceModel, Ideal
from spikewvat.perturbations import HSV
from spikewvat.training import Backward, Closure, PerturbedGradient
from spikewvat.training.neurons import NeuronVariation


class StochasticThresholds(PerturbedGradient):
    r"""Noise on the thresholds of spiking neurons and, if there is a device, on the weights.

    .. math:: \theta_i = \theta \, e^{x_i}, \qquad x_i \sim N(0, \sigma^2)

    One gradient a step. A threshold is drawn for each neuron and step of training, the same for all
    samples and time steps. Thresholds and weights themselves stay.

    Args:
        model: The model that the closure calls.
        thresholds: Standard deviation :math:`\sigma` of the logarithm of thresholds, above 0.
        device: Noise of the weights; none by default.
        gamma: Scale of that noise (dimensionless), at least 0.
        **options: ``p``, ``weights``, ``generator`` and others of
            :class:`spikewvat.training.GradientMethod`.

    Raises:
        ValueError: If a number is out of range.
        UnsupportedModelError: If the model has no synaptic weights, no spiking neurons with a
            threshold of their own, or unknown state.

    References:
        Stochastic Spiking Neuron Based SNN Can be Inherently Bayesian (Zheng et al., 2026),
        https://arxiv.org/abs/2602.07037, written from its abstract. There the devices are
        stochastic in every time step, in testing too; a fixed draw for each step of training is
        our choice, that of :class:`~spikewvat.training.neurons.NeuronVariation`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        thresholds: float = 0.1,
        device: DeviceModel | None = None,
        gamma: float = 1.0,
        **options: Any,
    ) -> None:
        self._varies_weights = device is not None
        super().__init__(model, HSV(device or Ideal(), gamma), **options)
        self._neurons = NeuronVariation(self, thresholds=thresholds, generator=self._noise)

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        with self._neurons.varied():
            if self._varies_weights:
                return super()._step(closure, backward)
            return self._pass(closure, backward)
