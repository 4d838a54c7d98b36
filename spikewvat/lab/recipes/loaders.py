"""The data of a run, in loaders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from spikewvat.data import make_loader
from spikewvat.data.augmentation import Augmentation, Chain, RandomFlip, RandomShift
from spikewvat.data.stills import Level
from spikewvat.errors import DataError, MissingDataError, RecipeError
from spikewvat.lab.recipes.registry import lookup
from spikewvat.lab.recipes.resolve import Resolved
from spikewvat.lab.recipes.schema import GENERATED, Recipe
from spikewvat.lab.trainer.loop import derived_seed


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


def open_data(resolved: Resolved, root: Path | str | None = None) -> Data:
    """Open the data set and make its loaders.

    Args:
        resolved: Knows the data set; the recipe's seed chooses what is held out.
        root: Folder of the data set; by default its usual place.

    Raises:
        DataError: If the data is missing or malformed.
        RecipeError: If a parameter is impossible.
    """
    recipe = resolved.recipe
    settings, plan = recipe.training, recipe.evaluation
    root = data_folder(recipe.data.name, root)
    train, test = (resolved.data(root=root, split=s) for s in ("train", "test"))
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


def augmentation(recipe: Recipe, black: Level = 0.0) -> Augmentation | None:
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
