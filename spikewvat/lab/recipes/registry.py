"""Make objects from names and plain parameters, with errors that suggest the nearest valid key."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

from spikewvat.errors import RecipeError
from spikewvat.validation import (
    BaseModel,
    PydanticSchemaGenerationError,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
)

Target = Callable[..., Any]
Model = TypeVar("Model", bound=BaseModel)


_LISTED = 40  # names; more are no help


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return a suggestion for a misspelt word.

    Example:
        >>> nearest("epoch", ["epochs", "lr"])
        "Did you mean 'epochs'?"
        >>> nearest("xyz", ["epochs", "lr"])
        "Valid: 'epochs', 'lr'."
    """
    names = list(valid)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"Valid: {', '.join(map(repr, names[:_LISTED])) or 'none'}{more}."


def check_keys(given: Iterable[str], valid: Collection[str], key: str) -> None:
    """Raise RecipeError for the first key that is not valid.

    Args:
        given: Keys as written.
        valid: Valid keys.
        key: Dotted key of the table, ``""`` for the recipe itself.

    Raises:
        RecipeError: Naming the key, its table and the nearest valid one.
    """
    for name in given:
        if name not in valid:
            where = f"in [{key}]" if key else "in the recipe"
            raise RecipeError(f"unknown key {name!r} {where}. {nearest(name, valid)}")


def validated(kind: type[Model], content: Mapping[str, Any], source: str) -> Model:
    """Make a table from plain nested values.

    Args:
        kind: Class of the table.
        content: Its keys.
        source: Origin of the content, for messages: ``"the recipe"`` or a file.

    Raises:
        RecipeError: If a key is unknown or a value invalid; names key, value and expectation.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        found = error.errors()
        first = next((each for each in found if each["type"] == "extra_forbidden"), found[0])
        *outer, name = first["loc"]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            table: type[BaseModel] | None = kind
            for part in outer:
                if table is not None and isinstance(part, str):
                    table = _table_of(table.model_fields[part].annotation)
            where = f"[{'.'.join(map(str, outer))}]" if outer else source
            message = f"unknown key {name!r} in {where}."
            if table is not None:
                message += f" {nearest(str(name), table.model_fields)}"
        elif first["type"] == "missing":
            message = f"{source} lacks {key!r}."
        else:
            is_table = first["type"] in ("model_type", "dict_type")
            wanted = "expected a table" if is_table else first["msg"]
            message = f"{key} = {first['input']!r}: {wanted}."
        raise RecipeError(message) from error


def lookup(table: Mapping[str, str], name: object, key: str) -> Target:
    """Return the object that a name stands for.

    Args:
        table: Maps names to ``"module:attribute"``, imported only here, so that unused names cost
            nothing.
        name: The name.
        key: Dotted key that holds it, for the message.

    Raises:
        RecipeError: If the table lacks the name.
        MissingExtraError: If the object needs a framework that is not installed.
    """
    if not isinstance(name, str) or name not in table:
        raise RecipeError(f"{key} = {name!r} is unknown. {nearest(str(name), table)}")
    module, _, attribute = table[name].partition(":")
    target: Target = getattr(importlib.import_module(module), attribute)
    return target


def parameters(target: Target, *, reserved: Collection[str] = ()) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class or function that a recipe may set.

    Args:
        target: A class or a function.
        reserved: Parameters that recipes may not set, such as ``generator``.
    """
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        name: parameter
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind in kinds and name not in reserved
    }


def checked(
    target: Target, given: Mapping[str, Any], key: str, *, reserved: Collection[str] = ()
) -> dict[str, Any]:
    """Check parameters against a signature and its type hints.

    Args:
        target: A class or a function.
        given: Plain values by parameter.
        key: Dotted key of the table, for messages.
        reserved: Parameters that recipes may not set.

    Returns:
        The values, converted to the annotated types.

    Raises:
        RecipeError: If a key is unknown, a required one missing, or a value of the wrong type.
    """
    valid = parameters(target, reserved=reserved)
    check_keys(given, valid, key)
    missing = [n for n, p in valid.items() if p.default is p.empty and n not in given]
    if missing:
        raise RecipeError(f"[{key}] lacks {missing[0]!r}, which {_name(target)} needs.")
    hints = _hints(target)
    return {
        name: _converted(value, hints.get(name), f"{key}.{name}") for name, value in given.items()
    }


def construct(target: Target, given: Mapping[str, Any], key: str, **extra: Any) -> Any:
    """Call a class or function and turn its errors into a RecipeError.

    Args:
        target: A class or a function.
        given: Checked parameters of the recipe.
        key: Dotted key of the table, for messages.
        **extra: Parameters that do not come from the recipe.

    Raises:
        RecipeError: If the target raises TypeError or a plain ValueError.
    """
    try:
        return target(**given, **extra)
    except RecipeError:
        raise
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise  # the package's own errors say what to do
        raise RecipeError(f"[{key}]: {error}") from error


@dataclasses.dataclass(frozen=True)
class Factory:
    """A class or function with checked parameters; call it to make an object.

    Args:
        target: A class or a function.
        given: Values of the given parameters, converted to the annotated types.
        key: Dotted key of the table, for messages.
        complete: The parameters as written, with the defaults of the others.
    """

    target: Target
    given: Mapping[str, Any]
    key: str
    complete: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __call__(self, **extra: Any) -> Any:
        """Make an object; ``extra`` holds parameters that do not come from the recipe."""
        return construct(self.target, self.given, self.key, **extra)


def factory(
    table: Mapping[str, str],
    name: object,
    given: Mapping[str, Any],
    key: str,
    *,
    name_key: str | None = None,
    reserved: Collection[str] = (),
) -> Factory:
    """Look up a name and check its parameters.

    Args:
        table: See :func:`lookup`.
        name: A name in the table.
        given: Plain values by parameter.
        key: Dotted key of the table that holds them, for messages.
        name_key: Dotted key of the name, if different.
        reserved: Parameters that recipes may not set.

    Raises:
        RecipeError: If the name or a key is unknown, a required one missing, or a value of the
            wrong type.
        MissingExtraError: If a framework is not installed.
    """
    target = lookup(table, name, name_key or key)
    values = checked(target, given, key, reserved=reserved)
    return Factory(target, values, key, filled(target, given, reserved=reserved))


def filled(
    target: Target, given: Mapping[str, Any], *, reserved: Collection[str] = ()
) -> dict[str, Any]:
    """Return the parameters with defaults for those not given, if the defaults are plain values."""
    defaults = {
        name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for name, parameter in parameters(target, reserved=reserved).items()
        if isinstance(parameter.default, bool | int | float | str | tuple)
    }
    return {**defaults, **given}


def _table_of(annotation: Any) -> type[BaseModel] | None:
    """Return the table class in a type hint, alone or in a union; None if there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_table_of, typing.get_args(annotation))), None)


def _name(target: Target) -> str:
    return getattr(target, "__name__", repr(target))


def _hints(target: Target) -> dict[str, Any]:
    """Return resolved type hints, or none if they cannot be resolved."""
    where: Any = target
    if inspect.isclass(target) and not dataclasses.is_dataclass(target):
        where = target.__init__  # fields of a dataclass may be named in modules of its bases
    try:
        return typing.get_type_hints(where)
    except (NameError, TypeError):
        return {}


def _converted(value: Any, hint: Any, key: str) -> Any:
    if hint is None:
        return value
    try:
        adapter = TypeAdapter(hint, config={"arbitrary_types_allowed": True})
    except PydanticSchemaGenerationError:
        return value
    except PydanticUserError:  # a dataclass or model brings its own configuration
        adapter = TypeAdapter(hint)
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise RecipeError(f"{key} = {value!r}: {error.errors()[0]['msg']}.") from error
