"""Resolve a recipe once: look up names, check parameters, fill in defaults."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from spikewvat.devices.aging import at_age, changes_with_age
from spikewvat.devices.base import DeviceModel
from spikewvat.errors import RecipeError
from spikewvat.lab.recipes import conversion, methods
from spikewvat.lab.recipes.corruptions import levels, read_corruption, read_measures
from spikewvat.lab.recipes.crossbars import CrossbarPlan, read_crossbar
from spikewvat.lab.recipes.devices import Sized, read_device
from spikewvat.lab.recipes.registry import Factory, factory, lookup, parameters
from spikewvat.lab.recipes.schema import (
    DATA,
    ENCODINGS,
    LOSSES,
    MODELS,
    OPTIMIZERS,
    Component,
    Recipe,
)
from spikewvat.lab.recipes.start import Start, start_of
from spikewvat.lab.trainer.loop import Loss, derived_seed
from spikewvat.robustness.calibration import Measure
from spikewvat.robustness.corruptions import Corruption
from spikewvat.training import GradientMethod
from spikewvat.training.averaging import (
    SWA,
    cosine_factor,
    decay_factor,
    exponential_factor,
    step_factor,
)

_MOST_STEPS = 100_000


@dataclass(frozen=True)
class Optimization:
    """Makes an optimizer and its schedule, if the learning rate is not constant.

    Args:
        make: Makes the optimizer.
        factor: Factor of the initial learning rate by epoch; None if it is constant.
    """

    make: Factory
    factor: Callable[[int], float] | None

    def __call__(self, weights: Iterable[nn.Parameter]) -> tuple[Optimizer, LRScheduler | None]:
        """Make both for these weights."""
        optimizer: Optimizer = self.make(params=list(weights))
        return optimizer, self.factor and LambdaLR(optimizer, self.factor)


@dataclass(frozen=True)
class Resolved:
    """A recipe with makers for everything that it names.

    Args:
        recipe: The recipe, with the defaults of its components filled in.
        data: Opens a part of the data set; called with ``root`` and ``split``.
        network: Makes the network, see :meth:`build_model`.
        loss: Function from output and labels to the loss.
        optimization: Makes optimizer and schedule; called with the weights.
        method: Makes the gradient method, see :meth:`build_method`.
        start: Loads initial weights into a network, if any.
        device: Makes the device of ``evaluation``; called with a size.
        corruption: Makes the corruption of ``evaluation``, if any; called with a severity.
        conversion: The conversion to a spiking network, if any.
        measures: What is done to the chips of ``evaluation`` after programming.
        crossbar: What stands around the devices of ``evaluation``, if anything.
        trained_in: The crossbar of ``training``, if any.
    """

    recipe: Recipe
    data: Factory
    network: Factory
    loss: Loss
    optimization: Optimization
    method: methods.MethodFactory
    start: Start | None
    device: Sized[DeviceModel]
    corruption: Sized[Corruption] | None
    conversion: conversion.ConversionPlan | None
    measures: tuple[Measure, ...] = ()
    crossbar: CrossbarPlan | None = None
    trained_in: CrossbarPlan | None = None

    @property
    def device_label(self) -> str:
        """The device of ``evaluation``, and what stands around it."""
        label = self.device.label
        return label if self.crossbar is None else f"{label} in a {self.crossbar.label}"

    def build_model(self) -> nn.Module:
        """Make the network, with initial weights drawn from the recipe's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.recipe.seed, "model"))
            try:
                model: nn.Module = self.network()
            except (RuntimeError, MemoryError, OverflowError) as error:
                reason = str(error).partition("\n")[0]
                raise RecipeError(
                    f"[model]: {self.recipe.model.name!r} cannot be made: {reason}. "
                    "Check its sizes."
                ) from error
        if self.recipe.training.channels_last:
            # In the types of torch, modules only have the overload without a memory format.
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def build_method(
        self, model: nn.Module, optimizer: Optimizer | None = None, *, steps: int | None = None
    ) -> GradientMethod:
        """Make the gradient method; its noise is drawn from the recipe's seed.

        Args:
            model: The network to train.
            optimizer: Optimizer of the network; some methods use its momentum.
            steps: Number of steps of the training, for a warmup that is a share of them.
        """
        seed = derived_seed(self.recipe.seed, "method")
        return self.method(model, optimizer, seed=seed, steps=steps)

    def build_averaging(self, model: nn.Module) -> SWA | None:
        """Make the weight averaging, or None if the recipe has none."""
        if not self.recipe.averaging.enabled:
            return None
        return SWA(model, start=averaging_start(self.recipe))

    def check_classes(self, classes: int | None) -> None:
        """Raise unless the network has a score for every class of the data, if both are known.

        Raises:
            RecipeError: If the numbers differ; names both.
        """
        scores = self.network.complete.get("classes")
        if classes is not None and isinstance(scores, int) and scores < classes:
            raise RecipeError(
                f"model.classes = {scores}: the data has {classes} classes. "
                f"Set model.classes = {classes}."
            )

    def evaluated(self, **changes: Any) -> Resolved:
        """Return the recipe with changed values in its table ``[evaluation]``."""
        evaluation = self.recipe.evaluation.model_copy(update=changes)
        recipe = self.recipe.model_copy(update={"evaluation": evaluation})
        return dataclasses.replace(self, recipe=recipe)

    def with_input_shape(self, shape: Iterable[int]) -> Resolved:
        """Return the recipe with the network's ``input_shape`` set from the data, if it has one."""
        made, model = self.network, self.recipe.model
        if "input_shape" not in parameters(made.target) or "input_shape" in made.given:
            return self
        table = Component.model_validate({**model.model_dump(), "input_shape": list(shape)})
        network = factory(MODELS, table.name, table.parameters, "model", name_key="model.name")
        recipe = self.recipe.model_copy(update={"model": table})
        return dataclasses.replace(self, recipe=recipe, network=network)


def resolve(recipe: Recipe) -> Resolved:
    """Look up every name and check every parameter, before anything is loaded.

    Raises:
        RecipeError: If a name or a key is unknown or a value invalid; names the dotted key.
        MissingExtraError: If a framework is not installed.
        MissingDataError: If the file of a measured device is missing.
    """
    data = _data(recipe)
    network = factory(
        MODELS, recipe.model.name, recipe.model.parameters, "model", name_key="model.name"
    )
    loss = _loss(recipe, network)
    optimization = _optimization(recipe)
    optimizer, _ = optimization([nn.Parameter(torch.zeros(1))])
    start = start_of(recipe)
    method = methods.read_method(recipe.method, optimizer=optimizer)
    methods.check_evaluation(recipe)
    evaluation = recipe.evaluation
    device = read_device(evaluation.device, "evaluation.device")
    corruption = None
    if evaluation.corruption is not None:
        corruption = read_corruption(evaluation.corruption, "evaluation.corruption")
        if device.is_open:
            raise RecipeError(
                f"evaluation.device = {device.label!r} leaves its sigma open, but the sweep is "
                f"over the severity of {corruption.label!r}. Write "
                'device = "gaussian:sigma=0.05", or leave it out for no variation.'
            )
        if evaluation.sigmas is None:
            evaluation = evaluation.model_copy(update={"sigmas": levels(corruption)})
        for severity in evaluation.sigmas or (0.0,):
            corruption(severity)
    measures = read_measures(evaluation.calibrate, "evaluation.calibrate")
    if corruption is not None and (measures or evaluation.verify is not None):
        raise RecipeError(
            f"evaluation.corruption = {corruption.label!r}: a sweep over a corruption neither "
            "calibrates nor verifies chips. Leave out calibrate and verify, or the corruption."
        )
    if evaluation.ages is not None:
        _check_ages(evaluation.ages, device, corruption)
    if recipe.landscape is not None:
        read_device(recipe.landscape.device, "landscape.device")
    converted = None if recipe.conversion is None else conversion.read(recipe.conversion)
    # The data knows the shape of its spikes; a default would stand in its way.
    shaped = "input_shape" in network.given
    model = {k: v for k, v in network.complete.items() if shaped or k != "input_shape"}
    complete = {
        "data": Component(name=recipe.data.name, **data.complete),
        "model": Component(name=recipe.model.name, **model),
        "method": method.table,
        "evaluation": evaluation,
        "conversion": converted and converted.table,
    }
    recipe = recipe.model_copy(update=complete)
    return Resolved(
        recipe,
        data,
        network,
        loss,
        optimization,
        method,
        start,
        device,
        corruption,
        converted,
        measures,
        read_crossbar(evaluation.crossbar, "evaluation.crossbar"),
        read_crossbar(recipe.training.crossbar, "training.crossbar", fixed=True),
    )


def _check_ages(
    ages: tuple[float, ...], device: Sized[DeviceModel], corruption: Sized[Corruption] | None
) -> None:
    """Raise RecipeError unless a device can be looked at at these times since programming."""
    if corruption is not None or device.is_open:
        raise RecipeError(
            f"evaluation.ages = {list(ages)}: chips are looked at older, so that nothing else can "
            f"be swept. Leave out the corruption, and write the sigma of {device.label!r}."
        )
    made = device()
    if not changes_with_age(made):
        raise RecipeError(
            f"evaluation.ages = {list(ages)}: {device.label!r} does not change with time. Use a "
            "device that does, such as pcm, or leave out the ages."
        )
    for age in ages:
        try:
            at_age(made, age)
        except ValueError as error:
            raise RecipeError(f"evaluation.ages: {error}") from error


def averaging_start(recipe: Recipe) -> int:
    """Return the first epoch to be averaged."""
    return int(recipe.averaging.start * recipe.training.epochs + 1e-9)


def _data(recipe: Recipe) -> Factory:
    """Return a function that opens the data set, with its encoding."""
    given, encoding = recipe.data.parameters, recipe.data.parameters.get("encoding")
    if isinstance(encoding, Mapping):
        table = dict(encoding)
        key = "data.encoding"
        made = factory(ENCODINGS, table.pop("name", None), table, key, name_key=f"{key}.name")
        given["encoding"] = made()
    for own in ("cache", "download"):
        if given.get(own, False) is not False:
            raise RecipeError(
                f"data.{own} = {given[own]!r}: a recipe does not choose what is written where. "
                "Set $SPIKEWVAT_CACHE for the cache, and put data into --data-root beforehand."
            )
    data = factory(
        DATA, recipe.data.name, given, "data", name_key="data.name", reserved=("root", "split")
    )
    written = {**data.complete, **recipe.data.parameters}
    return dataclasses.replace(data, complete=written)


def _loss(recipe: Recipe, network: Factory) -> Loss:
    """Return the loss, after trying it on as many time steps as the network's output has."""
    table, key = recipe.training.loss, "training.loss"
    made = factory(LOSSES, table.name, table.parameters, key, reserved=("output", "labels"))
    output = torch.zeros(_time_steps(recipe, network), 1, 2)
    made(output=output, labels=torch.zeros(1, dtype=torch.long))  # impossible values
    return functools.partial(made.target, **made.given)


def _time_steps(recipe: Recipe, network: Factory) -> int:
    """Return the number of steps in the network's output, 1 if the recipe does not set it."""
    data, encoding = recipe.data.parameters, recipe.data.parameters.get("encoding")
    tables = [*([encoding] if isinstance(encoding, Mapping) else []), data, network.complete]
    found = [table["time_steps"] for table in tables if "time_steps" in table]
    steps = found[0] if found and isinstance(found[0], int) and found[0] > 0 else 1
    if steps > _MOST_STEPS:
        raise RecipeError(
            f"time_steps = {steps}: no more than {_MOST_STEPS} are run. Bin into fewer."
        )
    return steps


def _optimization(recipe: Recipe) -> Optimization:
    """Return the maker of optimizer and schedule.

    If averaging has its own learning rate, the schedule reaches it when averaging starts.
    """
    training, averaging = recipe.training, recipe.averaging
    options: dict[str, Any] = {"lr": training.lr, "weight_decay": training.weight_decay}
    target = lookup(OPTIMIZERS, training.optimizer, "training.optimizer")
    if training.momentum is not None:
        if "momentum" not in parameters(target):
            raise RecipeError(
                f"training.momentum = {training.momentum}: {training.optimizer!r} has no momentum. "
                "Leave it out, or use 'sgd'."
            )
        options["momentum"] = training.momentum
    if training.fused:
        if "fused" not in parameters(target):
            raise RecipeError(
                f"training.fused = true: {training.optimizer!r} has no fused kernel. Leave it out, "
                "or use 'sgd', 'adam' or 'adamw'."
            )
        if training.precision == "16-mixed" and training.clip_norm is not None:
            raise RecipeError(
                f"training.clip_norm = {training.clip_norm}: with precision = '16-mixed' a fused "
                "optimizer scales gradients back in its step, after clipping. Leave out "
                "training.fused, or use 'bf16-mixed'."
            )
        options["fused"] = True
    if training.decay is not None and training.schedule != "exponential":
        raise RecipeError(
            f"training.decay = {training.decay}: schedule = {training.schedule!r} has no such "
            "factor. Leave it out, or use schedule = 'exponential'."
        )
    factor: Callable[[int], float] | None = None
    horizon, last = training.epochs, None
    if averaging.enabled and averaging.lr is not None:
        horizon, last = averaging_start(recipe), averaging.lr
        if horizon < 1:
            raise RecipeError(
                f"averaging.lr = {averaging.lr}: averaging starts with the first epoch, so there "
                "is no decay before it. Set training.lr instead."
            )
    elif training.schedule == "decay":
        last = training.final_lr if training.final_lr is not None else training.lr / 100
    if last is not None:
        factor = functools.partial(decay_factor, horizon=horizon, ratio=last / training.lr)
    elif training.schedule == "step":
        factor = functools.partial(step_factor, horizon=training.epochs)
    elif training.schedule == "cosine":
        factor = functools.partial(cosine_factor, horizon=training.epochs)
    elif training.schedule == "exponential":
        if training.decay is None:
            raise RecipeError(
                "training.schedule = 'exponential' lacks its factor per epoch. Add training.decay "
                "= 0.95."
            )
        factor = functools.partial(exponential_factor, decay=training.decay)
    return Optimization(Factory(target, options, "training"), factor)
