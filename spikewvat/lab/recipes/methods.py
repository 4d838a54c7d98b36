"""Training methods by name: plain, WVAT, and those of others."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.devices import build_device, stages
from spikewvat.lab.recipes.registry import (
    check_keys,
    checked,
    construct,
    filled,
    lookup,
    parameters,
)
from spikewvat.lab.recipes.schema import METHODS, SOURCES, Component, Recipe
from spikewvat.perturbations import Perturbation, RandomLength, Source, Warmup
from spikewvat.training import GradientMethod, PerturbedGradient

_OPTIONS = ("p", "same_noise_on_all_ranks", "warn_after")
_LENGTHS: dict[str, tuple[type[Perturbation], str]] = {
    "spread": (RandomLength, "spread"),
    "warmup": (Warmup, "steps"),
}
"""What may be wrapped around any perturbation, and its parameter, from the inside out."""
_NOT_IN_RECIPES = ("model", "weights", "adapter", "reset_state", "generator", "optimizer")
_SPECS = ("device", "worst", "source", "perturbation")
"""Parameters that are written as a name with parameters of its own."""


def build_method(
    method: Component,
    model: nn.Module,
    *,
    seed: int,
    optimizer: Optimizer | None = None,
    key: str = "method",
) -> GradientMethod:
    """Make what takes the gradients.

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
    options: dict[str, Any] = {name: given.pop(name) for name in _OPTIONS if name in given}
    if _takes_options(target):
        options["generator"] = torch.Generator().manual_seed(seed)
    if not _is_method(target):
        given = {"perturbation": _perturbation(target, given, key, optimizer)}
        target = PerturbedGradient
    made: GradientMethod = construct(
        target, _built(given, key, optimizer), key, model=model, **options
    )
    return made


def _perturbation(
    target: Any, given: dict[str, Any], key: str, optimizer: Optimizer | None
) -> Perturbation:
    """Make a perturbation of its checked parameters, another length around it if asked for."""
    wrappers = _wrappers(target)
    lengths = {name: given.pop(name) for name in wrappers if name in given}
    perturbation: Perturbation = construct(target, _built(given, key, optimizer), key)
    for name, length in lengths.items():
        kind, argument = wrappers[name]
        perturbation = construct(kind, {argument: length}, key, perturbation=perturbation)
    return perturbation


def _built(given: dict[str, Any], key: str, optimizer: Optimizer | None) -> dict[str, Any]:
    """Return parameters with objects in the place of those that are written as names."""
    for name in filter(given.__contains__, _SPECS):
        where = f"{key}.{name}"
        if name == "device":
            given[name] = build_device(given[name], where)
        elif name != "perturbation":
            given[name] = build_source(given[name], where, optimizer)
        elif not isinstance(given[name], Perturbation):
            target, inner = _checked(Component.model_validate(given[name]), where)
            if _is_method(target):
                raise RecipeError(f"{where} = {given[name]!r} is no perturbation, such as hsv.")
            given[name] = _perturbation(target, inner, where, optimizer)
    return given


def build_source(spec: object, key: str, optimizer: Optimizer | None) -> Source:
    """Make where the worst direction comes from, of a name or a table with one.

    Args:
        spec: ``"momentum"``, or ``{name = "past", decay = 0.9}``.
        key: Dotted key that holds it, for messages.
        optimizer: Trains the network.

    Raises:
        RecipeError: If there is no such source, or its parameters are impossible.
    """
    given = dict(spec) if isinstance(spec, dict) else {"name": spec}
    target = lookup(SOURCES, given.pop("name", None), key)
    extra = {"optimizer": optimizer} if "optimizer" in parameters(target) else {}
    source: Source = construct(
        target, checked(target, given, key, reserved=_NOT_IN_RECIPES), key, **extra
    )
    return source


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


def _is_method(target: Any) -> bool:
    """Return whether a name stands for a whole method; otherwise it is a perturbation."""
    return inspect.isclass(target) and issubclass(target, GradientMethod)


def _takes_options(target: Any) -> bool:
    """Return whether a target takes the options of all methods; plain training has none."""
    kinds = {parameter.kind for parameter in inspect.signature(target).parameters.values()}
    return not _is_method(target) or inspect.Parameter.VAR_KEYWORD in kinds


def _wrappers(target: Any) -> dict[str, tuple[type[Perturbation], str]]:
    """Return what may be wrapped around a perturbation, by key; its own keys come first."""
    if _is_method(target):
        return {}
    return {name: kind for name, kind in _LENGTHS.items() if name not in parameters(target)}


def _checked(method: Component, key: str) -> tuple[Any, dict[str, Any]]:
    """Return the method's class and its parameters, checked."""
    target = lookup(METHODS, method.name, f"{key}.name")
    given = method.parameters
    own = parameters(target, reserved=_NOT_IN_RECIPES)
    options = _OPTIONS if _takes_options(target) else ()
    check_keys(given, [*own, *options, *_wrappers(target)], key)
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
