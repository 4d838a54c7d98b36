"""Trained networks to load: those that come with the package, and runs of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from spikewvat import serialisation
from spikewvat.errors import CheckpointError
from spikewvat.lab.recipes import Recipe
from spikewvat.lab.recipes.loaders import Data, open_data
from spikewvat.lab.recipes.resolve import Resolved, resolve
from spikewvat.lab.recipes.results import RunResult
from spikewvat.lab.recipes.saved import RECIPE, RESULT, final_weights, load_model, read_run

NETWORKS = Path(__file__).parent / "networks"
"""One folder, as written by ``spikewvat train``, for each network that comes with the package."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network, with what it was trained by and what it reaches.

    Args:
        name: Its name, or the folder of its run.
        model: The network in evaluation mode, from spikes ``[T, B, ...]`` to output spikes
            ``[T, B, classes]``.
        result: The results of its run: accuracies on chips, training history, versions, commit.
        resolved: Its recipe, with makers for everything in it.
        data_root: Folder of its data set; None stands for the usual place.
    """

    name: str
    model: nn.Module
    result: RunResult
    resolved: Resolved
    data_root: Path | None = None

    @property
    def recipe(self) -> Recipe:
        """What it was trained by: data, network, training, method, averaging, chips."""
        return self.resolved.recipe

    @property
    def train(self) -> DataLoader[Any]:
        """Its training batches ``(spikes [T, B, ...], labels [B])``, shuffled."""
        return self._data.train

    @property
    def test(self) -> DataLoader[Any]:
        """Its test batches, in order."""
        return self._data.test

    @cached_property
    def _data(self) -> Data:
        return open_data(self.resolved, self.data_root)

    def __str__(self) -> str:
        return f"{self.name}: {self.recipe.description}\n{self.result.curve}"


def networks() -> list[str]:
    """Return the names of the networks that come with the package."""
    return sorted(path.parent.name for path in NETWORKS.glob(f"*/{RECIPE}"))


def run_folder(name: Path | str) -> Path:
    """Return the folder of a run, or of a network that comes with the package.

    Args:
        name: A folder, or a name of :func:`networks`.

    Raises:
        CheckpointError: If it is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    if str(name) in networks():
        return NETWORKS / str(name)
    raise CheckpointError(
        f"{str(name)!r} is neither a folder nor a network that comes with the package. Those are "
        f"{', '.join(networks())}; a folder is what spikewvat train writes to --out."
    )


def load(name: Path | str, *, data_root: Path | str | None = None) -> TrainedNetwork:
    """Load a trained network: one that comes with the package, or a run of your own.

    Args:
        name: ``"digits-swa"``, ``"digits-wvat"`` or ``"digits-momentum"``, which classify the
            embedded event digits; or a folder written by ``spikewvat train``.
        data_root: Folder of its data set, which is opened when ``train`` or ``test`` is first
            asked for; by default its usual place.

    Returns:
        The network as ``model``, its loaders as ``train`` and ``test``, its ``recipe`` and its
        ``result``.

    Raises:
        CheckpointError: If there is no such network or folder, or its files are damaged.
        MissingExtraError: If the framework of the network is not installed.

    Example:
        >>> from spikewvat.lab import load
        >>> network = load("digits-wvat")
        >>> network.recipe.method.name
        'wvat'
    """
    folder = run_folder(name)
    resolved = resolve(read_run(folder))
    return TrainedNetwork(
        str(name),
        load_model(folder, resolved, weights=final_weights(folder)),
        serialisation.read(folder / RESULT, RunResult),
        resolved,
        None if data_root is None else Path(data_root),
    )
