"""Pictures for several kinds of results: every chip, lines over steps, dots with error bars."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from spikewvat.robustness.canvas import INK, STYLES, blank, styles
from spikewvat.robustness.curves import Curve, draw_curves, label_ends, mark_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BROKEN = "#999999"


class Bar(NamedTuple):
    """A value with the ends of its error bar."""

    value: float
    low: float
    high: float


def chips(
    methods: Mapping[str, Sequence[float]],
    labels: Sequence[str],
    *,
    target: float,
    title: str,
) -> Figure:
    """Draw every chip of each method as a dot, those below the target in grey.

    Args:
        methods: Accuracies of the chips by method, fractions; the first method comes on top.
        labels: A text beside each method.
        target: Accuracy that a chip must reach to work, a fraction.
        title: Title of the picture.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure, (axes,) = blank(1, title, note="one dot for each simulated chip; grey: does not work")
    figure.set_figheight(1.5 + 0.55 * len(methods))
    chosen = styles(methods)
    for row, (name, accuracies) in enumerate(methods.items()):
        for works in (False, True):
            # By rank, so that chips of the same accuracy do not lie on top of each other.
            places = [
                (100 * accuracy, row + 0.7 * (rank / max(len(accuracies) - 1, 1) - 0.5))
                for rank, accuracy in enumerate(sorted(accuracies, reverse=True))
                if (accuracy >= target) == works
            ]
            if places:
                colour = chosen[name].colour if works else _BROKEN
                marker = chosen[name].marker if works else "x"
                axes.plot(*zip(*places, strict=True), marker, color=colour, markersize=3.5)
        axes.annotate(
            labels[row],
            (1.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
            color=INK,
        )
    mark_target(axes, target, vertical=True)
    _name_rows(axes, [textwrap.fill(name, 20) for name in methods])
    axes.set_xlabel("accuracy of a chip (%)")
    return figure


def lines(curves: Mapping[str, Curve], *, x_label: str, y_label: str, title: str) -> Figure:
    """Draw a line for each method over numbers of steps, which are powers of two.

    Args:
        curves: By method.
        x_label: Label of the horizontal axis, with its unit.
        y_label: Label of the vertical axis, with its unit.
        title: Title of the picture.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    figure, (axes,) = blank(1, title)
    chosen = styles(curves)
    draw_curves(axes, curves, chosen)
    axes.set_xscale("log", base=2)
    ticks = sorted({x for curve in curves.values() for x in curve.x})
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.minorticks_off()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    ends = {name: (curve.x[-1], curve.y[-1]) for name, curve in curves.items()}
    label_ends(axes, ends, [chosen[name].colour for name in curves])
    return figure


def dots(
    groups: Mapping[str, Mapping[str, Bar]],
    *,
    x_label: str,
    title: str,
    note: str,
    target: float | None = None,
) -> Figure:
    """Draw a dot with an error bar for each name, in one panel for each group.

    Args:
        groups: The values by group and name.
        x_label: Label of the horizontal axis, with its unit.
        title: Title of the picture.
        note: Explanation of the marks.
        target: Accuracy to mark, a fraction.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure, panels = blank(len(groups), title, note=note, columns=2, share=True)
    texts = [textwrap.fill(name, 32) for name in names]
    row_height = 0.06 + 0.12 * max(text.count("\n") + 1 for text in texts)
    figure.set_figheight(1.1 + (0.3 + row_height * len(names)) * ((len(groups) + 1) // 2))
    for axes, (label, group) in zip(panels, groups.items(), strict=True):
        for name, bar in group.items():
            row = names.index(name)
            axes.plot(bar[1:], [row, row], color=STYLES[0].colour, linewidth=2, alpha=0.4)
            axes.plot(bar.value, row, "o", color=STYLES[0].colour, markersize=5)
        if target is not None:
            mark_target(axes, target, vertical=True)
        axes.set_title(textwrap.fill(label, 24), fontsize=9, color=INK)
    _name_rows(panels[0], texts)
    figure.supxlabel(f"{x_label}\n{figure.get_supxlabel()}", fontsize=9, color=INK)
    return figure


def _name_rows(axes: Any, texts: Sequence[str]) -> None:
    """Name the rows of a panel, the first on top."""
    axes.set_yticks(range(len(texts)), texts, fontsize=8)
    axes.set_ylim(len(texts) - 0.4, -0.6)
