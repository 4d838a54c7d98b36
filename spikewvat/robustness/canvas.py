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
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spikewvat.errors import require
from spikewvat.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#333333"
_DIM = "#666666"
_GRID = "#dddddd"


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


def name_axes(figure: Figure, panels: int, x: str, y: str) -> None:
    """Name the axes: of the only panel, or of all panels at once."""
    if panels == 1:
        figure.axes[0].set_xlabel(textwrap.fill(x, 40))  # long names of lines narrow the panel
        figure.axes[0].set_ylabel(y)
    else:
        figure.supylabel(y, fontsize=9, color=INK)
        figure.supxlabel(f"{x}\n{figure.get_supxlabel()}".strip(), fontsize=8, color=INK)


def add_legend(axes: Any) -> None:
    """Add a legend."""
    legend = axes.legend(fontsize=8, edgecolor="none")
    legend.get_frame().set_alpha(0.85)


def add_shared_legend(figure: Figure) -> None:
    """Add one legend for all panels, below them."""
    entries = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    handles, labels = list(entries.values()), list(entries)
    place = "outside lower center"
    figure.legend(handles, labels, loc=place, ncols=3, fontsize=8, edgecolor="none")


def cap_percent(axes: Any) -> None:
    """Keep an axis of percentages close to the range 0 to 100."""
    axes.margins(y=0.06)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2.0), min(high, 102.0))
