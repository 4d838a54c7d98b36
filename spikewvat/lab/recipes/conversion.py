"""The conversion that the table ``[conversion]`` of a recipe describes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn

from spikewvat.conversion import (
    STARTS,
    Balancing,
    Dynamics,
    SpikingNetwork,
    balance,
    choose_start,
    restore,
)
from spikewvat.conversion.pipeline import unbalanced
from spikewvat.devices.base import DeviceModel
from spikewvat.lab.recipes import methods
from spikewvat.lab.recipes.devices import build_device
from spikewvat.lab.recipes.registry import checked, construct, factory, filled
from spikewvat.lab.recipes.schema import (
    CODINGS,
    CORRECTIONS,
    SURROGATES,
    Component,
    Conversion,
    component,
)

KEY = "conversion"
_OF_NETWORKS = (
    "leak",
    "unit_spikes",
    "analog",
)  # in [conversion.neurons], beside those of Dynamics


@dataclass(frozen=True)
class ConversionPlan:
    """The checked conversion of a recipe.

    Args:
        table: The table, with all defaults filled in.
        balancing: How thresholds are chosen.
        variation: The device over whose chips thresholds are chosen, if any.
        network: Arguments of :func:`spikewvat.conversion.unbalanced`.
        starts: Where potentials may start, if that is to be checked.
        method: Makes the gradient method for fine-tuning.
    """

    table: Conversion
    balancing: Balancing
    variation: DeviceModel | None
    network: Mapping[str, Any]
    starts: tuple[float, ...] | None
    method: methods.MethodFactory

    def steps(self, time_steps: int) -> list[int]:
        """Return the numbers of steps to test after, for a network of so many."""
        fractions = [time_steps // n for n in (8, 4, 2) if time_steps >= n]
        return sorted({*(self.table.sweep or fractions), time_steps})

    def fitting(self, loader: Iterable[Any], seed: int) -> Callable[[SpikingNetwork], object]:
        """Return what chooses a network's start and thresholds for its number of steps.

        Args:
            loader: Calibration images.
            seed: Seed of chips and coding.
        """

        def fit(snn: SpikingNetwork) -> None:
            generator = Generator().manual_seed(seed)
            chips: dict[str, Any] = {"variation": self.variation, "generator": generator}
            if self.starts is not None:
                choose_start(snn, loader, self.starts, balancing=self.balancing, **chips)
            balance(snn, loader, self.balancing, **chips)

        return fit


def read(conversion: Conversion) -> ConversionPlan:
    """Check and make every part, before anything is loaded.

    Raises:
        RecipeError: If a key is unknown or a value invalid.
    """
    network = {
        "coding": _made(CODINGS, conversion.coding, f"{KEY}.coding"),
        "correction": _made(CORRECTIONS, conversion.correction, f"{KEY}.correction"),
        **_neurons(conversion.neurons, f"{KEY}.neurons"),
    }
    key, given = f"{KEY}.balancing", dict(conversion.balancing)
    spec = given.pop("variation", None)
    balancing: Balancing = construct(Balancing, checked(Balancing, given, key), key)
    variation = None if spec is None else build_device(spec, f"{key}.variation")
    described = {"leak": 1.0, **filled(Dynamics, conversion.neurons)}
    starts: tuple[float, ...] | None = None
    if "initial" not in conversion.neurons:  # left open: a later variation may ask for the check
        del described["initial"]
        starts = None if variation is None else STARTS
    method = methods.read_method(
        conversion.finetune.method,
        f"{KEY}.finetune.method",
        optimizer=torch.optim.Adam([nn.Parameter(torch.zeros(1))]),
    )
    complete = {
        "balancing": filled(Balancing, conversion.balancing),
        "neurons": described,
        "finetune": conversion.finetune.model_copy(update={"method": method.table}),
    }
    table = conversion.model_copy(update=complete)
    return ConversionPlan(table, balancing, variation, network, starts, method)


def _made(kinds: Mapping[str, str], chosen: Component | None, key: str) -> Any:
    return None if chosen is None else factory(kinds, chosen.name, chosen.parameters, key)()


def _neurons(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the arguments of ``convert`` that describe neurons."""
    given = dict(table)
    own: dict[str, Any] = {k: given.pop(k) for k in _OF_NETWORKS if k in given}
    options = checked(unbalanced, own, key, reserved=("ann",))
    if "surrogate" in given:
        chosen = component(given["surrogate"], f"{key}.surrogate")
        surrogate = factory(SURROGATES, chosen.name, chosen.parameters, f"{key}.surrogate")
        given["surrogate"] = surrogate()
    return {**options, "dynamics": construct(Dynamics, checked(Dynamics, given, key), key)}


def restored(ann: nn.Module, plan: ConversionPlan, path: Path) -> SpikingNetwork:
    """Restore a converted network from its file, without calibration images.

    Args:
        ann: A network like the one that was converted; its weights do not matter.
        plan: The conversion that was used.
        path: File of the converted network's weights and thresholds.

    Returns:
        The network, in evaluation mode.

    Raises:
        CheckpointError: If the file is missing, damaged or belongs to another network.
    """
    snn: SpikingNetwork = construct(
        restore, plan.network, KEY, ann=ann, path=path, time_steps=plan.table.time_steps
    )
    return snn
