"""The data loaders of a run."""

from __future__ import annotations

import os
from functools import cached_property
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

_CALIBRATION_BATCH = 64  # samples that a chip sees at once


class Data:
    """The loaders of a run; a part of the data set is opened when it is first asked for.

    Args:
        resolved: Knows the data set; the recipe's seed chooses what is held out.
        root: Folder of the data set.
    """

    def __init__(self, resolved: Resolved, root: Path) -> None:
        self._resolved, self._root = resolved, root
        self._settings, self._plan = resolved.recipe.training, resolved.recipe.evaluation
        self._opened: dict[str, Any] = {}

    @cached_property
    def train(self) -> DataLoader[Any]:
        """Training batches, shuffled."""
        return make_loader(
            self._kept(self._split("train")),
            self._settings.batch_size,
            shuffle=True,  # in an order that the trainer seeds
            workers=self._settings.workers,
        )

    @cached_property
    def train_in_order(self) -> DataLoader[Any]:
        """The same samples in larger batches, for evaluation."""
        return self._in_order(spread(self._kept(self._plain), self._plan.images))

    @cached_property
    def calibration(self) -> DataLoader[Any]:
        """Samples in an order drawn from the recipe's seed, to calibrate chips with."""
        fresh, draw = self._plan.calibration == "validation", self._plan.draw
        samples = self._held("calibration") if fresh else self._kept(self._plain)
        purpose = ("calibration", draw) if draw else ("calibration",)
        generator = torch.Generator()
        generator.manual_seed(derived_seed(self._resolved.recipe.seed, *purpose))
        chosen = Subset(samples, torch.randperm(len(samples), generator=generator).tolist())
        return make_loader(chosen, _CALIBRATION_BATCH, workers=self._settings.workers)

    @cached_property
    def test(self) -> DataLoader[Any]:
        """Test batches."""
        return self._in_order(spread(self._split("test"), self._plan.images))

    @cached_property
    def validation(self) -> DataLoader[Any]:
        """Batches of what was held out.

        Raises:
            RecipeError: If nothing was.
        """
        return self._in_order(spread(self._held("split"), self._plan.images))

    @cached_property
    def watch(self) -> DataLoader[Any]:
        """What decides about the best epoch and early stop."""
        if self.watching == "test":
            return self.test
        return self._in_order(self._held("split"))

    @property
    def watching(self) -> str:
        """What that is, ``"validation"`` or ``"test"``."""
        return "test" if self._settings.validation == 0 or self._held_out == 0 else "validation"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Channels, height and width of the spikes."""
        return tuple(self._any[0][0].shape[-3:])

    @property
    def samples(self) -> dict[str, int]:
        """How many samples each part has; the test data is not counted where it stays closed."""
        counts = {"train": len(self.train.dataset), "validation": self._held_out}  # type: ignore[arg-type]
        if self._plan.split != "validation":
            counts["test"] = len(self.test.dataset)  # type: ignore[arg-type]
        return counts

    @property
    def black(self) -> Level:
        """Value of an empty pixel, for each channel where they differ."""
        level: Level = getattr(self._any, "black", 0.0)
        return level

    @property
    def classes(self) -> int | None:
        """How many classes there are, None where the data does not say."""
        return getattr(self._any, "classes", None)

    def part(self, split: str) -> DataLoader[Any]:
        """Return the batches to evaluate on: ``"train"``, ``"validation"`` or ``"test"``.

        Raises:
            RecipeError: If nothing was held out for validation.
        """
        name = "train_in_order" if split == "train" else split
        loader: DataLoader[Any] = getattr(self, name)
        return loader

    def _split(self, name: str) -> Any:
        """Return a part of the data set as it lies on disk.

        Raises:
            RecipeError: If it is the test data and the recipe evaluates on held-out data.
        """
        if name == "test" and self._plan.split == "validation":
            raise RecipeError(
                "evaluation.split = 'validation' keeps the test data closed. Evaluate with "
                "evaluation.split = 'test' once everything is chosen."
            )
        if name not in self._opened:
            self._opened[name] = self._resolved.data(root=self._root, split=name)
        return self._opened[name]

    @property
    def _any(self) -> Any:
        """A part that is open, the training data where none is."""
        return next(iter(self._opened.values()), None) or self._split("train")

    @cached_property
    def _plain(self) -> Any:
        """Training data without the data set's own augmentation: none is evaluated on it."""
        train = self._split("train")
        return train.without_augmentation() if hasattr(train, "without_augmentation") else train

    @property
    def _held_out(self) -> int:
        return int(self._settings.validation * len(self._split("train")))

    @cached_property
    def _order(self) -> list[int]:
        generator = torch.Generator()
        generator.manual_seed(derived_seed(self._resolved.recipe.seed, "validation"))
        order: list[int] = torch.randperm(len(self._split("train")), generator=generator).tolist()
        return order

    def _held(self, key: str) -> Any:
        """Return what is held out; ``key`` is what asks for it."""
        if self.watching != "validation":
            raise RecipeError(
                f"evaluation.{key} = 'validation', but no data is held out. Train with "
                "training.validation = 0.2, a share of the training data."
            )
        return Subset(self._plain, sorted(self._order[: self._held_out]))

    def _kept(self, part: Any) -> Any:
        """Return what is not held out."""
        if self._held_out == 0:
            return part
        return Subset(part, sorted(self._order[self._held_out :]))

    def _in_order(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        return make_loader(
            dataset, self._plan.batch_size, shuffle=False, workers=self._settings.workers
        )


def data_folder(name: str, root: Path | str | None = None) -> Path:
    """Return the folder of a data set: the given one, a generated one, or ``SPIKEWVAT_DATA``.

    Args:
        name: A name of the table ``DATA``.
        root: Folder given by the user.

    Raises:
        DataError: If there is no such folder.
        MissingDataError: If no folder is known.
    """
    if root is not None:
        check_root(root)
        return Path(root)
    if name in GENERATED:
        return Path(lookup(GENERATED, name, "data.name")())
    if os.environ.get("SPIKEWVAT_DATA"):
        return Path(os.environ["SPIKEWVAT_DATA"])
    raise MissingDataError(
        f"the data set {name!r} needs a folder. Pass --data-root, or set SPIKEWVAT_DATA."
    )


def check_root(root: Path | str) -> None:
    """Raise DataError unless the folder of data sets exists."""
    if not Path(root).is_dir():
        raise DataError(f"there is no folder {str(root)!r}. Check --data-root.")


def open_data(resolved: Resolved, root: Path | str | None = None) -> Data:
    """Find the data set; a split is opened only where it is needed.

    Args:
        resolved: Knows the data set; the recipe's seed chooses what is held out.
        root: Folder of the data set; by default its usual place.

    Raises:
        DataError: If there is no such folder. The parts of what is returned raise it where the
            data is missing or malformed, and RecipeError where a parameter is impossible.
        MissingDataError: If no folder is known.
    """
    return Data(resolved, data_folder(resolved.recipe.data.name, root))


def spread(dataset: Any, images: int | None) -> Any:
    """Return a number of samples, evenly spaced over a data set; all of them for None.

    Test sets are not in random order: the first half of MNIST's is easier than the second.
    """
    if images is None or images >= len(dataset):
        return dataset
    return Subset(dataset, [i * len(dataset) // images for i in range(images)])


def augmentation(recipe: Recipe, black: Level = 0.0) -> Augmentation | None:
    """Make the augmentation of training batches, or None if the recipe has none.

    Args:
        recipe: Sets the size of shifts, and mirroring.
        black: Value of pixels shifted in from outside.
    """
    steps: list[Augmentation] = []
    if recipe.training.shift:
        steps.append(RandomShift(recipe.training.shift, fill=black))
    if recipe.training.flip:
        steps.append(RandomFlip())
    return Chain(steps) if steps else None
