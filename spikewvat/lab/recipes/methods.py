"""Training methods by name: plain, WVAT, and those of others."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
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


@dataclass(frozen=True)
class MethodFactory:
    """A training method whose parameters were checked; called with a network, it is made.

    Args:
        target: A method, or the direction of one; None for plain training.
        given: Parameters of the target, devices and ranges made.
        options: Parameters of every method.
        key: Dotted key of the table, for messages.
        table: Name and parameters, defaults written out.
    """

    target: Any
    given: dict[str, Any]
    options: dict[str, Any]
    key: str
    table: Component

    def __call__(
        self, model: nn.Module, optimizer: Optimizer | None = None, *, seed: int
    ) -> GradientMethod | None:
        """Make what takes the gradients, None for plain training.

        Args:
            model: The network that is trained.
            optimizer: Trains the network; some methods look at its momentum.
            seed: Seed of the noise.

        Raises:
            RecipeError: If a parameter is impossible.
        """
        if self.target is None:
            return None
        # Every parameter beside the recipe's: what the target takes of them is in its signature.
        extra: dict[str, Any] = {"model": model, "optimizer": optimizer}
        extra = {name: value for name, value in extra.items() if name in parameters(self.target)}
        shared = {**self.options, "generator": torch.Generator().manual_seed(seed)}
        if _is_method(self.target):
            made: GradientMethod = construct(self.target, self.given, self.key, **extra, **shared)
            return made
        direction: Direction = construct(self.target, self.given, self.key, **extra)
        noisy: PerturbedGradient = construct(
            PerturbedGradient, {}, self.key, model=model, direction=direction, **shared
        )
        return noisy


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
    if "device" in given:
        given["device"] = build_device(given["device"], f"{key}.device")
    if "range" in given:
        given["range"] = build_range(given["range"], f"{key}.range")
    options = {name: given.pop(name) for name in _OPTIONS if name in given}
    made = None if target in (plain, ptq) else target
    found = MethodFactory(made, given, options, key, table)
    if optimizer is not None:
        with torch.random.fork_rng(devices=[]):
            found(nn.Linear(2, 2), optimizer, seed=0)
    return found


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
