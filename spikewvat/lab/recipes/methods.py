"""Training methods by name: plain, WVAT, and other authors' methods."""

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
from spikewvat.perturbations import (
    STRENGTHS,
    LayerFactors,
    Perturbation,
    RandomLayers,
    RandomLength,
    Warmup,
    variation,
)
from spikewvat.spiking.lif import LIF, Neurons
from spikewvat.training import GradientMethod, PerturbedGradient

_OPTIONS = ("p", "same_noise_on_all_ranks", "warn_after")
_LENGTHS: dict[str, tuple[type[Perturbation], str]] = {
    "spread": (RandomLength, "spread"),
    "layers": (RandomLayers, "share"),
    "factors": (LayerFactors, "factors"),
    "warmup": (Warmup, "steps"),
}
"""Wrappers for any perturbation with their parameter, from the inside out."""
_NOT_IN_RECIPES = ("model", "weights", "adapter", "reset_state", "generator", "optimizer")
_SPECS = ("device", "worst", "source", "perturbation")
"""Parameters whose value is a name with its own parameters."""


@dataclass(frozen=True)
class Part:
    """A method, perturbation or source with checked parameters; call it to make it.

    Args:
        target: Its class.
        given: Its parameters; those that need the optimizer are themselves parts.
        key: Dotted key of its table, for messages.
        lengths: Its wrappers, from the inside out: class, parameter and value.
    """

    target: Any
    given: dict[str, Any]
    key: str
    lengths: tuple[tuple[type[Perturbation], str, Any], ...] = ()

    def __call__(
        self, optimizer: Optimizer | None, *, steps: int | None = None, **extra: Any
    ) -> Any:
        """Make it.

        Args:
            optimizer: Optimizer of the network.
            steps: Number of steps of the training, if known.
            **extra: Other arguments that do not come from the recipe.
        """
        if "optimizer" in parameters(self.target):
            extra["optimizer"] = optimizer
        given = {
            key: value(optimizer, steps=steps) if isinstance(value, Part) else value
            for key, value in self.given.items()
        }
        made = construct(self.target, given, self.key, **extra)
        for kind, name, length in self.lengths:
            if kind is Warmup and isinstance(length, float) and 0 < length <= 1:
                length = max(1, round(length * (steps or 1)))  # a share of the training
            made = construct(kind, {name: length}, self.key, perturbation=made)
        return made


@dataclass(frozen=True)
class MethodFactory:
    """A training method with checked parameters; call it with a network to make it.

    Args:
        part: The method.
        options: Parameters shared by all methods; None if the method has none.
        table: Name and parameters, with all defaults filled in.
    """

    part: Part
    options: dict[str, Any] | None
    table: Component

    def __call__(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        seed: int,
        steps: int | None = None,
    ) -> GradientMethod:
        """Make the gradient method.

        Args:
            model: The network to train.
            optimizer: Optimizer of the network; some methods use its momentum.
            seed: Seed of the noise.
            steps: Number of steps of the training, for a warmup that is a share of them.

        Raises:
            RecipeError: If a parameter is invalid.
        """
        options: dict[str, Any] = {}
        if self.options is not None:
            options = {**self.options, "generator": torch.Generator().manual_seed(seed)}
        made: GradientMethod = self.part(optimizer, steps=steps, model=model, **options)
        return made


def read_method(
    method: Component, key: str = "method", *, optimizer: Optimizer | None = None
) -> MethodFactory:
    """Parse and check a method with all its parts.

    Args:
        method: Name and parameters.
        key: Dotted key of the table, for messages.
        optimizer: An optimizer of the training's kind; if given, the method is tried on a small
            network.

    Raises:
        RecipeError: If the name or a parameter is unknown, or a value invalid.
    """
    target, given = _checked(method, key)
    reserved = (*_NOT_IN_RECIPES, *_SPECS, "options")
    complete = filled(target, given, reserved=reserved)
    if target is variation and complete["mix"] in STRENGTHS:
        complete = dict(zip(("gamma", "alpha"), STRENGTHS[complete["mix"]], strict=True)) | complete
    table = Component(name=method.name, **complete)
    options = {name: given.pop(name) for name in (*_OPTIONS, "trim") if name in given}
    if _is_method(target):
        part = Part(target, _read(given, key), key)
    else:
        part = Part(PerturbedGradient, {"perturbation": _perturbation(target, given, key)}, key)
    found = MethodFactory(part, options if _takes_options(target) else None, table)
    if optimizer is not None:
        with torch.random.fork_rng(devices=[]):
            found(nn.Sequential(nn.Linear(2, 2), Neurons(LIF())), optimizer, seed=0)
    return found


def _perturbation(target: Any, given: dict[str, Any], key: str) -> Part:
    """Return a perturbation with checked parameters, with any wrappers around it."""
    wrappers = _wrappers(target)
    lengths = tuple((*wrappers[name], given.pop(name)) for name in wrappers if name in given)
    return Part(target, _read(given, key), key, lengths)


def _read(given: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the parameters, with names replaced by devices and parts."""
    for name in filter(given.__contains__, _SPECS):
        where = f"{key}.{name}"
        if name == "device":
            given[name] = build_device(given[name], where)
        elif name != "perturbation":
            given[name] = read_source(given[name], where)
        else:
            target, inner = _checked(component(given[name], where), where)
            if _is_method(target):
                raise RecipeError(
                    f"{where} = {given[name]!r} is not a perturbation. Use one such as hsv."
                )
            given[name] = _perturbation(target, inner, where)
    return given


def read_source(spec: object, key: str) -> Part:
    """Parse and check the source of the worst perturbation, a name or a table.

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
    """Raise RecipeError if the method requires another device for the evaluation."""
    if recipe.method.name != "ptq":
        return
    names = [table.get("name") for table in stages(recipe.evaluation.device, "evaluation.device")]
    if "quantized" not in names:
        raise RecipeError(
            "method 'ptq' trains plainly and quantises the tested network, but evaluation.device = "
            f"{recipe.evaluation.device!r} does not quantise. Write "
            'evaluation.device = "quantized:bits=8>>gaussian".'
        )


def _is_method(target: Any) -> bool:
    """Return whether a name is a method, as opposed to a perturbation."""
    return inspect.isclass(target) and issubclass(target, GradientMethod)


def _takes_options(target: Any) -> bool:
    """Return whether a target accepts the options shared by methods; plain training does not."""
    kinds = {parameter.kind for parameter in inspect.signature(target).parameters.values()}
    return not _is_method(target) or inspect.Parameter.VAR_KEYWORD in kinds


def _wrappers(target: Any) -> dict[str, tuple[type[Perturbation], str]]:
    """Return the wrappers for a perturbation by key; its own keys take precedence."""
    if _is_method(target):
        return {}
    return {name: kind for name, kind in _LENGTHS.items() if name not in parameters(target)}


def _checked(method: Component, key: str) -> tuple[Any, dict[str, Any]]:
    """Return the method's class and its checked parameters."""
    target = lookup(METHODS, method.name, f"{key}.name")
    given = method.parameters
    own = parameters(target, reserved=_NOT_IN_RECIPES)
    options = _OPTIONS if _takes_options(target) else ()
    if not _is_method(target):
        options = (*options, "trim")
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
