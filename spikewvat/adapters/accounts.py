"""The account of all parameters with two or more dimensions: synapses, or left out and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from spikewvat.weights import EffectiveWeight


@dataclass(frozen=True)
class Entry:
    """A parameter, or a weight that a layer computes.

    Args:
        name: Its name in the model.
        layer: Class of the module that holds it.
        shape: Its shape.
        note: How a device acts on a synapse, or why a parameter is not one.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    note: str

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Account:
    """The weights of a network that are on devices, and the parameters left out.

    Args:
        synapses: Weights that devices hold.
        left_out: Parameters with two or more dimensions that are not synapses.
        vectors: Number of parameters with fewer dimensions: biases, thresholds, time constants.

    Example:
        >>> weight = nn.Parameter(torch.ones(2, 3))
        >>> print(Account((Entry("0.weight", "Linear", (2, 3), "parameter"),), (), 1))
        1 weight, 6 devices
          0.weight  Linear  2 x 3  parameter
        left out: 1 parameter of less than two dimensions (biases, constants of neurons)
    """

    synapses: tuple[Entry, ...]
    left_out: tuple[Entry, ...]
    vectors: int

    @property
    def devices(self) -> int:
        """Number of weights on devices."""
        return sum(entry.numel for entry in self.synapses)

    def __str__(self) -> str:
        rows = [_row(entry) for entry in (*self.synapses, *self.left_out)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
        lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        cut = len(self.synapses)
        head = f"{_count(cut, 'weight')}, {self.devices:,} devices"
        if self.left_out:
            lines.insert(cut, "left out:")
        if self.vectors:
            lines.append(
                f"left out: {_count(self.vectors, 'parameter')} of less than two dimensions "
                "(biases, constants of neurons)"
            )
        return "\n".join([head, *lines])


def account_of(model: nn.Module, weights: Mapping[str, Tensor]) -> Account:
    """Return the account for weights selected by the user.

    Args:
        model: The model.
        weights: Live weights by name, the only synapses.
    """
    layers = {id(p): module for module in model.modules() for p in module._parameters.values()}
    chosen = {id(weight) for weight in weights.values()}
    synapses, left_out, vectors = [], [], 0
    for name, weight in weights.items():
        layer = layers.get(id(weight))
        synapses.append(entry(name, layer, weight, _how(weight)))
    for name, parameter in model.named_parameters():
        if id(parameter) in chosen:
            continue
        if parameter.dim() < 2:
            vectors += 1
        else:
            why = "not among the weights that were passed"
            left_out.append(entry(name, layers.get(id(parameter)), parameter, why))
    return Account(tuple(synapses), tuple(left_out), vectors)


def entry(name: str, layer: nn.Module | None, weight: Tensor, note: str) -> Entry:
    """Return the entry of a weight or parameter."""
    kind = "" if layer is None else type(layer).__name__
    return Entry(name, kind, tuple(weight.shape), note)


def _how(weight: Tensor) -> str:
    return str(weight._seam) if isinstance(weight, EffectiveWeight) else "parameter"


def _row(entry: Entry) -> tuple[str, str, str, str]:
    return entry.name, entry.layer, " x ".join(map(str, entry.shape)), entry.note


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
