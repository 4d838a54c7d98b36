"""Crossbars by parameters: ``"rows=128,adc_bits=8"``, or a table."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from spikewvat.devices import DeviceModel
from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.devices import describe, stages
from spikewvat.lab.recipes.registry import checked, construct
from spikewvat.robustness.chip import Chip
from spikewvat.robustness.crossbar import Crossbar

_CALIBRATED = "calibrated"
_BATCHES = 2  # of calibration samples
_NAME = "crossbar"


@dataclass(frozen=True)
class CrossbarPlan:
    """A crossbar, and whether the ranges of its converters are yet to be chosen.

    Args:
        crossbar: The crossbar.
        calibrated: Whether to choose them on samples.
        label: One-line description.
    """

    crossbar: Crossbar
    calibrated: bool
    label: str

    def on(self, model: nn.Module, samples: Iterable[Any]) -> Crossbar:
        """Return the crossbar for a network.

        Args:
            model: The network, with the weights that are programmed.
            samples: Batches of calibration samples, of which the first ones are taken.
        """
        if not self.calibrated:
            return self.crossbar
        return self.crossbar.calibrated(model, itertools.islice(samples, _BATCHES))


def read_crossbar(
    spec: str | dict[str, Any] | None, key: str, *, fixed: bool = False
) -> CrossbarPlan | None:
    """Parse and check a crossbar.

    Args:
        spec: Parameters of :class:`~spikewvat.Crossbar`; ``adc_range=calibrated`` chooses the range
            of each layer on training samples. None for no crossbar.
        key: Dotted key or option that holds it, for messages.
        fixed: Refuse ranges that are calibrated.

    Raises:
        RecipeError: If a parameter is unknown or a value invalid.

    Example:
        >>> read_crossbar("rows=128,adc_range=calibrated", "crossbar").calibrated
        True
    """
    if spec is None:
        return None
    written = f"{_NAME}:{spec}" if isinstance(spec, str) else {"name": _NAME, **spec}
    (table,) = stages(written, key)
    given = {name: value for name, value in table.items() if name != "name"}
    calibrated = given.get("adc_range") == _CALIBRATED
    if calibrated:
        if fixed:
            raise RecipeError(
                f"{key}.adc_range = {_CALIBRATED!r}: weights change in training, so that their "
                "range has to be a number, such as 12."
            )
        del given["adc_range"]
    crossbar: Crossbar = construct(Crossbar, checked(Crossbar, given, key), key)
    return CrossbarPlan(crossbar, calibrated, describe(written, key))


def standing_in(device: DeviceModel, crossbar: Crossbar) -> Chip:
    """Return a chip of a device in a crossbar."""
    if isinstance(device, Chip):
        return replace(device, crossbar=crossbar)
    return Chip(device, crossbar=crossbar)
