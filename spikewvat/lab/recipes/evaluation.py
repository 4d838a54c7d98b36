"""Evaluate a trained network on the chips of its recipe, or on others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikewvat.adapters import adapter_for
from spikewvat.data import make_loader
from spikewvat.devices import DeviceModel, ErrorSize, Verified, at_age, error_size
from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.crossbars import standing_in
from spikewvat.lab.recipes.devices import read_device
from spikewvat.lab.recipes.loaders import Data, open_data, spread
from spikewvat.lab.recipes.reading import recipe_from
from spikewvat.lab.recipes.resolve import Resolved, resolve
from spikewvat.lab.recipes.results import RunResult
from spikewvat.lab.recipes.saved import CONVERTED, final_weights, load_model, read_run
from spikewvat.lab.recipes.schema import PRECISE, Recipe, Spec
from spikewvat.lab.trainer import FINAL
from spikewvat.lab.trainer.console import ChipsProgress
from spikewvat.provenance import provenance
from spikewvat.robustness import Evaluator
from spikewvat.robustness.axis import AGE
from spikewvat.robustness.calibration import BiasTrim
from spikewvat.robustness.programming import programming_plan
from spikewvat.robustness.results import Degradation
from spikewvat.training.methods import quantized_activations

_FISHER = 400  # samples that rank the weights to verify
_CALIBRATION = 512  # samples, evenly spaced, that ranges of activations are taken from


def evaluate(
    out: Path | str,
    *,
    data_root: Path | str | None = None,
    split: str | None = None,
    device: Spec | None = None,
    sigmas: Sequence[float] | None = None,
    corruption: Spec | None = None,
    severities: Sequence[float] | None = None,
    ages: Sequence[float] | None = None,
    crossbar: str | None = None,
    calibrate: Spec | None = None,
    verify: float | None = None,
    chips: int | None = None,
    target: float | None = None,
    seed: int | None = None,
    weights: str | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> RunResult:
    """Evaluate a trained network on simulated chips.

    Args:
        out: Folder of a training run.
        data_root: Folder of its data set; its usual location by default.
        split: ``"train"``, ``"validation"`` or ``"test"``; this and the next arguments default to
            the recipe's.
        device: The device, see :func:`spikewvat.lab.recipes.devices.stages`.
        sigmas: Sizes of the variation, if the device leaves its size open.
        corruption: Corruption of spikes or neurons, see
            :func:`spikewvat.lab.recipes.corruptions.read_corruption`. The recipe's device is then
            ignored if its size is open.
        severities: Severities of the corruption; 0 and five levels by default.
        ages: Times since programming at which to look at the same chips, in seconds.
        crossbar: What stands around the devices, see
            :func:`spikewvat.lab.recipes.crossbars.read_crossbar`.
        calibrate: What is done to each chip after programming, see
            :func:`spikewvat.lab.recipes.corruptions.read_measures`.
        verify: Share of the weights that are verified.
        chips: Number of chips at each size.
        target: Accuracy that a chip must reach to work.
        seed: Seed of the chips.
        weights: Weights file in ``out``; by default the converted network of a conversion.
        jobs: Number of processes that share the chips.
        progress: Show a progress bar.

    Returns:
        Accuracies without variation and on chips, with provenance.

    Raises:
        CheckpointError: If ``out`` holds no run, or its weights do not fit its recipe.
        RecipeError: If the device or the corruption cannot be made.
        DataError: If the data is missing or malformed.
    """
    given: dict[str, Any] = {"split": split, "chips": chips, "target": target, "seed": seed}
    given |= {"device": device, "crossbar": crossbar, "calibrate": calibrate, "verify": verify}
    recipe = read_run(out)
    sizes = sigmas
    if (corruption or recipe.evaluation.corruption) is not None:
        if sigmas is not None:
            raise RecipeError(
                f"sigmas {list(sigmas)} are sizes of weight variation, but the sweep is over a "
                "corruption. Pass --severities, and --device gaussian:sigma=0.05 for varied "
                "weights."
            )
        sizes = severities
    elif severities is not None:
        raise RecipeError(
            f"severities {list(severities)} need a corruption. Pass --corruption too."
        )
    if corruption is not None:  # what the recipe says of weight variation is no severity
        forgotten = recipe.evaluation.model_copy(update={"sigmas": None})
        recipe = recipe.model_copy(update={"evaluation": forgotten})
        if device is None and read_device(forgotten.device, "evaluation.device").is_open:
            given["device"] = "ideal"
    elif sigmas is not None:
        used = read_device(device or recipe.evaluation.device, "evaluation.device")
        if not used.is_open:
            raise RecipeError(
                f"sigmas {list(sigmas)}: the device {used.label!r} has a size of its own. "
                "Leave out --sigma, or the sigma of the device."
            )
    if ages is not None:
        given["ages"] = list(ages)
    swept = None if sizes is None else list(sizes)
    recipe = evaluated_otherwise(recipe, **given, corruption=corruption, sigmas=swept)
    weights = weights or final_weights(out)
    return evaluate_as(
        resolve(recipe), out, weights=weights, data_root=data_root, jobs=jobs, progress=progress
    )


def evaluate_as(
    resolved: Resolved,
    out: Path | str,
    *,
    weights: str = FINAL,
    columns: Mapping[str, Resolved] | None = None,
    data_root: Path | str | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> RunResult:
    """Evaluate a trained network according to a recipe.

    Args:
        resolved: The recipe: its network and, in ``evaluation``, the chips to simulate.
        out: Folder of a training run.
        weights: Weights file in ``out``.
        columns: The same recipe with other chips in ``evaluation``, by name. The samples are read
            once for all of them.
        data_root: Folder of the recipe's data set; its usual location by default.
        jobs: Number of processes that share the chips.
        progress: Show a progress bar.

    Returns:
        Accuracies without variation and on chips, with provenance.

    Raises:
        CheckpointError: If the weights are missing, or belong to another network.
        DataError: If the data is missing or malformed.
    """
    data = open_data(resolved, data_root)
    tested = data.part(resolved.recipe.evaluation.split)  # the only part that has to be there
    resolved = resolved.with_input_shape(data.input_shape)
    if weights == CONVERTED:
        resolved = resolved.evaluated(precision=PRECISE)
    recipe = resolved.recipe
    model = load_model(out, resolved, weights=weights)
    read = list(tested) if columns else tested
    with converters(recipe, model, data):
        found = on_chips(model, read, resolved, data, jobs=jobs, progress=progress)
        others = {
            name: on_chips(model, read, other, data, jobs=jobs, progress=progress).reports[-1]
            for name, other in (columns or {}).items()
        }
    return run_result(
        resolved,
        found,
        columns={name: replace(report, hits=None) for name, report in others.items()},
        is_converted=weights == CONVERTED,
        run=str(out),
        weights=weights,
        errors=errors_on_chips(model, resolved, found),
    )


def run_result(
    resolved: Resolved, curve: Degradation, *, is_converted: bool = False, **found: Any
) -> RunResult:
    """Return the results of a run, with provenance.

    Args:
        resolved: The recipe of the run.
        curve: Accuracies without variation and on chips.
        is_converted: Whether the network was converted.
        **found: Further fields of :class:`RunResult`.
    """
    recipe, corruption = resolved.recipe, resolved.corruption
    content = recipe.content()
    settings = {
        key: float(value)
        for key, value in content.get("method", {}).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return RunResult(
        recipe=content,
        seed=recipe.seed,
        scale=recipe.scale,
        method=method_label(recipe, converted=is_converted),
        split=recipe.evaluation.split,
        device=resolved.device_label,
        curve=curve,
        corruption=None if corruption is None else corruption.label,
        settings=settings,
        **provenance(),
        **found,
    )


def method_label(recipe: Recipe, *, converted: bool = False) -> str:
    """Return a short name of a recipe's training, for legends: ``"wvat"``, ``"swa"``, ``"adam"``.

    Args:
        recipe: The recipe of the run.
        converted: Whether the network was converted: ``"wvat, converted, STDB under wvat"``.
    """
    name = recipe.method.name
    if name == "plain":
        name = "swa" if recipe.averaging.enabled else recipe.training.optimizer
    if not converted or recipe.conversion is None:
        return name
    tuned, how = recipe.conversion.finetune, ""
    if tuned.epochs:
        how = ", STDB" if tuned.method.name == "plain" else f", STDB under {tuned.method.name}"
    return f"{name}, converted{how}"


def evaluated_otherwise(recipe: Recipe, **given: Any) -> Recipe:
    """Return a recipe with changed values in its table ``[evaluation]``; None keeps a value.

    Raises:
        RecipeError: If a value is invalid.
    """
    content = recipe.content()
    content["evaluation"] |= {key: value for key, value in given.items() if value is not None}
    return recipe_from(content)


def on_chips(
    model: nn.Module,
    loader: Any,
    resolved: Resolved,
    data: Data,
    *,
    test: bool = True,
    jobs: int = 1,
    progress: bool,
) -> Degradation:
    """Return the accuracy without variation and, if ``test``, a report for each size."""
    plan, corruption = resolved.recipe.evaluation, resolved.corruption
    options: dict[str, Any] = {"chips": plan.chips, "target": plan.target, "seed": plan.seed}
    swept = plan.sigmas if plan.ages is None else plan.ages
    sizes = list(swept or ()) if test else []
    autocast = torch.bfloat16 if plan.precision == "bf16-mixed" else None
    tested = Evaluator(model, loader, time="network", autocast=autocast, jobs=jobs)
    if not sizes:
        return Degradation(tested.accuracy, ())
    device = _devices(model, resolved, data)
    with ChipsProgress(enabled=progress) as bar:
        options["progress"] = bar
        if corruption is not None:
            return tested.corrupt(corruption, sizes, device=device(0.0), **options)
        if resolved.measures:
            options |= {"calibrate": resolved.measures, "calibration": data.calibration}
            options["before"] = plan.before
        if plan.ages is not None:
            made = device(0.0)
            return tested.sweep(lambda age: at_age(made, age), sizes, axis=AGE, **options)
        if resolved.device.is_open:
            return tested.sweep(device, sizes, **options)
        report = tested.chips(device(0.0), **options)
    return Degradation(tested.accuracy, (report,))


def converters(recipe: Recipe, model: nn.Module, data: Data) -> AbstractContextManager[Any]:
    """Return a context that quantises the network's activations, if the recipe asks for it.

    Args:
        recipe: Sets the number of bits, if any.
        model: The network to test.
        data: Data with the training samples that set the ranges.
    """
    plan = recipe.evaluation
    if plan.activation_bits is None:
        return nullcontext()
    some = spread(data.train.dataset, _CALIBRATION)
    loader = make_loader(some, plan.batch_size, workers=recipe.training.workers)
    return quantized_activations(model, loader, bits=plan.activation_bits)


def _devices(model: nn.Module, resolved: Resolved, data: Data) -> Callable[[float], DeviceModel]:
    """Return the device by size, with what the recipe puts around it: a crossbar, verification."""
    share, device, plan, crossbar = resolved.recipe.evaluation.verify, resolved.device, None, None
    if resolved.crossbar is not None:
        crossbar = resolved.crossbar.on(model, data.calibration)
    if share is not None:
        samples = min(_FISHER, data.samples["train"])
        trimmed = any(isinstance(measure, BiasTrim) for measure in resolved.measures)
        plan = programming_plan(
            model,
            data.calibration,
            device(),
            share,
            trimmed=trimmed,
            samples=samples,
            time="network",
        )

    def made(size: float) -> DeviceModel:
        found = device(size)
        found = found if crossbar is None else standing_in(found, crossbar)
        return found if plan is None else Verified(found, plan)

    return made


def errors_on_chips(model: nn.Module, resolved: Resolved, found: Degradation) -> ErrorSize | None:
    """Return how large errors are on the last kind of chip that was tested, if there are any."""
    if not found.reports or resolved.corruption is not None:
        return None
    last = found.reports[-1]
    device = resolved.device(last.size) if last.setting is None else resolved.device()
    device = device if last.setting is None else at_age(device, last.size)
    return error_size(device, adapter_for(model).synaptic_weights(model))
