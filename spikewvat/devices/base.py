"""Base class of device models, and their composition."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from numbers import Real
from typing import Any, ClassVar, final

import torch
from torch import Generator, Tensor, nn

from spikewvat.pieces import is_dense
from spikewvat.weights import Perturb, Weights, adding


class Derived:
    """Refuses subclasses that override what is derived from something else (``@final``).

    What is said in two places can differ in two places: a chip that is tested would not be the one
    that was trained for.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for base in cls.__mro__[1:]:
            for name in vars(cls).keys() & vars(base).keys():
                if getattr(vars(base)[name], "__final__", False):
                    own = ", ".join(sorted(getattr(base, "__abstractmethods__", ())))
                    raise TypeError(
                        f"{cls.__name__} overrides {name!r}, which {base.__name__} derives from "
                        f"{own}. Override that, or derive from another class."
                    )


class DeviceModel(Derived, ABC):
    """What a chip does to weights.

    A subclass says in :meth:`program` which weights are found on one simulated chip. Models
    compose: ``Quantized(bits=4) >> Gaussian(sigma=0.05)`` quantises first.

    Attributes:
        AGES: Whether chips change with the device's field ``time``, seconds since programming, the
            same seed being the same chip at every time.
    """

    AGES: ClassVar[bool] = False

    @abstractmethod
    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip.

        Args:
            weights: Weights to program by name, any shapes; read, never modified.
            generator: Source of randomness; a chip is its seed. ``None`` uses torch's global one.

        Returns:
            Weights as found on the chip, with the keys, shapes, dtypes and devices of ``weights``.
        """

    def errors(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Return what one chip's weights differ by: ``program(weights) - weights``."""
        chip = self.program(weights, generator=generator)
        return {name: chip[name] - weight.detach() for name, weight in weights.items()}

    def plan(
        self, weights: Weights, *, scale: float = 1.0, generator: Generator | None = None
    ) -> Perturb:
        """Return a function that adds ``scale`` times the errors of a chip to tensors in place.

        Everything that depends on the weights is looked at here; what is returned may be called
        once other perturbations have been added.
        """
        return adding(self.errors(weights, generator=generator), scale=scale)

    def expected_norms(self, weights: Weights) -> dict[str, Tensor] | None:
        """Return the root-mean-square L2 norm of each tensor's errors, None without closed form.

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


class EachWeight(DeviceModel):
    """A device that treats every tensor by itself; a subclass says in :meth:`_program` how."""

    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip (see :meth:`DeviceModel.program`)."""
        return {name: self._program(weight, generator) for name, weight in weights.items()}

    @abstractmethod
    def _program(self, weight: Tensor, generator: Generator | None) -> Tensor:
        """Return one tensor as found on the chip."""


class AdditiveErrors(DeviceModel):
    """A device that adds errors to the weights; a subclass says in :meth:`errors` which."""

    @abstractmethod
    def errors(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Return the errors of one chip.

        Args:
            weights: Weights to program by name, any shapes; read, never modified.
            generator: Source of randomness; a chip is its seed. ``None`` uses torch's global one.

        Returns:
            New tensors with the keys, shapes, dtypes and devices of ``weights``.
        """

    @final
    def program(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Program one chip (see :meth:`DeviceModel.program`)."""
        chip = self.errors(weights, generator=generator)
        for name, weight in weights.items():
            chip[name].add_(weight.detach())
        return chip


@dataclass(frozen=True)
class Ideal(DeviceModel):
    """No variation: a chip holds exactly the weights that it was given.

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
        ValueError: If there is no stage, or one is not a device model.
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


ONE_ACCUMULATOR = 2**16
"""Entries up to which one float32 sum of squares keeps six digits on every processor."""


def draw_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype that noise for a weight is drawn in: float32, or float64 for float64."""
    return torch.float64 if weight.dtype == torch.float64 else torch.float32


def norm_of(weight: Tensor) -> Tensor:
    """Return the L2 norm of a tensor as a 0-dim tensor of the draw dtype."""
    weight = weight.detach()
    if not is_plain(weight):
        norm: Tensor = torch.linalg.vector_norm(weight, dtype=draw_dtype(weight))
        return norm
    # The dot product is as fast, and stays so where squares are too small for normal numbers, as
    # in the momentum of dead units; there vector_norm takes twenty times as long.
    entries = weight.view(-1)
    part = entries[:ONE_ACCUMULATOR]
    square = torch.dot(part, part)
    for first in range(ONE_ACCUMULATOR, len(entries), ONE_ACCUMULATOR):
        part = entries[first : first + ONE_ACCUMULATOR]
        square += torch.dot(part, part)
    return square.sqrt_()


def is_plain(weight: Tensor) -> bool:
    """Return whether a tensor is one block of float32 on the CPU, which has shorter ways."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.is_contiguous()


def is_block(weight: Tensor) -> bool:
    """Return whether a tensor is one block of float32 on the CPU, in whatever order."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and is_dense(weight)


def generator_device(generator: Generator | None) -> torch.device:
    """Return where noise is drawn: the generator's device, the CPU without one.

    Drawing there and moving the result makes a seed the same chip on every machine.
    """
    return torch.device("cpu") if generator is None else generator.device


def uniform(shape: Sequence[int], dtype: torch.dtype, generator: Generator | None = None) -> Tensor:
    """Draw numbers uniform in [0, 1), where the generator is."""
    return torch.rand(shape, dtype=dtype, device=generator_device(generator), generator=generator)


def normal(shape: Sequence[int], dtype: torch.dtype, generator: Generator | None = None) -> Tensor:
    """Draw standard normal numbers, where the generator is."""
    return torch.randn(shape, dtype=dtype, device=generator_device(generator), generator=generator)


def nested(device: DeviceModel) -> Iterator[DeviceModel]:
    """Yield the devices that a device is made of, at any depth."""
    if not is_dataclass(device):
        return
    for name in (field.name for field in fields(device)):
        value = getattr(device, name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, DeviceModel):
                yield part
                yield from nested(part)


def check_device(device: object) -> None:
    """Raise TypeError unless ``device`` is a device model."""
    if isinstance(device, DeviceModel):
        return
    wanted = "device must be a device model such as Gaussian(sigma=0.1)"
    given = "none" if device is None else repr(device)
    move = "Write Gaussian(sigma=0.1) for noise of 10 % of each layer's range."
    if isinstance(device, type):
        given, move = (
            f"the class {device.__name__}",
            f"Write {device.__name__}(...) with its numbers.",
        )
    elif isinstance(device, str | torch.device):
        move = "It says what a chip does to weights, not where tensors are; those follow the model."
    elif isinstance(device, Real):
        move = f"Write Gaussian(sigma={device!r})."
    elif isinstance(device, nn.Module):
        given, move = f"the network {type(device).__name__}", "The network comes first."
    elif isinstance(device, Iterable):
        given, move = f"an object of {type(device).__name__}", "Check the order of the arguments."
    raise TypeError(f"{wanted}, got {given}. {move}")


def check_at_least_zero(name: str, value: float) -> None:
    """Raise ValueError unless ``value`` is a finite number of at least zero."""
    if not (isinstance(value, Real) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}.")


def check_sigma(sigma: float, *, most: float, more: str) -> None:
    """Raise ValueError unless ``sigma`` is a number of at least 0 that is no percentage.

    Args:
        sigma: A share, such as 0.1 for 10 %.
        most: What is surely a forgotten per cent sign above.
        more: What somebody writes who wants more.
    """
    check_at_least_zero("sigma", sigma)
    if sigma > most:
        raise ValueError(
            f"sigma must be at most {most:g}, got {sigma!r}: it is a share, no percentage. "
            f"Write {sigma / 100:g} for {sigma:g} %. {more}"
        )


def check_above_zero(name: str, value: float) -> None:
    """Raise ValueError unless ``value`` is a finite number above zero."""
    if not (isinstance(value, Real) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}.")


def check_probability(name: str, value: float) -> None:
    """Raise ValueError unless ``value`` lies in [0, 1]."""
    if not (isinstance(value, Real) and 0 <= value <= 1):
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}.")


def check_bits(bits: int) -> None:
    """Raise ValueError unless ``bits`` is a whole number from 2 to 16."""
    if type(bits) is not int or not 2 <= bits <= 16:
        raise ValueError(f"bits must be a whole number from 2 to 16, got {bits!r}.")
