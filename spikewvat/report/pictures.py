"""Pictures that several kinds of results share: lines with bands, bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from spikewvat.robustness.canvas import INK, STYLES, add_legend, blank, draw_line, styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Line(NamedTuple):
    """Values and, where there are any, the bounds of a band around them."""

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
        x_label: What goes to the right, with its unit.
        y_label: What goes up, with its unit.
        caption: How to read the marks, in the legend.
        powers_of_two: Whether x doubles from tick to tick.

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


def bars(groups: Mapping[str, Mapping[str, tuple[float, float, float]]], *, x_label: str) -> Figure:
    """Draw horizontal bars with error bars, side by side for each group.

    Args:
        groups: By group and name: the value, the lower and the upper end of its error bar.
        x_label: What goes to the right, with its unit.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure, (axes,) = blank(1, "")
    figure.set_figheight(max(2.4, 0.26 * len(names) * (len(groups) + 1) / 2 + 1.4))
    height = 0.8 / len(groups)
    for number, (label, group) in enumerate(groups.items()):
        held = [name for name in names if name in group]
        values, lows, highs = zip(*(group[name] for name in held), strict=True)
        at = [names.index(name) + (number - (len(groups) - 1) / 2) * height for name in held]
        errors = (
            [value - low for value, low in zip(values, lows, strict=True)],
            [high - value for value, high in zip(values, highs, strict=True)],
        )
        axes.barh(at, values, height, color=STYLES[number % len(STYLES)].colour, label=label)
        axes.errorbar(values, at, xerr=errors, fmt="none", ecolor=INK, elinewidth=0.9)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(x_label)
    if len(groups) > 1:
        add_legend(axes, "")
    return figure
