"""Pictures for several kinds of results: lines with bands, dots with error bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from spikewvat.robustness.canvas import STYLES, add_legend, blank, draw_line, styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Line(NamedTuple):
    """Values and, optionally, the bounds of a band around them."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def lines(
    curves: Mapping[str, Line],
    *,
    x_label: str,
    y_label: str,
    caption: str = "",
    powers_of_two: bool = False,
) -> Figure:
    """Draw a line for each method.

    Args:
        curves: By method.
        x_label: Label of the horizontal axis, with its unit.
        y_label: Label of the vertical axis, with its unit.
        caption: Explanation of the marks, in the legend.
        powers_of_two: Whether ticks are at powers of two.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure, (axes,) = blank(1, "")
    for name, style in styles(curves).items():
        line = curves[name]
        if len(line.low):
            axes.fill_between(
                line.x, line.low, line.high, color=style.colour, alpha=0.18, linewidth=0
            )
        draw_line(axes, line.x, line.y, style, label=name, marker=style.marker)
    if powers_of_two:
        axes.set_xscale("log", base=2)
        ticks = sorted({x for line in curves.values() for x in line.x})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    add_legend(axes, caption)
    return figure


def dots(groups: Mapping[str, Mapping[str, tuple[float, float, float]]], *, x_label: str) -> Figure:
    """Draw a dot with an error bar for each name, side by side within each group.

    Args:
        groups: By group and name, the value and the lower and upper ends of its error bar.
        x_label: Label of the horizontal axis, with its unit.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure, (axes,) = blank(1, "")
    figure.set_figheight(1.2 + (0.16 + 0.14 * len(groups)) * len(names))
    step = 0.6 / len(groups)
    for number, (label, group) in enumerate(groups.items()):
        style = STYLES[number % len(STYLES)]
        for name, (value, low, high) in group.items():
            y = names.index(name) + (number - (len(groups) - 1) / 2) * step
            axes.plot([low, high], [y, y], color=style.colour, linewidth=2, alpha=0.5)
            axes.plot(value, y, style.marker, color=style.colour, markersize=6)
        axes.plot([], [], style.marker, color=style.colour, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel(x_label, loc="right")  # names beside the axes leave little room
    if len(groups) > 1:
        add_legend(axes, "")
    return figure
