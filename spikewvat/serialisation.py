"""Results as JSON files: every result dataclass is written and read here.

A file states the kind of its result and the version of its layout. Reading rejects invalid numbers,
such as an accuracy of 1.2 or 24 accuracies for 25 chips. Derived numbers (means, intervals, yields)
are not stored. Every item of a table has its own line in the file.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from spikewvat import files
from spikewvat.errors import DataError

Result = TypeVar("Result")

KIND, VERSION = "kind", 1
_MOST_BYTES = 2**28


@dataclass(frozen=True)
class Numbers:
    """Annotates a field with the numbers that it may hold.

    Tensors are read as float64 on the CPU. In files, null stands for non-finite numbers and is read
    as NaN.

    Args:
        low: The smallest number allowed.
        high: The largest number allowed.
        missing: Whether numbers may be missing (NaN).
    """

    low: float = -math.inf
    high: float = math.inf
    missing: bool = True

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Tell pydantic how to read and write the field."""
        from spikewvat.validation import core_schema as schema

        return schema.no_info_plain_validator_function(
            functools.partial(self._read, is_tensor=source is Tensor),
            serialization=schema.plain_serializer_function_ser_schema(_written),
        )

    def _read(self, value: Any, *, is_tensor: bool) -> Any:
        expected = "a list of numbers" if is_tensor else "a number"
        try:
            found = _with_nan(value)
            numbers = torch.tensor(found, dtype=torch.float64)
        except (TypeError, OverflowError) as error:  # lists of different lengths, 1 and 400 zeros
            raise ValueError(f"expected {expected} ({error})") from error
        if isinstance(found, list) != is_tensor:
            raise ValueError(f"expected {expected}")
        if not self.missing and bool(numbers.isnan().any()):
            raise ValueError("a number is missing")
        if bool(((numbers < self.low) | (numbers > self.high)).any()):
            raise ValueError(f"expected numbers from {self.low:g} to {self.high:g}, got {value}")
        return numbers if is_tensor else found


class Packed:
    """Annotates a tensor of whole numbers ``[n]``, each at least 0, that files hold as one text.

    It is the base64 form of zlib-compressed unsigned integers of four bytes, little-endian.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Tell pydantic how to read and write the field."""
        from spikewvat.validation import core_schema as schema

        return schema.no_info_plain_validator_function(
            _unpacked, serialization=schema.plain_serializer_function_ser_schema(_packed)
        )


Real: TypeAlias = Annotated[float, Numbers()]
"""A number, NaN if undefined."""
Reals: TypeAlias = Annotated[Tensor, Numbers()]
"""Numbers, NaN where undefined."""
Fraction: TypeAlias = Annotated[float, Numbers(0, 1, missing=False)]
"""A number from 0 to 1."""
Fractions: TypeAlias = Annotated[Tensor, Numbers(0, 1, missing=False)]
"""Numbers from 0 to 1."""
Counts: TypeAlias = Annotated[Tensor, Packed()]
"""Whole numbers, each at least 0, as int64."""


def write(path: Path | str, result: object) -> None:
    """Write a result file, atomically.

    Args:
        path: File to write; missing parent folders are created.
        result: A dataclass.

    Raises:
        CheckpointError: If the file cannot be written.
        MissingExtraError: If pydantic is not installed.
    """
    write_json(path, {KIND: f"{type(result).__name__} {VERSION}", **plain(result)})


def read(path: Path | str, kind: type[Result]) -> Result:
    """Read a result file.

    Args:
        path: File written by :func:`write`.
        kind: Class of the result.

    Raises:
        DataError: If the file is missing or malformed, or holds another kind of result.
        MissingExtraError: If pydantic is not installed.
    """
    return restored(read_json(path), kind, source=repr(str(path)))


def plain(result: object) -> dict[str, Any]:
    """Return a result as plain JSON values; fields with their default value are left out.

    Raises:
        MissingExtraError: If pydantic is not installed.
    """
    found = _adapter(type(result)).dump_python((result,), mode="json", exclude_defaults=True)
    return dict(found[0])


def restored(content: Mapping[str, Any], kind: type[Result], *, source: str) -> Result:
    """Return the result stored in a file.

    Args:
        content: Content of the file, see :func:`read_json`.
        kind: Class of the result.
        source: Names the file in errors.

    Raises:
        DataError: If the content is malformed or holds another kind of result.
        MissingExtraError: If pydantic is not installed.
    """
    expected, named = f"{kind.__name__} {VERSION}", content.get(KIND)
    if named != expected:
        raise DataError(
            f"{source} holds {named or 'no named kind of result'!r}, expected {expected!r}. "
            "Recreate it with this version of spikewvat, or choose another file."
        )
    fields = json.dumps([{key: item for key, item in content.items() if key != KIND}])
    from spikewvat.validation import ValidationError

    try:
        found: Result = _adapter(kind).validate_json(fields, strict=True)[0]
    except ValidationError as error:
        first, *others = error.errors()
        place = ".".join(str(part) for part in first["loc"][1:]) or "the result"
        more = f", and {len(others)} more" if others else ""
        raise DataError(
            f"{source} is no {kind.__name__}: {place}: {first['msg']}{more}. "
            "Delete the file and create it again."
        ) from error
    return found


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write plain values, atomically: one line per key, and one per item of a table.

    Args:
        path: File to write.
        content: Plain values; non-finite numbers become null.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    lines = (f"{json.dumps(str(key))}: {_laid_out(item, ' ')}" for key, item in content.items())
    files.write_atomic(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_json(path: Path | str) -> dict[str, Any]:
    """Read plain values from a file.

    Raises:
        DataError: If the file is missing, or is not a JSON object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refused)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{str(path)!r} is not a result file ({error}). Pass a file written by spikewvat."
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"{str(path)!r} is not a result file: it holds a {type(content).__name__}, expected an "
            "object. Pass a file written by spikewvat."
        )
    return content


def _made(kind: Any) -> Any:
    from spikewvat.validation import TypeAdapter

    # A tuple takes the settings that pydantic does not let a dataclass be given from outside.
    return TypeAdapter(tuple[kind], config={"extra": "forbid", "allow_inf_nan": False})


_adapter: Callable[[Any], Any] = functools.cache(_made)


def _refused(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _with_nan(value: Any) -> Any:
    """Return numbers with NaN for None, after checking that they are numbers."""
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _written(value: Any) -> Any:
    """Return a tensor or number as plain values, with None for non-finite numbers."""
    return finite(value.tolist() if isinstance(value, Tensor) else value)


def _packed(counts: Tensor) -> str:
    raw = counts.cpu().numpy().astype("<u4").tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def _unpacked(text: Any) -> Tensor:
    if not isinstance(text, str):
        raise ValueError("expected packed whole numbers")
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(base64.b64decode(text, validate=True), _MOST_BYTES)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise ValueError(f"expected packed whole numbers ({error})") from error
    if not unpacker.eof or len(raw) % 4:
        raise ValueError("expected packed whole numbers, got too many or a part of them")
    return torch.from_numpy(np.frombuffer(raw, "<u4").astype(np.int64))


def finite(value: Any) -> Any:
    """Return plain values as they are read back from a file: None for non-finite numbers."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _laid_out(value: Any, indent: str) -> str:
    """Return JSON with line breaks only between the items of tables (lists of containers)."""
    if isinstance(value, Mapping):
        items = (f"{json.dumps(str(k))}: {_laid_out(v, indent)}" for k, v in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list | tuple) and any(
        isinstance(i, Mapping | list | tuple) for i in value
    ):
        deeper = indent + " "
        return "[\n" + ",\n".join(f"{indent}{_laid_out(item, deeper)}" for item in value) + "]"
    return json.dumps(finite(value), allow_nan=False)
