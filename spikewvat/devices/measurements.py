"""Tables of measured devices, read from CSV or TSV."""

from __future__ import annotations

import csv
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikewvat.errors import DataError, MissingDataError
from spikewvat.files import gunzip

Column: TypeAlias = str | int
"""A column's name in the header, or its 0-based number."""

Numbers: TypeAlias = NDArray[np.float64]

_LARGEST = 2**28  # bytes of a packed table; the largest public ones have a tenth of that


@dataclass(frozen=True)
class Measurements:
    """Columns of a table, one entry for each measurement.

    Args:
        level: Label of the target level.
        value: Measured value, in any unit.
        time: Time since programming in seconds, or None.
        target: Value that was aimed at, in the unit of ``value``, or None.
        device: Number of the device that was measured, or None.
    """

    level: Numbers
    value: Numbers
    time: Numbers | None = None
    target: Numbers | None = None
    device: NDArray[np.int64] | None = None

    def only(self, chosen: NDArray[np.bool_]) -> Measurements:
        """Return the chosen entries."""
        kept: dict[str, Any] = {n: x if x is None else x[chosen] for n, x in vars(self).items()}
        return replace(self, **kept)


def read_measurements(path: Path | str, **columns: Column | None) -> Measurements:
    """Read a CSV or TSV file, also gzipped (``.gz``).

    The first line tells the separator: tab, semicolon or comma. It is a header where a column is
    given by name, or where none of the wanted cells in it is a number.

    Args:
        path: File to read, UTF-8 text.
        **columns: Where the fields of :class:`Measurements` stand, None where they do not;
            ``level`` and ``value`` are needed. All are numbers but ``device``, which is any text.

    Returns:
        One entry for each row.

    Raises:
        DataError: If the file is missing, empty or unreadable, lacks a column, or a cell is no
            finite number.
    """
    path = Path(path)
    wanted = {name: column for name, column in columns.items() if column is not None}
    rows = _rows(path)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{str(path)!r} is empty. Expected one measurement a line.")
    places = {name: _place(column, first[1], path) for name, column in wanted.items()}
    is_header = any(_index(column) is None for column in wanted.values()) or not any(
        _is_number(first[1][places[name]]) for name in places if name != "device"
    )
    cells: dict[str, list[float]] = {name: [] for name in places}
    devices: dict[str, int] = {}
    for line, row in rows if is_header else chain([first], rows):
        for name, place in places.items():
            if place >= len(row):
                raise DataError(
                    f"{str(path)!r}, line {line}: {len(row)} cells, but the {name} column is "
                    f"number {place} (counted from 0)."
                )
            if name == "device":
                cells[name].append(devices.setdefault(row[place].strip(), len(devices)))
            else:
                cells[name].append(_number(row[place], path, line, wanted[name]))
    if not cells["value"]:
        raise DataError(f"{str(path)!r} holds a header but no measurements.")
    numbers = {name: np.asarray(column) for name, column in cells.items() if name != "device"}
    device = np.asarray(cells["device"], dtype=np.int64) if "device" in cells else None
    return Measurements(**numbers, device=device)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every line that is not blank."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gunzip(content, limit=_LARGEST)
        text = content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise MissingDataError(f"there is no file {str(path)!r}. Check the path.") from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"{str(path)!r} cannot be read ({error}). Expected CSV or TSV text, or its .gz."
        ) from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = next((mark for mark in "\t;" if mark in first), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        yield from ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
    except csv.Error as error:
        raise DataError(f"{str(path)!r}, line {reader.line_num}: {error}.") from error


def _index(column: Column) -> int | None:
    """Return the number of a column that was given as one, also as text ("5")."""
    if isinstance(column, int):
        return column
    return int(column) if column.isascii() and column.isdigit() else None


def _place(column: Column, first: Sequence[str], path: Path) -> int:
    header = [cell.strip() for cell in first]
    index = _index(column)
    if index is not None:
        if 0 <= index < len(header):
            return index
        raise DataError(
            f"{str(path)!r} has no column {index}: its first line has {len(header)} columns, "
            "counted from 0."
        )
    if header.count(str(column)) == 1:
        return header.index(str(column))
    problem = "two columns" if str(column) in header else "no column"
    raise DataError(
        f"{str(path)!r} has {problem} named {column!r} (first line: {', '.join(header)}). "
        "Give the 0-based number of the column, or its name in the header."
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python's own 1_000 is a damaged cell here


def _number(cell: str, path: Path, line: int, column: Column) -> float:
    number = float(cell) if _is_number(cell) else math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{str(path)!r}, line {line}, column {column!r}: expected a finite number, "
            f"got {cell!r}. Correct or delete the line."
        )
    return number
