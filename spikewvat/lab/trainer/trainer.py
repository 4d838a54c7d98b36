"""The one reference loop: epochs, checkpoints, progress, and resuming without a trace."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from spikewvat import files
from spikewvat.data.augmentation import Augmentation
from spikewvat.errors import CheckpointError, require
from spikewvat.lab.trainer import checkpoint
from spikewvat.lab.trainer.checkpoint import Position
from spikewvat.lab.trainer.console import TrainingProgress
from spikewvat.lab.trainer.loop import Loop, Loss, derived_seed
from spikewvat.training import GradientMethod, Plain
from spikewvat.training.averaging import SWA

__all__ = ["Loss", "Trainer", "TrainingResult", "derived_seed"]

CHECKPOINT = "checkpoint.safetensors"
"""Name of the file from which a training goes on."""
FINAL = "model.safetensors"
"""Name of the file with the network as it is after training."""
BEST = "best.safetensors"
"""Name of the file with the network of the best epoch on validation data."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training run ended with.

    Args:
        model: The final model: averaged weights where there is an SWA, else the last ones.
        history: One row per epoch: ``epoch`` (from 0), ``loss`` and ``accuracy`` on the training
            batches as they were seen, ``watched`` accuracy or None, ``watching`` (of what),
            ``learning_rate``, ``seconds``.
        best_epoch: Epoch of the highest watched accuracy, None where nothing was watched.
        best_accuracy: That accuracy, as a fraction.
        stopped_early: Whether patience ran out.
        averaged: How many epochs the final weights average; 0 without an SWA.
    """

    model: nn.Module
    history: list[dict[str, Any]]
    best_epoch: int | None
    best_accuracy: float | None
    stopped_early: bool
    averaged: int


class Trainer:
    """Trains a network, with checkpoints from which a killed run goes on as if nothing happened.

    Every epoch begins by seeding torch, numpy, Python and the loader's generator from
    ``(seed, epoch)``, so the position of a run is its epoch; the generators that live longer
    (those of a :class:`GradientMethod`) are part of the checkpoint. On the CPU a run that was
    killed at any moment and resumed ends bit-identical to one that ran through; on a GPU as far
    as its kernels are deterministic.

    Make the trainer before a :class:`GradientMethod`: it joins the processes of a distributed
    run, and each of them then draws its own noise.

    Args:
        out: Folder for ``checkpoint.safetensors`` (after each epoch), ``best.safetensors`` (the
            trained, not averaged, weights of the epoch with the highest watched accuracy) and
            ``model.safetensors`` (the final weights).
        epochs: Epochs of the whole run.
        seed: Seed of data order and of everything that draws from global generators.
        clip_norm: Largest total norm of the gradients; None does not clip.
        clamp: Keep synaptic weights within minus and plus so much after every step; None does not.
        patience: Stop after so many epochs without a new best watched accuracy; None never.
        accelerator: ``"cpu"``, ``"cuda"``, ``"auto"`` (see ``lightning_fabric.Fabric``).
        devices: How many devices, or which.
        strategy: ``"auto"``, ``"ddp"``.
        precision: ``"32-true"``, ``"bf16-mixed"``, ``"16-mixed"``.
        compile: Train through ``torch.compile``, once for each size of a batch; testing is not
            compiled.
        tensorboard: Also write TensorBoard events into ``out/tensorboard``.
        progress: Show a progress bar.
        console: A ``rich.console.Console`` for it; by default standard error.
        resume: Go on from the checkpoint in ``out`` if there is one.

    Raises:
        CheckpointError: If ``out`` is not writable, or holds a checkpoint and ``resume`` is off.
        ValueError: If a number is out of range.
        MissingExtraError: If lightning-fabric, or tensorboard where asked for, is missing.
    """

    def __init__(
        self,
        out: Path | str,
        *,
        epochs: int,
        seed: int = 0,
        clip_norm: float | None = None,
        clamp: float | None = None,
        patience: int | None = None,
        accelerator: str = "cpu",
        devices: int | str = 1,
        strategy: str = "auto",
        precision: Any = "32-true",
        compile: bool = False,
        tensorboard: bool = False,
        progress: bool = True,
        console: Any = None,
        resume: bool = False,
    ) -> None:
        positive = {"epochs": epochs, "patience": patience, "clip_norm": clip_norm, "clamp": clamp}
        for name, value in positive.items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be above 0, got {value!r}.")
        self.out = Path(out)
        self.epochs = epochs
        self.seed = seed
        self.clip_norm = clip_norm
        self.clamp = clamp
        self.patience = patience
        self._compile = compile
        self._show, self._console = progress, console
        files.check_writable(self.out)
        self.resumes = (self.out / CHECKPOINT).exists()
        if self.resumes and not resume:
            raise CheckpointError(
                f"{str(self.out)!r} holds a checkpoint of an earlier run. "
                "Pass --resume (resume=True) to go on, choose another folder, or delete this one."
            )
        library = require("lightning_fabric", extra="cli", purpose="the trainer")
        if tensorboard:
            require("tensorboard", extra="tensorboard", purpose="logging to TensorBoard")
        self._tensorboard = tensorboard
        self.fabric = library.Fabric(
            accelerator=accelerator, devices=devices, strategy=strategy, precision=precision
        )
        self.fabric.launch()
        if self.fabric.is_global_zero:
            files.remove_leftovers(self.out)

    def fit(
        self,
        model: nn.Module,
        train: DataLoader[Any],
        loss: Loss,
        optimizer: Optimizer,
        *,
        watch: DataLoader[Any] | None = None,
        watching: str = "validation",
        method: GradientMethod | None = None,
        swa: SWA | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        augment: Augmentation | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> TrainingResult:
        """Train until the epochs or the patience run out.

        Args:
            model: Network from spikes ``[T, B, ...]`` to output spikes ``[T, B, classes]`` (or a
                tuple with them first).
            train: Loader of ``(spikes [T, B, ...], labels [B])``. Where it shuffles, the order
                comes from the run's seed.
            loss: Called with the network's output and the labels.
            optimizer: Any torch optimizer of the model's parameters.
            watch: Loader whose accuracy decides about ``best.safetensors`` and early stopping.
                Hold it out from the training data: a best epoch chosen on test data flatters.
            watching: What ``watch`` holds, for the history and the progress bar.
            method: Takes the gradients; plain training by default.
            swa: Averages weights at the end of the epochs; its average is the final model.
            scheduler: Stepped once an epoch.
            augment: Changes the spikes of each training batch, on a thread of its own where
                reading the data draws no random numbers; draws from the generator that it is
                given, which every epoch seeds.
            identity: What the run is, as plain nested values (a recipe); a checkpoint of
                another identity is refused.

        Returns:
            The final model and the history.

        Raises:
            CheckpointError: If a file cannot be written, or the checkpoint in ``out`` does not
                belong to this run.
            DivergedError: If loss or weights are not finite after an epoch.
            ValueError: If there is nothing to watch but patience is given, or the SWA starts
                after the last epoch.
        """
        if self.patience is not None and watch is None:
            raise ValueError("patience needs something to watch, got watch=None. Hold out a part.")
        if swa is not None and swa.start >= self.epochs:
            raise ValueError(
                f"averaging starts at epoch {swa.start}, but there are only {self.epochs} "
                "(counted from 0). Start earlier."
            )
        run = Loop(
            self.fabric,
            model,
            loss,
            optimizer,
            method=Plain(model) if method is None else method,
            seed=self.seed,
            clip_norm=self.clip_norm,
            clamp=self.clamp,
            swa=swa,
            scheduler=scheduler,
            augment=augment,
            compiled=self._compile,
        )
        share = run.shared(train)
        identity = {"seed": self.seed, **(identity or {})}
        state = Position()
        if self.resumes:
            state = checkpoint.restore(self.out / CHECKPOINT, run, identity)
        writer = self._writer(state.epoch)
        with TrainingProgress(
            self.epochs,
            state.epoch,
            len(share),
            enabled=self._show and self.fabric.is_global_zero,
            console=self._console,
        ) as bar:
            while state.epoch < self.epochs and not self._out_of_patience(state):
                row = run.epoch(state.epoch, share, bar)
                row["watched"] = None if watch is None else run.accuracy(watch)
                row["watching"] = None if watch is None else watching
                state.history.append(row)
                if watch is not None and row["watched"] > (state.best_accuracy or -1):
                    state.best_epoch, state.best_accuracy = state.epoch, row["watched"]
                    self._save(BEST, model.state_dict())
                state.epoch += 1
                checkpoint.save(self.out / CHECKPOINT, run, state, identity)
                bar.epoch(state.epoch - 1, row)
                if writer is not None:
                    _log(writer, row)
        if writer is not None:
            writer.close()
        final = run.finish(self.epochs, train)
        self._save(FINAL, final.state_dict())
        self.fabric.barrier()
        return TrainingResult(
            model=final,
            history=state.history,
            best_epoch=state.best_epoch,
            best_accuracy=state.best_accuracy,
            stopped_early=state.epoch < self.epochs,
            averaged=0 if swa is None else swa.count,
        )

    def _out_of_patience(self, state: Position) -> bool:
        if self.patience is None or state.best_epoch is None:
            return False
        return state.epoch - 1 - state.best_epoch >= self.patience

    def _save(self, name: str, tree: files.Tree) -> None:
        if self.fabric.is_global_zero:
            files.save(self.out / name, tree)

    def _writer(self, epoch: int) -> Any:
        if not self._tensorboard or not self.fabric.is_global_zero:
            return None
        library = require(
            "torch.utils.tensorboard", extra="tensorboard", purpose="logging to TensorBoard"
        )
        return library.SummaryWriter(self.out / "tensorboard", purge_step=epoch)


def _log(writer: Any, row: Mapping[str, Any]) -> None:
    for name in ("loss", "accuracy", "watched", "learning_rate"):
        if row[name] is not None:
            tag = f"accuracy/{row['watching']}" if name == "watched" else f"train/{name}"
            writer.add_scalar(tag, row[name], row["epoch"])
    writer.flush()
