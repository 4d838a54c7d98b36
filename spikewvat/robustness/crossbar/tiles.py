"""Arithmetic of one array of devices: rows of a product, cells, converters. Nothing is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Product:
    """How inputs meet the weights of a layer: a matrix product or a convolution.

    The rows of an array are the inputs of an output: in a convolution, channels times places of
    the kernel, the places of a channel next to each other.

    Args:
        apply: From inputs ``[..., in, *sides]`` and weights ``[out, in / groups, *kernel]`` to
            sums ``[..., out, *sides]``, without a bias.
        sides: Number of axes of an image; 0 for a matrix product.
        groups: Groups of channels that do not meet each other, each on arrays of its own.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    sides: int = 0
    groups: int = 1

    @property
    def axis(self) -> int:
        """The axis of the channels of inputs and sums, counted from the end."""
        return -1 - self.sides

    def heights(self, x: Tensor) -> Tensor:
        """Return the largest magnitude of each input, 1 where all are 0, to broadcast."""
        axes = tuple(range(self.axis, 0))
        largest = torch.maximum(x.amax(axes, keepdim=True), -x.amin(axes, keepdim=True))
        return torch.where(largest > 0, largest, torch.ones_like(largest))

    def rows(self, x: Tensor, weight: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Return the inputs of some rows, and the weights there: all others are left out or 0."""
        places = weight[0, 0].numel()
        low, high = first // places, -(-last // places)
        part = weight[:, low:high]
        if first % places or last % places:
            outside = torch.ones(part[0].numel(), dtype=torch.bool, device=part.device)
            outside[first - low * places : last - low * places] = False
            part = part.masked_fill(outside.view(part[0].shape), 0)
        if self.groups > 1:
            x = in_groups(x, self.axis, self.groups).narrow(self.axis, low, high - low)
            return x.flatten(self.axis - 1, self.axis), part
        return x.narrow(self.axis, low, high - low), part


def in_groups(x: Tensor, axis: int, groups: int) -> Tensor:
    """Return a tensor with an axis split into groups and what is in each."""
    axis %= x.dim()
    return x.reshape(*x.shape[:axis], groups, -1, *x.shape[axis + 1 :])


def converted(sums: Tensor, bits: int | None, bound: float, *, unipolar: bool = False) -> Tensor:
    r"""Return what a converter makes of sums: the nearest of its levels.

    .. math:: \mathrm{clip}(d \, \mathrm{round}(v / d), -b, b), \qquad d = 2b / (2^n - 2)

    The :math:`2^n - 1` levels are even and 0 is one of them; a unipolar converter has
    :math:`2^n` from 0 to b.

    Args:
        sums: Any shape.
        bits: n; None rounds nothing.
        bound: b, where the converter clips.
        unipolar: Whether sums below 0 become 0.

    References:
        aihwkit's ``IOParameters``: ``out_bound``, and ``out_res = 2**n - 2`` steps.

    Example:
        >>> converted(torch.tensor([-9.0, -0.4, 0.6, 2.4]), 3, 3.0).tolist()
        [-3.0, 0.0, 1.0, 2.0]
    """
    least = 0.0 if unipolar else -bound
    if bits is None:
        return sums.clamp(least, bound)
    step = bound / (2**bits - 1) if unipolar else 2 * bound / (2**bits - 2)
    levels: Tensor = (sums / step).round_().mul_(step).clamp_(least, bound)
    return levels


def dropped(
    product: Product, x: Tensor, cells: Tensor, first: int, last: int, wire: float
) -> Tensor:
    r"""Return what the resistance of the column wires takes from the sums of some rows.

    .. math::
        \Delta v = a \left(\tfrac12 - \tfrac15 a + \tfrac1{20} a^2\right)
            \sum_{j < n} c_j x_j \left(1 - (1 - j/n)^2\right), \qquad
        a = n \, r g_{max} \sum_j |c_j x_j|

    The voltage that a cell loses grows with the current of its column, and so with the number of
    rows that spike in the step; to first order in the wire's resistance it is that of a column
    whose current enters evenly along its n cells. Row 0 is next to the converter.

    Args:
        product: The product.
        x: All inputs, in units of a spike.
        cells: All cells, in units of the largest.
        first: The first row.
        last: The row behind the last one.
        wire: Resistance from a cell to the next, times the largest conductance of a cell.

    References:
        aihwkit, ``ForwardBackwardPassIOManaged::applyIrDrop``; ``wire`` is the inverse of its
        ``ir_drop_g_ratio``.
    """
    n = last - first
    x, part = product.rows(x, cells, first, last)
    load = n * wire * product.apply(x.abs(), part.abs())
    depth = load * (0.5 + load * (0.05 * load - 0.2))
    places = cells[0, 0].numel()
    row = torch.arange(part[0].numel(), device=x.device, dtype=x.dtype) - first % places
    share = (1 - (1 - row / n).square()).view(part[0].shape)
    return depth * product.apply(x, part * share)


def spread_inputs(product: Product, noise: Tensor, cells: Tensor, first: int, last: int) -> Tensor:
    """Return what noise of the inputs of some rows adds to their sums.

    Args:
        product: The product.
        noise: Of each row, for each of the sums of a channel: ``[..., *sides, groups, rows]``.
        cells: All cells.
        first: The first row.
        last: The row behind the last one.
    """
    flat = in_groups(cells.flatten(1)[:, first:last], 0, product.groups)
    sums = torch.einsum("...gn,gon->...go", noise, flat).flatten(-2)
    return sums.movedim(-1, product.axis)


def sliced(share: Tensor, slices: int, bits: int | None, *, offset: bool) -> Iterator[Slice]:
    r"""Yield the cells that hold weights, the most significant first.

    Analog cells (``bits`` None) hold the weights as they are: as the difference of a pair, or
    beside a column of half the largest conductance, which is subtracted after conversion. Cells of
    b bits hold the digits of a whole number: in pairs of :math:`|w|` times the largest number, with
    an offset of :math:`w` plus half of the numbers.

    Args:
        share: Weights in units of the largest, any shape.
        slices: Cells of a weight.
        bits: Bits of a cell.
        offset: Whether a column is subtracted, instead of the other cell of a pair.

    References:
        ISAAC (Shafiee et al., 2016), https://doi.org/10.1109/ISCA.2016.12, section V: slices of a
        weight in neighbouring columns, and a bias of half of the range that is subtracted
        digitally, by a column that counts the inputs.

    Example:
        >>> [s.cells.tolist() for s in sliced(torch.tensor([1.0, -0.2]), 2, 2, offset=False)]
        [[1.0, -0.0], [1.0, -1.0]]
    """
    if bits is None:
        yield Slice(2.0, (share + 1) / 2, 0.5) if offset else Slice(1.0, share, 0.0)
        return
    base, count = 2**bits, 2 ** (bits * slices)
    half = count // 2
    top = half - 1 if offset else count - 1
    numbers = (share * top).round()
    numbers = (numbers + half).clamp(0, count - 1) if offset else numbers.clamp(-top, top)
    size = numbers.abs()
    for place in reversed(range(slices)):
        digit = torch.div(size, base**place, rounding_mode="floor") % base
        reference = half // base**place % base if offset else 0
        worth = (base - 1) * base**place / top
        cells = digit if offset else digit * numbers.sign()
        yield Slice(worth, cells / (base - 1), reference / (base - 1))


@dataclass(frozen=True, eq=False)
class Slice:
    """One cell of each weight.

    Args:
        worth: Weight that a full cell stands for, in units of the largest weight.
        cells: Conductances in units of the largest of a cell; below 0 on the other side of a pair.
        reference: Conductance of the cells of a column that is subtracted.
    """

    worth: float
    cells: Tensor
    reference: float
