"""Weights to start a training from: a file, or what a library publishes."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from spikewvat import files
from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.registry import lookup
from spikewvat.lab.recipes.schema import PUBLISHED, Recipe


def check(recipe: Recipe) -> None:
    """Raise for weights that cannot be there, before anything is loaded.

    Raises:
        RecipeError: If the recipe names a file that is missing, and its network has no published
            weights.
    """
    start = recipe.training.start
    if start is None or _file(start) is not None:
        return
    looks_like_a_file = "/" in start or Path(start).suffix != ""
    if looks_like_a_file or recipe.model.name not in PUBLISHED:
        raise RecipeError(
            f"training.start = {start!r}: there is no such file. Pass the path of a safetensors "
            "file, or of a state_dict that torch.save has written."
        )


def load(recipe: Recipe, model: nn.Module) -> None:
    """Give a network the weights that its recipe starts from, if it names any.

    Raises:
        CheckpointError: If the file is damaged or of another network.
        DataError: If published weights are unknown or cannot be downloaded.
    """
    start = recipe.training.start
    if start is None:
        return
    path = _file(start)
    if path is not None:
        files.load_state(model, files.load_weights(path), source=f"{str(path)!r}")
        return
    published = lookup(PUBLISHED, recipe.model.name, "model.name")
    files.load_state(model, published(start), source=f"the library's {start!r}")


def _file(start: str) -> Path | None:
    """Return the file that is meant, None where there is none."""
    path = Path(start).expanduser()
    return path if path.is_file() else None
