"""A device fitted to a table of measurements where it is named, without a file in between."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from spikewvat.devices.empirical import Empirical
from spikewvat.devices.measurements import Column
from spikewvat.devices.ranges import RangeRule
from spikewvat.errors import MissingDataError


def measured(
    table: str,
    *,
    level_column: Column,
    value_column: Column,
    time_column: Column | None = None,
    time: float | None = None,
    target_column: Column | None = None,
    device_column: Column | None = None,
    value_range: tuple[float, float] | None = None,
    min_count: int = 10,
    range: RangeRule | None = None,
    smooth: bool = False,
) -> Empirical:
    """Return :meth:`Empirical.fit` of a table, which is read once.

    Args:
        table: File, relative to the current folder or to the folder ``SPIKEWVAT_DATA``.
        level_column: See :meth:`Empirical.fit`, here and below.
        value_column: Measured value.
        time_column: Time since programming.
        time: Time to model, in seconds.
        target_column: Value aimed at.
        device_column: Which device was measured.
        value_range: Lowest and highest value of a device.
        min_count: Levels with fewer measurements are left out.
        range: Range rule of the device; None is ``SixSigma()``.
        smooth: Draw from a kernel estimate.

    Raises:
        MissingDataError: If there is no such file.
        DataError: If the table is malformed or does not hold what is asked for.
    """
    device = _fitted(
        _found(table),
        level_column=level_column,
        value_column=value_column,
        time_column=time_column,
        time=time,
        target_column=target_column,
        device_column=device_column,
        value_range=value_range,
        min_count=min_count,
    )
    return replace(device, range=range or device.range, smooth=smooth)


_fitted = lru_cache(maxsize=64)(Empirical.fit)


def _found(table: str) -> Path:
    folders = [Path()]
    if os.environ.get("SPIKEWVAT_DATA"):
        folders.append(Path(os.environ["SPIKEWVAT_DATA"]))
    for folder in folders:
        if (folder / table).is_file():
            return (folder / table).resolve()
    raise MissingDataError(
        f"there is no table of measurements {table!r}, neither here nor in the folder "
        "SPIKEWVAT_DATA. Set it, or write the whole path."
    )
