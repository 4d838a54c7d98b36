"""Quantisation-aware training, plain or under weight variation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spikewvat.devices import Quantized
from spikewvat.devices.base import check_bits
from spikewvat.holding import Buffers
from spikewvat.perturbations import HSV, Perturbation
from spikewvat.training import Backward, Closure, PerturbedGradient
from spikewvat.training.methods.activations import on_levels, range_of
from spikewvat.training.methods.synapses import hooked_inputs, synaptic_layers
from spikewvat.weights import replaced


class QAT(PerturbedGradient):
    r"""Quantisation-aware training: every pass sees quantised weights, the optimizer float ones.

    .. math:: g = \nabla L(\hat w + w_v), \qquad \hat w = \mathrm{quantised}(w)

    A straight-through estimator. A perturbation is that of :math:`\hat w`: its range, its gradient
    and its lengths are those of the quantised weights. Test on
    ``Quantized(bits) >> device``.

    With ``activation_bits``, what goes into each layer of synapses is quantised too, over the
    range of the minibatch; test inside :func:`quantized_activations`, whose ranges are
    calibrated. Spikes of 0 and 1 are levels already.

    Args:
        model: The model that the closure calls.
        bits: Bits of a weight, from 2 to 16.
        per_channel: One scale for each output channel instead of one for the tensor.
        perturbation: What is added to the quantised weights; nothing by default.
        activation_bits: Bits of an activation, from 2 to 16; None leaves activations alone.
        **options: ``p`` (of the perturbation), ``weights``, ``generator`` and others of
            :class:`spikewvat.training.GradientMethod`.

    Raises:
        ValueError: If ``bits`` is not a whole number from 2 to 16.
        UnsupportedModelError: If the model has no synaptic weights or unknown state.

    References:
        Weight-variation-aware training (WVAT), appendix A.3; rounding and scale are our choice.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        bits: int = 8,
        per_channel: bool = False,
        perturbation: Perturbation | None = None,
        activation_bits: int | None = None,
        **options: Any,
    ) -> None:
        self.quantizer = Quantized(bits, per_channel)
        self._only_quantized = perturbation is None
        self.activation_bits = activation_bits
        super().__init__(model, perturbation or HSV(self.quantizer), **options)
        self._quantized: Buffers = {}
        if activation_bits is not None:
            check_bits(activation_bits)
        self._on_change()

    def _on_change(self) -> None:
        quantizes = self.activation_bits is not None
        self._layers = synaptic_layers(self.model, self.weights) if quantizes else {}

    def _whole_step(self, closure: Closure, backward: Backward) -> tuple[Tensor, bool]:
        quantized = self.quantizer.program(self.weights)
        with (
            replaced(self.weights, quantized, buffers=self._quantized),
            hooked_inputs(self._layers, self._on_levels),
        ):
            return super()._whole_step(closure, backward)

    def _on_levels(self, layer: nn.Module, inputs: Tensor) -> Tensor | None:
        bits = self.activation_bits
        return None if bits is None else on_levels(inputs, range_of(inputs), bits)

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        if self._only_quantized:
            return self._pass(closure, backward)
        return super()._step(closure, backward)
