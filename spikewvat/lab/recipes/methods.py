"""Training methods by name: plain, WVAT, and those of others."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
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
from spikewvat.lab.recipes.schema import METHODS, SOURCES, Component, Recipe, component
from spikewvat.perturbations import Perturbation, RandomLength, Warmup
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


@dataclass(frozen=True)
class Part:
    """A method, perturbation or source whose parameters were checked; called, it is made.

    Args:
        target: Its class.
        given: Its parameters; parts, where these are made of the optimizer.
        key: Dotted key of its table, for messages.
        lengths: What is wrapped around it, from the inside out: class, parameter and value.
    """

    target: Any
    given: dict[str, Any]
    key: str
    lengths: tuple[tuple[type[Perturbation], str, Any], ...] = ()

    def __call__(self, optimizer: Optimizer | None, **extra: Any) -> Any:
        """Make it; ``extra`` holds what no recipe says."""
        if "optimizer" in parameters(self.target):
            extra["optimizer"] = optimizer
        given = {k: v(optimizer) if isinstance(v, Part) else v for k, v in self.given.items()}
        made = construct(self.target, given, self.key, **extra)
        for kind, name, length in self.lengths:
            made = construct(kind, {name: length}, self.key, perturbation=made)
        return made


@dataclass(frozen=True)
class MethodFactory:
    """A training method whose parameters were checked; called with a network, it is made.

    Args:
        part: The method.
        options: Parameters of every method; None where it takes none.
        table: Name and parameters, defaults written out.
    """

    part: Part
    options: dict[str, Any] | None
    table: Component

    def __call__(
        self, model: nn.Module, optimizer: Optimizer | None = None, *, seed: int
    ) -> GradientMethod:
        """Make what takes the gradients.

        Args:
            model: The network that is trained.
            optimizer: Trains the network; some methods look at its momentum.
            seed: Seed of the noise.

        Raises:
            RecipeError: If a parameter is impossible.
        """
        options: dict[str, Any] = {}
        if self.options is not None:
            options = {**self.options, "generator": torch.Generator().manual_seed(seed)}
        made: GradientMethod = self.part(optimizer, model=model, **options)
        return made


def read_method(
    method: Component, key: str = "method", *, optimizer: Optimizer | None = None
) -> MethodFactory:
    """Check a method and everything in it.

    Args:
        method: Name and parameters.
        key: Dotted key of the table, for messages.
        optimizer: One like that which trains; with it, the method is tried on a small network.

    Raises:
        RecipeError: If the name or a parameter is unknown, or a value impossible.
    """
    target, given = _checked(method, key)
    reserved = (*_NOT_IN_RECIPES, *_SPECS, "options")
    table = Component(name=method.name, **filled(target, given, reserved=reserved))
    options = {name: given.pop(name) for name in _OPTIONS if name in given}
    if _is_method(target):
        part = Part(target, _read(given, key), key)
    else:
        part = Part(PerturbedGradient, {"perturbation": _perturbation(target, given, key)}, key)
    found = MethodFactory(part, options if _takes_options(target) else None, table)
    if optimizer is not None:
        with torch.random.fork_rng(devices=[]):
            found(nn.Linear(2, 2), optimizer, seed=0)
    return found


def _perturbation(target: Any, given: dict[str, Any], key: str) -> Part:
    """Return a perturbation of its checked parameters, another length around it if asked for."""
    wrappers = _wrappers(target)
    lengths = tuple((*wrappers[name], given.pop(name)) for name in wrappers if name in given)
    return Part(target, _read(given, key), key, lengths)


def _read(given: dict[str, Any], key: str) -> dict[str, Any]:
    """Return parameters with devices and parts in the place of those that are written as names."""
    for name in filter(given.__contains__, _SPECS):
        where = f"{key}.{name}"
        if name == "device":
            given[name] = build_device(given[name], where)
        elif name != "perturbation":
            given[name] = read_source(given[name], where)
        else:
            target, inner = _checked(component(given[name], where), where)
            if _is_method(target):
                raise RecipeError(f"{where} = {given[name]!r} is no perturbation, such as hsv.")
            given[name] = _perturbation(target, inner, where)
    return given


def read_source(spec: object, key: str) -> Part:
    """Check where the worst direction comes from, a name or a table with one.

    Args:
        spec: ``"momentum"``, or ``{name = "past", decay = 0.9}``.
        key: Dotted key that holds it, for messages.

    Raises:
        RecipeError: If there is no such source, or its parameters are unknown.
    """
    given = dict(spec) if isinstance(spec, dict) else {"name": spec}
    target = lookup(SOURCES, given.pop("name", None), key)
    return Part(target, checked(target, given, key, reserved=_NOT_IN_RECIPES), key)


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
