"""Read recipes from TOML files: extension, presets, variants, overrides, checks."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spikewvat import files
from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.registry import nearest, validated
from spikewvat.lab.recipes.schema import VARIED, Recipe


def read_recipe(
    path: Path | str,
    *,
    preset: str | None = None,
    variants: Mapping[str, str] | None = None,
    overrides: Iterable[str] = (),
    seed: int | None = None,
) -> Recipe:
    """Read a recipe.

    Args:
        path: A TOML file.
        preset: Also apply ``[preset.<name>]``; ``"quick"``, the default, needs no such table.
        variants: ``{"evaluation": "drift"}`` applies ``[evaluation.variant.drift]`` to
            ``[evaluation]``; likewise for other tables with variants.
        overrides: Such as ``"training.lr=1e-4"``: dotted keys and TOML values; a bare word is a
            string.
        seed: Replaces the recipe's seed.

    Raises:
        RecipeError: If a file is missing or not TOML, a key unknown or a value invalid.
    """
    content = _extended(Path(path), ())
    presets = _tables(content.pop("preset", {}), "preset", path)
    if preset not in (None, "quick", *presets):
        raise RecipeError(
            f"{str(path)!r} has no preset {preset!r}. {nearest(str(preset), presets)}"
        )
    content = merge(content, presets.get(preset or "quick", {}))
    if preset is not None:
        content["scale"] = preset
    content = _with_variants(content, variants or {}, Path(path))
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
                    f"{str(path)!r} has no [{key}.variant.{name}]. {nearest(name, tables)}"
                )
            merged[key] = merge(table, tables.get(name or "", {}), top=False)
        elif name is not None:
            raise RecipeError(f"{str(path)!r} has no table [{key}]. Add one with variants.")
    return merged


def _tables(value: Any, key: str, path: Path | str) -> dict[str, dict[str, Any]]:
    """Return tables by name, or raise where there is something else."""
    if not isinstance(value, Mapping):
        raise RecipeError(f"{key} = {value!r} in {str(path)!r}: expected tables [{key}.NAME].")
    for name, table in value.items():
        if not isinstance(table, Mapping):
            raise RecipeError(f"{key}.{name} = {table!r} in {str(path)!r}: expected a table.")
    return {name: dict(table) for name, table in value.items()}


def _extended(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Return the content of a recipe merged over the recipe that it extends."""
    if path.resolve() in seen:
        raise RecipeError(f"{str(path)!r} extends itself.")
    content = files.read_toml(path)
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str) or "\0" in base:
        raise RecipeError(f"extends = {base!r} in {str(path)!r}: expected a path.")
    return merge(_extended(path.parent / base, (*seen, path.resolve())), content)


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
