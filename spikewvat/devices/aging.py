"""Memory cells that age: errors of programming, what time does to a cell, and noise of reading."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import (
    DeviceModel,
    EachWeight,
    check_above_zero,
    check_at_least_zero,
    check_device,
    draw_dtype,
    nested,
    normal,
    uniform,
)
from spikewvat.weights import Weights


@dataclass(frozen=True)
class AgingCells(EachWeight):
    r"""Cells of one technology, some time after they were programmed: the base of the presets.

    It acts on conductances: put it into a :class:`~spikewvat.devices.DifferentialPair` or a
    :class:`~spikewvat.devices.SingleCell`. A subclass says how far a cell is off after
    programming, how it ages, and how noisily it is read, each depending on the level:

    .. math:: g_0 = g + \sigma(g) \, z_1, \qquad g_t = \mathrm{aged}(g, g_0, z_2), \qquad
              g' = g_t + \sigma_{read} \, z_3, \qquad z_i \sim N(0, 1)

    Conductances never fall below 0. The three numbers of a cell belong to the chip: the same seed
    at another ``time`` is the same chip, older. The read-out error is that of one reading, whose
    low-frequency part stays for as long as an evaluation takes.

    Args:
        time: Time since the end of programming, in seconds, at least 0.

    Raises:
        ValueError: If ``time`` is negative, or later than anybody has measured.
    """

    time: float = 0.0
    AGES = True
    LATEST: ClassVar[float] = math.inf
    """Last time of the measurements that the laws were fitted to, in seconds."""

    def __post_init__(self) -> None:
        check_at_least_zero("time", self.time)
        if self.time > self.LATEST:
            raise ValueError(
                f"{type(self).__name__} was measured for {self.LATEST:g} s after programming, got "
                f"time={self.time!r}. Nothing is known beyond; choose a shorter time."
            )

    @abstractmethod
    def write_std(self, g: Tensor) -> Tensor:
        """Return the standard deviation of programmed cells around the target, in its unit."""

    def aged(self, g: Tensor, written: Tensor, z: Tensor) -> Tensor:
        """Return the conductances at ``time``.

        Args:
            g: Target conductances.
            written: Conductances at the end of programming.
            z: A standard normal number of each cell, the same at every time.
        """
        return written

    def read_std(self, written: Tensor, aged: Tensor) -> Tensor | None:
        """Return the standard deviation of a reading at ``time``, None for no noise."""
        return None

    def _program(self, weight: Tensor, generator: Generator | None) -> Tensor:
        g = weight.detach().to(draw_dtype(weight))
        z = [normal(g.shape, g.dtype, generator).to(g.device) for _ in range(3)]
        written = (g + self.write_std(g) * z[0]).clamp_(min=0)
        aged = self.aged(g, written, z[1])
        noise = self.read_std(written, aged)
        found = aged if noise is None else aged + noise * z[2]
        return found.clamp(min=0).to(weight.dtype)


def polynomial(x: Tensor, *coefficients: float) -> Tensor:
    """Return c0 + c1 x + c2 x^2 ... of each entry."""
    total = torch.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total.mul_(x).add_(coefficient)
    return total


def flicker(time: float, pulse: float) -> float:
    r"""Return :math:`\sqrt{\ln((t + t_r) / 2 t_r)}`, how 1/f noise grows with time.

    Args:
        time: Time t since programming, in seconds.
        pulse: Length t_r of a reading pulse, in seconds.
    """
    return math.sqrt(math.log((time + pulse) / (2 * pulse)))


def at_age(device: DeviceModel, time: float) -> DeviceModel:
    """Return a device at another time after programming; the same seed is the same chip.

    Args:
        device: Any device model. Every part that ages is looked at again (a ``Drift`` not before
            its ``t0``); others stay as they are.
        time: Time since programming, in seconds.

    Raises:
        ValueError: If a part does not know that time.

    Example:
        >>> from spikewvat.devices import pcm
        >>> at_age(pcm(), 86400.0) == pcm(time=86400.0)
        True
    """
    if not is_dataclass(device):
        return device
    changes: dict[str, Any] = {}
    if device.AGES:
        changes["time"] = max(time, getattr(device, "t0", 0.0))
    for name, value in _parts(device).items():
        parts = [at_age(p, time) if isinstance(p, DeviceModel) else p for p in _several(value)]
        changes[name] = tuple(parts) if isinstance(value, tuple) else parts[0]
    aged: DeviceModel = replace(device, **changes)
    return aged


@dataclass(frozen=True)
class AtRandomAge(DeviceModel):
    """Chips of all ages: each is looked at some time after it was programmed.

    The logarithm of the time is uniform, as drift and relaxation are by the decade. It is what to
    train for if chips have to work from their first second to their last year.

    Args:
        inner: A device with a time axis, such as ``pcm()``.
        earliest: Youngest age, in seconds, above 0.
        latest: Oldest age, in seconds, at least ``earliest``.

    Raises:
        ValueError: If the ages are out of order, ``inner`` does not change with time, or does not
            know one of them.

    Example:
        >>> from spikewvat.devices import pcm
        >>> chip = AtRandomAge(pcm(), 1.0, 86400.0).program({"fc": torch.ones(2)})
    """

    inner: DeviceModel
    earliest: float
    latest: float

    def __post_init__(self) -> None:
        check_above_zero("earliest", self.earliest)
        check_above_zero("latest", self.latest)
        if self.earliest > self.latest:
            raise ValueError(
                f"earliest must be at most latest, got {self.earliest!r} and {self.latest!r}."
            )
        if not isinstance(self.inner, DeviceModel) or not changes_with_age(self.inner):
            raise ValueError(
                f"inner must be a device that changes with time, such as pcm(), got {self.inner!r}."
            )
        for age in (self.earliest, self.latest):
            at_age(self.inner, age)

    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip, and wait (see :meth:`DeviceModel.program`)."""
        share = float(uniform((), torch.float64, generator))
        log = (1 - share) * math.log(self.earliest) + share * math.log(self.latest)
        age = min(max(math.exp(log), self.earliest), self.latest)
        return at_age(self.inner, age).program(weights, generator=generator)


@dataclass(frozen=True)
class Compensated(DeviceModel):
    r"""Chips whose layers get their size back from one digital factor each.

    .. math:: w' = s \tilde w, \qquad s = \frac{\langle w, w \rangle}{\langle w, \tilde w \rangle}

    It is what :class:`~spikewvat.robustness.calibration.Scale` does to a chip, as a device that can
    be trained for.

    Args:
        inner: The device, such as ``pcm(time=86400.0)``.
    """

    inner: DeviceModel

    def __post_init__(self) -> None:
        check_device(self.inner)

    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip and scale it (see :meth:`DeviceModel.program`)."""
        chip = self.inner.program(weights, generator=generator)
        return {name: scaled_back(chip[name], weight) for name, weight in weights.items()}


def kept_share(chip: Tensor, ideal: Tensor) -> float:
    """Return how much of its size a tensor has kept: 1 without drift, whatever random errors do.

    It is the projection of the chip's weights on the ideal ones; 1 where these are zero.
    """
    square = float(ideal.detach().double().square().sum())
    return float((ideal.double() * chip.double()).detach().sum()) / square if square else 1.0


def scaled_back(chip: Tensor, ideal: Tensor) -> Tensor:
    """Return the weights of a chip at the size that they were programmed with."""
    kept = kept_share(chip, ideal)
    return chip / kept if kept else chip


def changes_with_age(device: DeviceModel) -> bool:
    """Return whether any part of a device changes with the time since programming."""
    return device.AGES or any(part.AGES for part in nested(device))


def _parts(device: DeviceModel) -> dict[str, Any]:
    """Return the fields that hold other devices, alone or in a tuple."""
    declared: Any = device
    found = {field.name: getattr(device, field.name) for field in fields(declared)}
    return {
        name: value
        for name, value in found.items()
        if any(isinstance(part, DeviceModel) for part in _several(value))
    }


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
