"""Training methods by name: plain, WVAT, and those of others."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from spikewvat.devices import BinaryCells
from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.devices import build_device, build_range, stages
from spikewvat.lab.recipes.registry import (
    check_keys,
    checked,
    construct,
    filled,
    lookup,
    parameters,
)
from spikewvat.lab.recipes.schema import METHODS, Component, Recipe
from spikewvat.perturbations import HSV, Direction
from spikewvat.training import GradientMethod, PerturbedGradient

_OPTIONS = ("p", "same_noise_on_all_ranks", "warn_after")
_NOT_IN_RECIPES = (
    "model",
    "weights",
    "adapter",
    "reset_state",
    "generator",
    "optimizer",
    "direction",
)
_SPECS = ("device", "range")
"""Parameters that are written as a name with parameters of its own."""


def build_method(
    method: Component,
    model: nn.Module,
    *,
    seed: int,
    optimizer: Optimizer | None = None,
    key: str = "method",
) -> GradientMethod | None:
    """Make what takes the gradients, None for plain training.

    Args:
        method: Name and parameters.
        model: The network that is trained.
        seed: Seed of the noise.
        optimizer: Trains the network; some methods look at its momentum.
        key: Dotted key of the table, for messages.

    Raises:
        RecipeError: If its parameters are unknown or impossible.
    """
    target, given = _checked(method, key)
    if target in (plain, ptq):
        return None
    if "device" in given:
        given["device"] = build_device(given["device"], f"{key}.device")
    if "range" in given:
        given["range"] = build_range(given["range"], f"{key}.range")
    options = {name: given.pop(name) for name in _OPTIONS if name in given}
    # Every parameter beside the recipe's: what the target takes of them is in its signature.
    extra: dict[str, Any] = {"model": model, "optimizer": optimizer}
    extra = {name: value for name, value in extra.items() if name in parameters(target)}
    shared = {**options, "generator": torch.Generator().manual_seed(seed)}
    if _is_method(target):
        made: GradientMethod = construct(target, given, key, **extra, **shared)
        return made
    direction: Direction = construct(target, given, key, **extra)
    noisy: PerturbedGradient = construct(
        PerturbedGradient, {}, key, model=model, direction=direction, **shared
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
    reserved = (*_NOT_IN_RECIPES, *_SPECS, "options")
    return {"name": method.name, **filled(target, given, reserved=reserved)}


def check_evaluation(recipe: Recipe) -> None:
    """Raise RecipeError where a method asks for another device in the evaluation."""
    if recipe.method.name != "ptq":
        return
    names = [table.get("name") for table in stages(recipe.evaluation.device, "evaluation.device")]
    if "quantized" not in names:
        raise RecipeError(
            "method 'ptq' trains plainly and quantises what is tested, but evaluation.device = "
            f"{recipe.evaluation.device!r} quantises nothing. "
            'Write evaluation.device = "quantized:bits=8>>gaussian".'
        )


def plain() -> None:
    """Stand for training without variation."""


def ptq() -> None:
    """Stand for training without variation whose weights are quantised when they are tested."""


def binary_cells(bits: int = 8, sigma: float = 0.1, off_sigma: float = 0.0) -> HSV:
    """Return the direction of training on binary cells (see :class:`BinaryCells`).

    Args:
        bits: Bits of a weight.
        sigma: Standard deviation of a cell that is on, as a share of its value.
        off_sigma: Standard deviation of a cell that is off, as a share of one that is on.
    """
    return HSV(BinaryCells(bits, sigma, off_sigma))


def _is_method(target: Any) -> bool:
    """Return whether a name stands for a whole method; otherwise it is a direction."""
    if inspect.isclass(target):
        return issubclass(target, GradientMethod)
    return "model" in parameters(target)


def _checked(method: Component, key: str) -> tuple[Any, dict[str, Any]]:
    """Return the method's class and its parameters, checked."""
    target = lookup(METHODS, method.name, f"{key}.name")
    given = method.parameters
    own = parameters(target, reserved=_NOT_IN_RECIPES)
    check_keys(given, own if target in (plain, ptq) else [*own, *_OPTIONS], key)
    if (
        "device" in own
        and "device" not in given
        and own["device"].default is inspect.Parameter.empty
    ):
        raise RecipeError(
            f"[{key}] lacks 'device', which {method.name!r} needs. "
            'Add device = "gaussian:sigma=0.1".'
        )
    simple = {name: value for name, value in given.items() if name in own and name not in _SPECS}
    reserved = (*_NOT_IN_RECIPES, *_SPECS)
    return target, {**given, **checked(target, simple, key, reserved=reserved)}
