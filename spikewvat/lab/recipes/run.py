"""A whole run: train a recipe, evaluate it on simulated chips, write the results."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from spikewvat import files, serialisation
from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.evaluation import converters, on_chips, run_result
from spikewvat.lab.recipes.loaders import augmentation, open_data
from spikewvat.lab.recipes.lock import alone_in
from spikewvat.lab.recipes.resolve import Resolved
from spikewvat.lab.recipes.results import RunResult, Training
from spikewvat.lab.recipes.saved import RECIPE, RESULT
from spikewvat.lab.recipes.schema import Recipe
from spikewvat.lab.trainer import Trainer


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
    steps = recipe.training.epochs * len(data.train)
    method = resolved.build_method(model, optimizer, steps=steps)
    swa = resolved.build_averaging(model)
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
            compile=settings.compile,
            tensorboard=settings.tensorboard,
            **options,
        )
    except (ValueError, RuntimeError) as error:
        if type(error) not in (ValueError, RuntimeError):
            raise  # the package's own errors say what to do
        raise RecipeError(f"[training] cannot be run here: {error}") from error
