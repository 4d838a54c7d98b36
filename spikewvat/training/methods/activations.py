"""Activations on a few levels, as the converters around an array of devices have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.adapters import Adapter, adapter_for
from spikewvat.devices.base import check_bits
from spikewvat.training.methods.synapses import hooked_inputs, synaptic_layers

Range = tuple[Tensor, Tensor]
"""Smallest and largest value, 0-dim tensors."""


@contextmanager
def quantized_activations(
    model: nn.Module, batches: Iterable[Any], *, bits: int = 8, adapter: Adapter | None = None
) -> Iterator[dict[str, Range]]:
    r"""Quantise what goes into each layer of synapses, while the block lasts.

    .. math:: x' = s \, \left(\mathrm{clip}(\mathrm{round}(x / s) + z, 0, 2^b - 1) - z\right)

    Scale s and zero point z follow from the smallest and largest input of each layer over the
    calibration batches, 0 included, and stay. Gradients pass straight through, but for values
    outside. Spikes of 0 and 1 are levels already.

    Args:
        model: The model; the block may evaluate or train it.
        batches: Calibration: inputs, or tuples with inputs first.
        bits: Bits b of an activation, from 2 to 16.
        adapter: Defaults to the adapter for the model's framework.

    Yields:
        The range of each layer's input, by the name of its weight.

    Raises:
        ValueError: If ``bits`` is not a whole number from 2 to 16, or there is no batch.
        UnsupportedModelError: If synapses are not in linear or convolutional layers.

    References:
        Weight-variation-aware training (WVAT), appendix A.3; affine levels are our choice.
    """
    check_bits(bits)
    adapter = adapter or adapter_for(model)
    layers = synaptic_layers(model, adapter.synaptic_weights(model))
    ranges: dict[nn.Module, Range] = {}

    def widen(layer: nn.Module, inputs: Tensor) -> None:
        low, high = range_of(inputs)
        if layer in ranges:
            low, high = torch.minimum(low, ranges[layer][0]), torch.maximum(high, ranges[layer][1])
        ranges[layer] = low, high

    training = model.training
    try:
        model.eval()
        with torch.no_grad(), hooked_inputs(layers, widen):
            for batch in batches:
                adapter.reset_state(model)
                model(batch[0] if isinstance(batch, tuple | list) else batch)
    finally:
        adapter.reset_state(model)
        model.train(training)
    if not ranges:
        raise ValueError("batches has none, expected inputs to calibrate on.")
    with hooked_inputs(ranges, lambda layer, inputs: on_levels(inputs, ranges[layer], bits)):
        yield {layers[layer]: found for layer, found in ranges.items()}


def range_of(inputs: Tensor) -> Range:
    """Return the smallest and the largest value, of which 0 is always one."""
    values = (inputs.coalesce().values() if inputs.is_sparse else inputs).detach()
    if values.numel() == 0:
        return inputs.new_zeros(()).to_dense(), inputs.new_zeros(()).to_dense()
    low, high = torch.aminmax(values)
    return low.clamp_max(0), high.clamp_min(0)


def on_levels(inputs: Tensor, found: Range, bits: int) -> Tensor:
    """Return inputs on 2^b even levels of a range, gradients straight through inside of it.

    Args:
        inputs: Any shape; sparse spikes are left alone.
        found: Smallest value, at most 0, and largest, at least 0.
        bits: Bits b.

    Example:
        >>> x = torch.tensor([-0.2, 0.3, 1.0, 7.0])
        >>> on_levels(x, (torch.tensor(0.0), torch.tensor(3.0)), 2).tolist()
        [0.0, 0.0, 1.0, 3.0]
    """
    if inputs.is_sparse:
        return inputs
    low, high = found
    top = 2**bits - 1
    scale = (high - low) / top
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = (-low / scale).round()
    inside = inputs.clamp(-zero * scale, (top - zero) * scale)
    levels = ((inside / scale).round() + zero).clamp(0, top).sub(zero).mul(scale)
    return inside + (levels - inside).detach()
