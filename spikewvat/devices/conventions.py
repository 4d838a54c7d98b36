"""How large a device's errors are in each of the conventions of the literature."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import DeviceModel, nested
from spikewvat.devices.conductance import Conductances
from spikewvat.devices.ranges import AbsMax, SixSigma

_CHIPS = 4


@dataclass(frozen=True)
class ErrorSize:
    """Root mean square error of a layer's weights on chips, in each convention.

    Args:
        six_sigma: As a fraction of the layer's 6-sigma width, the ``sigma`` of this package.
        largest: As a fraction of the layer's largest weight, as aihwkit and Joshi et al. state it.
        conductance: In the unit of the device's conductances (microsiemens in the presets), of
            the difference that a weight is; None if the device has none.
    """

    six_sigma: float
    largest: float
    conductance: float | None = None

    def __str__(self) -> str:
        parts = [
            f"{100 * self.six_sigma:.1f} % of the 6-sigma width",
            f"{100 * self.largest:.1f} % of the largest weight",
        ]
        if self.conductance is not None:
            parts.append(f"{self.conductance:.3g} in units of conductance")
        return " = ".join(parts)


def error_sizes(
    device: DeviceModel, weights: Mapping[str, Tensor], *, seed: int = 0
) -> dict[str, ErrorSize]:
    """Return how large the errors of each layer are, from a few simulated chips.

    A systematic change counts, too: a layer that has drifted to a half is off by half its weights.

    Args:
        device: The device model.
        weights: Weights by name; layers without any, or of zeros, are left out.
        seed: Seed of the chips.

    Example:
        >>> from spikewvat.devices import Gaussian
        >>> import torch
        >>> w = {"fc": torch.linspace(-1, 1, 10_001)}
        >>> size = error_sizes(Gaussian(0.1), w)["fc"]
        >>> round(size.six_sigma, 2), round(size.largest, 2)
        (0.1, 0.35)
    """
    generator = Generator().manual_seed(seed)
    own = {name: weight.detach() for name, weight in weights.items()}
    squares = dict.fromkeys(own, 0.0)
    for _ in range(_CHIPS):
        for name, error in device.errors(own, generator=generator).items():
            squares[name] += float(error.double().square().sum())
    cells = _conductances(device)
    found = {}
    for name, weight in own.items():
        largest = float(AbsMax().size(weight)) if weight.numel() else 0.0
        width = float(SixSigma().size(weight)) if largest else 0.0
        if width == 0:
            continue
        error = (squares[name] / (_CHIPS * weight.numel())) ** 0.5
        unit = None
        if cells is not None:
            unit = error / float(cells.step(weight).double().square().mean().sqrt())
        found[name] = ErrorSize(error / width, error / largest, unit)
    return found


def error_size(device: DeviceModel, weights: Mapping[str, Tensor], *, seed: int = 0) -> ErrorSize:
    """Return the root mean square of :func:`error_sizes` over all weights of a network.

    Raises:
        ValueError: If there is no weight to speak of.
    """
    sizes = error_sizes(device, weights, seed=seed)
    if not sizes:
        raise ValueError("all weights are zero, or there are none: errors have no size.")
    return over_all(list(sizes.values()), [weights[name].numel() for name in sizes])


def over_all(sizes: Sequence[ErrorSize], counts: Sequence[int] | None = None) -> ErrorSize:
    """Return the root mean square of several sizes.

    Args:
        sizes: At least one.
        counts: How much each counts; all the same by default.
    """
    weights = torch.tensor(counts or [1] * len(sizes), dtype=torch.float64)

    def mean(figures: list[float]) -> float:
        squares = torch.tensor(figures, dtype=torch.float64).square()
        return float((squares @ weights / weights.sum()).sqrt())

    units = [size.conductance for size in sizes if size.conductance is not None]
    return ErrorSize(
        mean([size.six_sigma for size in sizes]),
        mean([size.largest for size in sizes]),
        mean(units) if units else None,
    )


def _conductances(device: DeviceModel) -> Conductances | None:
    """Return what maps weights to conductances in a device, if anything does."""
    parts = itertools.chain([device], nested(device))
    return next((part for part in parts if isinstance(part, Conductances)), None)
