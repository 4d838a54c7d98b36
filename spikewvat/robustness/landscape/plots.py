"""Pictures of the loss around trained weights, and of the weights themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spikewvat.robustness.canvas import INK, add_shared_legend, blank, cap_percent, save, styles
from spikewvat.robustness.curves import MOST_BANDS, Curve, draw_curves, label_ends
from spikewvat.robustness.landscape.histograms import LayerHistogram
from spikewvat.robustness.landscape.lines import LossLines
from spikewvat.robustness.landscape.surface import LossSurface

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_histograms", "draw_lines", "draw_surfaces", "save"]

_LEVELS = 16
_COLUMNS = 2


def draw_lines(curves: Mapping[str, LossLines], *, title: str = "") -> Figure:
    """Draw loss and accuracy along the variation of a device.

    Args:
        curves: Results of ``Evaluator(...).landscape.lines`` by method.
        title: Title of the picture.

    Returns:
        A figure with loss on the left and accuracy on the right; each method has a line at the mean
        over perturbations and a band from the lowest to the highest; a row of panels holds up to
        three methods.

    Raises:
        ValueError: If there are no curves.
        MissingExtraError: If matplotlib is not installed.
    """
    if not curves:
        raise ValueError("there are no curves to draw, expected at least one by method.")
    sized = all(curve.sigma is not None for curve in curves.values())
    names, chosen = list(curves), styles(curves)
    rows = [names[start : start + MOST_BANDS] for start in range(0, len(names), MOST_BANDS)]
    note = "line: mean of perturbations; band: lowest to highest"
    figure, panels = blank(2 * len(rows), title, note=note, columns=2)
    for number, row in enumerate(rows):
        losses, accuracies = panels[2 * number : 2 * number + 2]
        for axes, scale in ((losses, 1), (accuracies, 100)):
            drawn = {}
            for name in row:
                curve = curves[name]
                x = [100 * size for size in curve.magnitudes] if sized else list(curve.positions)
                values = scale * (curve.losses if axes is losses else curve.accuracies)
                low, high = values.min(0).values.tolist(), values.max(0).values.tolist()
                drawn[name] = Curve(x, values.mean(0).tolist(), low, high)
            draw_curves(axes, drawn, chosen)
            axes.set_xlabel("variation γσ (% of the range)" if sized else "place (1: chip)")
        losses.set_ylabel("loss")
        accuracies.set_ylabel("accuracy (%)")
        for axes in (losses, accuracies):
            axes.sharey(panels[0 if axes is losses else 1]) if number else None
        cap_percent(accuracies)
        ends = {name: (curve.x[-1], curve.y[-1]) for name, curve in drawn.items()}
        label_ends(accuracies, ends, [chosen[name].colour for name in row])
    return figure


def draw_surfaces(surfaces: Mapping[str, LossSurface], *, title: str = "") -> Figure:
    """Draw contours of the loss over the plane of each method, with the same levels for all.

    Args:
        surfaces: Results of ``Evaluator(...).landscape.surface`` by method.
        title: Title of the picture.

    Returns:
        A figure with one panel per method; a cross marks the trained weights.

    Raises:
        ValueError: If there are no surfaces, or no finite losses.
        MissingExtraError: If matplotlib is not installed.
    """
    finite = [s.losses[s.losses.isfinite()] for s in surfaces.values()]
    if not any(len(losses) for losses in finite):
        raise ValueError("there are no finite losses to draw, expected surfaces by method.")
    low = min(float(losses.min()) for losses in finite if len(losses))
    high = max(float(losses.max()) for losses in finite if len(losses))
    step = max(high - low, 1e-12) / _LEVELS
    levels = [low + i * step for i in range(_LEVELS + 1)]
    figure, panels = blank(len(surfaces), title, columns=_COLUMNS)
    for axes, (name, surface) in zip(panels, surfaces.items(), strict=True):
        # The first direction goes to the right: its index becomes the column.
        places, losses = surface.positions, surface.losses.T.numpy()
        filled = axes.contourf(places, places, losses, levels=levels, cmap="viridis")
        axes.contour(places, places, losses, levels=levels, colors="white", linewidths=0.4)
        axes.plot(0, 0, "+", color="white", markersize=10, markeredgewidth=1.6)
        axes.set_aspect("equal")
        ends = (places[0], 0, places[-1])
        axes.set_xticks(ends, [f"{end:g}" for end in ends])
        axes.set_yticks(ends, [f"{end:g}" for end in ends])
        axes.set_xlabel("first perturbation (filter norms)")
        axes.set_ylabel("second perturbation")
        axes.set_title(name, fontsize=10, color=INK)
    figure.colorbar(filled, ax=list(panels), label="loss", shrink=0.9, format="%.3g")
    return figure


def draw_histograms(methods: Mapping[str, Sequence[LayerHistogram]], *, title: str = "") -> Figure:
    """Draw the distribution of the weights of each layer.

    Args:
        methods: Results of :func:`~spikewvat.robustness.landscape.weight_histograms` by method.
        title: Title of the picture.

    Returns:
        A figure with one panel per layer and one line per method, standard deviations in the order
        of the legend; densities are logarithmic because the tails determine the range.

    Raises:
        ValueError: If there are no layers.
        MissingExtraError: If matplotlib is not installed.
    """
    layers = list(dict.fromkeys(layer.name for found in methods.values() for layer in found))
    if not layers:
        raise ValueError("there are no layers to draw, expected histograms by method.")
    figure, panels = blank(len(layers), title, columns=_COLUMNS)
    for axes, name in zip(panels, layers, strict=True):
        spreads = []
        for method, style in styles(methods).items():
            for layer in methods[method]:
                if layer.name == name:
                    axes.stairs(
                        layer.density,
                        layer.edges,
                        color=style.colour,
                        linestyle=style.line,
                        linewidth=1.4,
                        label=method,
                    )
                    spreads.append(f"{layer.std:.3g}")
        axes.set_yscale("log")
        axes.set_title(name, fontsize=9, color=INK)
        axes.set_xlabel(textwrap.fill(f"weight (std {', '.join(spreads)})", 44), fontsize=8)
        axes.set_ylabel("density")
    add_shared_legend(figure)
    return figure
