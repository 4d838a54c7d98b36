"""A signed weight as the difference of two conductances."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import DeviceModel, Pipeline, draw_dtype
from spikewvat.devices.ranges import AbsMax, Fixed, RangeRule, check_range
from spikewvat.weights import Weights


@dataclass(frozen=True)
class DifferentialPair(DeviceModel):
    r"""Each weight on two devices, one of which rests at the lowest conductance.

    .. math:: g^\pm = g_{min} + (g_{max} - g_{min}) \max(0, \pm w) / W, \qquad
              w' = W \, (\tilde g^+ - \tilde g^-) / (g_{max} - g_{min})

    W is the largest magnitude that ``range`` allows; weights beyond it are clipped. The inner
    device model acts on both conductances, and every range rule in it becomes
    ``Fixed(g_min, g_max)`` unless it is a ``Fixed`` already: a ``sigma`` inside the pair is a
    fraction of the conductance window.

    Args:
        inner: What happens to each of the two conductances.
        g_min: Lowest conductance, in siemens (or any unit), at least 0.
        g_max: Highest conductance, in the unit of ``g_min``, above it.
        range: Bounds of each layer's weights; the larger magnitude of the two is W.

    Raises:
        ValueError: If the conductances are impossible, ``inner`` is no device model, or ``range``
            no range rule.

    References:
        The mapping of Joshi et al., 2020, https://doi.org/10.1038/s41467-020-16108-9, with
        conductances that do not reach zero.

    Example:
        >>> from spikewvat.devices import Gaussian
        >>> pair = DifferentialPair(Gaussian(sigma=0.0), g_min=1.0, g_max=3.0)
        >>> pair.conductances(torch.tensor([0.5, -1.0]))
        (tensor([2., 1.]), tensor([1., 3.]))
        >>> pair.program({"fc": torch.tensor([0.5, -1.0])})["fc"].tolist()
        [0.5, -1.0]
    """

    inner: DeviceModel
    g_min: float
    g_max: float
    range: RangeRule = field(default_factory=AbsMax)

    def __post_init__(self) -> None:
        if not isinstance(self.inner, DeviceModel):
            raise ValueError(f"inner must be a device model, got {self.inner!r}.")
        if not (0 <= self.g_min < self.g_max and math.isfinite(self.g_max)):
            raise ValueError(
                f"conductances must satisfy 0 <= g_min < g_max, got g_min={self.g_min!r}, "
                f"g_max={self.g_max!r}."
            )
        check_range(self.range)

    def conductances(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target conductances g+ and g- of a weight tensor, in its draw dtype."""
        # A layer of zeros has no magnitude; any other W maps it to g_min alike.
        largest = self._largest(weight)
        share = weight.detach().to(draw_dtype(weight)) / largest.masked_fill(largest == 0, 1)
        window = self.g_max - self.g_min
        plus = share.clamp(0, 1).mul_(window).add_(self.g_min)
        minus = share.neg_().clamp_(0, 1).mul_(window).add_(self.g_min)
        return plus, minus

    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip (see :meth:`DeviceModel.program`)."""
        ideal: Weights = {}
        for name, weight in weights.items():
            ideal[f"{name}+"], ideal[f"{name}-"] = self.conductances(weight)
        inner = _with_range(self.inner, Fixed(self.g_min, self.g_max))
        found = inner.program(ideal, generator=generator)
        chip = {}
        for name, weight in weights.items():
            difference = (found[f"{name}+"] - found[f"{name}-"]).div_(self.g_max - self.g_min)
            chip[name] = difference.mul_(self._largest(weight)).to(weight.dtype)
        return chip

    def _largest(self, weight: Tensor) -> Tensor:
        low, high = self.range.bounds(weight)
        return torch.maximum(low.abs(), high.abs())


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
