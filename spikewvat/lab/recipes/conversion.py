"""The conversion that the table ``[conversion]`` of a recipe describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikewvat import files
from spikewvat.conversion import STARTS, Balancing, Coding, Dynamics, SpikingNetwork
from spikewvat.conversion.pipeline import convert, unbalanced
from spikewvat.devices.base import DeviceModel
from spikewvat.lab.recipes import methods
from spikewvat.lab.recipes.devices import build_device
from spikewvat.lab.recipes.registry import checked, construct, factory, filled
from spikewvat.lab.recipes.schema import CODINGS, SURROGATES, Conversion, component

KEY = "conversion"
_NOT_NEURONS = ("ann", "loader", "time_steps", "balancing", "coding", "dynamics", "starts")


@dataclass(frozen=True)
class ConversionPlan:
    """The checked conversion of a recipe.

    Args:
        table: The table, with all defaults filled in.
        coding: Turns images into input over time.
        balancing: How thresholds are chosen.
        variation: The device over whose chips thresholds are chosen, if any.
        neurons: Arguments of :func:`spikewvat.conversion.convert` that describe neurons.
        starts: Where potentials may start, if that is to be checked.
        method: Makes the gradient method for fine-tuning.
    """

    table: Conversion
    coding: Coding
    balancing: Balancing
    variation: DeviceModel | None
    neurons: Mapping[str, Any]
    starts: tuple[float, ...] | None
    method: methods.MethodFactory


def read(conversion: Conversion) -> ConversionPlan:
    """Check and make every part, before anything is loaded.

    Raises:
        RecipeError: If a key is unknown or a value invalid.
    """
    coding = factory(
        CODINGS, conversion.coding.name, conversion.coding.parameters, f"{KEY}.coding"
    )()
    key, given = f"{KEY}.balancing", dict(conversion.balancing)
    spec = given.pop("variation", None)
    balancing: Balancing = construct(Balancing, checked(Balancing, given, key), key)
    variation = None if spec is None else build_device(spec, f"{key}.variation")
    neurons = _neurons(conversion.neurons, f"{KEY}.neurons")
    starts: tuple[float, ...] | None = None
    described = {"leak": 1.0, **filled(Dynamics, conversion.neurons)}
    if variation is not None and "initial" not in conversion.neurons:
        starts = STARTS
        del described["initial"]
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
    return ConversionPlan(table, coding, balancing, variation, neurons, starts, method)


def _neurons(table: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the arguments of ``convert`` that describe neurons."""
    given = dict(table)
    own: dict[str, Any] = {k: given.pop(k) for k in ("leak", "unit_spikes") if k in given}
    options = checked(convert, own, key, reserved=_NOT_NEURONS)
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
    state = files.load(path)
    for module in ann.modules():
        if isinstance(module, _BatchNorm) and module.num_batches_tracked is not None:
            module.num_batches_tracked.fill_(1)  # statistics are folded into what is loaded
    snn: SpikingNetwork = construct(
        unbalanced,
        plan.neurons,
        KEY,
        ann=ann,
        time_steps=plan.table.time_steps,
        coding=plan.coding,
    )
    neurons = snn.neurons()
    for node in snn.nodes:
        found = state.get(f"layers.{node.path}.threshold")
        if node.name in neurons and isinstance(found, Tensor):
            neurons[node.name].set_threshold(torch.ones_like(found))  # of the right shape
            # Earlier versions did not write them: the plan says where potentials start.
            for name in ("start", "bias"):
                state.setdefault(f"layers.{node.path}.{name}", getattr(neurons[node.name], name))
    files.load_state(snn, state, source=f"{str(path)!r}")
    return snn
