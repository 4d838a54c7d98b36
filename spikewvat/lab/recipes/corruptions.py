"""Corruptions and measures by name: ``"deletion"``, ``"scale>>bias-trim:samples=64"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.devices import Sized, Stage, build_range, describe, stages
from spikewvat.lab.recipes.registry import factory
from spikewvat.lab.recipes.schema import CORRUPTIONS, MEASURES, Spec
from spikewvat.robustness.calibration import Measure
from spikewvat.robustness.corruptions import Corruption


def read_corruption(spec: Spec, key: str) -> Sized[Corruption]:
    """Parse and check a corruption; at least one stage must leave its severity open.

    Args:
        spec: Stages, written like those of devices, see
            :func:`spikewvat.lab.recipes.devices.stages`.
        key: Dotted key or option that holds it, for messages.

    Raises:
        RecipeError: If a name or parameter is unknown, a value invalid, or every stage sets its
            severity.

    Example:
        >>> read_corruption("deletion>>dead-neurons:severity=0.05", "corruption")(0.2)
        Deletion(severity=0.2) >> DeadNeurons(severity=0.05)
    """
    found: Sized[Corruption] = Sized(
        tuple(_read_stage(table, key) for table in stages(spec, key)), describe(spec, key)
    )
    if not found.is_open:
        raise RecipeError(
            f"{key} = {found.label!r} sets every severity, so there is nothing to sweep. "
            "Leave out the severity of one stage."
        )
    found()  # impossible values
    return found


def levels(corruption: Sized[Corruption]) -> tuple[float, ...]:
    """Return 0 and the five levels of the first stage with an open severity."""
    swept: Any = next(stage for stage in corruption.stages if stage.is_open).make.target
    return (0.0, *swept.LEVELS)


def _read_stage(table: Mapping[str, Any], key: str) -> Stage:
    given = dict(table)
    if "range" in given:
        given["range"] = build_range(given["range"], f"{key}.range")
    is_open = "severity" not in given
    reserved = ("severity",) if is_open else ()
    make = factory(CORRUPTIONS, given.pop("name", None), given, key, reserved=reserved)
    return Stage(make, "severity" if is_open else None)


def read_measures(spec: Spec | None, key: str) -> tuple[Measure, ...]:
    """Parse and check what is done to chips after programming.

    Args:
        spec: Measures in order, written like the stages of devices; None for nothing.
        key: Dotted key or option that holds it, for messages.

    Raises:
        RecipeError: If a name or parameter is unknown, or a value invalid.

    Example:
        >>> read_measures("scale>>bias-trim:samples=16", "calibrate")[1].samples
        16
    """
    found = []
    for table in [] if spec is None else stages(spec, key):
        given = dict(table)
        found.append(factory(MEASURES, given.pop("name", None), given, key)())
    return tuple(found)
