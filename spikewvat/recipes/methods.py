"""Training methods by name: plain, WVAT, and the directions of other methods."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spikewvat.directions import Direction
from spikewvat.errors import RecipeError
from spikewvat.recipes.devices import build_device
from spikewvat.recipes.registry import (
    check_keys,
    checked,
    construct,
    filled,
    lookup,
    parameters,
)
from spikewvat.recipes.schema import METHODS, Component
from spikewvat.training import PerturbedGradient

_OPTIONS = ("p", "same_noise_on_all_ranks", "warn_after")
_NOT_IN_RECIPES = ("model", "weights", "adapter", "reset_state", "generator")


def build_method(
    method: Component, model: nn.Module, *, seed: int, key: str = "method"
) -> PerturbedGradient | None:
    """Make what takes the gradients, None for plain training.

    Args:
        method: Name and parameters.
        model: The network that is trained.
        seed: Seed of the noise.
        key: Dotted key of the table, for messages.

    Raises:
        RecipeError: If its parameters are unknown or impossible.
    """
    target, given = _checked(method, key)
    if target is plain:
        return None
    generator = torch.Generator().manual_seed(seed)
    options = {name: given.pop(name) for name in _OPTIONS if name in given}
    if "device" in given:
        given["device"] = build_device(given["device"], f"{key}.device")
    own = {name: value for name, value in given.items() if name in parameters(target)}
    if issubclass(target, PerturbedGradient):
        own |= options
        wvat: PerturbedGradient = construct(target, own, key, model=model, generator=generator)
        return wvat
    direction: Direction = construct(target, own, key)
    noisy: PerturbedGradient = construct(
        PerturbedGradient, options, key, model=model, direction=direction, generator=generator
    )
    return noisy


def complete(method: Component, key: str = "method") -> dict[str, Any]:
    """Return name and parameters, defaults written out.

    Args:
        method: Name and parameters.
        key: Dotted key of the table, for messages.

    Raises:
        RecipeError: If the name or a parameter is unknown.
    """
    target, given = _checked(method, key)
    reserved = (*_NOT_IN_RECIPES, "device", "options")
    return {"name": method.name, **filled(target, given, reserved=reserved)}


def plain() -> None:
    """Stand for training without variation."""


def _checked(method: Component, key: str) -> tuple[Any, dict[str, Any]]:
    """Return the method's class and its parameters, checked."""
    target = lookup(METHODS, method.name, f"{key}.name")
    given = method.parameters
    own = parameters(target, reserved=_NOT_IN_RECIPES)
    check_keys(given, own if target is plain else [*own, *_OPTIONS], key)
    if "device" in own and "device" not in given:
        raise RecipeError(
            f"[{key}] lacks 'device', which {method.name!r} needs. "
            'Add device = "gaussian:sigma=0.1".'
        )
    simple = {name: value for name, value in given.items() if name in own and name != "device"}
    reserved = (*_NOT_IN_RECIPES, "device")
    return target, {**given, **checked(target, simple, key, reserved=reserved)}
