"""Pictures of accuracy on chips: degradation, yield, individual chips; and of fitted devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikewvat.robustness.axis import AGE
from spikewvat.robustness.canvas import (
    INK,
    STYLES,
    Style,
    add_legend,
    blank,
    cap_percent,
    name_axes,
    save,
    styles,
)
from spikewvat.robustness.curves import (
    BEHIND,
    Curve,
    draw_curves,
    label_ends,
    mark_target,
    multiples,
)
from spikewvat.robustness.results import ChipReport, Degradation, check_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "Style",
    "accuracy_against_sigma",
    "device_fit",
    "save",
    "sorted_chips",
    "styles",
    "yield_curve",
]

_MOST_LEVELS = 64  # more distinct levels than this are gathered into bins


def accuracy_against_sigma(
    curves: Mapping[str, Degradation],
    *,
    range_label: str = "6-sigma width of a layer's weights",
    title: str = "",
) -> Figure:
    """Draw mean accuracy over chips against the size of variation, or the severity of a corruption.

    Args:
        curves: Results of :meth:`~spikewvat.Evaluator.sweep` or
            :meth:`~spikewvat.Evaluator.corrupt` by method.
        range_label: The range that sigma is a fraction of.
        title: Title of the picture.

    Returns:
        A figure with one line per method, a band from the 10th to the 90th percentile of its chips
        and a dashed line at the target, if all reports have the same. More than three methods have
        a panel each, beside the line of the first.

    Raises:
        ValueError: If there are no curves, or they sweep different quantities.
        MissingExtraError: If matplotlib is not installed.
    """
    _check_any(curves, "curves")
    axis, *others = dict.fromkeys(curve.axis for curve in curves.values())
    if others:
        swept = ", ".join(one.name or "sigma" for one in (axis, *others))
        raise ValueError(
            f"curves sweep {swept}, expected the same quantity. Draw one picture for each."
        )
    scale = 100 if axis.name is None else 1  # sigma is drawn in percent
    drawn = {}
    for name, curve in curves.items():
        reports = sorted(curve, key=lambda report: report.size)
        low, high = np.transpose([np.quantile(_percent(r), [0.1, 0.9]) for r in reports])
        means = [100 * report.mean for report in reports]
        drawn[name] = Curve([scale * report.size for report in reports], means, low, high)
    note = "line: mean of chips; band: 10th to 90th percentile"
    target = _common_target(report for curve in curves.values() for report in curve)
    figure, panels = multiples(list(curves), title, note)
    chosen, first = styles(curves), next(iter(drawn))
    sizes = sorted({x for curve in drawn.values() for x in curve.x})
    ticks = sizes if axis == AGE else _ticks(sizes)
    written = axis.size if axis == AGE else "{:g}".format
    size = f"variation σ (% of the {range_label})"
    for axes, names in panels:
        if names[0] != first:
            axes.plot(drawn[first].x, drawn[first].y, ":", color=INK, linewidth=1.2)
        draw_curves(axes, {name: drawn[name] for name in names}, chosen)
        if axis == AGE:
            axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xticks(ticks, [written(x) for x in ticks])
        if target is not None:
            mark_target(axes, target)
    cap_percent(panels[0][0])  # the others share its axes
    x_label = size if axis.name is None else f"{axis.name} ({axis.unit})"
    name_axes(figure, len(panels), x_label, "accuracy (%)")
    if len(panels) == 1:
        ends = {name: (curve.x[-1], curve.y[-1]) for name, curve in drawn.items()}
        label_ends(panels[0][0], ends, [chosen[name].colour for name in drawn])
    return figure


def yield_curve(
    reports: Mapping[str, ChipReport], *, target: float | None = None, title: str = ""
) -> Figure:
    """Draw the share of chips that reach an accuracy, against that accuracy.

    Args:
        reports: Results of :meth:`~spikewvat.Evaluator.chips` by method.
        target: Accuracy to mark, a fraction.
        title: Title of the picture.

    Returns:
        A figure with one step line per method and its 95 % interval as the band; more than three
        methods have a panel each.

    Raises:
        ValueError: If there are no reports, or ``target`` is not a fraction.
        MissingExtraError: If matplotlib is not installed.
    """
    _check_any(reports, "reports")
    if target is not None:
        check_target(target)
    found = np.concatenate([report.accuracies.numpy() for report in reports.values()])
    room = max(0.05 * (found.max() - found.min()), 0.005)
    marked = found if target is None else np.append(found, target)
    left, right = float(max(marked.min() - room, 0)), float(min(marked.max() + room, 1))
    drawn = {}
    for name, report in reports.items():
        at = [report.yield_at(left), *report.yield_curve(), report.yield_at(right)]
        x, low, high = 100 * np.transpose([[y.target, *y.ci95] for y in at])
        drawn[name] = Curve(x, [100 * y.share for y in at], low, high)
    note = "band: 95 % interval over the chips of these networks"
    figure, panels = multiples(list(reports), title, note)
    chosen, first = styles(reports), next(iter(drawn))
    for axes, names in panels:
        if names[0] != first:
            x, y = drawn[first].x, drawn[first].y
            axes.plot(x, y, ":", color=INK, linewidth=1.2, drawstyle="steps-pre")
        draw_curves(axes, {name: drawn[name] for name in names}, chosen, steps=True)
        if target is not None:
            mark_target(axes, target, vertical=True)
        axes.set_xlim(100 * left, 100 * right)
        axes.set_ylim(-2, 102)
    name_axes(figure, len(panels), "target accuracy (%)", "chips that reach it (%)")
    if len(panels) == 1:
        # Each at a height of its own where its line passes, the lowest on the left of its line.
        order = sorted(drawn, key=lambda name: reports[name].mean)
        for place, name in enumerate(order, start=1):
            height, left_of = 100 * place / (len(order) + 1), place == 1 < len(order)
            x = max(x for x, y in zip(drawn[name].x, drawn[name].y, strict=True) if y >= height)
            panels[0][0].annotate(
                name,
                (x, height),
                xytext=(-5 if left_of else 5, 0),
                textcoords="offset points",
                ha="right" if left_of else "left",
                va="center",
                fontsize=9,
                color=INK,
                bbox=BEHIND,
            )
    return figure


def sorted_chips(reports: Mapping[str, ChipReport], *, title: str = "") -> Figure:
    """Draw the accuracy of every chip, best first.

    Args:
        reports: Results of :meth:`~spikewvat.Evaluator.chips` by method.
        title: Title of the picture.

    Returns:
        A figure with one point per chip and a thin line at the mean of each method.

    Raises:
        ValueError: If there are no reports.
        MissingExtraError: If matplotlib is not installed.
    """
    _check_any(reports, "reports")
    figure, (axes,) = blank(1, title, note="thin line: mean of chips")
    ends = {}
    for name, style in styles(reports).items():
        report = reports[name]
        ranks = np.arange(1, report.chips + 1)
        axes.axhline(100 * report.mean, color=style.colour, linewidth=0.9, alpha=0.5, zorder=1)
        axes.plot(
            ranks,
            np.sort(_percent(report))[::-1],
            color=style.colour,
            linestyle="none",
            marker=style.marker,
            markersize=4.5 if report.chips <= 60 else 3,
            markeredgewidth=0,
            label=name,
        )
        text = f"{name}\n{100 * report.mean:.1f}, worst {100 * report.worst:.1f}"
        ends[text] = (float(report.chips), 100 * report.worst)
    axes.set_xlabel("simulated chip, best first")
    axes.set_ylabel("accuracy (%)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    target = _common_target(reports.values())
    if target is not None:
        mark_target(axes, target)
    cap_percent(axes)
    label_ends(axes, ends, [style.colour for style in styles(reports).values()])
    return figure


def device_fit(
    levels: ArrayLike,
    errors: ArrayLike,
    fitted_levels: ArrayLike,
    fitted_errors: ArrayLike,
    *,
    level_label: str = "target level",
    title: str = "",
) -> Figure:
    """Draw a fitted device beside the measurements it was fitted to.

    Args:
        levels: Programmed level of each measurement ``[N]``, in any unit.
        errors: Measured minus programmed, as a fraction of the range ``[N]``.
        fitted_levels: Levels of the draws from the fitted device ``[M]``, in the same unit.
        fitted_errors: Errors of these draws, as fractions of the range ``[M]``.
        level_label: Name of the level axis, with its unit.
        title: Title of the picture.

    Returns:
        A figure with, on the left, quantiles of the error by level (5, 25, 50, 75, 95 %; more than
        64 distinct levels are grouped into bins of equal count) and, on the right, its distribution
        over all levels.

    Raises:
        ValueError: If there is nothing to draw, or levels and errors differ in length.
        MissingExtraError: If matplotlib is not installed.
    """
    measured = _levels_and_errors(levels, errors, "measured")
    fitted = _levels_and_errors(fitted_levels, fitted_errors, "fitted")
    note = "by level: median, 25–75 % and 5–95 %, measured in lines, fitted as bands"
    figure, (by_level, overall) = blank(2, title, note=note)
    real, model = STYLES[0].colour, STYLES[2].colour

    edges = _level_edges(measured[0])
    x, q = _quantiles_by_level(*fitted, edges)
    by_level.fill_between(x, q[0], q[4], color=model, alpha=0.15, linewidth=0)
    by_level.fill_between(x, q[1], q[3], color=model, alpha=0.30, linewidth=0)
    by_level.plot(x, q[2], color=model, linewidth=1.6)
    x, q = _quantiles_by_level(*measured, edges)
    by_level.vlines(x, q[0], q[4], color=real, linewidth=0.9)
    by_level.vlines(x, q[1], q[3], color=real, linewidth=2.8)
    by_level.plot(x, q[2], "o", color=real, markersize=3.5)
    by_level.set_xlabel(level_label)
    by_level.set_ylabel("error (% of the range)")
    by_level.set_title("by level", fontsize=9, color=INK)

    # Logarithmic: the tails decide how many weights are far off.
    ends = [np.quantile(error, [0.0005, 0.9995]) for _, error in (measured, fitted)]
    low, high = np.min(ends), np.max(ends)
    bins = np.linspace(low, max(high, low + 1e-9), 61)
    named = (
        f"measured (std {measured[1].std():.2f} %)",
        f"fitted device (std {fitted[1].std():.2f} %)",
    )
    overall.hist(measured[1], bins, density=True, log=True, color=real, alpha=0.35, label=named[0])
    overall.hist(
        fitted[1],
        bins,
        density=True,
        log=True,
        color=model,
        histtype="step",
        linewidth=1.6,
        label=named[1],
    )
    overall.set_xlabel("error (% of the range)")
    overall.set_ylabel("density (per %)")
    overall.set_title("all levels", fontsize=9, color=INK)
    overall.margins(y=0.3)
    add_legend(overall)
    return figure


def _common_target(reports: Iterable[ChipReport]) -> float | None:
    """Return the target of all reports, None if they differ."""
    targets = {report.target for report in reports}
    return targets.pop() if len(targets) == 1 else None


def _ticks(sizes: Sequence[float]) -> list[float]:
    """Return the sizes whose labels do not overlap."""
    kept = [sizes[0]]
    for size in sizes[1:]:
        if size - kept[-1] > 0.07 * (sizes[-1] - sizes[0]):
            kept.append(size)
    return kept


def _percent(report: ChipReport) -> NDArray[np.float64]:
    return 100 * np.asarray(report.accuracies.numpy(), dtype=np.float64)


def _check_any(items: Mapping[str, object], what: str) -> None:
    if not items:
        raise ValueError(f"there are no {what} to draw, expected at least one by method.")


def _levels_and_errors(
    levels: ArrayLike, errors: ArrayLike, what: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return flat levels and errors in percent."""
    x = np.asarray(levels, dtype=np.float64).ravel()
    y = 100 * np.asarray(errors, dtype=np.float64).ravel()
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(
            f"{what} levels and errors have {len(x)} and {len(y)} entries, expected equally many, "
            "and at least one."
        )
    return x, y


def _level_edges(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return bin edges: between neighbouring levels, or for bins of equal count."""
    known = np.unique(levels)
    if len(known) > _MOST_LEVELS:
        return np.unique(np.quantile(levels, np.linspace(0, 1, _MOST_LEVELS // 2 + 1)))[1:-1]
    return (known[1:] + known[:-1]) / 2


def _quantiles_by_level(
    levels: NDArray[np.float64], errors: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean level and five quantiles ``[5, bins]`` of each bin that is not empty."""
    group = np.digitize(levels, edges)
    held = np.unique(group)
    x = np.array([levels[group == g].mean() for g in held])
    q = [np.quantile(errors[group == g], [0.05, 0.25, 0.5, 0.75, 0.95]) for g in held]
    return x, np.transpose(q)
