"""Weights as conductances: on differential pairs, or on single cells."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import DeviceModel, Pipeline, check_above_zero, draw_dtype
from spikewvat.devices.ranges import AbsMax, Fixed, MinMax, RangeRule, check_range
from spikewvat.weights import Weights


@dataclass(frozen=True)
class Conductances(DeviceModel):
    """Weights held by cells with a conductance each, on which another device model acts.

    Every range rule in the inner device becomes ``Fixed(g_min, g_max)`` unless it is a ``Fixed``
    already: a ``sigma`` inside is a fraction of the conductance window.

    Args:
        inner: Device model applied to the conductances.
        g_min: Lowest conductance, in microsiemens (or the unit of ``inner``), at least 0.
        g_max: Highest conductance, in the unit of ``g_min``, above it.

    Raises:
        ValueError: If the conductances are invalid, ``inner`` is not a device model, or ``range``
            not a range rule.
    """

    inner: DeviceModel
    g_min: float
    g_max: float
    range: RangeRule

    def __post_init__(self) -> None:
        if not isinstance(self.inner, DeviceModel):
            raise ValueError(f"inner must be a device model, got {self.inner!r}.")
        if not (0 <= self.g_min < self.g_max and math.isfinite(self.g_max)):
            raise ValueError(
                f"conductances must satisfy 0 <= g_min < g_max, got g_min={self.g_min!r}, "
                f"g_max={self.g_max!r}."
            )
        check_range(self.range)

    @property
    def window(self) -> float:
        """What conductances span, in the unit of ``g_min``."""
        return self.g_max - self.g_min

    @abstractmethod
    def conductances(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the target conductances of a weight tensor, in its draw dtype."""

    @abstractmethod
    def weight_of(self, found: Sequence[Tensor], weight: Tensor) -> Tensor:
        """Return the weights that conductances stand for, in the draw dtype.

        Args:
            found: Conductances in the order of :meth:`conductances`.
            weight: The weights that were aimed at, whose range sets the scale.
        """

    @abstractmethod
    def step(self, weight: Tensor) -> Tensor:
        """Return the weight that one unit of conductance stands for, broadcasting against it."""

    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip (see :meth:`DeviceModel.program`)."""
        targets = {name: self.conductances(weight) for name, weight in weights.items()}
        cells = {
            f"{name}/{i}": cell for name, target in targets.items() for i, cell in enumerate(target)
        }
        inner = _with_range(self.inner, Fixed(self.g_min, self.g_max))
        found = inner.program(cells, generator=generator)
        chip = {}
        for name, weight in weights.items():
            own = [found[f"{name}/{i}"] for i in range(len(targets[name]))]
            chip[name] = self.weight_of(own, weight).to(weight.dtype)
        return chip


@dataclass(frozen=True)
class DifferentialPair(Conductances):
    r"""Each weight on two cells, or several pairs of them, of which one rests at the lowest value.

    .. math:: g^\pm = g_{min} + (g_{max} - g_{min}) \max(0, \pm w) / W, \qquad
              w' = W \, (\tilde g^+ - \tilde g^-) / (g_{max} - g_{min})

    W is the largest magnitude that ``range`` allows; weights beyond it are clipped. With several
    pairs, pair i counts ``factors[i]``-fold, and each is used once those before it are full, so
    that small weights stand on the pairs whose errors count least.

    Args:
        inner: Device model applied to each conductance.
        g_min: Lowest conductance, in microsiemens (or the unit of ``inner``), at least 0.
        g_max: Highest conductance, in the unit of ``g_min``, above it.
        range: Bounds of each layer's weights; the larger magnitude of the two is W.
        factors: How much each pair counts, above 0, in the order in which they are filled.

    Raises:
        ValueError: If the conductances or factors are invalid, ``inner`` is not a device model,
            or ``range`` not a range rule.

    References:
        The mapping of Joshi et al., 2020, https://doi.org/10.1038/s41467-020-16108-9, with
        conductances that do not reach zero; several pairs as in Mackin et al., 2022,
        https://doi.org/10.1038/s41467-022-31405-1

    Example:
        >>> from spikewvat.devices import Gaussian
        >>> pair = DifferentialPair(Gaussian(sigma=0.0), g_min=1.0, g_max=3.0)
        >>> pair.conductances(torch.tensor([0.5, -1.0]))
        (tensor([2., 1.]), tensor([1., 3.]))
        >>> pair.program({"fc": torch.tensor([0.5, -1.0])})["fc"].tolist()
        [0.5, -1.0]
    """

    range: RangeRule = field(default_factory=AbsMax)
    factors: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factors", tuple(self.factors))
        if not self.factors:
            raise ValueError("factors is empty, expected one for each pair, such as (1.0,).")
        for factor in self.factors:
            check_above_zero("factors", factor)

    def conductances(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the target conductances g+ and g- of each pair, in the weight's draw dtype."""
        # A layer of zeros has no magnitude; any other W maps it to g_min alike.
        largest = self._largest(weight)
        share = weight.detach().to(draw_dtype(weight)) / largest.masked_fill(largest == 0, 1)
        share, filled = share.mul_(sum(self.factors)), 0.0
        cells: list[Tensor] = []
        for factor in self.factors:
            for part in (share, -share):
                own = ((part - filled) / factor).clamp_(0, 1)
                cells.append(own.mul_(self.window).add_(self.g_min))
            filled += factor
        return tuple(cells)

    def weight_of(self, found: Sequence[Tensor], weight: Tensor) -> Tensor:
        """Return the weights of the pairs (see :meth:`Conductances.weight_of`)."""
        total = torch.zeros_like(found[0])
        for factor, plus, minus in zip(self.factors, found[::2], found[1::2], strict=True):
            total.add_(plus - minus, alpha=factor)
        return total.mul_(self.step(weight))

    def step(self, weight: Tensor) -> Tensor:
        """Return W / ((g_max - g_min) sum(factors)) (see :meth:`Conductances.step`)."""
        return self._largest(weight) / (self.window * sum(self.factors))

    def _largest(self, weight: Tensor) -> Tensor:
        low, high = self.range.bounds(weight)
        return torch.maximum(low.abs(), high.abs())


@dataclass(frozen=True)
class SingleCell(Conductances):
    r"""Each weight on one cell; a reference column, taken as perfect, is subtracted.

    .. math:: g = g_{min} + (g_{max} - g_{min}) (w - a) / (b - a)

    Args:
        inner: Device model applied to the conductances.
        g_min: Lowest conductance, in microsiemens (or the unit of ``inner``), at least 0.
        g_max: Highest conductance, in the unit of ``g_min``, above it.
        range: Bounds a and b of each layer's weights; weights beyond them are clipped.

    Raises:
        ValueError: As :class:`Conductances`.

    Example:
        >>> from spikewvat.devices import Ideal
        >>> cell = SingleCell(Ideal(), g_min=10.0, g_max=90.0)
        >>> cell.conductances(torch.tensor([-1.0, 0.0, 1.0]))[0].tolist()
        [10.0, 50.0, 90.0]
    """

    range: RangeRule = field(default_factory=MinMax)

    def conductances(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Return the target conductance of each weight, in its draw dtype."""
        low, high = self.range.bounds(weight)
        width = (high - low).masked_fill(high == low, 1)
        share = (weight.detach().to(draw_dtype(weight)) - low) / width
        return (share.clamp_(0, 1).mul_(self.window).add_(self.g_min),)

    def weight_of(self, found: Sequence[Tensor], weight: Tensor) -> Tensor:
        """Return the weights of the cells (see :meth:`Conductances.weight_of`)."""
        (cell,) = found
        return (cell - self.g_min).mul_(self.step(weight)).add_(self.range.bounds(weight)[0])

    def step(self, weight: Tensor) -> Tensor:
        """Return (b - a) / (g_max - g_min) (see :meth:`Conductances.step`)."""
        low, high = self.range.bounds(weight)
        return (high - low) / self.window


def _with_range(device: DeviceModel, window: Fixed) -> DeviceModel:
    """Return a device whose range rules are the conductance window, fixed ones excepted."""
    if isinstance(device, Pipeline):
        return Pipeline(tuple(_with_range(stage, window) for stage in device.stages))
    declared: Any = device  # dataclasses, but for devices that users may write otherwise
    names = [f.name for f in fields(declared)] if hasattr(device, "__dataclass_fields__") else []
    if "range" in names and not isinstance(declared.range, Fixed):
        changed: DeviceModel = replace(declared, range=window)
        return changed
    return device
