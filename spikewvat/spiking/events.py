"""First layers computed from the events themselves: nothing is expanded to dense frames.

Recordings in bins of a millisecond are nearly empty. A layer here takes a sparse tensor
``[T, B, ...]`` and adds up, for every time step and sample, the weights of the inputs that fired.
Currents and gradients are those of the dense layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from spikewvat.spiking.layers import Conv2d, Linear, check_features, check_time_first


class EventLinear(Linear):
    """Dense layer on sparse spikes [T, B, ...], flattened from the third axis on; or dense ones.

    Takes the arguments of :class:`~spikewvat.spiking.layers.Linear`.

    Raises:
        ValueError: If the input does not have so many features, or no time or no samples.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return currents [T, B, N'] of spikes [T, B, ...]."""
        if input.dim() < 3:
            check_time_first(input, 3, f"[T, B, {self.in_features}]")
        check_features(input, self.in_features)
        _check_not_empty(input)
        if not input.is_sparse:
            return super().forward(input.flatten(2))
        currents: Tensor = event_linear(input, self.weight, self.bias)
        return currents


class EventConv2d(Conv2d):
    """Convolution on sparse spikes [T, B, C, H, W]; or dense ones.

    Every event is one weight for each place of the kernel that sees it, so this pays where few
    pixels fire. Takes the arguments of :class:`~spikewvat.spiking.layers.Conv2d`.

    Raises:
        ValueError: If the input has another shape, or no time or no samples.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return currents [T, B, C', H', W'] of spikes [T, B, C, H, W]."""
        expected = f"[T, B, {self.in_channels}, H, W]"
        check_time_first(input, 5, expected)
        if input.shape[2] != self.in_channels:
            raise ValueError(f"input has shape {tuple(input.shape)}, expected {expected}.")
        _check_not_empty(input)
        if not input.is_sparse:
            return super().forward(input)
        currents: Tensor = event_conv2d(
            input, self.weight, self.bias, stride=self.stride[0], padding=int(self.padding[0])
        )
        return currents


@torch.compiler.disable  # type: ignore[untyped-decorator]
def event_linear(spikes: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what ``linear(spikes.to_dense().flatten(2), weight, bias)`` returns.

    Args:
        spikes: Sparse [T, B, ...] of N values a step; several entries at one place are added.
        weight: Weights [out, N].
        bias: Bias [out].

    Returns:
        Currents [T, B, out]. Gradients reach weight and bias, not the spikes.
    """
    spikes = spikes.coalesce()
    steps, samples = spikes.shape[:2]
    index, values = spikes.indices(), spikes.values()
    column = index.new_zeros(index.shape[1])
    for size, coordinate in zip(spikes.shape[2:], index[2:], strict=True):
        column = column * size + coordinate
    row = index[0] * samples + index[1]  # ascending, as the tensor is coalesced
    sums: Tensor = _RowSums.apply(weight, row, column, values, steps * samples)  # type: ignore[no-untyped-call]
    currents = sums.view(steps, samples, -1)
    return currents if bias is None else currents + bias


@torch.compiler.disable  # type: ignore[untyped-decorator]
def event_conv2d(
    spikes: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0
) -> Tensor:
    """Return what ``conv2d`` of every dense step returns.

    Args:
        spikes: Sparse [T, B, C, H, W]; several entries at one place are added.
        weight: Kernels [C', C, k, k].
        bias: Bias [C'].
        stride: Step between places of the kernels.
        padding: Zeros added at every edge.

    Returns:
        Currents [T, B, C', H', W']. Gradients reach weight and bias, not the spikes.
    """
    spikes = spikes.coalesce()
    steps, samples, _, *sides = spikes.shape
    out_channels, _, *kernel = weight.shape
    out_sides = [
        (side + 2 * padding - size) // stride + 1 for side, size in zip(sides, kernel, strict=True)
    ]
    if min(out_sides) < 1:
        raise ValueError(
            f"kernels of {kernel[0]} x {kernel[1]} do not fit into spikes of {sides[0]} x "
            f"{sides[1]} with padding {padding}."
        )
    index, values = spikes.indices(), spikes.values()
    step, sample, channel, *places = index[:, None, None]
    # Along each axis: which place of the kernel, seen from which output, meets the event.
    taps, outputs, meets = [], [], []
    for axis, (place, size, out) in enumerate(zip(places, kernel, out_sides, strict=True)):
        tap = torch.arange(size, device=index.device).view([-1, 1, 1] if axis == 0 else [1, -1, 1])
        reach = place + padding - tap
        output = torch.div(reach, stride, rounding_mode="floor")
        taps.append(tap)
        outputs.append(output)
        meets.append((output * stride == reach) & (output >= 0) & (output < out))
    row = ((step * samples + sample) * out_sides[0] + outputs[0]) * out_sides[1] + outputs[1]
    column = (channel * kernel[0] + taps[0]) * kernel[1] + taps[1]
    kept = meets[0] & meets[1]
    row, order = torch.sort(row[kept])
    column = column.expand_as(kept)[kept][order]
    values = values.expand_as(kept)[kept][order]
    rows = steps * samples * out_sides[0] * out_sides[1]
    sums: Tensor = _RowSums.apply(weight.flatten(1), row, column, values, rows)  # type: ignore[no-untyped-call]
    currents = sums.view(steps, samples, *out_sides, out_channels).movedim(-1, 2)
    return currents if bias is None else currents + bias[:, None, None]


class _RowSums(torch.autograd.Function):
    """Sum value x weight column over the entries of each row; sparse matrix x dense matrix.

    Both directions are ``embedding_bag``, which sums rows of a table in parallel and never
    writes what it sums, as gathering and ``index_add`` would.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, row: Tensor, column: Tensor, values: Tensor, rows: int
    ) -> Tensor:
        """Return sums [rows, out] of weight [out, columns]; ``row`` is ascending."""
        ones = values.device.type == "cpu" and bool((values == 1).all())  # elsewhere a wait
        weights = None if ones else values
        ctx.save_for_backward(row, column, weights)
        ctx.columns = weight.shape[1]
        return _bags(weight.t().contiguous(), column, row, weights, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the weight."""
        row, column, values = ctx.saved_tensors
        # Short numbers are sorted by counting, ten times as fast.
        key = column.short() if ctx.columns <= 2**15 else column
        order = torch.argsort(key, stable=True)
        values = None if values is None else values[order]
        sums = _bags(gradient.contiguous(), row[order], column, values, ctx.columns)
        return sums.t(), None, None, None, None


def _bags(table: Tensor, entries: Tensor, bag: Tensor, values: Tensor | None, bags: int) -> Tensor:
    """Return, for each bag, the sum of its entries' rows of the table times their values.

    Entries come bag by bag; of ``bag``, which names the bag of each, the order does not matter.
    """
    if len(entries) == 0:
        return table.new_zeros(bags, table.shape[1])
    ends = torch.bincount(bag, minlength=bags).cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    weights = None if values is None else values.to(table.dtype)
    return functional.embedding_bag(entries, table, starts, mode="sum", per_sample_weights=weights)


def _check_not_empty(input: Tensor) -> None:
    if 0 in input.shape[:2]:
        raise ValueError(
            f"input has shape {tuple(input.shape)}, expected at least one time step and one "
            "sample. Check the recordings."
        )
