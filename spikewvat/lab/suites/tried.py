"""What a suite says about the choice of its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping

from spikewvat.formatting import MISSING, percent
from spikewvat.lab.suites.suite import Setup
from spikewvat.results import RowResult

HEADS = ("", "setting", "score", "")
"""Headings of :func:`settings_tried`."""


def settings_tried(setup: Setup, results: Mapping[str, RowResult]) -> list[list[str]]:
    """Return a line for each setting that a row has tried, with its score and which was chosen.

    Args:
        setup: A set-up of a suite with a selection.
        results: Results by row name.
    """
    lines = []
    for row in setup.rows:
        how = results[row.name].selection if row.name in results else None
        for place, tried in enumerate(how.tried if how else ()):
            words = ", ".join(override.split(".", 1)[-1] for override in tried.setting)
            score = MISSING if math.isnan(tried.score) else percent(tried.score)
            chosen = how is not None and place == how.chosen
            lines.append([row.method, words, score, "chosen" if chosen else ""])
    return lines


def how_chosen(result: RowResult) -> str:
    """Describe how a setting was chosen, and how often the test data was read; "" if none was."""
    how = result.selection
    if how is None:
        return ""
    sizes = " and ".join(f"{100 * sigma:g}" for sigma in how.sigmas)
    reads = ", ".join(map(str, sorted(set(result.test_reads))))
    return (
        f"Score: mean accuracy in % on {how.images} held-out samples, {how.chips} chips and "
        f"σ = {sizes} %; training seeds {', '.join(map(str, how.seeds))}. Compared on seeds "
        f"{', '.join(map(str, result.seeds))}; test data read {reads} time for each network."
    )
