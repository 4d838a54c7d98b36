"""First layers computed from the events themselves: nothing is expanded to dense frames.

Recordings in bins of a millisecond are nearly empty. A layer here takes a sparse tensor
``[T, B, ...]`` and adds up, for every time step and sample, the weights of the inputs that fired.
Currents and gradients are those of the dense layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional

from spikewvat.spiking.layers import Conv2d, Linear, check_features, check_time_first

_FEW = 0.1  # share of entries with an event up to which a sum over events beats a product
_WIDE = 128  # outputs from which on that makes up for looking for the events
_SAMPLED = 64  # rows that the share is estimated from
_functorch: Any = torch._C._functorch


class EventLinear(Linear):
    """Dense layer on sparse spikes [T, B, ...], flattened from the third axis on; or dense ones.

    Dense spikes on a CPU are looked through first: where few of them are events, these are added
    up as if they had come sparse. The rule depends on the spikes alone, so equal runs stay equal.
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
        if input.is_sparse:
            currents: Tensor = event_linear(input, self.weight, self.bias)
            return currents
        flat = input.flatten(2)
        if _has_few_events(flat, self.weight):
            return _of_dense(flat, self.weight, self.bias)
        return super().forward(flat)


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
    currents = _row_sums(weight, row, column, values, steps * samples).view(steps, samples, -1)
    return currents if bias is None else currents + bias


def _of_dense(spikes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return :func:`event_linear` of dense spikes [T, B, N]."""
    steps, samples, features = spikes.shape
    flat = spikes.reshape(-1)
    # Of truth values, numpy skips what is empty eight entries at a time.
    place = torch.from_numpy(np.flatnonzero(flat.bool().numpy()))
    row = place // features
    column, values = place - row * features, flat[place]
    currents = _row_sums(weight, row, column, values, steps * samples).view(steps, samples, -1)
    if torch.is_autocast_enabled("cpu"):  # as a product of matrices would return it
        currents = currents.to(torch.get_autocast_dtype("cpu"))
    return currents if bias is None else currents + bias.to(currents.dtype)


def _has_few_events(spikes: Tensor, weight: Tensor) -> bool:
    """Return whether to look for events in dense spikes [T, B, N]; gradients must not reach them.

    Only plain tensors can be looked at: what a compiler or ``torch.func`` holds has no values yet,
    and a GPU would have to be waited for.
    """
    if torch.compiler.is_compiling() or type(spikes) is not Tensor or len(weight) < _WIDE:
        return False
    if spikes.device.type != "cpu" or spikes.requires_grad or not spikes.is_floating_point():
        return False
    if spikes.dtype != weight.dtype or _functorch.is_functorch_wrapped_tensor(spikes):
        return False
    if forward_ad.unpack_dual(spikes).tangent is not None:  # type: ignore[no-untyped-call]
        return False
    rows = spikes.flatten(0, 1)
    some = rows[:: max(1, len(rows) // _SAMPLED)]
    return int(some.count_nonzero()) <= _FEW * some.numel()


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
    sums = _row_sums(weight.flatten(1), row, column, values, rows)
    currents = sums.view(steps, samples, *out_sides, out_channels).movedim(-1, 2)
    return currents if bias is None else currents + bias[:, None, None]


def _row_sums(weight: Tensor, row: Tensor, column: Tensor, values: Tensor, rows: int) -> Tensor:
    """Sum value x weight column over the entries of each row; sparse matrix x dense matrix.

    Args:
        weight: [out, columns].
        row: Of each entry, ascending.
        column: Of each entry.
        values: Of each entry.
        rows: How many there are.

    Returns:
        Sums [rows, out].
    """
    ones = values.device.type == "cpu" and bool((values == 1).all())  # elsewhere a wait
    if max(rows, weight.shape[1], len(row)) < 2**31:  # half the memory to read
        row, column = row.int(), column.int()
    sums: Tensor = _Sums.apply(weight.t(), column, row, None if ones else values, rows)  # type: ignore[no-untyped-call]
    return sums


class _Sums(torch.autograd.Function):
    """Sums of a table's rows: of each bag, the rows that its entries name, times their values.

    Linear in the table; its adjoint is the same with rows and bags changing places. Both are
    ``embedding_bag``, which sums rows in parallel and never writes what it sums, as gathering
    and ``index_add`` would.
    """

    @staticmethod
    def forward(
        table: Tensor, entries: Tensor, bag: Tensor, values: Tensor | None, bags: int
    ) -> Tensor:
        """Return sums [bags, width] of a table [rows, width]; ``bag`` is ascending."""
        if len(entries) == 0:
            return table.new_zeros(bags, table.shape[1])
        ends = torch.bincount(bag, minlength=bags).cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]]).to(entries.dtype)
        weights = None if values is None else values.to(table.dtype)
        return functional.embedding_bag(
            entries, table.contiguous(), starts, mode="sum", per_sample_weights=weights
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        table, *entries, ctx.bags = inputs
        ctx.save_for_backward(*entries)
        ctx.save_for_forward(*entries)
        ctx.rows = len(table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the table."""
        entries, bag, values = ctx.saved_tensors
        # Short numbers are sorted by counting, ten times as fast.
        key = entries.short() if ctx.rows <= 2**15 else entries
        key, order = torch.sort(key, stable=True)
        values = None if values is None else values[order]
        swapped = bag[order], key.to(entries.dtype), values, ctx.rows
        sums: Tensor = _Sums.apply(gradient, *swapped)  # type: ignore[no-untyped-call]
        return sums, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        """Return the sums of a tangent: they are linear."""
        sums: Tensor = _Sums.apply(tangent, *ctx.saved_tensors, ctx.bags)  # type: ignore[no-untyped-call]
        return sums

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], table: Tensor, *entries: Any
    ) -> tuple[Tensor, int]:
        """Sum many tables at once, as one with longer rows."""
        if any(dim is not None for dim in in_dims[1:]):
            raise NotImplementedError("events cannot differ under vmap. Pass dense spikes.")
        stacked = table.movedim(in_dims[0] or 0, -1)
        sums: Tensor = _Sums.apply(stacked.flatten(1), *entries)  # type: ignore[no-untyped-call]
        return sums.view(len(sums), *stacked.shape[1:]), 2


def _check_not_empty(input: Tensor) -> None:
    if 0 in input.shape[:2]:
        raise ValueError(
            f"input has shape {tuple(input.shape)}, expected at least one time step and one "
            "sample. Check the recordings."
        )
