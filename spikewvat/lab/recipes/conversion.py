"""What the table ``[conversion]`` of a recipe stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikewvat import files
from spikewvat.conversion import Balancing, Coding, Dynamics, SpikingNetwork
from spikewvat.conversion.pipeline import convert, unbalanced
from spikewvat.devices.base import DeviceModel
from spikewvat.lab.recipes import methods
from spikewvat.lab.recipes.devices import build_device
from spikewvat.lab.recipes.registry import checked, construct, filled, lookup
from spikewvat.lab.recipes.schema import CODINGS, SURROGATES, Component, Conversion

KEY = "conversion"
_NOT_NEURONS = ("ann", "loader", "time_steps", "balancing", "coding", "dynamics")


def check(conversion: Conversion | None) -> Conversion | None:
    """Check every part against what its name stands for, before anything is loaded.

    Args:
        conversion: The table, None where the recipe has none.

    Returns:
        The table with the defaults of its parts written out.

    Raises:
        RecipeError: If a key is unknown or a value impossible.
    """
    if conversion is None:
        return None
    build_coding(conversion)
    build_balancing(conversion)
    build_neurons(conversion)
    key, method = f"{KEY}.finetune.method", conversion.finetune.method
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    methods.build_method(method, layer, seed=0, optimizer=optimizer, key=key)
    complete = Component.model_validate(methods.complete(method, key))
    return conversion.model_copy(
        update={
            "balancing": filled(Balancing, conversion.balancing),
            "neurons": {"leak": 1.0, **filled(Dynamics, conversion.neurons)},
            "finetune": conversion.finetune.model_copy(update={"method": complete}),
        }
    )


def build_coding(conversion: Conversion) -> Coding:
    """Make what turns images into input over time.

    Raises:
        RecipeError: If there is no such coding, or its parameters are impossible.
    """
    key, coding = f"{KEY}.coding", conversion.coding
    target = lookup(CODINGS, coding.name, key)
    made: Coding = construct(target, checked(target, coding.parameters, key), key)
    return made


def build_balancing(conversion: Conversion) -> tuple[Balancing, DeviceModel | None]:
    """Make how thresholds are chosen, and the device whose chips they serve.

    Raises:
        RecipeError: If a key is unknown or a value impossible.
    """
    key, given = f"{KEY}.balancing", dict(conversion.balancing)
    spec = given.pop("variation", None)
    balancing: Balancing = construct(Balancing, checked(Balancing, given, key), key)
    return balancing, None if spec is None else build_device(spec, f"{key}.variation")


def build_neurons(conversion: Conversion) -> dict[str, Any]:
    """Make the arguments of :func:`spikewvat.conversion.convert` that describe neurons.

    Raises:
        RecipeError: If a key is unknown or a value impossible.
    """
    key, given = f"{KEY}.neurons", dict(conversion.neurons)
    own: dict[str, Any] = {k: given.pop(k) for k in ("leak", "unit_spikes") if k in given}
    options = checked(convert, own, key, reserved=_NOT_NEURONS)
    if "surrogate" in given:
        table = Component.model_validate(given["surrogate"])
        target = lookup(SURROGATES, table.name, f"{key}.surrogate")
        values = checked(target, table.parameters, f"{key}.surrogate")
        given["surrogate"] = construct(target, values, f"{key}.surrogate")
    dynamics: Dynamics = construct(Dynamics, checked(Dynamics, given, key), key)
    return {**options, "dynamics": dynamics}


def restored(ann: nn.Module, conversion: Conversion, path: Path) -> SpikingNetwork:
    """Make a converted network of its file, without looking at images.

    Args:
        ann: A network like the one that was converted; its weights do not matter.
        conversion: How it was converted.
        path: File of the converted network's weights and thresholds.

    Returns:
        The network, in evaluation mode.

    Raises:
        CheckpointError: If the file is missing, broken or of another network.
    """
    state = files.load(path)
    for module in ann.modules():
        if isinstance(module, _BatchNorm) and module.num_batches_tracked is not None:
            module.num_batches_tracked.fill_(1)  # statistics are folded into what is loaded
    snn: SpikingNetwork = construct(
        unbalanced,
        build_neurons(conversion),
        KEY,
        ann=ann,
        time_steps=conversion.time_steps,
        coding=build_coding(conversion),
    )
    neurons = snn.neurons()
    for node in snn.nodes:
        found = state.get(f"layers.{node.path}.threshold")
        if node.name in neurons and isinstance(found, Tensor):
            neurons[node.name].set_threshold(torch.ones_like(found))  # of the right shape
    files.load_state(snn, state, source=f"{str(path)!r}")
    return snn
