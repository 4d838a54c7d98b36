"""Read recipes from TOML files: names, extension, presets, variants, overrides, checks."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from spikewvat import files
from spikewvat.errors import RecipeError
from spikewvat.lab.places import recipe_names, shown, suite_names, suites_folder
from spikewvat.lab.recipes.registry import nearest, validated
from spikewvat.lab.recipes.schema import VARIED, Recipe


def read_recipe(
    recipe: Path | str,
    *,
    preset: str | None = None,
    variants: Mapping[str, str] | None = None,
    overrides: Iterable[str] = (),
    seed: int | None = None,
) -> Recipe:
    """Read a recipe.

    Args:
        recipe: A TOML file, or the name of a recipe of the package, see :func:`recipe_file`.
        preset: Also apply ``[preset.<name>]``; ``"quick"``, the default, needs no such table.
        variants: ``{"evaluation": "drift"}`` applies ``[evaluation.variant.drift]`` to
            ``[evaluation]``; likewise for other tables with variants.
        overrides: Such as ``"training.lr=1e-4"``: dotted keys and TOML values; a bare word is a
            string.
        seed: Replaces the recipe's seed.

    Raises:
        RecipeError: If a file is missing or not TOML, a key unknown or a value invalid.
    """
    path = recipe_file(recipe)
    content = extended(path)
    presets = _tables(content.pop("preset", {}), "preset", path)
    check_preset(preset or "quick", {"quick", *presets}, f"{shown(path)!r}")
    content = merge(content, presets.get(preset or "quick", {}))
    if preset is not None:
        content["scale"] = preset
    content = _with_variants(content, variants or {}, path)
    for override in overrides:
        content = merge(content, parsed(override))
    if seed is not None:
        content["seed"] = seed
    return recipe_from(content)


def recipe_from(content: Mapping[str, Any]) -> Recipe:
    """Make a recipe from plain nested values.

    Raises:
        RecipeError: If a key is unknown or a value invalid; names key, value and expectation.
    """
    return validated(Recipe, content, "the recipe")


def _with_variants(
    content: dict[str, Any], chosen: Mapping[str, str], path: Path
) -> dict[str, Any]:
    """Merge the selected variants into their tables, and drop the others."""
    merged = dict(content)
    for key in VARIED:
        name = chosen.get(key)
        if isinstance(content.get(key), Mapping):
            table = dict(content[key])
            tables = _tables(table.pop("variant", {}), f"{key}.variant", path)
            if name is not None and name not in tables:
                raise RecipeError(
                    f"{shown(path)!r} has no [{key}.variant.{name}]. {nearest(name, tables)}"
                )
            merged[key] = merge(table, tables.get(name or "", {}), top=False)
        elif name is not None:
            raise RecipeError(f"{shown(path)!r} has no table [{key}]. Add one with variants.")
    return merged


def _tables(value: Any, key: str, path: Path) -> dict[str, dict[str, Any]]:
    """Return tables by name, or raise where there is something else."""
    if not isinstance(value, Mapping):
        raise RecipeError(f"{key} = {value!r} in {shown(path)!r}: expected tables [{key}.NAME].")
    for name, table in value.items():
        if not isinstance(table, Mapping):
            raise RecipeError(f"{key}.{name} = {table!r} in {shown(path)!r}: expected a table.")
    return {name: dict(table) for name, table in value.items()}


def recipe_file(given: Path | str, folder: Path = Path()) -> Path:
    """Return the file of a recipe: a path, or the name of a recipe of the package.

    Args:
        given: A TOML file, or a name such as ``"demo/wvat"``.
        folder: Where a relative path starts.

    Raises:
        RecipeError: If there is no such file or name.
    """
    path, name = folder / given, str(given)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError):  # no name that a file can have
        is_file = is_folder = False
    if is_file:
        return path
    names = recipe_names()
    if name in names:
        return suites_folder() / f"{name}.toml"
    if name in suite_names():
        rows = [other for other in names if other.startswith(f"{name}/")]
        raise RecipeError(
            f"{name!r} is a suite: spikewvat bench {name}. Its recipes: {', '.join(rows)}."
        )
    what = "a folder" if is_folder else "no file"
    last = "/".join((*path.parts[-2:-1], path.stem))
    close = difflib.get_close_matches(last, names, n=1, cutoff=0.6)
    meant = f"Did you mean {close[0]!r}? " if close else ""
    raise RecipeError(
        f"{name!r} is {what}, and no recipe has that name. {meant}spikewvat recipes lists them."
    )


def check_preset(preset: str, presets: Collection[str], what: str) -> None:
    """Raise RecipeError unless a preset is one of those of a recipe or suite.

    Args:
        preset: Its name.
        presets: Names of all presets.
        what: What should have it, for the message.
    """
    if preset not in presets:
        raise RecipeError(f"{what} has no preset {preset!r}. {nearest(preset, sorted(presets))}")


def extended(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the content of a recipe merged over the recipe that it extends.

    Args:
        path: The recipe's file.
        seen: Files that extend it.

    Raises:
        RecipeError: If a file is missing or not TOML, or a recipe extends itself.
    """
    if path.resolve() in seen:
        raise RecipeError(f"{shown(path)!r} extends itself.")
    content = files.read_toml(path)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str) or "\0" in base:
        raise RecipeError(f"extends = {base!r} in {shown(path)!r}: expected a path or a name.")
    try:
        inner = recipe_file(base, path.parent)
    except RecipeError as error:
        raise RecipeError(f"in {shown(path)!r}, extends = {error}") from error
    return merge(extended(inner, (*seen, path.resolve())), content)


def changed(recipe: Recipe, changes: Mapping[str, Any], overrides: Iterable[str] = ()) -> Recipe:
    """Return a copy of a recipe with changed values.

    Args:
        recipe: The recipe; it is not changed.
        changes: Nested values to change.
        overrides: See :func:`read_recipe`.

    Raises:
        RecipeError: If a key is unknown or a value invalid.
    """
    content = merge(recipe.content(), changes)
    for override in overrides:
        content = merge(content, parsed(override))
    return recipe_from(content)


def merge(base: Mapping[str, Any], over: Mapping[str, Any], *, top: bool = True) -> dict[str, Any]:
    """Merge tables recursively; a table with another name replaces the old one entirely."""
    if not top and "name" in over and "name" in base and over["name"] != base["name"]:
        return dict(over)
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, str) and isinstance(value, Mapping):
            old = {"name": old}  # a component by its bare name
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value, top=False) if both else value  # type: ignore[arg-type]
    return merged


def parsed(override: str) -> dict[str, Any]:
    """Return ``{"training": {"lr": 1e-4}}`` for ``"training.lr=1e-4"``."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"override {override!r}: expected key=value, such as training.lr=1e-4.")
    value = toml_value(text)
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def toml_value(text: str) -> Any:
    """Parse a TOML value; a bare word is a string.

    Example:
        >>> toml_value("1e-4"), toml_value("[1, 2]"), toml_value("adam")
        (0.0001, [1, 2], 'adam')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()
