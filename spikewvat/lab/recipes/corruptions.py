"""Corruptions of spikes by name: ``"deletion"``, ``"jitter>>dead-neurons:severity=0.05"``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.devices import build_range, describe, stages, takes_sigma
from spikewvat.lab.recipes.registry import checked, construct, lookup
from spikewvat.lab.recipes.schema import CORRUPTIONS, Evaluation, Spec
from spikewvat.robustness.corruptions import Corruption


def build_corruption(spec: Spec, key: str, *, severity: float) -> Corruption:
    """Make a corruption.

    Args:
        spec: Stages as devices are written, see :func:`spikewvat.lab.recipes.devices.stages`.
        key: Dotted key or option that holds it, for messages.
        severity: Severity of the stages that do not set it.

    Raises:
        RecipeError: If a name or parameter is unknown, a value impossible, or every stage sets
            its severity.

    Example:
        >>> build_corruption("deletion>>dead-neurons:severity=0.05", "corruption", severity=0.2)
        Deletion(severity=0.2) >> DeadNeurons(severity=0.05)
    """
    found: Corruption | None = None
    for table in _open_stages(spec, key):
        stage = _build_stage({"severity": severity, **table}, key)
        found = stage if found is None else found >> stage
    assert found is not None  # there is a stage that leaves its severity open
    return found


def levels(spec: Spec, key: str) -> tuple[float, ...]:
    """Return 0 and the five levels of the first stage whose severity is swept.

    Raises:
        RecipeError: As :func:`build_corruption`.
    """
    swept = next(table for table in _open_stages(spec, key) if "severity" not in table)
    kind: Any = lookup(CORRUPTIONS, swept.get("name"), key)
    return (0.0, *kind.LEVELS)


def check(plan: Evaluation) -> None:
    """Check what happens to spikes.

    Raises:
        RecipeError: If it cannot be made, or the device has no size of its own.
    """
    if plan.corruption is None:
        return
    key = "evaluation.corruption"
    if takes_sigma(plan.device, "evaluation.device"):
        raise RecipeError(
            f"evaluation.device = {describe(plan.device, key)!r} leaves its sigma open, but what "
            f"is swept is the severity of {describe(plan.corruption, key)!r}. Write "
            'device = "gaussian:sigma=0.05", or leave it out for ideal weights.'
        )
    for severity in plan.sigmas or (0.0,):
        build_corruption(plan.corruption, key, severity=severity)


def _open_stages(spec: Spec, key: str) -> list[dict[str, Any]]:
    """Return the stages, at least one of which leaves its severity open."""
    found = stages(spec, key)
    if all("severity" in table for table in found):
        raise RecipeError(
            f"{key} = {describe(spec, key)!r} sets every severity, so there is nothing to sweep. "
            "Leave out that of one stage."
        )
    return found


def _build_stage(table: Mapping[str, Any], key: str) -> Corruption:
    given = dict(table)
    target = lookup(CORRUPTIONS, given.pop("name", None), key)
    if "range" in given:
        given["range"] = build_range(given["range"], f"{key}.range")
    stage: Corruption = construct(target, checked(target, given, key), key)
    return stage
