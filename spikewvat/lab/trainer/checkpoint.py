"""Checkpoints of a training run: everything it needs to go on, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from spikewvat import files
from spikewvat.errors import CheckpointError
from spikewvat.lab.trainer.loop import Loop, laid_out

_REMEDY = "Resume with the recipe that it was trained with, or choose another folder."


@dataclass
class Position:
    """How far a run has come.

    Args:
        epoch: Epochs done, the next one to train.
        best_epoch: Epoch of the highest watched accuracy, None before there is one.
        best_accuracy: That accuracy, as a fraction.
        history: One row per epoch.
    """

    epoch: int = 0
    best_epoch: int | None = None
    best_accuracy: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


def save(path: Path, loop: Loop, position: Position, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint, atomically; all ranks call it, the first one writes.

    Args:
        path: File to write.
        loop: The run's objects.
        position: How far it has come.
        identity: What the run is, as plain nested values.

    Raises:
        CheckpointError: If it cannot be written; the checkpoint before it is intact.
    """
    fabric = loop.fabric
    method = loop.method.state_dict()
    ranks = [method]
    if fabric.world_size > 1:  # each rank draws its own noise
        ranks = [{}] * fabric.world_size
        torch.distributed.all_gather_object(ranks, method)
    loop.adapter.reset_state(loop.model)
    if fabric.is_global_zero:
        files.save(
            path,
            {
                "identity": dict(identity),
                "model": loop.model.state_dict(),
                "optimizer": loop.optimizer.state_dict(),
                "scheduler": None if loop.scheduler is None else loop.scheduler.state_dict(),
                "precision": fabric.strategy.precision.state_dict(),
                "swa": None if loop.swa is None else loop.swa.state_dict(),
                "method": ranks,
                "position": vars(position),
            },
        )


def restore(path: Path, loop: Loop, identity: Mapping[str, Any]) -> Position:
    """Load a checkpoint into a run's objects.

    Args:
        path: File to read.
        loop: Objects made as they were when the run began.
        identity: What this run is; must equal that of the checkpoint.

    Returns:
        How far the run had come.

    Raises:
        CheckpointError: If the file is missing or broken, or belongs to another run or model;
            the message names what differs.
    """
    saved = files.load(path)
    if not isinstance(saved, dict) or "position" not in saved:
        raise CheckpointError(f"{str(path)!r} is no checkpoint of a training run. {_REMEDY}")
    check_identity(saved["identity"], identity, path)
    files.load_state(loop.model, saved["model"], source=f"checkpoint {str(path)!r}")
    if len(saved["method"]) != loop.fabric.world_size:
        raise CheckpointError(
            f"{str(path)!r} was written by {len(saved['method'])} processes, now there are "
            f"{loop.fabric.world_size}. Resume with as many devices."
        )
    saved["method"] = saved["method"][loop.fabric.global_rank]
    parts = {"swa": loop.swa, "scheduler": loop.scheduler, "method": loop.method}
    for name, part in parts.items():
        if (part is None) != (saved[name] is None):
            has = "has none" if saved[name] is None else "has one"
            raise CheckpointError(
                f"{str(path)!r} belongs to another run: of {name!r} it {has}. {_REMEDY}"
            )
    try:
        loop.optimizer.load_state_dict(saved["optimizer"])
        _lay_out(loop.optimizer)
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(saved[name])
        loop.fabric.strategy.precision.load_state_dict(saved["precision"])
    except (ValueError, KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"{str(path)!r} does not fit this run ({error}). {_REMEDY}"
        ) from error
    return Position(**saved["position"])


def _lay_out(optimizer: Optimizer) -> None:
    """Lay out an optimizer's state in memory as the parameters are: files do not keep that."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[name] = laid_out(value, parameter)


def check_identity(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError, naming every differing key, unless two runs are the same."""
    old, new = flattened(saved), flattened(now)
    differing = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if differing:
        shown = "; ".join(f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in differing)
        raise CheckpointError(
            f"checkpoint {str(path)!r} belongs to another run: {shown}. {_REMEDY} To train its "
            f"weights further, as for more epochs, begin a new run from them: training.start={path}"
        )


def flattened(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by dotted key.

    Example:
        >>> flattened({"a": {"b": 1}, "c": 2})
        {'a.b': 1, 'c': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat
