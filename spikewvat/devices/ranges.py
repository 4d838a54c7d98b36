"""How wide the interval is that a layer's devices can represent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from spikewvat.devices.base import ONE_ACCUMULATOR, draw_dtype, is_block, is_plain, norm_of
from spikewvat.pieces import in_memory_order


@runtime_checkable
class RangeRule(Protocol):
    """How wide the interval is that a layer's devices can represent."""

    def size(self, weight: Tensor) -> Tensor:
        """Return R, the number that ``sigma`` is a fraction of.

        It broadcasts against ``weight`` and is of the dtype that noise is drawn in.
        """
        ...

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lowest and highest representable weight, broadcastable and typed alike."""
        ...


def _reduced_dims(weight: Tensor, per_channel: bool) -> tuple[int, ...]:
    """Return the dimensions to reduce; channels are output channels, dimension 0."""
    if per_channel and weight.dim() > 1:
        return tuple(range(1, weight.dim()))
    return tuple(range(weight.dim()))


def _root_mean_square(weight: Tensor, dims: tuple[int, ...], count: int) -> Tensor:
    """Return the root mean square over ``dims``, broadcastable."""
    dtype = draw_dtype(weight)
    norm: Tensor
    if weight.numel() == count and (count <= ONE_ACCUMULATOR or is_plain(weight)):
        small = count <= ONE_ACCUMULATOR
        norm = torch.linalg.vector_norm(weight, dtype=dtype) if small else norm_of(weight)
        return norm.div_(math.sqrt(count))
    if dims[0] == 0 and len(dims) > 1:
        # In two stages, of few entries each.
        weight = torch.linalg.vector_norm(weight, dim=dims[1:], keepdim=True, dtype=dtype)
        dims = (0,)
    norm = torch.linalg.vector_norm(weight, dim=dims, keepdim=True, dtype=dtype)
    return norm.div_(math.sqrt(count))


def _numbers(weight: Tensor, per_channel: bool) -> tuple[float, float] | None:
    """Return mean and standard deviation as plain numbers, None where they are none.

    Two reads and no copy cost a fifth of ``std``, and plain numbers a third of 0-dim tensors; but
    they would wait for a GPU.
    """
    count = weight.numel()
    if weight.device.type != "cpu" or count <= 1 or (per_channel and weight.dim() > 1):
        return None
    average = float(weight.mean(dtype=draw_dtype(weight)))
    root = float(_root_mean_square(weight, tuple(range(weight.dim())), count))
    variance = root * root - average * average
    # The difference of squares loses at most one bit; where the mean weighs more, centre first.
    return (average, math.sqrt(variance)) if 2 * variance >= root * root else None


def _std_in_one_read(weight: Tensor) -> float | None:
    """Return the standard deviation of a block of float32, None where there is no short way.

    Each part is summed while it is in the cache, in double precision over parts.
    """
    count, total, square = weight.numel(), 0.0, 0.0
    if count <= 1 or not is_block(weight):
        return None
    for part in torch.split(in_memory_order(weight), ONE_ACCUMULATOR):
        total += float(part.sum())
        square += float(torch.dot(part, part))
    mean, square = total / count, square / count
    variance = square - mean * mean
    return math.sqrt(variance) if 2 * variance >= square else None


def _mean_and_std(weight: Tensor, per_channel: bool) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation, kept broadcastable, in the draw dtype."""
    weight, dtype = weight.detach(), draw_dtype(weight)
    numbers = _numbers(weight, per_channel)
    if numbers is not None:
        mean, std = (torch.full((1,) * weight.dim(), x, dtype=dtype) for x in numbers)
        return mean, std
    # Centre first, by a copy.
    dims = _reduced_dims(weight, per_channel)
    count = math.prod(weight.shape[dim] for dim in dims)
    if count <= 1:
        mean = weight.to(dtype)
        if count == 0:
            mean = mean.sum(dims, keepdim=True)
        return mean, torch.zeros_like(mean)
    mean = weight.mean(dims, keepdim=True, dtype=dtype)
    return mean, _root_mean_square(weight - mean, dims, count).expand_as(mean)


def _min_and_max(weight: Tensor, per_channel: bool) -> tuple[Tensor, Tensor]:
    """Return the smallest and largest weight, kept broadcastable, in the draw dtype."""
    weight = weight.detach()
    dims = _reduced_dims(weight, per_channel)
    shape = [1 if dim in dims else size for dim, size in enumerate(weight.shape)]
    if weight.numel() == 0:
        zeros = torch.zeros(shape, dtype=draw_dtype(weight), device=weight.device)
        return zeros, zeros
    if len(dims) == weight.dim():
        low, high = torch.aminmax(weight)
    else:
        low, high = torch.aminmax(weight.flatten(1), dim=1)
    dtype = draw_dtype(weight)
    return low.reshape(shape).to(dtype), high.reshape(shape).to(dtype)


@dataclass(frozen=True)
class SixSigma:
    """Full width of [mean - 3 std, mean + 3 std], six population standard deviations.

    The default everywhere; our interpretation of the interval A in the WVAT paper. A tensor
    with a single entry has width 0.

    Args:
        per_channel: One range for each output channel instead of one for the tensor.
    """

    per_channel: bool = False
    times: ClassVar[int] = 6

    def size(self, weight: Tensor) -> Tensor:
        """Return 6 std."""
        return self.times * _mean_and_std(weight, self.per_channel)[1]

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean - 3 std and mean + 3 std."""
        mean, std = _mean_and_std(weight, self.per_channel)
        return mean - 3 * std, mean + 3 * std


@dataclass(frozen=True)
class HalfWidth(SixSigma):
    """Half width of [mean - 3 std, mean + 3 std], three population standard deviations.

    Args:
        per_channel: One range for each output channel instead of one for the tensor.
    """

    times = 3


@dataclass(frozen=True)
class MinMax:
    """Observed width, largest minus smallest weight.

    Args:
        per_channel: One range for each output channel instead of one for the tensor.
    """

    per_channel: bool = False

    def size(self, weight: Tensor) -> Tensor:
        """Return max w - min w."""
        low, high = self.bounds(weight)
        return high - low

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return min w and max w."""
        return _min_and_max(weight, self.per_channel)


@dataclass(frozen=True)
class AbsMax:
    """Largest magnitude, as in Joshi et al. 2020; the interval is symmetric about zero.

    Args:
        per_channel: One range for each output channel instead of one for the tensor.
    """

    per_channel: bool = False

    def size(self, weight: Tensor) -> Tensor:
        """Return max |w|."""
        low, high = _min_and_max(weight, self.per_channel)
        return torch.maximum(-low, high)

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return -max |w| and max |w|."""
        size = self.size(weight)
        return -size, size


@dataclass(frozen=True)
class Fixed:
    """An interval that is known beforehand, such as the conductances of a device.

    Args:
        low: Lowest representable value.
        high: Highest representable value, above ``low``.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(
                f"Fixed needs finite low < high, got low={self.low!r}, high={self.high!r}."
            )

    def size(self, weight: Tensor) -> Tensor:
        """Return high - low."""
        return self._scalar(weight, self.high - self.low)

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return low and high."""
        return self._scalar(weight, self.low), self._scalar(weight, self.high)

    def _scalar(self, weight: Tensor, value: float) -> Tensor:
        return torch.tensor(value, dtype=draw_dtype(weight), device=weight.device)


def check_range(value: RangeRule) -> None:
    """Raise ValueError unless ``value`` is a range rule."""
    if isinstance(value, type) or not isinstance(value, RangeRule):
        raise ValueError(
            f"range must be a range rule such as SixSigma() or AbsMax(per_channel=True), "
            f"got {value!r}."
        )


_Sizes: TypeAlias = dict[tuple[int, int], tuple[RangeRule, Tensor, Tensor]]
_sizes: ContextVar[_Sizes | None] = ContextVar("sizes", default=None)


@contextmanager
def sizes_kept() -> Iterator[None]:
    """Measure each weight's range once while nothing changes the weights, as training does.

    Inside, :func:`size_of` returns what it has found before. Two parts of one perturbation share
    their ranges so: measuring reads all weights. Within another of its kind it does nothing.
    Ranges may differ in the last digits of float32 from those of chips, which are measured in two
    reads as they always were: a chip is its seed, to the last bit.
    """
    kept = _sizes.get()
    token = _sizes.set({} if kept is None else kept)
    try:
        yield
    finally:
        _sizes.reset(token)


def size_of(rule: RangeRule, weight: Tensor) -> Tensor:
    """Return the size of a weight's range (see :meth:`RangeRule.size`); never write to it."""
    sizes = _sizes.get()
    if sizes is None:
        return rule.size(weight)
    key = id(rule), id(weight)
    if key not in sizes:
        # With the two themselves, so that nothing else takes their ids meanwhile.
        sizes[key] = rule, weight, _measured(rule, weight)
    return sizes[key][2]


def _measured(rule: RangeRule, weight: Tensor) -> Tensor:
    if type(rule) in (SixSigma, HalfWidth) and isinstance(rule, SixSigma) and not rule.per_channel:
        std = _std_in_one_read(weight.detach())
        if std is not None:
            return torch.tensor(rule.times * std, dtype=weight.dtype)
    return rule.size(weight)
