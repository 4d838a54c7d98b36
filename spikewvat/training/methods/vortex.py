"""Vortex: training against the deviation of the outputs that a confidence level allows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.devices.base import DeviceModel, check_at_least_zero, check_probability
from spikewvat.errors import UnsupportedModelError
from spikewvat.training import Backward, Closure, GradientMethod
from spikewvat.training.methods.synapses import hooked, moments_of, root, spread_of, synaptic_layers


class Vortex(GradientMethod):
    r"""Variation-aware training of Vortex: the loss where the outputs deviate for the worse.

    .. math:: L\left(z + G \, \rho \, d \odot \mathrm{sign} \frac{\partial L}{\partial z}\right),
              \qquad d_i = \sqrt{\textstyle\sum_j \mathrm{Var}[w'_{ij}] \, h_j^2}

    :math:`z = W h` is what the last layer of synapses makes of its input h. For cross-entropy the
    score of the right class is lowered by its deviation and all others are raised by theirs.

    A first forward pass finds the last layer and, back to it alone, the signs; a second one, with
    the deviations added, is differentiated as a whole: two forward passes and a gradient a step.
    The weights are never perturbed. In a spiking network the last layer is passed in every time
    step; each step deviates by its own d, so that deviations add up over time. Running
    statistics of batch norm change on the second pass.

    Args:
        model: The model that the closure calls.
        device: The device model: noise of known variance, ``Lognormal`` as published.
        strength: The factor G, between 0 and 1.
        rho: Radius of the deviation in its standard deviations, at least 0; 1 by default.
        confidence: Instead of rho, take the root of this quantile of a chi-squared law with as many
            degrees of freedom as a neuron of the last layer has inputs, as published; for a layer
            of hundreds of inputs it drowns the signal.
        **options: ``p``, ``weights``, ``generator`` and others of :class:`GradientMethod`.

    Raises:
        ValueError: If a number is out of range, or the device has no known variance.
        UnsupportedModelError: If synapses are not in linear or convolutional layers.

    References:
        Vortex: variation-aware training for memristor X-bar (Liu et al., 2015),
        https://doi.org/10.1145/2744769.2744930. Written from secondary knowledge. The paper
        trains one layer with a hinge loss and bounds multiplicative lognormal variation by the
        width of its logarithm; the signs by the gradient, any loss, other devices, deeper and
        spiking networks are ours. It tunes G by injecting variation on held-out data, and maps
        sensitive rows to better devices, which needs measured ones and is not done here.
    """

    def __init__(
        self,
        model: nn.Module,
        device: DeviceModel,
        *,
        strength: float = 0.5,
        rho: float | None = None,
        confidence: float | None = None,
        **options: Any,
    ) -> None:
        check_probability("strength", strength)
        if rho is not None:
            check_at_least_zero("rho", rho)
        if confidence is not None and not 0 < confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {confidence!r}.")
        if rho is not None and confidence is not None:
            raise ValueError(
                f"got rho={rho!r} and confidence={confidence!r}, which says what rho is. "
                "Leave one out."
            )
        super().__init__(model, **options)
        self.device, self.strength, self.confidence = device, strength, confidence
        self.rho = 1.0 if rho is None else rho
        self._on_change()

    def _on_change(self) -> None:
        self._layers = synaptic_layers(self.model, self.weights)
        moments_of(self.device, self.weights)

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        last, signs = self._signs(closure)
        name = self._layers[last]
        weight = self.weights[name]
        variance = moments_of(self.device, {name: weight})[name][1]
        rho = self.rho
        if self.confidence is not None:
            rho = confidence_radius(weight[0].numel(), self.confidence)
        calls = iter(signs)

        def deviate(layer: nn.Module, inputs: Tensor, output: Tensor) -> Tensor:
            deviation = root(spread_of(layer, variance, inputs))
            return output + self.strength * rho * next(calls) * deviation

        with hooked([last], deviate):
            return self._pass(closure, backward)

    def _signs(self, closure: Closure) -> tuple[nn.Module, list[Tensor]]:
        """Return the last layer of synapses and, for each of its calls, which way hurts."""
        outputs: dict[nn.Module, list[Tensor]] = {}

        def note(layer: nn.Module, inputs: Tensor, output: Tensor) -> None:
            outputs.setdefault(layer, []).append(output)
            outputs[layer] = outputs.pop(layer)  # the last one called is the last entry

        with self._on_the_side(), hooked(self._layers, note):
            loss, _ = self._run(closure)
        if not outputs:
            raise UnsupportedModelError(
                "the closure never called a layer of synapses. Call the model that Vortex was "
                "made from, uncompiled."
            )
        last, seen = outputs.popitem()
        grads = torch.autograd.grad(loss, seen, allow_unused=True)
        return last, [
            torch.zeros_like(output) if grad is None else grad.sign().nan_to_num_(0)
            for grad, output in zip(grads, seen, strict=True)
        ]


def confidence_radius(inputs: int, confidence: float) -> float:
    """Return the root of a quantile of the chi-squared law, by bisection.

    Args:
        inputs: Degrees of freedom, at least 1.
        confidence: Probability between 0 and 1.

    Example:
        >>> round(confidence_radius(3, 0.9), 6)
        2.500278
    """
    half = torch.tensor(inputs / 2, dtype=torch.float64)
    low, high = 0.0, inputs + 40 * math.sqrt(2 * inputs) + 40 * -math.log1p(-confidence)
    for _ in range(100):
        middle = (low + high) / 2
        share = float(torch.special.gammainc(half, torch.tensor(middle / 2, dtype=torch.float64)))
        low, high = (middle, high) if share < confidence else (low, middle)
    return math.sqrt(low)
