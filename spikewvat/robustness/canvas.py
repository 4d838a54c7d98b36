"""Shared parts of all pictures: colours, empty figures, saving; the only file with matplotlib.

Figures are built without pyplot: nothing is displayed, no backend is selected, no figure stays
open. A method has the same colour and marker in every picture, from the palette of Okabe and Ito,
which stays readable for colour-blind readers.
"""

from __future__ import annotations

import functools
import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spikewvat.errors import require
from spikewvat.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#333333"
_DIM = "#666666"
_GRID = "#dddddd"
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


class Style(NamedTuple):
    """How a method is drawn.

    Args:
        colour: Hexadecimal colour.
        marker: Matplotlib's marker code.
        line: Matplotlib's line style code.
    """

    colour: str
    marker: str
    line: str


STYLES = (
    Style("#0072B2", "o", "-"),
    Style("#E69F00", "s", "-"),
    Style("#D55E00", "D", "-"),
    Style("#009E73", "^", "-"),
    Style("#CC79A7", "v", "-"),
    Style("#56B4E9", "P", "-"),
    Style("#000000", "X", "-"),
)
# Methods of the paper keep their style whatever else is in the picture.
_KNOWN = {
    "adam": 0,
    "sgd": 0,
    "baseline": 0,
    "plain": 0,
    "swa": 1,
    "adam+swa": 1,
    "sgd+swa": 1,
    "wvat": 2,
    "adam+wvat": 2,
    "sgd+wvat": 2,
    "hsv": 3,
    "gav": 4,
    "awp": 5,
    "sam": 6,
}


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Assign a style to every method: a fixed one to known methods, the remaining ones in order.

    Args:
        names: Methods as they appear in legends; case and spaces do not matter.

    Returns:
        Style by name. After the seventh name, styles repeat with another line pattern.

    Example:
        >>> styles(["mine", "WVAT"])["WVAT"] == styles(["wvat"])["wvat"]
        True
    """
    chosen: dict[str, Style] = {}
    taken: set[Style] = set()
    every = [style._replace(line=line) for line in ("-", "--", ":", "-.") for style in STYLES]
    others = []
    for name in names:
        index = _KNOWN.get(name.lower().replace(" ", ""))
        if index is None or STYLES[index] in taken:
            others.append(name)
        else:
            chosen[name] = STYLES[index]
            taken.add(STYLES[index])
    for position, name in enumerate(others):
        free = [style for style in every if style not in taken]
        chosen[name] = free[0] if free else every[position % len(every)]
        taken.add(chosen[name])
    return chosen


def save(figure: Figure, path: Path | str) -> None:
    """Save a figure; the file extension selects the format (png, svg, pdf).

    Args:
        figure: A figure returned by one of the functions here.
        path: The file; missing folders are created.

    Raises:
        ValueError: If the extension is not a known format.
        CheckpointError: If the folder is not writable or the disk is full.
    """
    path = Path(path)
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise ValueError(
            f"{str(path)!r} does not end in a known picture format. "
            f"Use one of: {', '.join(sorted(formats))}."
        )
    write_atomic(path, _bytes(figure, path.suffix[1:].lower(), 180))


def _bytes(figure: Figure, format: str, dpi: int) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=format, dpi=dpi)
    return content.getvalue()


def blank(
    panels: int, title: str, *, note: str = "", columns: int | None = None, share: bool = False
) -> tuple[Figure, Sequence[Any]]:
    """Return an empty figure and its panels, side by side unless there are fewer columns.

    Figures are small, so that their text stays readable on a page of 400 pixels. A notebook shows
    them, although they are built without pyplot.

    Args:
        panels: How many.
        title: Title of the figure.
        note: Explanation of the marks, below the panels.
        columns: Most panels in a row; all by default.
        share: Give all panels the same axes.
    """
    library = require("matplotlib.figure", extra="cli", purpose="A picture")
    columns = min(columns or panels, panels)
    rows = math.ceil(panels / columns)
    size = (4.8, 3.4) if panels == 1 else (6.0, 0.6 + max(2.1 * rows, 2.6))
    figure = library.Figure(figsize=size, layout="constrained")
    figure._repr_png_ = functools.partial(_bytes, figure, "png", 150)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).ravel()
    for axes in grid[panels:]:
        axes.set_axis_off()
    row = grid[:panels]
    for axes in row[-columns:]:  # the lowest of its column, also where the last row is short
        axes.tick_params(labelbottom=True)
    for axes in row:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.tick_params(colors=INK, labelsize=9)
        axes.grid(color=_GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
    if title:
        figure.suptitle(textwrap.fill(title, 50), fontsize=11, color=INK)
    if note:
        figure.supxlabel(textwrap.fill(note, 70), fontsize=8, color=_DIM)
    return figure, row


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


def name_axes(figure: Figure, panels: int, x: str, y: str) -> None:
    """Name the axes: of the only panel, or of all panels at once."""
    if panels == 1:
        figure.axes[0].set_xlabel(x)
        figure.axes[0].set_ylabel(y)
    else:
        figure.supylabel(y, fontsize=9, color=INK)
        figure.supxlabel(f"{x}\n{figure.get_supxlabel()}".strip(), fontsize=8, color=INK)


def mark_target(axes: Any, target: float, *, vertical: bool = False) -> None:
    """Draw a dashed line at the accuracy that a chip must reach, a fraction, with its name."""
    height = 100 * target
    draw = axes.axvline if vertical else axes.axhline
    draw(height, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(
        f"target {height:g} %",
        (height, 1) if vertical else (0, height),
        xycoords=("data", "axes fraction") if vertical else ("axes fraction", "data"),
        xytext=(0, 2) if vertical else (2, 2),
        textcoords="offset points",
        ha="center" if vertical else "left",
        fontsize=8,
        color=INK,
        bbox=BEHIND,
    )


def add_legend(axes: Any) -> None:
    """Add a legend."""
    legend = axes.legend(fontsize=8, edgecolor="none")
    legend.get_frame().set_alpha(0.85)


def cap_percent(axes: Any) -> None:
    """Keep an axis of percentages close to the range 0 to 100."""
    axes.margins(y=0.06)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2.0), min(high, 102.0))
