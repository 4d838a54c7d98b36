"""What every device model is: the protocol, composition, and the size of a weight's range."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from numbers import Real
from typing import Protocol, runtime_checkable

import torch
from torch import Generator, Tensor

from spikewvat.weights import Weights


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


class DeviceModel(ABC):
    """What a chip does to weights.

    A subclass says in :meth:`program` which weights are found on one simulated chip. Models
    compose: ``Quantized(bits=4) >> Gaussian(sigma=0.05)`` quantises first.
    """

    @abstractmethod
    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip.

        Args:
            weights: Ideal weights by name, any shapes; read, never modified.
            generator: Source of randomness; a chip is its seed. ``None`` uses torch's global one.

        Returns:
            Weights as found on the chip, with the keys, shapes, dtypes and devices of ``weights``.
        """

    def displacement(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Return ``program(weights) - weights``; additive noise overrides it to save the detour."""
        chip = self.program(weights, generator=generator)
        return {name: chip[name] - weight.detach() for name, weight in weights.items()}

    def expected_norms(self, weights: Weights) -> dict[str, Tensor] | None:
        """Return the root-mean-square L2 norm of each displacement, or None without closed form.

        Each entry is a 0-dim tensor. It costs no random numbers, and for noise on every one of
        more than a thousand entries it is indistinguishable from the norm of a draw.
        """
        return None

    def moments(self, weights: Weights) -> dict[str, tuple[Tensor, Tensor]] | None:
        """Return mean and variance of each weight over chips, or None without closed form.

        Both are of the weight's shape, dtype and device. Gradients flow to the weights where the
        mean, or variance that is relative to each weight, depends on them; a layer's range is a
        constant.
        """
        return None

    def __rshift__(self, other: DeviceModel) -> DeviceModel:
        if not isinstance(other, DeviceModel):
            return NotImplemented
        stages = (*_stages(self), *_stages(other))
        return Pipeline(stages)


@dataclass(frozen=True)
class Ideal(DeviceModel):
    """A chip that holds exactly the weights that it was given: no variation.

    Example:
        >>> Ideal().program({"fc": torch.ones(2)})["fc"].tolist()
        [1.0, 1.0]
    """

    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Return copies of the weights; nothing is drawn."""
        return {name: weight.detach().clone() for name, weight in weights.items()}


def _stages(device: DeviceModel) -> tuple[DeviceModel, ...]:
    return device.stages if isinstance(device, Pipeline) else (device,)


@dataclass(frozen=True)
class Pipeline(DeviceModel):
    """Device models one after the other; each sees the weights that the one before it left.

    Args:
        stages: Device models in the order in which they act, at least one.

    Raises:
        ValueError: If there is no stage, or one is no device model.
    """

    stages: tuple[DeviceModel, ...]

    def __post_init__(self) -> None:
        if not self.stages or not all(isinstance(stage, DeviceModel) for stage in self.stages):
            raise ValueError(
                f"stages must be at least one device model, got {self.stages!r}. "
                "Compose with first >> second."
            )

    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip, stage by stage (see :meth:`DeviceModel.program`)."""
        for stage in self.stages:
            weights = stage.program(weights, generator=generator)
        return weights

    def __repr__(self) -> str:
        return " >> ".join(repr(stage) for stage in self.stages)


def _reduced_dims(weight: Tensor, per_channel: bool) -> tuple[int, ...]:
    """Return the dimensions to reduce; channels are output channels, dimension 0."""
    if per_channel and weight.dim() > 1:
        return tuple(range(1, weight.dim()))
    return tuple(range(weight.dim()))


_ONE_ACCUMULATOR = 2**20  # entries up to which one float32 sum of squares is accurate enough


def _root_mean_square(weight: Tensor, dims: tuple[int, ...], count: int) -> Tensor:
    """Return the root mean square over ``dims``, kept broadcastable."""
    dtype = draw_dtype(weight)
    norm: Tensor
    if weight.numel() == count <= _ONE_ACCUMULATOR:
        norm = torch.linalg.vector_norm(weight, dtype=dtype)
        return norm.div_(math.sqrt(count)).expand((1,) * weight.dim())
    if dims[0] == 0 and len(dims) > 1:
        # In two stages: one float32 accumulator over millions of entries loses four digits.
        weight = torch.linalg.vector_norm(weight, dim=dims[1:], keepdim=True, dtype=dtype)
        dims = (0,)
    norm = torch.linalg.vector_norm(weight, dim=dims, keepdim=True, dtype=dtype)
    return norm.div_(math.sqrt(count))


def _mean_and_std(weight: Tensor, per_channel: bool) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation, kept broadcastable, in the draw dtype."""
    weight = weight.detach()
    dims = _reduced_dims(weight, per_channel)
    count = math.prod(weight.shape[dim] for dim in dims)
    if count <= 1:
        mean = weight.to(draw_dtype(weight))
        if count == 0:
            mean = mean.sum(dims, keepdim=True)
        return mean, torch.zeros_like(mean)
    # Two reads and no copy cost a fifth of ``std``, and plain numbers a third of 0-dim tensors,
    # but they would wait for a GPU. The difference of squares loses at most one bit; where the
    # mean weighs more, centre first.
    if weight.device.type == "cpu" and weight.numel() == count:
        dtype = draw_dtype(weight)
        average = float(weight.mean(dtype=dtype))
        square = float(_root_mean_square(weight, dims, count)) ** 2
        variance = square - average * average
        if 2 * variance >= square:
            shape = (1,) * weight.dim()
            return (
                torch.full(shape, average, dtype=dtype),
                torch.full(shape, math.sqrt(variance), dtype=dtype),
            )
    mean = weight.mean(dims, keepdim=True, dtype=draw_dtype(weight))
    return mean, _root_mean_square(weight - mean, dims, count)


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

    The default everywhere; reference reading of the interval A in the WVAT paper. A tensor
    with a single entry has width 0.

    Args:
        per_channel: One range for each output channel instead of one for the tensor.
    """

    per_channel: bool = False

    def size(self, weight: Tensor) -> Tensor:
        """Return 6 std."""
        return 6 * _mean_and_std(weight, self.per_channel)[1]

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean - 3 std and mean + 3 std."""
        mean, std = _mean_and_std(weight, self.per_channel)
        return mean - 3 * std, mean + 3 * std


@dataclass(frozen=True)
class HalfWidth:
    """Half width of [mean - 3 std, mean + 3 std], three population standard deviations.

    Args:
        per_channel: One range for each output channel instead of one for the tensor.
    """

    per_channel: bool = False

    def size(self, weight: Tensor) -> Tensor:
        """Return 3 std."""
        return 3 * _mean_and_std(weight, self.per_channel)[1]

    def bounds(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean - 3 std and mean + 3 std."""
        return SixSigma(self.per_channel).bounds(weight)


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


def draw_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype that noise for a weight is drawn in: float32, or float64 for float64."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


def norm_of(weight: Tensor) -> Tensor:
    """Return the L2 norm of a tensor as a 0-dim tensor of the draw dtype."""
    norm: Tensor = torch.linalg.vector_norm(weight.detach(), dtype=draw_dtype(weight))
    return norm


def generator_device(generator: Generator | None) -> torch.device:
    """Return where noise is drawn: the generator's device, the CPU without one.

    Drawing there and moving the result makes a seed the same chip on every machine.
    """
    return torch.device("cpu") if generator is None else generator.device


def check_at_least_zero(name: str, value: float) -> None:
    """Raise ValueError unless ``value`` is a finite number of at least zero."""
    if not (isinstance(value, Real) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}.")


def check_above_zero(name: str, value: float) -> None:
    """Raise ValueError unless ``value`` is a finite number above zero."""
    if not (isinstance(value, Real) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}.")


def check_probability(name: str, value: float) -> None:
    """Raise ValueError unless ``value`` lies in [0, 1]."""
    if not (isinstance(value, Real) and 0 <= value <= 1):
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}.")


def check_range(value: RangeRule) -> None:
    """Raise ValueError unless ``value`` is a range rule."""
    if isinstance(value, type) or not isinstance(value, RangeRule):
        raise ValueError(
            f"range must be a range rule such as SixSigma() or AbsMax(per_channel=True), "
            f"got {value!r}."
        )
