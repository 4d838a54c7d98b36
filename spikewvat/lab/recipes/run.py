"""A whole run: train a recipe, evaluate it on simulated chips, write the results."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikewvat import files, serialisation
from spikewvat.adapters import adapter_for
from spikewvat.data import make_loader
from spikewvat.devices import DeviceModel, ErrorSize, Verified, at_age, error_size
from spikewvat.errors import CheckpointError, RecipeError
from spikewvat.lab.recipes import conversion
from spikewvat.lab.recipes.crossbars import standing_in
from spikewvat.lab.recipes.devices import read_device
from spikewvat.lab.recipes.loaders import Data, augmentation, open_data, spread
from spikewvat.lab.recipes.lock import alone_in
from spikewvat.lab.recipes.reading import recipe_from
from spikewvat.lab.recipes.resolve import Resolved, resolve
from spikewvat.lab.recipes.results import RunResult, Training
from spikewvat.lab.recipes.schema import Recipe, Spec
from spikewvat.lab.trainer import FINAL, Trainer
from spikewvat.lab.trainer.console import ChipsProgress
from spikewvat.provenance import provenance
from spikewvat.robustness import Evaluator
from spikewvat.robustness.axis import AGE
from spikewvat.robustness.programming import programming_plan
from spikewvat.robustness.results import Degradation
from spikewvat.training.methods import quantized_activations

RECIPE = "recipe.toml"
RESULT = "result.json"
CONVERTED = "snn.safetensors"
_FISHER = 400  # samples that rank the weights to verify
_CALIBRATION = 512  # samples, evenly spaced, that ranges of activations are taken from


def train(
    resolved: Resolved,
    out: Path | str,
    *,
    data_root: Path | str | None = None,
    resume: bool = False,
    test: bool = True,
    progress: bool = True,
    console: Any = None,
) -> RunResult | None:
    """Train and evaluate a recipe.

    Writes ``recipe.toml`` (complete), ``model.safetensors``, ``best.safetensors``,
    ``checkpoint.safetensors`` and ``result.json``.

    Args:
        resolved: The recipe to run.
        out: Folder for the files.
        data_root: Folder of the recipe's data set; its usual location by default.
        resume: Resume from the checkpoint in ``out``, if there is one.
        test: Test the network on chips, not only without variation.
        progress: Show progress bars.
        console: A ``rich.console.Console`` for them; by default standard error.

    Returns:
        The content of ``result.json``; None if another process of the run writes it.

    Raises:
        RecipeError: If the network or the split does not fit the data.
        DataError: If the data is missing or malformed.
        CheckpointError: If files cannot be written or belong to another run, another process
            trains in ``out``, or the initial weights are missing or belong to another network.
        DivergedError: If loss or weights are no longer finite.
    """
    with alone_in(out):
        return _train(resolved, Path(out), data_root, resume, test, progress, console)


def _train(
    resolved: Resolved,
    out: Path,
    data_root: Path | str | None,
    resume: bool,
    test: bool,
    progress: bool,
    console: Any,
) -> RunResult | None:
    """Train and evaluate in a folder that nobody else trains in."""
    recipe = resolved.recipe
    trainer = _trainer(recipe, out, progress=progress, console=console, resume=resume)
    data = open_data(resolved, data_root)
    resolved.check_classes(data.classes)
    tested = data.part(recipe.evaluation.split)
    resolved = resolved.with_input_shape(data.input_shape)
    recipe = resolved.recipe
    first = trainer.fabric.is_global_zero
    if first and not trainer.resumes:
        files.write_toml(trainer.out / RECIPE, recipe.content())
    model = resolved.build_model()
    if resolved.start is not None and not trainer.resumes:  # a checkpoint holds later weights
        resolved.start(model)
    optimizer, scheduler = resolved.optimization(model.parameters())
    method, swa = resolved.build_method(model, optimizer), resolved.build_averaging(model)
    with _trained_in(resolved, model):
        trained = trainer.fit(
            model,
            data.train,
            resolved.loss,
            optimizer,
            watch=data.watch,
            watching=data.watching,
            method=method,
            swa=swa,
            scheduler=scheduler,
            augment=augmentation(recipe, data.black),
            identity={"recipe": recipe.training_content()},
        )
    if not first:
        return None
    with converters(recipe, trained.model, data):
        found = on_chips(trained.model, tested, resolved, data, test=test, progress=progress)
    training = Training(
        epochs=len(trained.history),
        samples=data.samples,
        history=tuple(trained.history),
        stopped_early=trained.stopped_early,
        averaged_epochs=trained.averaged,
        best_epoch=trained.best_epoch,
        best_accuracy=trained.best_accuracy,
        watching=data.watching,
    )
    result = run_result(resolved, found, training=training)
    serialisation.write(trainer.out / RESULT, result)
    return result


def _trained_in(resolved: Resolved, model: nn.Module) -> AbstractContextManager[Any]:
    """Return the crossbar that a network is trained in, if any."""
    plan = resolved.trained_in
    return nullcontext() if plan is None else plan.crossbar.around(model)


def _trainer(recipe: Recipe, out: Path, **options: Any) -> Trainer:
    """Make the trainer of a recipe.

    Raises:
        RecipeError: If this machine does not have the devices that the recipe asks for.
    """
    settings, cores = recipe.training, os.cpu_count() or 1
    if settings.accelerator == "cpu" and settings.devices > max(cores, 2):
        raise RecipeError(
            f"training.devices = {settings.devices}: this machine has {cores} cores. "
            "Take at most as many processes."
        )
    try:
        return Trainer(
            out,
            epochs=settings.epochs,
            seed=recipe.seed,
            clip_norm=settings.clip_norm,
            clamp=settings.clamp,
            patience=settings.patience,
            accelerator=settings.accelerator,
            devices=settings.devices,
            strategy=settings.strategy,
            precision=settings.precision,
            tensorboard=settings.tensorboard,
            **options,
        )
    except (ValueError, RuntimeError) as error:
        if type(error) not in (ValueError, RuntimeError):
            raise  # the package's own errors say what to do
        raise RecipeError(f"[training] cannot be run here: {error}") from error


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
        resolve(recipe), out, weights=weights, data_root=data_root, progress=progress
    )


def evaluate_as(
    resolved: Resolved,
    out: Path | str,
    *,
    weights: str = FINAL,
    data_root: Path | str | None = None,
    progress: bool = True,
) -> RunResult:
    """Evaluate a trained network according to a recipe.

    Args:
        resolved: The recipe: its network and, in ``evaluation``, the chips to simulate.
        out: Folder of a training run.
        weights: Weights file in ``out``.
        data_root: Folder of the recipe's data set; its usual location by default.
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
    recipe = resolved.recipe
    model = load_model(out, resolved, weights=weights)
    with converters(recipe, model, data):
        found = on_chips(model, tested, resolved, data, progress=progress)
    return run_result(
        resolved,
        found,
        is_converted=weights == CONVERTED,
        run=str(out),
        weights=weights,
        errors=_errors(model, resolved, found),
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


def read_run(out: Path | str) -> Recipe:
    """Return the recipe of a finished run.

    Raises:
        CheckpointError: If the folder holds no run.
    """
    path = Path(out) / RECIPE
    if not path.is_file():
        raise CheckpointError(
            f"{str(out)!r} holds no run: there is no {RECIPE}. "
            "Pass the --out folder of spikewvat train."
        )
    return recipe_from(files.read_toml(path))


def evaluated_otherwise(recipe: Recipe, **given: Any) -> Recipe:
    """Return a recipe with changed values in its table ``[evaluation]``; None keeps a value.

    Raises:
        RecipeError: If a value is invalid.
    """
    content = recipe.content()
    content["evaluation"] |= {key: value for key, value in given.items() if value is not None}
    return recipe_from(content)


def final_weights(out: Path | str) -> str:
    """Return the weights file of a run's final network, the converted one if there is one."""
    return CONVERTED if (Path(out) / CONVERTED).is_file() else FINAL


def load_model(out: Path | str, resolved: Resolved, *, weights: str = FINAL) -> nn.Module:
    """Make the recipe's network with the weights of a run, in evaluation mode.

    Args:
        out: Folder of the run.
        resolved: The run's recipe.
        weights: File in ``out``: a checkpoint, or the network of a conversion.

    Raises:
        CheckpointError: If the weights are missing, damaged or belong to another model.
    """
    path = Path(out) / weights
    model = resolved.build_model()
    if weights == CONVERTED and resolved.conversion is not None:
        model = conversion.restored(model, resolved.conversion, path)
    else:
        state = files.load(path)
        state = state["model"] if "position" in state else state  # of a checkpoint
        files.load_state(model, state, source=f"{str(path)!r}")
    on_gpu = resolved.recipe.training.accelerator != "cpu" and torch.cuda.is_available()
    return model.to("cuda" if on_gpu else "cpu").eval()


def on_chips(
    model: nn.Module,
    loader: Any,
    resolved: Resolved,
    data: Data,
    *,
    test: bool = True,
    progress: bool,
) -> Degradation:
    """Return the accuracy without variation and, if ``test``, a report for each size."""
    plan, corruption = resolved.recipe.evaluation, resolved.corruption
    options: dict[str, Any] = {"chips": plan.chips, "target": plan.target, "seed": plan.seed}
    swept = plan.sigmas if plan.ages is None else plan.ages
    sizes = list(swept or ()) if test else []
    tested = Evaluator(model, loader, time="network")
    if not sizes:
        return Degradation(tested.accuracy, ())
    device = _devices(model, resolved, data)
    with ChipsProgress(enabled=progress) as bar:
        options["progress"] = bar
        if corruption is not None:
            return tested.corrupt(corruption, sizes, device=device(0.0), **options)
        if resolved.measures:
            options |= {"calibrate": resolved.measures, "calibration": data.calibration}
        if plan.ages is not None:
            made = device(0.0)
            return tested.sweep(lambda age: at_age(made, age), sizes, axis=AGE, **options)
        if resolved.device.is_open:
            return tested.sweep(device, sizes, **options)
        report = tested.chips(device(0.0), **options)
    return Degradation(tested.accuracy, (report,))


def _devices(model: nn.Module, resolved: Resolved, data: Data) -> Callable[[float], DeviceModel]:
    """Return the device by size, with what the recipe puts around it: a crossbar, verification."""
    evaluation, plan, crossbar = resolved.recipe.evaluation, None, None
    if resolved.crossbar is not None:
        crossbar = resolved.crossbar.on(model, data.calibration)
    if evaluation.verify is not None:
        bare, samples = resolved.device(), min(_FISHER, data.samples["train"])
        plan = programming_plan(
            model, data.calibration, bare, evaluation.verify, samples=samples, time="network"
        )

    def made(size: float) -> DeviceModel:
        device = resolved.device(size)
        device = device if crossbar is None else standing_in(device, crossbar)
        return device if plan is None else Verified(device, plan)

    return made


def _errors(model: nn.Module, resolved: Resolved, found: Degradation) -> ErrorSize | None:
    """Return how large errors are on the last kind of chip that was tested, if there are any."""
    if not found.reports or resolved.corruption is not None:
        return None
    last = found.reports[-1]
    device = resolved.device(last.size) if last.setting is None else resolved.device()
    device = device if last.setting is None else at_age(device, last.size)
    return error_size(device, adapter_for(model).synaptic_weights(model))


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
