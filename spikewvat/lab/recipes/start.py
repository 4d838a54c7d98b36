"""Initial weights of a training: from a file, or published by a library."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from torch import Tensor, nn

from spikewvat import files
from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.registry import lookup
from spikewvat.lab.recipes.schema import PUBLISHED, Recipe

Start: TypeAlias = Callable[[nn.Module], None]


def start_of(recipe: Recipe) -> Start | None:
    """Return a function that loads a recipe's initial weights, or None if it has none.

    The function raises CheckpointError for a file that is damaged or belongs to another network,
    and DataError for published weights that are unknown or cannot be downloaded.

    Raises:
        RecipeError: If the recipe names a file that is missing, and its network has no published
            weights.
    """
    start = recipe.training.start
    if start is None:
        return None
    path = Path(start).expanduser()
    if path.is_file():
        read = functools.partial(files.load_weights, path)
        return functools.partial(_load, read=read, source=f"{str(path)!r}")
    looks_like_a_file = "/" in start or Path(start).suffix != ""
    if looks_like_a_file or recipe.model.name not in PUBLISHED:
        raise RecipeError(
            f"training.start = {start!r}: there is no such file. Pass the path of a safetensors "
            "file, or of a state_dict written by torch.save."
        )
    published = lookup(PUBLISHED, recipe.model.name, "model.name")
    read = functools.partial(published, start)
    return functools.partial(_load, read=read, source=f"the library's {start!r}")


def _load(model: nn.Module, *, read: Callable[[], dict[str, Tensor]], source: str) -> None:
    files.load_state(model, read(), source=source)
