"""The error of every measured level at a chosen time, and draws from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from spikewvat.devices.base import check_at_least_zero, normal, uniform
from spikewvat.devices.measurements import Measurements, Numbers
from spikewvat.errors import DataError

MAX_ERRORS = 2000
"""More errors than these at one level are thinned to as many evenly spaced quantiles."""

SAME_TIME = 1.25
"""Measurements within this factor of a time count as taken at that time."""


_CELLS = 1024  # a power of two, so that multiplying by it is exact


@dataclass(frozen=True)
class MeasuredLevel:
    """What was measured of one target level; errors are fractions of the value range, sorted.

    Args:
        level: The level's label in the table.
        position: Its target in the value range, 0 at the lower and 1 at the upper end.
        count: Number of measurements.
        errors: Error of each measurement.
        inter: Mean error of each device, where devices were told apart.
        intra: Deviation of each measurement from its device's mean.
    """

    level: float
    position: float
    count: int
    errors: tuple[float, ...]
    inter: tuple[float, ...] = ()
    intra: tuple[float, ...] = ()


def at_time(table: Measurements, time: float | None) -> tuple[Measurements, float | None]:
    """Return what was measured at one time: the measured time nearest to ``time`` (as a ratio).

    Nothing is interpolated. Measurements within a factor of 1.25 of that time belong to it.

    Args:
        table: Measurements.
        time: Time since programming in seconds; None is the latest that was measured.

    Returns:
        The measurements of that time, and the time itself: the median of theirs.

    Raises:
        DataError: If a time is asked for that was not measured, or a measured time is negative.
    """
    if table.time is None:
        if time is not None:
            raise DataError(f"time={time!r} was asked for without a time column. Name it.")
        return table, None
    earliest, latest = float(table.time.min()), float(table.time.max())
    if earliest < 0:
        raise DataError(f"a measured time is negative: {earliest!r} s.")
    if time is None:
        time = latest
    check_at_least_zero("time", time)
    if time > latest * SAME_TIME or time * SAME_TIME < earliest:
        raise DataError(
            f"nothing was measured {time!r} s after programming, only from "
            f"{earliest!r} to {latest!r} s. Choose a time in between."
        )
    if time == 0:
        chosen = table.time == 0
    else:
        ratios = np.full(table.time.shape, math.inf)
        np.log(table.time / time, out=ratios, where=table.time > 0)
        nearest = float(table.time[np.argmin(np.abs(ratios))])
        chosen = (table.time >= nearest / SAME_TIME) & (table.time <= nearest * SAME_TIME)
    return table.only(chosen), float(np.median(table.time[chosen]))


def measured_levels(
    table: Measurements,
    *,
    time: float | None,
    value_range: tuple[float, float] | None,
    min_count: int,
) -> tuple[tuple[MeasuredLevel, ...], float | None]:
    """Return the errors of every level at one time, by ascending target, and that time.

    Args:
        table: Measurements at one or more times.
        time: Time since programming in seconds; None is the latest that was measured.
        value_range: Lowest and highest value a device can hold; None takes the table's span.
        min_count: Levels with fewer measurements are left out.

    Returns:
        The levels, and the time at which they were measured.

    Raises:
        DataError: If fewer than two levels remain (one is enough with a ``value_range``), two
            levels share a target, all values are equal, or devices were measured only once.
    """
    low, high = value_range or (float(table.value.min()), float(table.value.max()))
    if value_range is not None and not (math.isfinite(high - low) and low < high):
        raise DataError(f"value_range must be finite (low, high), low < high, got {value_range!r}.")
    if low == high:
        raise DataError(f"the value range is empty: every value is {low!r}.")
    earliest = table if table.time is None else at_time(table, float(table.time.min()))[0]
    at_programming = {
        level: earliest.value[earliest.level == level].mean() for level in np.unique(earliest.level)
    }
    now, time = at_time(table, time)
    levels = []
    for level in np.unique(now.level):
        rows = now.level == level
        if rows.sum() < min_count or (now.target is None and level not in at_programming):
            continue
        aims = at_programming[level] if now.target is None else now.target[rows]
        errors = (now.value[rows] - aims) / (high - low)
        position = float((np.mean(aims) - low) / (high - low))
        parts = _parts(errors, None if now.device is None else now.device[rows])
        kept = map(_thinned, (errors, *parts))
        levels.append(MeasuredLevel(float(level), position, int(rows.sum()), *kept))
    if len(levels) < (2 if value_range is None else 1):
        raise DataError(
            f"the table has {len(levels)} level(s) of at least {min_count} measurements, expected "
            "two or more. Check the level column, or pass value_range=(low, high) if one level "
            "is all there is."
        )
    if now.device is not None and not any(any(level.intra) for level in levels):
        raise DataError(
            "every device was measured once at each level, so that intra- and inter-device "
            "variation cannot be told apart. Leave the device column out."
        )
    levels.sort(key=lambda level: level.position)
    for one, next_one in pairwise(levels):
        if one.position == next_one.position:
            raise DataError(f"levels {one.level:g} and {next_one.level:g} share one target.")
    return tuple(levels), time


def _parts(errors: Numbers, device: NDArray[np.int64] | None) -> tuple[Numbers, Numbers]:
    """Return the mean error of each device, and each error's deviation from it."""
    if device is None:
        return np.empty(0), np.empty(0)
    _, index, counts = np.unique(device, return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=errors) / counts
    return means, errors - means[index]


def _thinned(errors: Numbers) -> tuple[float, ...]:
    """Return sorted errors to six digits, thinned to evenly spaced quantiles where many."""
    errors = np.sort(errors)
    if errors.size > MAX_ERRORS:
        errors = np.quantile(errors, (np.arange(MAX_ERRORS) + 0.5) / MAX_ERRORS)
    return tuple(float(f"{error:.6g}") for error in errors)


class LevelErrors:
    """Measured errors of all levels, ready to draw from in one dtype and on one device.

    Args:
        positions: Place of each level in the value range, ascending.
        errors: Errors of each level, at least one.
        dtype: Dtype of places and draws.
        device: Device of places and draws.
    """

    def __init__(
        self,
        positions: Sequence[float],
        errors: Sequence[Sequence[float]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        by_level = [torch.tensor(e, dtype=torch.float64) for e in errors]
        options: dict[str, Any] = {"dtype": dtype, "device": device}
        self.errors = torch.cat(by_level).to(**options)
        counts = torch.tensor([len(e) for e in errors])
        self.counts = counts.to(**options)
        self.offsets = (counts.cumsum(0) - counts).int().to(device)
        self.last = (counts - 1).int().to(device)
        self.mean = torch.stack([e.mean() for e in by_level]).to(**options)
        bandwidth = torch.stack([_silverman(e) for e in by_level])
        variance = torch.stack([e.var(correction=0) for e in by_level])
        shrinkage = torch.where(variance > 0, variance / (variance + bandwidth.square()), 1).sqrt()
        self.bandwidth, self.shrinkage = bandwidth.to(**options), shrinkage.to(**options)
        # Gap i lies below level i; the outermost two have no width and belong to the end levels.
        edges = torch.tensor(positions, dtype=torch.float64).to(dtype)
        self.left = torch.cat([edges[:1], edges]).to(device)
        inverse = torch.zeros(len(edges) + 1, dtype=dtype)
        inverse[1:-1] = edges.diff().reciprocal()
        self.inverse_width = inverse.to(device)
        squares = torch.stack([e.square().mean() for e in by_level])
        self.square = torch.cat([squares[:1], squares]).to(**options)
        self.square_step = torch.cat([squares[:1], squares, squares[-1:]]).diff().to(**options)
        # A look-up by cells of [0, 1], then a step for each level inside the cell: six times
        # faster than the search of torch.bucketize.
        cells = torch.arange(_CELLS + 1, dtype=dtype) / _CELLS
        gap = torch.bucketize(cells, edges, out_int32=True)
        self.steps = max(int(gap.diff().max()), 1)
        self.gap = gap.to(device)
        self.right = torch.cat([edges, edges.new_tensor([math.inf])]).to(device)

    def mean_squares(self, place: Tensor) -> Tensor:
        """Return the mean square error at each place in [0, 1]."""
        gap, share = self._gap(place)
        squares = self.square_step.index_select(0, gap).mul_(share)
        return squares.add_(self.square.index_select(0, gap)).reshape(place.shape)

    def draw(self, place: Tensor, *, smooth: bool, generator: Generator | None) -> Tensor:
        """Draw an error for each place in [0, 1]."""
        choose = uniform([place.numel()], place.dtype, generator)
        gap, share = self._gap(place)
        level = gap.sub_(1).clamp_(min=0).add_(choose.to(place.device) < share)
        return self.draw_at(level, smooth=smooth, generator=generator).reshape(place.shape)

    def draw_at(self, level: Tensor, *, smooth: bool, generator: Generator | None) -> Tensor:
        """Draw an error for each entry of a vector of int32 level numbers."""
        which = uniform(level.shape, self.errors.dtype, generator).to(level.device)
        index = which.mul_(self.counts.index_select(0, level)).int()
        index = index.minimum(self.last.index_select(0, level))  # the product may round up
        errors = self.errors.index_select(0, index.add_(self.offsets.index_select(0, level)))
        if smooth:
            kernel = normal(level.shape, self.errors.dtype, generator).to(level.device)
            mean = self.mean.index_select(0, level)
            errors.sub_(mean).add_(kernel.mul_(self.bandwidth.index_select(0, level)))
            errors.mul_(self.shrinkage.index_select(0, level)).add_(mean)
        return errors

    def _gap(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gap of each place, flat, and the share of the level above the gap."""
        place = place.flatten()
        gap = self.gap.index_select(0, (place * _CELLS).int())
        for _ in range(self.steps):
            gap.add_(place > self.right.index_select(0, gap))
        share = (place - self.left.index_select(0, gap)).mul_(
            self.inverse_width.index_select(0, gap)
        )
        return gap, share


def _silverman(errors: Tensor) -> Tensor:
    """Return Silverman's bandwidth, 0.9 min(std, IQR / 1.34) n^(-1/5)."""
    std = errors.std(correction=0)
    low, high = torch.quantile(errors, torch.tensor([0.25, 0.75], dtype=errors.dtype))
    spread = torch.minimum(std, (high - low) / 1.34) if high > low else std
    bandwidth: Tensor = 0.9 * spread * len(errors) ** -0.2
    return bandwidth
