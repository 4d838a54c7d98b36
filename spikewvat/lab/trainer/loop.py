"""One epoch of training, one evaluation: what the trainer repeats."""

from __future__ import annotations

import hashlib
import math
import random
import time
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, SequentialSampler

from spikewvat.data.augmentation import Augmentation
from spikewvat.errors import DivergedError
from spikewvat.lab.trainer.batches import prepared
from spikewvat.lab.trainer.console import Totals, TrainingProgress
from spikewvat.spiking.losses import class_scores
from spikewvat.training import GradientMethod
from spikewvat.training.averaging import SWA
from spikewvat.weights import clamp_


class Loss(Protocol):
    """A loss of a network's output and class indices."""

    def __call__(self, output: Any, labels: Tensor) -> Tensor:
        """Return a 0-dim tensor with a graph."""
        ...


def derived_seed(seed: int, *parts: str | int) -> int:
    """Return a seed for one purpose, such as ``("epoch", 3)``; stable for ever.

    Args:
        seed: The run's seed.
        *parts: What the derived seed is for.

    Returns:
        An integer below 2 ** 63.
    """
    text = "/".join(str(part) for part in (seed, *parts))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a tensor that lies in memory as a parameter does.

    Fused optimizers go through memory in order, without a look at the strides: channels-last
    weights with a gradient in another layout would get that of other weights.
    """
    if value.is_sparse or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class Loop:
    """The objects of a run, set up by Fabric.

    Args:
        fabric: A launched ``lightning_fabric.Fabric``.
        model: The network, unwrapped.
        loss: Called with its output and the labels.
        optimizer: Of the model's parameters.
        method: Takes the gradients; its adapter resets neuron state.
        seed: The run's seed.
        clip_norm: Largest total norm of the gradients, or None.
        clamp: Largest size of a synaptic weight, or None.
        swa: Averages weights, or None.
        scheduler: Stepped once an epoch, or None.
        augment: Changes the spikes of each training batch, or None.
        compiled: Train through ``torch.compile``.
    """

    def __init__(
        self,
        fabric: Any,
        model: nn.Module,
        loss: Loss,
        optimizer: Optimizer,
        *,
        method: GradientMethod,
        seed: int,
        clip_norm: float | None = None,
        clamp: float | None = None,
        swa: SWA | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        augment: Augmentation | None = None,
        compiled: bool = False,
    ) -> None:
        self.fabric = fabric
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.method, self.adapter = method, method.adapter
        self.swa = swa
        self.scheduler = scheduler
        self._augment = augment
        self._draws = torch.Generator()  # of the augmentation, which runs on another thread
        self._seed = seed
        self._clip_norm, self._clamp = clip_norm, clamp
        self._clamped = {} if clamp is None else self.adapter.synaptic_weights(model)
        self._fused = any(group.get("fused") for group in optimizer.param_groups)
        self._classes = 0
        self.adapter.reset_state(model)
        # One program for each shape: those for any shape depend on what came before.
        trained = torch.compile(model, dynamic=False) if compiled else model
        self._wrapped, self._stepper = fabric.setup(trained, optimizer)
        if swa is not None:
            swa.model.to(fabric.device)

    def epoch(self, epoch: int, loader: DataLoader[Any], bar: TrainingProgress) -> dict[str, Any]:
        """Train one epoch and return its row of the history."""
        began = time.monotonic()
        self._reseed(loader, epoch, rank=self.fabric.global_rank)
        self.model.train()
        totals = Totals()
        rate = self.optimizer.param_groups[0]["lr"]
        with prepared(loader, self._augmented) as batches:
            for spikes, labels in batches:
                loss, correct = self._step(spikes, labels)
                totals.add(loss, correct, len(labels))
                bar.batch(epoch, totals)
        if totals.samples == 0:
            raise ValueError("the training loader has no batches. Use a smaller batch size.")
        mean_loss = self._mean_over_ranks(totals.loss)
        accuracy = self._mean_over_ranks(totals.accuracy)
        # Spikes of weights that are NaN are 0: the loss alone does not tell.
        broken = f"training loss is {mean_loss}" if not math.isfinite(mean_loss) else None
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            broken = "weights are not finite"
        if broken is not None:
            kept = f" The checkpoint of epoch {epoch} is kept." if epoch else ""
            raise DivergedError(
                f"after epoch {epoch + 1} the {broken}: training has diverged. "
                f"Lower the learning rate (now {rate:g}) or set clip_norm, and train anew.{kept}"
            )
        self.method.note_accuracy(accuracy, classes=self._classes)
        if self.swa is not None:
            self.swa.update(epoch)
        if self.scheduler is not None:
            self.scheduler.step()
        self.adapter.reset_state(self.model)
        return {
            "epoch": epoch,
            "loss": mean_loss,
            "accuracy": accuracy,
            "learning_rate": rate,
            "seconds": time.monotonic() - began,
        }

    def _augmented(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return a batch on the network's device, augmented."""
        spikes, labels = self.fabric.to_device(batch)
        if self._augment is not None:
            spikes = self._augment(spikes, generator=self._draws)
        return spikes, labels

    def _step(self, spikes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step; return the loss and the number of right answers."""
        scores = torch.empty(0)

        def closure() -> tuple[Tensor, Any]:
            nonlocal scores
            output = self._wrapped(spikes)
            scores = class_scores(output).detach()
            return self.loss(output, labels), output

        self._stepper.zero_grad()
        loss = self.method.backward(closure, backward=self.fabric.backward)
        if self._clip_norm is not None:
            self.fabric.clip_gradients(
                self._wrapped,
                self._stepper,
                max_norm=self._clip_norm,
                error_if_nonfinite=False,
            )
        if self._fused:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad = laid_out(parameter.grad, parameter)
        self._stepper.step()
        self.method.after_step()
        if self._clamp is not None:
            clamp_(self._clamped, self._clamp)
        self._classes = scores.shape[1]
        return loss, (scores.argmax(1) == labels).sum()

    @torch.no_grad()
    def accuracy(self, loader: DataLoader[Any]) -> float:
        """Return the share of right answers in evaluation mode; every rank sees all samples."""
        self.model.eval()
        correct, samples = 0, 0
        for spikes, labels in loader:
            spikes, labels = self.fabric.to_device((spikes, labels))
            self.adapter.reset_state(self.model)
            # Not through Fabric's wrapper: a distributed one talks to the other ranks.
            with self.fabric.autocast():
                scores = class_scores(self.model(spikes))
            correct += int((scores.argmax(1) == labels).sum())
            samples += len(labels)
        self.adapter.reset_state(self.model)
        self.model.train()
        return correct / max(samples, 1)

    def finish(self, epoch: int, loader: DataLoader[Any]) -> nn.Module:
        """Return the final model in evaluation mode, statistics fresh, neuron state reset.

        The loader holds all training data: every rank refreshes with the same batches.
        """
        self.adapter.reset_state(self.model)
        final = self.model
        if self.swa is not None and self.swa.count:
            self._reseed(loader, epoch, rank=0)
            with self.fabric.autocast():
                final = self.swa.finish(loader, device=self.fabric.device)
        return final.eval()

    def shared(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        """Return a loader of this rank's share whose order is a function of seed and epoch.

        A shuffled loader's own generator also seeds its workers, once in the life of persistent
        ones, so that a resumed run would see another order; those are started anew each epoch.
        A sampler of the user's own stays as it is on a single device.
        """
        shuffled = isinstance(loader.sampler, RandomSampler)
        in_order = isinstance(loader.sampler, SequentialSampler)
        if self.fabric.world_size == 1 and not shuffled and not in_order:
            return loader
        sampler: DistributedSampler[Any] = DistributedSampler(
            loader.dataset,
            num_replicas=self.fabric.world_size,
            rank=self.fabric.global_rank,
            shuffle=shuffled,
            seed=derived_seed(self._seed, "order") % 2**32,
        )
        return DataLoader(
            loader.dataset,
            batch_size=loader.batch_size,
            sampler=sampler,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            drop_last=loader.drop_last,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=torch.Generator(),  # seeds workers; seeded in every epoch
        )

    def _reseed(self, loader: DataLoader[Any], epoch: int, *, rank: int) -> None:
        """Make an epoch's randomness a function of the seed and the epoch alone."""
        seed = derived_seed(self._seed, "epoch", epoch, rank)
        torch.manual_seed(seed)
        self._draws.manual_seed(derived_seed(seed, "augment"))
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 -- transforms of others draw from it
        for holder in (loader, loader.sampler):
            generator = getattr(holder, "generator", None)
            if isinstance(generator, torch.Generator):
                generator.manual_seed(seed)
        if isinstance(loader.sampler, DistributedSampler):
            loader.sampler.set_epoch(epoch)

    def _mean_over_ranks(self, value: float) -> float:
        if self.fabric.world_size == 1:
            return value
        tensor = torch.tensor(value, device=self.fabric.device)
        return float(self.fabric.all_reduce(tensor, reduce_op="mean"))
