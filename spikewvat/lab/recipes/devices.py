"""Devices by name: ``"quantized:bits=4>>gaussian"``, tables of a recipe, files of measurements."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from spikewvat.devices.base import DeviceModel
from spikewvat.devices.empirical import load_device
from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.reading import toml_value
from spikewvat.lab.recipes.registry import (
    Factory,
    check_keys,
    checked,
    factory,
    lookup,
    parameters,
)
from spikewvat.lab.recipes.schema import DEVICES, RANGES, Spec

Made = TypeVar("Made")
_PER_CHANNEL = "-per-channel"


def stages(spec: Spec, key: str) -> list[dict[str, Any]]:
    """Parse the specification of a device into tables, one per stage.

    Args:
        spec: ``"name"``, ``"name:k=v,k=v>>name"``, the path of a device file, a table with a name
            (or file), or a list of these.
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
    if not isinstance(tables, list) or not tables:
        raise RecipeError(f"{key} = {spec!r}: expected a name, a table, or a list of tables.")
    for table in tables:
        if not isinstance(table, Mapping) or ("name" in table) == ("file" in table):
            raise RecipeError(f"{key} = {table!r}: expected a table with either a name or a file.")
    return [dict(table) for table in tables]


@dataclass(frozen=True)
class Stage:
    """A single device or corruption, whose size may be open.

    Args:
        make: Makes the device or corruption.
        size: Name of the parameter for its size, if that is open.
        inner: The device that it wraps, if any.
    """

    make: Factory
    size: str | None = None
    inner: Sized[DeviceModel] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the size is open."""
        return self.size is not None or (self.inner is not None and self.inner.is_open)

    def __call__(self, size: float) -> Any:
        """Make the device or corruption."""
        extra: dict[str, Any] = {} if self.inner is None else {"inner": self.inner(size)}
        return self.make(**extra) if self.size is None else self.make(**extra, **{self.size: size})


@dataclass(frozen=True)
class Sized(Generic[Made]):
    """A device or corruption whose size may be open; call it with a size to make it.

    Args:
        stages: The stages in order, at least one.
        label: One-line description, for tables and file names.
    """

    stages: tuple[Stage, ...]
    label: str

    @property
    def is_open(self) -> bool:
        """Whether any stage leaves its size open."""
        return any(stage.is_open for stage in self.stages)

    def __call__(self, size: float = 0.0) -> Made:
        """Make the device or corruption, with this size in all open stages.

        Raises:
            RecipeError: If a value is invalid.
        """
        made: Made = functools.reduce(operator.rshift, (stage(size) for stage in self.stages))
        return made


def read_device(spec: Spec, key: str, *, closed: bool = False) -> Sized[DeviceModel]:
    """Parse and check a device with all its parts.

    Args:
        spec: See :func:`stages`.
        key: Dotted key or option that holds it, for messages.
        closed: Raise an error for a stage without ``sigma`` instead of leaving it open.

    Raises:
        RecipeError: If a name or parameter is unknown or a value invalid.
        DataError: If a device file is missing or malformed.
    """
    found = tuple(_read_stage(table, key, closed=closed) for table in stages(spec, key))
    device: Sized[DeviceModel] = Sized(found, describe(spec, key))
    device()  # impossible values
    return device


def build_device(spec: Spec, key: str) -> DeviceModel:
    """Make a device with no open size, see :func:`read_device`."""
    return read_device(spec, key, closed=True)()


def describe(spec: Spec, key: str) -> str:
    """Describe a device in one line, for tables and file names."""
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


def _read_stage(table: Mapping[str, Any], key: str, *, closed: bool) -> Stage:
    given = dict(table)
    if "range" in given:
        given["range"] = build_range(given["range"], f"{key}.range")
    if "file" in given:
        loaded = load_device(given.pop("file"))
        check_keys(given, ("smooth", "inter", "intra", "range"), key)
        return Stage(Factory(functools.partial(replace, loaded), given, key))
    target, inner, reserved = lookup(DEVICES, given.pop("name"), key), None, []
    if "inner" in given and not isinstance(given["inner"], DeviceModel):
        reserved.append("inner")
        inner = read_device(given.pop("inner"), f"{key}.inner", closed=closed)
    is_open = not closed and "sigma" not in given and "sigma" in parameters(target)
    if is_open:
        reserved.append("sigma")
    check_keys(given, parameters(target), key)  # suggests what is reserved too
    make = Factory(target, checked(target, given, key, reserved=reserved), key)
    return Stage(make, "sigma" if is_open else None, inner)


def build_range(spec: object, key: str) -> Any:
    """Make a range rule from ``"absmax"``, ``"absmax-per-channel"`` or a table with a name.

    Raises:
        RecipeError: If there is no such rule, or its parameters are invalid.
    """
    if isinstance(spec, str):
        name = spec.removesuffix(_PER_CHANNEL)
        spec = {"name": name, "per_channel": True} if name != spec else {"name": name}
    if not isinstance(spec, Mapping):
        return spec  # a rule already
    given = dict(spec)
    return factory(RANGES, given.pop("name", None), given, key)()


def _split(text: str, separator: str) -> list[str]:
    """Split a text at a separator outside quotes and brackets."""
    nested = r"\[[^\]]*\]|\{[^}]*\}|'[^']*'|\"[^\"]*\""
    holes = re.sub(nested, lambda match: "_" * len(match[0]), text)
    parts, start = [], 0
    for match in re.finditer(re.escape(separator), holes):
        parts.append(text[start : match.start()])
        start = match.end()
    return [*parts, text[start:]]


def _text(value: object) -> str:
    return value if isinstance(value, str) else repr(value)
