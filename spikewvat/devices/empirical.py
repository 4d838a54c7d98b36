"""A device model fitted to measurements."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import AdditiveErrors, draw_dtype
from spikewvat.devices.levels import LevelErrors, MeasuredLevel, measured_levels
from spikewvat.devices.measurements import Column, read_measurements
from spikewvat.devices.ranges import (
    AbsMax,
    Fixed,
    HalfWidth,
    MinMax,
    RangeRule,
    SixSigma,
    check_range,
    size_of,
)
from spikewvat.errors import DataError
from spikewvat.files import write_atomic
from spikewvat.weights import Weights

_FORMAT = "spikewvat empirical device 1"
_RANGES: tuple[type[Any], ...] = (SixSigma, HalfWidth, AbsMax, MinMax, Fixed)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Probabilities of the quantiles in :class:`LevelStatistics`."""


@dataclass(frozen=True)
class LevelStatistics:
    """One level, measured and modelled; errors are fractions of the value range.

    Args:
        level: The level's label in the table.
        position: Its target in the value range, 0 at the lower and 1 at the upper end.
        count: Number of measurements.
        measured_mean: Mean measured error.
        measured_std: Population standard deviation of the measured errors.
        measured_quantiles: Measured errors at the probabilities :data:`QUANTILES`.
        model_mean: Mean error of the model's draws.
        model_std: Population standard deviation of the model's draws.
        model_quantiles: The model's errors at the same probabilities.
    """

    level: float
    position: float
    count: int
    measured_mean: float
    measured_std: float
    measured_quantiles: tuple[float, ...]
    model_mean: float
    model_std: float
    model_quantiles: tuple[float, ...]


@dataclass(frozen=True, repr=False)
class Empirical(AdditiveErrors):
    r"""Errors drawn from measured ones; they may depend on the weight, and need not average to 0.

    .. math:: w' = w + R \, e, \qquad e \sim \text{errors measured at the level of } w

    A weight's place between the bounds of its layer's range (clipped to them) is its level's place
    in the measured value range. Between two measured levels one of them is chosen at random, the
    nearer one with more probability, so that mean and mean square are interpolated linearly.

    Args:
        levels: Measured errors by ascending position.
        range: Bounds and size R of each layer's range.
        smooth: Draw from a Gaussian kernel estimate (Silverman's bandwidth, scaled back to the
            measured standard deviation) instead of repeating measured errors.
        inter: Include the variation between devices.
        intra: Include the variation of one device around its own mean.
        time: Time since programming at which the errors were measured, in seconds, if known.

    Raises:
        ValueError: If there are no levels, they do not ascend or lack errors, or one part of the
            variation is asked for alone and devices were not told apart.

    References:
        Weight-variation-aware training (WVAT), section 4.5, uses measured tunnel junctions so;
        the dependence on the level is our extension.
    """

    levels: tuple[MeasuredLevel, ...]
    range: RangeRule = field(default_factory=SixSigma)
    smooth: bool = False
    inter: bool = True
    intra: bool = True
    time: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(self.levels))
        check_range(self.range)
        if not self.levels:
            raise ValueError("levels must hold at least one measured level, got none.")
        places = [level.position for level in self.levels]
        if not all(a < b for a, b in zip([float("-inf"), *places], [*places, float("inf")])):  # noqa: B905
            raise ValueError(f"levels must have ascending finite positions, got {places}.")
        if not (self.inter or self.intra):
            raise ValueError("one of inter and intra must be true, got neither.")
        for level in self.levels:
            errors = self.errors_at(level)
            if not errors and level.errors:
                raise ValueError(
                    f"level {level.level:g} does not tell devices apart, so inter- or intra-device "
                    "variation alone is unknown. Fit with device_column=..., or use both."
                )
            if not errors or not torch.tensor(errors).isfinite().all():
                raise ValueError(f"level {level.level:g} must have errors, all finite.")

    @classmethod
    def fit(
        cls,
        table: Path | str,
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
        """Fit a device to a CSV or TSV table of measurements (also ``.gz``).

        The error of a measurement is (value - target) / (width of the value range). At most 2000
        errors a level are kept, to six digits; of more, evenly spaced quantiles are.

        Args:
            table: File with one measurement a line. Columns are named as in its header, or
                numbered from 0.
            level_column: Label of the target level, a number.
            value_column: Measured value, such as a conductance.
            time_column: Time since programming, in seconds.
            time: Time to model, in seconds: the nearest measured one (as a ratio) is taken, with
                all measurements within a factor of 1.25 of it; nothing is interpolated. None
                takes the latest.
            target_column: Value aimed at, in the unit of the value. Without it the target is the
                level's mean at the earliest time.
            device_column: Which device was measured (any text); tells inter- from intra-device
                variation, for which each device needs repeated measurements at a level.
            value_range: Lowest and highest value that a device can hold; None takes the span of
                all values in the table.
            min_count: Levels with fewer measurements are left out.
            range: Range rule of the device; None is ``SixSigma()``.
            smooth: See :class:`Empirical`.

        Returns:
            The fitted device, with both parts of the variation.

        Raises:
            DataError: If the table is missing, empty or malformed, or does not hold what is
                asked for.
        """
        measurements = read_measurements(
            table,
            level=level_column,
            value=value_column,
            time=time_column,
            target=target_column,
            device=device_column,
        )
        try:
            levels, time = measured_levels(
                measurements, time=time, value_range=value_range, min_count=min_count
            )
        except DataError as error:
            raise DataError(f"{str(table)!r}: {error}") from error
        return cls(levels, SixSigma() if range is None else range, smooth, time=time)

    def errors_at(self, level: MeasuredLevel) -> tuple[float, ...]:
        """Return the measured errors that are drawn at a level: all, or one part of them."""
        if self.inter and self.intra:
            return level.errors
        return level.inter if self.inter else level.intra

    def errors(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Draw the errors of one chip (see :meth:`AdditiveErrors.errors`)."""
        drawn = {}
        for name, weight in weights.items():
            place = self._place(weight)
            table = self._table(place.dtype, place.device)
            errors = table.draw(place, smooth=self.smooth, generator=generator)
            drawn[name] = errors.mul_(size_of(self.range, weight)).to(weight.dtype)
        return drawn

    def expected_norms(self, weights: Weights) -> dict[str, Tensor]:
        """Return the norms in closed form (see :meth:`DeviceModel.expected_norms`)."""
        norms = {}
        for name, weight in weights.items():
            place = self._place(weight)
            squares = self._table(place.dtype, place.device).mean_squares(place)
            norms[name] = squares.mul_(size_of(self.range, weight).square()).sum().sqrt_()
        return norms

    def statistics(
        self, *, draws: int = 10_000, generator: Generator | None = None
    ) -> tuple[LevelStatistics, ...]:
        """Compare the measured errors of every level with draws of the model.

        Args:
            draws: Number of draws at each level.
            generator: Source of randomness; ``None`` uses torch's global one.

        Returns:
            One entry for each level, by ascending position.
        """
        rows = []
        table = self._table(torch.float64, torch.device("cpu"))
        for number, level in enumerate(self.levels):
            numbers = torch.full((draws,), number, dtype=torch.int32)
            drawn = table.draw_at(numbers, smooth=self.smooth, generator=generator)
            measured = _summary(torch.tensor(self.errors_at(level), dtype=torch.float64))
            rows.append(
                LevelStatistics(
                    level.level, level.position, level.count, *measured, *_summary(drawn)
                )
            )
        return tuple(rows)

    def to_toml(self) -> str:
        """Return the device as TOML text, from which :meth:`from_toml` makes an equal one.

        Raises:
            ValueError: If the range rule is not one of this package.
        """
        if type(self.range) not in _RANGES:
            raise ValueError(f"cannot write range rule {self.range!r}, only this package's own.")
        rule = {"rule": type(self.range).__name__, **vars(self.range)}
        lines = [f"format = {_toml(_FORMAT)}", f"range = {_toml(rule)}"]
        lines += [f"{key} = {_toml(getattr(self, key))}" for key in ("smooth", "inter", "intra")]
        if self.time is not None:
            lines.append(f"time = {_toml(self.time)}")
        for level in self.levels:
            lines += ["", "[[levels]]"]
            lines += [f"{key} = {_toml(value)}" for key, value in asdict(level).items()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str, *, source: str = "the text") -> Empirical:
        """Make a device from what :meth:`to_toml` returned.

        Args:
            text: TOML.
            source: Where it comes from, for the message.

        Returns:
            An equal device.

        Raises:
            DataError: If the text is malformed.
        """
        try:
            content = tomllib.loads(text)
            if content.pop("format") != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT!r}")
            rule = content.pop("range")
            kinds = {kind.__name__: kind for kind in _RANGES}
            content["range"] = kinds[rule.pop("rule")](**rule)
            content["levels"] = tuple(_level(**level) for level in content["levels"])
            return cls(**content)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise DataError(
                f"{source} is no empirical device ({error}). "
                "Make one with: spikewvat devices fit TABLE --out device.toml"
            ) from error

    def __repr__(self) -> str:
        count = sum(level.count for level in self.levels)
        parts = [f"{len(self.levels)} levels, {count} measurements"]
        parts += [] if self.time is None else [f"time={self.time:g} s"]
        parts += [f"range={self.range!r}"]
        parts += [f"{name}=False" for name in ("inter", "intra") if not getattr(self, name)]
        parts += ["smooth=True"] if self.smooth else []
        return f"Empirical({', '.join(parts)})"

    @cached_property
    def _tables(self) -> dict[tuple[torch.dtype, torch.device], LevelErrors]:
        return {}

    def _table(self, dtype: torch.dtype, device: torch.device) -> LevelErrors:
        key = dtype, device
        if key not in self._tables:
            positions = [level.position for level in self.levels]
            self._tables[key] = LevelErrors(
                positions, [self.errors_at(x) for x in self.levels], *key
            )
        return self._tables[key]

    def _place(self, weight: Tensor) -> Tensor:
        """Return where each weight lies between its bounds, from 0 to 1."""
        low, high = self.range.bounds(weight)
        place = weight.detach().to(draw_dtype(weight)) - low
        # Bounds that coincide leave 0 / 0; there R is 0 too, and any level will do.
        return place.div_(high - low).clamp_(0, 1).nan_to_num_(0)


def _summary(errors: Tensor) -> tuple[float, float, tuple[float, ...]]:
    """Return mean, population standard deviation and quantiles."""
    quantiles = torch.quantile(errors, torch.tensor(QUANTILES, dtype=errors.dtype))
    return float(errors.mean()), float(errors.std(correction=0)), tuple(quantiles.tolist())


def _toml(value: object) -> str:
    """Return a value as inline TOML; numbers keep every digit."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    return repr(value)


def _level(**content: Any) -> MeasuredLevel:
    lists = {key: tuple(value) for key, value in content.items() if isinstance(value, list)}
    return MeasuredLevel(**{**content, **lists})


def save_device(device: Empirical, path: Path | str) -> None:
    """Write a fitted device as TOML, atomically.

    Args:
        device: Device to save.
        path: File to write.

    Raises:
        CheckpointError: If the file cannot be written.
    """
    write_atomic(path, device.to_toml())


def load_device(path: Path | str) -> Empirical:
    """Read a device that :func:`save_device` wrote.

    Args:
        path: TOML file.

    Returns:
        The device.

    Raises:
        DataError: If the file is missing or holds no device.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"there is no file {str(path)!r}. Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}).") from error
    return Empirical.from_toml(text, source=repr(str(path)))
