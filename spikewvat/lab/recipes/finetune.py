"""Fine-tune a converted network with the ordinary trainer, including checkpoints and resuming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Sampler

from spikewvat.conversion import SpikingNetwork, potential_cross_entropy
from spikewvat.conversion.finetune import Encoded, finetuning_optimizer
from spikewvat.data import make_loader
from spikewvat.lab.recipes.conversion import ConversionPlan
from spikewvat.lab.recipes.loaders import Data, augmentation
from spikewvat.lab.recipes.schema import Recipe
from spikewvat.lab.trainer import FINAL, Trainer
from spikewvat.lab.trainer.loop import derived_seed


def fine_tuned(
    snn: SpikingNetwork,
    data: Data,
    recipe: Recipe,
    plan: ConversionPlan,
    out: Path,
    digest: str,
    *,
    resume: bool,
    progress: bool,
) -> list[dict[str, Any]]:
    """Train a converted network in place.

    Args:
        snn: The network.
        data: Data of the recipe.
        recipe: Sets seeds, augmentation and accelerator.
        plan: The conversion, with its fine-tuning.
        out: Folder for checkpoints.
        digest: Digest of the converted weights; checkpoints with another digest are rejected.
        resume: Resume from a checkpoint in ``out``, if there is one.
        progress: Show a progress bar.

    Returns:
        The history, empty if there are no epochs.

    Raises:
        RecipeError: If a value is invalid.
        CheckpointError: If the checkpoint belongs to another run.
        DivergedError: If the loss is no longer finite.
    """
    settings, workers = plan.table.finetune, recipe.training.workers
    if settings.epochs == 0:
        return []
    trainer = Trainer(
        out,
        epochs=settings.epochs,
        seed=derived_seed(recipe.seed, "finetune"),
        accelerator=recipe.training.accelerator,
        progress=progress,
        resume=resume,
    )
    snn.learn(thresholds=settings.thresholds, leak=settings.leak)
    model = Encoded(snn)
    samples: Any = data.train.dataset
    loader = make_loader(samples, settings.batch_size, shuffle=True, workers=workers)
    if settings.images is not None:
        loader = DataLoader(
            samples,
            settings.batch_size,
            sampler=SomeOf(len(samples), settings.images),
            num_workers=workers,
            collate_fn=loader.collate_fn,
        )
    augment = augmentation(recipe, data.black)

    def encode(images: Tensor, *, generator: Generator | None = None) -> Tensor:
        # Once for both passes of a step, other spikes in every step.
        images = images if augment is None else augment(images, generator=generator)
        return snn.encode(images, generator=generator)

    seed = derived_seed(recipe.seed, "finetune", "method")
    optimizer = finetuning_optimizer(snn, lr=settings.lr, weight_decay=settings.weight_decay)
    trained = trainer.fit(
        model,
        loader,
        potential_cross_entropy,
        optimizer,
        method=plan.method(model, optimizer, seed=seed),
        augment=encode,
        identity={"recipe": recipe.content(), "weights": digest},
    )
    (out / FINAL).unlink(missing_ok=True)  # the same as the converted network's file
    snn.eval()
    return trained.history


class SomeOf(Sampler[int]):
    """A random subset of a data set, redrawn in each epoch.

    Args:
        samples: Number of samples in the data set.
        count: Number of samples per epoch.
    """

    def __init__(self, samples: int, count: int) -> None:
        self.generator = Generator()  # the trainer seeds it in every epoch
        self._samples, self._count = samples, min(count, samples)

    def __iter__(self) -> Iterator[int]:
        """Yield the indices of an epoch's samples."""
        yield from torch.randperm(self._samples, generator=self.generator)[: self._count].tolist()

    def __len__(self) -> int:
        """Return the number of samples per epoch."""
        return self._count
