"""How long to train, by which method, how strongly: tables and the picture of that page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pages.directions import difference
from pages.shared import NotRunError, load, markdown_table, results_of
from spikewvat.formatting import MISSING, percent
from spikewvat.lab.suites import read_suite
from spikewvat.results import RowResult
from spikewvat.robustness.canvas import blank, styles
from spikewvat.robustness.curves import Curve, draw_curves, label_ends

_SIGMA = 0.10
_SIGMAS = (_SIGMA, 0.15)
_NMNIST = {
    12: ("screening", {"Adam": "nmnist-plain", "Adam + SWA": "nmnist-swa", "WVAT": "nmnist-wvat"}),
    45: ("nmnist", {"Adam": "adam", "Adam + SWA": "swa", "WVAT": "wvat"}),
}
"""Rows of two suites that train the same network for different numbers of epochs."""
_CHOICES = {"swa": "SWA", "hsv": "HSV", "wvat": "WVAT", "both": "momentum and noise"}


def lengths() -> str:
    """Return accuracy on chips against the number of epochs, data set by data set."""
    parts = []
    for title, methods in _by_length().items():
        epochs = list(next(iter(methods.values())))
        seeds = {len(result.curves) for found in methods.values() for result in found.values()}
        first = f"{title}, {' or '.join(map(str, sorted(seeds)))} training{'s' * (max(seeds) > 1)}"
        heads = [first, *(f"{n} epochs, {_steps(methods, n)} steps" for n in epochs)]
        lines = [
            [method, *(_cell(found[n]) if n in found else MISSING for n in epochs)]
            for method, found in methods.items()
        ]
        parts.append(markdown_table(heads, lines))
    return "\n\n".join(parts)


def lengths_picture() -> Any:
    """Draw the mean accuracy on chips against the number of epochs, one panel a data set."""
    shown = _by_length()
    figure, panels = blank(len(shown), f"Accuracy on chips, σ = {100 * _SIGMA:g} %", columns=1)
    for axes, (title, methods) in zip(panels, shown.items(), strict=True):
        curves = {
            method: Curve(list(found), [100 * _at(result) for result in found.values()])
            for method, found in methods.items()
        }
        chosen = styles(methods)
        draw_curves(axes, curves, chosen)
        epochs = sorted({n for found in methods.values() for n in found})
        axes.set_xscale("log")
        axes.set_xticks(epochs, [str(n) for n in epochs])
        axes.minorticks_off()
        axes.set_title(title, fontsize=9)
        axes.set_ylabel("accuracy (%)")
        ends = {method: (curve.x[-1], curve.y[-1]) for method, curve in curves.items()}
        label_ends(axes, ends, [chosen[method].colour for method in curves])
    panels[-1].set_xlabel("epochs")
    return figure


def gains() -> str:
    """Return the paired differences from noise alone in the demo."""
    suite = read_suite("demo").chosen(("swa", "wvat", "momentum", "hsv"))
    found = results_of(suite)
    lines = [
        [row.method, difference(found[row.name], found["hsv"], _SIGMA)]
        for row in suite.rows
        if row.name != "hsv"
    ]
    return markdown_table(["", f"minus noise injection (HSV) at {100 * _SIGMA:g} %"], lines)


def strengths(method: str) -> str:
    """Return what each strength of a method reaches on held-out data.

    Args:
        method: Its name among the tuned ones.
    """
    tuned = load("directions", "tuned")
    setups = read_suite("directions").setups
    names = {setup.rows[0].name.split("-")[0]: setup.name for setup in setups}
    names["cnn"] = names["cnn_snntorch"].rpartition(",")[0]  # tuned in the package's own layers
    lines = []
    most: dict[str, float] = {}
    for setup, found in tuned.items():
        tried = {_strength(one["settings"]): one["score"] for one in found["methods"][method]}
        best = max(tried.values())
        most = {name: max(most.get(name, 0), best - score) for name, score in tried.items()}
        cells = [percent(score) for score in tried.values()]
        bold = [f"**{c}**" if s == best else c for c, s in zip(cells, tried.values(), strict=True)]
        lines.append([names[setup], *bold])
    lines.append(["most below the best of a network", *map(percent, most.values())])
    return markdown_table(["", *most], lines)


def choices() -> str:
    """Return four methods on every network of the comparison; of the last, the gain over noise."""
    suite = read_suite("directions")
    found = results_of(suite)
    lines = []
    for setup in suite.setups:
        prefix = setup.rows[0].name.split("-")[0]
        rows = {key: found[f"{prefix}-{key}"] for key in _CHOICES}
        gains = [difference(rows["both"], rows["hsv"], sigma) for sigma in _SIGMAS]
        lines.append([setup.name, *(percent(_at(row)) for row in rows.values()), *gains])
    heads = ["", *_CHOICES.values(), *(f"minus HSV at {100 * s:g} %" for s in _SIGMAS)]
    return markdown_table(heads, lines)


def _by_length() -> dict[str, dict[str, dict[int, RowResult]]]:
    """Return results by data set, method and number of epochs.

    Raises:
        NotRunError: If there are none.
    """
    suite = read_suite("epochs")
    found = results_of(suite)
    shown: dict[str, dict[str, dict[int, RowResult]]] = {}
    for setup in suite.setups:
        title = setup.name.rpartition(",")[0]
        for row in setup.rows:
            if row.name in found:
                epochs = int(row.name.rpartition("-")[2])
                shown.setdefault(title, {}).setdefault(row.method, {})[epochs] = found[row.name]
    if not shown:
        raise NotRunError("epochs")
    for epochs, (name, rows) in _NMNIST.items():
        found = results_of(read_suite(name))
        for method, row in rows.items():
            shown.setdefault("N-MNIST recordings", {}).setdefault(method, {})[epochs] = found[row]
    return shown


def _steps(methods: Mapping[str, Mapping[int, RowResult]], epochs: int) -> int:
    result = next(found[epochs] for found in methods.values() if epochs in found)
    batch = result.recipe["training"]["batch_size"]
    return epochs * math.ceil(result.samples["train"] / batch)


def _at(result: RowResult) -> float:
    return result.mean(result.sigmas.index(_SIGMA))


def _cell(result: RowResult) -> str:
    return f"{percent(_at(result))} ({percent(result.clean)})"


def _strength(settings: list[str]) -> str:
    gamma, alpha = (text.partition("=")[2] for text in settings)
    return f"γ = {float(gamma):g}, α = {float(alpha):g}"
