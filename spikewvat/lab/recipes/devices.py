"""Devices by name: ``"quantized:bits=4>>gaussian"``, tables of a recipe, files of measurements."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spikewvat.devices.base import DeviceModel
from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.reading import toml_value
from spikewvat.lab.recipes.registry import (
    check_keys,
    checked,
    construct,
    lookup,
    nearest,
    parameters,
)
from spikewvat.lab.recipes.schema import DEVICES, RANGES, Spec

_PER_CHANNEL = "-per-channel"


def stages(spec: Spec, key: str) -> list[dict[str, Any]]:
    """Return the tables that a device is written with, one per stage.

    Args:
        spec: ``"name"``, ``"name:k=v,k=v>>name"``, the path of a device file, a table with a
            name (or a file), or a list of those.
        key: Dotted key or option that holds it, for messages.

    Raises:
        RecipeError: If the spec cannot be read.

    Example:
        >>> stages("quantized:bits=4>>gaussian", "device")
        [{'name': 'quantized', 'bits': 4}, {'name': 'gaussian'}]
    """
    if isinstance(spec, str):
        return [_stage(part.strip(), key) for part in _split(spec, ">>")]
    tables = [spec] if isinstance(spec, Mapping) else spec
    for table in tables:
        if ("name" in table) == ("file" in table):
            raise RecipeError(f"{key} = {table!r}: expected a table with either a name or a file.")
    return [dict(table) for table in tables]


def takes_sigma(spec: Spec, key: str) -> bool:
    """Return whether a device leaves its size open, to be filled in."""
    return any(_is_open(table, key) for table in stages(spec, key))


def build_device(spec: Spec, key: str, *, sigma: float | None = None) -> DeviceModel:
    """Make a device model.

    Args:
        spec: See :func:`stages`.
        key: Dotted key or option that holds it, for messages.
        sigma: Size of the stages that have a ``sigma`` and do not set it.

    Raises:
        RecipeError: If a name or parameter is unknown or a value impossible.
        DataError: If a device file is missing or malformed.
    """
    device: DeviceModel | None = None
    for table in stages(spec, key):
        stage = _build_stage(table, key, sigma)
        device = stage if device is None else device >> stage
    if device is None:
        raise RecipeError(f"{key} names no device. {nearest('', DEVICES)}")
    return device


def describe(spec: Spec, key: str) -> str:
    """Return a device as one line, for tables and file names."""
    parts = []
    for table in stages(spec, key):
        name = table.get("name") or str(table["file"])
        given = [f"{k}={_text(v)}" for k, v in table.items() if k not in ("name", "file")]
        parts.append(f"{name}:{','.join(given)}" if given else name)
    return ">>".join(parts)


def _stage(text: str, key: str) -> dict[str, Any]:
    if text.endswith(".toml"):
        return {"file": text}
    name, _, rest = text.partition(":")
    table: dict[str, Any] = {"name": name.strip()}
    for part in _split(rest, ",") if rest else []:
        parameter, equals, value = part.partition("=")
        if not equals or not parameter.strip():
            raise RecipeError(f"{key} = {text!r}: expected name:parameter=value,... at {part!r}.")
        table[parameter.strip()] = toml_value(value)
    return table


def _has_own_sigma(table: Mapping[str, Any], key: str) -> bool:
    return "sigma" in parameters(lookup(DEVICES, table["name"], key))


def _is_open(table: Mapping[str, Any], key: str) -> bool:
    if "file" in table:
        return False
    if "inner" in table:
        return takes_sigma(table["inner"], key)
    return "sigma" not in table and _has_own_sigma(table, key)


def _build_stage(table: Mapping[str, Any], key: str, sigma: float | None) -> DeviceModel:
    given = dict(table)
    if "file" in given:
        from spikewvat.devices.empirical import load_device

        loaded = load_device(given.pop("file"))
        if "range" in given:
            given["range"] = build_range(given["range"], f"{key}.range")
        check_keys(given, ("smooth", "inter", "intra", "range"), key)
        changed: DeviceModel = construct(functools.partial(replace, loaded), given, key)
        return changed
    if sigma is not None and "sigma" not in given and _has_own_sigma(given, key):
        given["sigma"] = sigma
    target = lookup(DEVICES, given.pop("name"), key)
    if "range" in given:
        given["range"] = build_range(given["range"], f"{key}.range")
    if "inner" in given and not isinstance(given["inner"], DeviceModel):
        given["inner"] = build_device(given["inner"], f"{key}.inner", sigma=sigma)
    device: DeviceModel = construct(target, checked(target, given, key), key)
    return device


def build_range(spec: object, key: str) -> Any:
    """Make a range rule of ``"absmax"``, ``"absmax-per-channel"`` or a table with a name.

    Raises:
        RecipeError: If there is no such rule, or its parameters are impossible.
    """
    if isinstance(spec, str):
        name = spec.removesuffix(_PER_CHANNEL)
        spec = {"name": name, "per_channel": True} if name != spec else {"name": name}
    if not isinstance(spec, Mapping):
        return spec  # a rule already
    given = dict(spec)
    target = lookup(RANGES, given.pop("name", None), key)
    return construct(target, checked(target, given, key), key)


def _split(text: str, separator: str) -> list[str]:
    """Split a text at a separator outside of quotes and brackets."""
    nested = r"\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\""
    holes = re.sub(nested, lambda match: "_" * len(match[0]), text)
    parts, start = [], 0
    for match in re.finditer(re.escape(separator), holes):
        parts.append(text[start : match.start()])
        start = match.end()
    return [*parts, text[start:]]


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)
