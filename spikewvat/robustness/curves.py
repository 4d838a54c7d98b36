"""Lines with bands in pictures: told apart, labelled at their ends, beside a target."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from spikewvat.robustness.canvas import INK, Style, blank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
"""What lies behind a text that crosses lines."""
MOST_BANDS = 3
"""More bands than this in a panel hide each other."""


class Curve(NamedTuple):
    """A line and, optionally, the bounds of the band around it."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def multiples(
    names: Sequence[str], title: str, note: str
) -> tuple[Figure, list[tuple[Any, list[str]]]]:
    """Return a figure for methods with bands, and which methods each panel shows.

    Up to three share a panel. More have one each, with the line of the first for comparison.
    """
    if len(names) <= MOST_BANDS:
        figure, (axes,) = blank(1, title, note=note)
        return figure, [(axes, list(names))]
    note = f"{note}; dotted: {names[0]}"
    figure, panels = blank(len(names), title, note=note, columns=2, share=True)
    for axes, name in zip(panels, names, strict=True):
        axes.set_title(textwrap.fill(name, 30), fontsize=9, color=INK, pad=13)
    return figure, [(axes, [name]) for axes, name in zip(panels, names, strict=True)]


def draw_curves(
    axes: Any, curves: Mapping[str, Curve], chosen: Mapping[str, Style], *, steps: bool = False
) -> None:
    """Draw a line with a band for each method; lines that coincide share their path in dashes.

    Args:
        axes: The panel.
        curves: By method.
        chosen: Their styles.
        steps: Draw steps that end at each point, without markers.
    """
    heights = [y for curve in curves.values() for y in curve.y]
    within = 0.025 * (max(heights) - min(heights))  # half of a marker
    alike: list[list[str]] = []
    for name, curve in curves.items():
        group = next((g for g in alike if _coincide(curves[g[0]], curve, within)), None)
        if group is None:
            alike.append([name])
        else:
            group.append(name)
    for group in alike:
        for place, name in enumerate(group):
            style, curve = chosen[name], curves[name]
            if len(curve.low):
                axes.fill_between(
                    curve.x,
                    curve.low,
                    curve.high,
                    color=style.colour,
                    alpha=0.15,
                    linewidth=0,
                    step="pre" if steps else None,
                )
            shared = (3 * place, (3, 3 * (len(group) - 1)))
            axes.plot(
                curve.x,
                curve.y,
                color=style.colour,
                linestyle=style.line if len(group) == 1 else shared,
                drawstyle="steps-pre" if steps else None,
                marker="" if steps else style.marker,
                linewidth=2,
                markersize=6 + 3 * (len(group) - 1 - place),  # later ones lie on top
                markeredgecolor="white",
                markeredgewidth=0.8,
                label=name,
            )


def _coincide(one: Curve, other: Curve, within: float) -> bool:
    if list(one.x) != list(other.x):
        return False
    return all(abs(a - b) <= within for a, b in zip(one.y, other.y, strict=True))


def label_ends(axes: Any, ends: Mapping[str, tuple[float, float]], colours: Iterable[str]) -> None:
    """Write names to the right of line ends, moved apart where they would overlap.

    Args:
        axes: The panel, its limits final.
        ends: Place of each end, by the text to write.
        colours: Of the lines.
    """
    low, high = axes.get_ylim()
    shown = {text: "\n".join(textwrap.fill(part, 20) for part in text.split("\n")) for text in ends}
    gap = 0.08 * (high - low) * max(text.count("\n") + 1 for text in shown.values())
    order = sorted(ends, key=lambda text: ends[text][1])
    y = [ends[text][1] for text in order]
    for _ in range(100):
        for i in range(len(y) - 1):
            overlap = gap - (y[i + 1] - y[i])
            if overlap > 1e-9:
                y[i], y[i + 1] = y[i] - overlap / 2, y[i + 1] + overlap / 2
    found = dict(zip(ends, colours, strict=True))
    for text, height in zip(order, y, strict=True):
        axes.annotate(
            shown[text],
            ends[text],
            xytext=(1.06, (height - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            color=INK,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": found[text], "shrinkA": 1, "shrinkB": 4},
        )


def mark_target(axes: Any, target: float, *, vertical: bool = False) -> None:
    """Draw a dashed line at the accuracy that a chip must reach, a fraction, with its name.

    The name of a horizontal line stands at the end from which the curves are farther away.
    """
    height = 100 * target
    if vertical:
        draw, place, units = axes.axvline, (height, 1.0), ("data", "axes fraction")
        side, shift = "center", 0
    else:
        end = _emptier_end(axes, height)
        draw, place, units = axes.axhline, (end, height), ("axes fraction", "data")
        side, shift = ("right", -2) if end else ("left", 2)
    draw(height, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        f"target {height:g} %",
        place,
        xycoords=units,
        xytext=(shift, 2),
        textcoords="offset points",
        ha=side,
        fontsize=8,
        color=INK,
        bbox=BEHIND,
    )


def _emptier_end(axes: Any, height: float) -> float:
    """Return the end, 0 or 1, at which the curves are farther from a height; 0 if neither is."""
    curves = [line.get_ydata() for line in axes.get_lines()]
    left, right = (min((abs(y[end] - height) for y in curves), default=0.0) for end in (0, -1))
    return float(right > left)
