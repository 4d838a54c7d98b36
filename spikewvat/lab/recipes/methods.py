"""Training methods by name: plain, WVAT, and those of others."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from spikewvat.devices.base import DeviceModel
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
from spikewvat.perturbations import (
    Perturbation,
    RandomLength,
    Source,
    Warmup,
    variation,
)
from spikewvat.perturbations.mixture import Mix
from spikewvat.perturbations.sources import GRADIENT
from spikewvat.training import GradientMethod, PerturbedGradient
from spikewvat.training.methods import QAT

_OPTIONS = ("p", "same_noise_on_all_ranks", "warn_after")
_LENGTHS: dict[str, tuple[type[Perturbation], str]] = {
    "spread": (RandomLength, "spread"),
    "warmup": (Warmup, "steps"),
}
"""What may be wrapped around any perturbation, and its parameter, from the inside out."""
_NOT_IN_RECIPES = (
    "model",
    "weights",
    "adapter",
    "reset_state",
    "generator",
    "optimizer",
    "perturbation",
)
_SPECS = ("device", "worst", "source")
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
    if "device" in given:
        given["device"] = build_device(given["device"], f"{key}.device")
    for name in {"worst", "source"} & given.keys():
        given[name] = build_source(given[name], f"{key}.{name}", optimizer)
    options = {name: given.pop(name) for name in _OPTIONS if name in given}
    # Every parameter beside the recipe's: what the target takes of them is in its signature.
    extra: dict[str, Any] = {"model": model, "optimizer": optimizer}
    extra = {name: value for name, value in extra.items() if name in parameters(target)}
    shared = {**options, "generator": torch.Generator().manual_seed(seed)}
    if _is_method(target):
        made: GradientMethod = construct(
            target, given, key, **extra, **(shared if _takes_options(target) else {})
        )
        return made
    wrappers = _wrappers(target)
    lengths = {name: given.pop(name) for name in wrappers if name in given}
    perturbation: Perturbation = construct(target, given, key, **extra)
    for name, length in lengths.items():
        kind, argument = wrappers[name]
        perturbation = construct(kind, {argument: length}, key, perturbation=perturbation)
    noisy: PerturbedGradient = construct(
        PerturbedGradient, {}, key, model=model, perturbation=perturbation, **shared
    )
    return noisy


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


def qat_wvat(
    model: nn.Module,
    device: DeviceModel,
    *,
    bits: int = 8,
    per_channel: bool = False,
    activation_bits: int | None = None,
    w_th: float | None = None,
    gamma: float = 0.5,
    alpha: float = 0.1,
    worst: Source = GRADIENT,
    mix: Mix = "either",
    **options: Any,
) -> QAT:
    """Return :class:`QAT` with the perturbation of WVAT: quantised first, then perturbed.

    Args:
        model: The model that the closure calls.
        device: What the chip does to quantised weights.
        bits: Bits of a weight, from 2 to 16.
        per_channel: One scale for each output channel instead of one for the tensor.
        activation_bits: Bits of an activation; None leaves activations alone.
        w_th: As in :func:`variation`, this and what follows.
        gamma: Scale of the perturbation.
        alpha: Length of the worst direction as a share of a noise draw's length.
        worst: Where the worst direction comes from.
        mix: ``"either"`` or ``"both"``.
        **options: Those of :class:`GradientMethod`.
    """
    return QAT(
        model,
        bits=bits,
        per_channel=per_channel,
        perturbation=variation(device, w_th=w_th, gamma=gamma, alpha=alpha, worst=worst, mix=mix),
        activation_bits=activation_bits,
        **options,
    )


def _is_method(target: Any) -> bool:
    """Return whether a name stands for a whole method; otherwise it is a perturbation."""
    if inspect.isclass(target):
        return issubclass(target, GradientMethod)
    return "model" in parameters(target)


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
