"""From a recipe to objects."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from spikewvat.data import make_loader
from spikewvat.data.augmentation import Augmentation, Chain, RandomFlip, RandomShift
from spikewvat.data.stills import Level
from spikewvat.errors import DataError, MissingDataError, RecipeError
from spikewvat.lab.recipes import conversion, methods, spikes, start
from spikewvat.lab.recipes.devices import build_device
from spikewvat.lab.recipes.registry import (
    checked,
    construct,
    filled,
    lookup,
    parameters,
)
from spikewvat.lab.recipes.schema import (
    DATA,
    ENCODINGS,
    GENERATED,
    LOSSES,
    MODELS,
    OPTIMIZERS,
    Component,
    Recipe,
)
from spikewvat.lab.trainer.loop import Loss, derived_seed
from spikewvat.training import GradientMethod
from spikewvat.training.averaging import SWA, decay_factor, exponential_factor, step_factor


@dataclass(frozen=True)
class Data:
    """The loaders of a run.

    Args:
        train: Training batches, shuffled.
        train_in_order: The same samples in larger batches, for evaluation.
        test: Test batches.
        watch: What decides about the best epoch and early stop.
        watching: What that is, ``"validation"`` or ``"test"``.
        input_shape: Channels, height and width of the spikes.
        samples: How many samples each part has.
        black: Value of an empty pixel, for each channel where they differ.
        classes: How many classes there are, None where the data does not say.
    """

    train: DataLoader[Any]
    train_in_order: DataLoader[Any]
    test: DataLoader[Any]
    watch: DataLoader[Any]
    watching: str
    input_shape: tuple[int, ...]
    samples: dict[str, int]
    black: Level = 0.0
    classes: int | None = None

    def part(self, split: str) -> DataLoader[Any]:
        """Return what to evaluate on: ``"train"``, ``"validation"`` or ``"test"``.

        Raises:
            RecipeError: If nothing was held out for validation.
        """
        if split == "validation" and self.watching != "validation":
            raise RecipeError(
                "evaluation.split = 'validation', but nothing is held out. "
                "Train with training.validation = 0.2, a share of the training data."
            )
        return {"train": self.train_in_order, "validation": self.watch, "test": self.test}[split]


def data_folder(name: str, root: Path | str | None = None) -> Path:
    """Return the folder of a data set: the given one, a generated one, or ``SPIKEWVAT_DATA``.

    Args:
        name: A name of the table ``DATA``.
        root: Folder that the user gave.

    Raises:
        DataError: If there is no such folder.
        MissingDataError: If none is known.
    """
    if root is not None:
        if not Path(root).is_dir():
            raise DataError(f"there is no folder {str(root)!r}. Check --data-root.")
        return Path(root)
    if name in GENERATED:
        return Path(lookup(GENERATED, name, "data.name")())
    if os.environ.get("SPIKEWVAT_DATA"):
        return Path(os.environ["SPIKEWVAT_DATA"])
    raise MissingDataError(
        f"the data set {name!r} needs a folder. Pass --data-root, or set SPIKEWVAT_DATA."
    )


def build_data(recipe: Recipe, root: Path | str | None = None) -> Data:
    """Open the data set and make its loaders.

    Args:
        recipe: Names the data set; its seed chooses what is held out.
        root: Folder of the data set; by default its usual place.

    Raises:
        DataError: If the data is missing or malformed.
        RecipeError: If its parameters are unknown or impossible.
    """
    settings, plan = recipe.training, recipe.evaluation
    target, given = _data(recipe)
    root = data_folder(recipe.data.name, root)
    train, test = (construct(target, given, "data", root=root, split=s) for s in ("train", "test"))
    held_out = int(settings.validation * len(train))
    generator = torch.Generator().manual_seed(derived_seed(recipe.seed, "validation"))
    order = torch.randperm(len(train), generator=generator).tolist()
    # Where the data set itself augments, what is evaluated on is not augmented.
    plain = train.without_augmentation() if hasattr(train, "without_augmentation") else train
    kept, kept_plain = (
        part if held_out == 0 else Subset(part, sorted(order[held_out:])) for part in (train, plain)
    )
    test = spread(test, plan.images)
    watched = test if held_out == 0 else Subset(plain, sorted(order[:held_out]))

    def in_order(dataset: Dataset[Any]) -> DataLoader[Any]:
        return make_loader(dataset, plan.batch_size, shuffle=False, workers=settings.workers)

    return Data(
        train=make_loader(
            kept,
            settings.batch_size,
            shuffle=True,  # in an order that the trainer seeds
            workers=settings.workers,
        ),
        train_in_order=in_order(spread(kept_plain, plan.images)),
        test=in_order(test),
        watch=in_order(watched),
        watching="test" if held_out == 0 else "validation",
        input_shape=tuple(train[0][0].shape[-3:]),
        samples={"train": len(kept), "validation": held_out, "test": len(test)},
        black=getattr(train, "black", 0.0),
        classes=getattr(train, "classes", None),
    )


def spread(dataset: Any, images: int | None) -> Any:
    """Return so many samples, evenly spaced over a data set; all where there are no more or None.

    Test sets are not in random order: the first half of MNIST's is easier than the second.
    """
    if images is None or images >= len(dataset):
        return dataset
    return Subset(dataset, [i * len(dataset) // images for i in range(images)])


def build_augmentation(recipe: Recipe, black: Level = 0.0) -> Augmentation | None:
    """Make what changes training batches, None where the recipe has nothing that does.

    Args:
        recipe: Says how far to shift and whether to mirror.
        black: Value of the pixels that a shift brings in.
    """
    steps: list[Augmentation] = []
    if recipe.training.shift:
        steps.append(RandomShift(recipe.training.shift, fill=black))
    if recipe.training.flip:
        steps.append(RandomFlip())
    return Chain(steps) if steps else None


def build_model(recipe: Recipe) -> nn.Module:
    """Make the network, its initial weights drawn from the recipe's seed.

    Raises:
        RecipeError: If its parameters are unknown or impossible.
    """
    target = lookup(MODELS, recipe.model.name, "model.name")
    given = checked(target, recipe.model.parameters, "model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(recipe.seed, "model"))
        model: nn.Module = construct(target, given, "model")
    return model


def check_classes(recipe: Recipe, classes: int | None) -> None:
    """Raise unless the network has a score for every class of the data, as far as both are known.

    Raises:
        RecipeError: Naming both numbers.
    """
    target = lookup(MODELS, recipe.model.name, "model.name")
    scores = filled(target, recipe.model.parameters).get("classes")
    if classes is not None and isinstance(scores, int) and scores < classes:
        raise RecipeError(
            f"model.classes = {scores}: the data has {classes} classes. "
            f"Set model.classes = {classes}."
        )


def with_input_shape(recipe: Recipe, shape: Iterable[int]) -> Recipe:
    """Return the recipe with the network's ``input_shape`` that the data has, where it has one."""
    target = lookup(MODELS, recipe.model.name, "model.name")
    if "input_shape" not in parameters(target) or "input_shape" in recipe.model.parameters:
        return recipe
    model = {**recipe.model.model_dump(), "input_shape": list(shape)}
    return recipe.model_copy(update={"model": Component.model_validate(model)})


def build_loss(recipe: Recipe) -> Loss:
    """Make the loss, a function of output and labels.

    Raises:
        RecipeError: If its parameters are unknown or impossible.
    """
    component = recipe.training.loss
    target = lookup(LOSSES, component.name, "training.loss")
    reserved = ("output", "labels")
    given = checked(target, component.parameters, "training.loss", reserved=reserved)
    output, labels = torch.zeros(_time_steps(recipe), 1, 2), torch.zeros(1, dtype=torch.long)
    construct(target, given, "training.loss", output=output, labels=labels)  # impossible values
    return functools.partial(target, **given)


def build_optimizer(
    recipe: Recipe, weights: Iterable[nn.Parameter]
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
    """Make the optimizer and, unless the learning rate is constant, its schedule.

    Under averaging with a learning rate of its own, that rate is reached where averaging starts.

    Raises:
        RecipeError: If the optimizer is unknown or has no momentum that was given.
    """
    training, averaging = recipe.training, recipe.averaging
    target = lookup(OPTIMIZERS, training.optimizer, "training.optimizer")
    options: dict[str, Any] = {"lr": training.lr, "weight_decay": training.weight_decay}
    if training.momentum is not None:
        if "momentum" not in parameters(target):
            raise RecipeError(
                f"training.momentum = {training.momentum}: {training.optimizer!r} has no momentum. "
                "Leave it out, or use 'sgd'."
            )
        options["momentum"] = training.momentum
    optimizer: torch.optim.Optimizer = construct(target, options, "training", params=list(weights))
    if training.decay is not None and training.schedule != "exponential":
        raise RecipeError(
            f"training.decay = {training.decay}: schedule = {training.schedule!r} has no such "
            "factor. Leave it out, or use schedule = 'exponential'."
        )
    horizon, last = training.epochs, None
    if averaging.enabled and averaging.lr is not None:
        horizon, last = averaging_start(recipe), averaging.lr
        if horizon < 1:
            raise RecipeError(
                f"averaging.lr = {averaging.lr}: averaging starts with the first epoch, so there "
                "is nothing to decay from. Set training.lr instead."
            )
    elif training.schedule == "decay":
        last = training.final_lr if training.final_lr is not None else training.lr / 100
    if last is not None:
        factor = functools.partial(decay_factor, horizon=horizon, ratio=last / training.lr)
    elif training.schedule == "step":
        factor = functools.partial(step_factor, horizon=training.epochs)
    elif training.schedule == "exponential":
        if training.decay is None:
            raise RecipeError(
                "training.schedule = 'exponential' lacks its factor of an epoch. "
                "Add training.decay = 0.95."
            )
        factor = functools.partial(exponential_factor, decay=training.decay)
    else:
        return optimizer, None
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def averaging_start(recipe: Recipe) -> int:
    """Return the first epoch that is averaged."""
    return int(recipe.averaging.start * recipe.training.epochs + 1e-9)


def build_averaging(recipe: Recipe, model: nn.Module) -> SWA | None:
    """Make the weight averaging, None where the recipe has none."""
    if not recipe.averaging.enabled:
        return None
    return SWA(model, start=averaging_start(recipe))


def build_method(
    recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> GradientMethod:
    """Make what takes the gradients; noise comes from the seed.

    Args:
        recipe: Names the method.
        model: The network that is trained.
        optimizer: Trains it; some methods look at its momentum.

    Raises:
        RecipeError: If its parameters are unknown or impossible.
    """
    seed = derived_seed(recipe.seed, "method")
    return methods.build_method(recipe.method, model, seed=seed, optimizer=optimizer)


def check(recipe: Recipe) -> Recipe:
    """Check every component against what its name stands for, before anything is loaded.

    Returns:
        The recipe with the defaults of its components written out.

    Raises:
        RecipeError: If a key is unknown or a value impossible.
        MissingExtraError: If a framework is not installed.
    """
    data, _ = _data(recipe)
    model = lookup(MODELS, recipe.model.name, "model.name")
    checked(model, recipe.model.parameters, "model")
    build_loss(recipe)
    optimizer, _ = build_optimizer(recipe, [nn.Parameter(torch.zeros(1))])
    start.check(recipe)
    build_method(recipe, nn.Linear(2, 2), optimizer)
    methods.check_evaluation(recipe)
    build_device(recipe.evaluation.device, "evaluation.device", sigma=0.0)
    spikes.check(recipe.evaluation)
    if recipe.landscape is not None:
        build_device(recipe.landscape.device, "landscape.device", sigma=0.0)
    not_in_data = ("root", "split")
    complete = {
        "data": {
            "name": recipe.data.name,
            **filled(data, recipe.data.parameters, reserved=not_in_data),
        },
        "model": {"name": recipe.model.name, **filled(model, recipe.model.parameters)},
        "method": methods.complete(recipe.method),
    }
    # The data knows the shape of its spikes; a default would stand in its way.
    if "input_shape" not in recipe.model.parameters:
        complete["model"].pop("input_shape", None)
    components = {key: Component.model_validate(value) for key, value in complete.items()}
    complete_conversion = conversion.check(recipe.conversion)
    return recipe.model_copy(update={**components, "conversion": complete_conversion})


def _data(recipe: Recipe) -> tuple[Any, dict[str, Any]]:
    """Return the data set's class and its parameters, checked, the encoding made."""
    target = lookup(DATA, recipe.data.name, "data.name")
    given = recipe.data.parameters
    if isinstance(given.get("encoding"), Mapping):
        table = dict(given["encoding"])
        encoding = lookup(ENCODINGS, table.pop("name", None), "data.encoding.name")
        values = checked(encoding, table, "data.encoding")
        given["encoding"] = construct(encoding, values, "data.encoding")
    return target, checked(target, given, "data", reserved=("root", "split"))


def _time_steps(recipe: Recipe) -> int:
    """Return how many steps the network's output has, 1 where nothing in the recipe says so."""
    model = lookup(MODELS, recipe.model.name, "model.name")
    data, encoding = recipe.data.parameters, recipe.data.parameters.get("encoding")
    tables = [
        *([encoding] if isinstance(encoding, Mapping) else []),
        data,
        filled(model, recipe.model.parameters),
    ]
    found = [table["time_steps"] for table in tables if "time_steps" in table]
    return found[0] if found and isinstance(found[0], int) and found[0] > 0 else 1
