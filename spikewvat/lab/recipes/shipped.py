"""The recipes that come with the package: a list of them, and copies to change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spikewvat import files
from spikewvat.errors import CheckpointError
from spikewvat.lab.places import recipe_names
from spikewvat.lab.recipes.reading import extended, read_recipe, recipe_file


@dataclass(frozen=True)
class Shipped:
    """A recipe of the package.

    Args:
        name: Its name, such as ``"demo/wvat"``.
        data: Name of its data set.
        description: What it trains, in a line.
    """

    name: str
    data: str
    description: str


def shipped() -> dict[str, list[Shipped]]:
    """Return all recipes of the package, by suite."""
    suites: dict[str, list[Shipped]] = {}
    for name in recipe_names():
        recipe = read_recipe(name)
        row = Shipped(name, recipe.data.name, recipe.description)
        suites.setdefault(name.partition("/")[0], []).append(row)
    return suites


def copy_recipe(name: str, folder: Path) -> Path:
    """Write a recipe of the package, with what it extends, into one file that can be changed.

    Args:
        name: Its name, such as ``"demo/wvat"``.
        folder: Where the file is written.

    Returns:
        The file.

    Raises:
        RecipeError: If there is no such recipe.
        CheckpointError: If the file exists, or cannot be written.
    """
    source = recipe_file(name)
    path = folder / source.name
    if path.exists():
        raise CheckpointError(f"{str(path)!r} exists. Choose another folder, or move it away.")
    files.write_toml(path, extended(source))
    return path
