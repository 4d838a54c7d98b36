"""Tables of the paper's networks at their own size: steps, epochs, chips."""

from __future__ import annotations

from typing import Any

from pages.shared import load, markdown_table
from spikewvat.formatting import percent, within

_PARTS = ("data", "forward", "backward", "optimizer", "perturbation")


def training_at_size() -> str:
    """Return the table of a step's parts, and of an epoch."""
    lines = []
    for row in load("speed", "training_at_size")["rows"]:
        size = f"{row['weights'] / 1e6:.1f} M weights, batch {row['batch']}"
        name = row["setup"].partition(",")[0]
        lines.append([f"**{name}, {size}**", *[""] * (len(_PARTS) + 2)])
        for way, label in (("before", "as before"), ("now", "now"), ("compiled", "compiled")):
            if way in row:
                lines.append([label, *_way(row[way])])
    heads = ["milliseconds", *_PARTS[:-1], "noise", "data of a plain step", "epoch"]
    return markdown_table(heads, lines)


def _way(found: dict[str, Any]) -> list[str]:
    parts = [f"{found['ms'][part]:.{0 if part != 'data' else 1}f}" for part in _PARTS]
    return [*parts, f"{percent(found['data_share'], 1)} %", f"{found['epoch_s']:.0f} s"]


def chips_at_size() -> str:
    """Return the table of chips over passes without variation, and of two processes."""
    lines = []
    for row in load("speed", "chips_at_size")["rows"]:
        low, middle, high = row["ratio"]
        chips = f"{row['chips']} chip" + "s" * (row["chips"] > 1)
        what = f"{row['images']} images, {chips}, batch {row['batch']}"
        lines.append([row["setup"], what, f"{row['pass_s']:.1f} s", within(middle, low, high)])
    return markdown_table(["", "a round", "a pass or chip", "ratio"], lines)
