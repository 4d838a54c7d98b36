"""``landscape``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from spikewvat.cli.base import check_writable, save_figure, typer
from spikewvat.cli.runs import DataRoot

if TYPE_CHECKING:
    from spikewvat.results import Landscape


def landscape(
    run: Annotated[Path, typer.Argument(help="As for evaluate.")],
    data_root: DataRoot = None,
    split: Annotated[
        str | None, typer.Option(metavar="train|validation|test", help="Which samples.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="SPEC", help="As for evaluate; the recipe's by default.")
    ] = None,
    sigma: Annotated[
        float, typer.Option(min=0, help="Size of variation at the ends, if the device has one.")
    ] = 0.15,
    directions: Annotated[int, typer.Option(min=1, help="Lines through the weights.")] = 10,
    points: Annotated[int, typer.Option(min=2, help="Places on each line.")] = 13,
    chips: Annotated[int, typer.Option(min=1, help="Chips for the sharpness.")] = 25,
    ascent: Annotated[
        int, typer.Option(min=0, help="Positions on the steepest ascent; 0: no gradient.")
    ] = 5,
    surface: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also a plane of N x N positions, N at least 2.")
    ] = 0,
    histograms: Annotated[
        bool, typer.Option("--histograms", help="Also the weights of each layer.")
    ] = False,
    images: Annotated[int | None, typer.Option(min=1, help="Number of images to evaluate.")] = None,
    loss: Annotated[
        str | None, typer.Option(help="Loss; by default the one used in training.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the chips.")] = None,
    best: Annotated[
        bool, typer.Option("--best", help="Use the weights of the best epoch, not the final ones.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write the results to this JSON file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Plot the lines to this file, the rest beside it.")
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
) -> None:
    """Evaluate the loss around trained weights.

    Prints loss and accuracy along lines to simulated chips, how far the loss rises on average,
    on the worst chip and along the steepest ascent. Options left out are taken from the recipe,
    without its corruption and lower precision.
    """
    from spikewvat.errors import RecipeError
    from spikewvat.lab import loading, trainer
    from spikewvat.lab.recipes.landscape import figures, landscape_run

    check_writable(out, plot)
    if surface == 1:
        raise RecipeError("--surface 1: expected at least 2 positions per side, or 0.")
    found = landscape_run(
        loading.run_folder(run),
        out,
        data_root=data_root,
        split=split,
        device=device,
        sigma=sigma,
        directions=directions,
        points=points,
        chips=chips,
        ascent_points=ascent,
        surface=surface,
        histograms=histograms,
        images=images,
        loss=loss,
        seed=seed,
        weights=trainer.BEST if best else None,
        progress=progress,
    )
    _print(f"{run}, {found.split} set", found)
    if out is not None:
        typer.echo(f"Written to {out}")
    if plot is not None:
        for name, figure in figures({found.method: found}).items():
            place = plot if name == "lines" else plot.with_stem(f"{plot.stem}-{name}")
            save_figure(figure, place)


def _print(title: str, found: Landscape) -> None:
    """Print one line per position, the sharpness, and one line per layer."""
    from spikewvat.formatting import MISSING
    from spikewvat.lab.trainer.console import print_table

    lines = found.lines
    sized = lines.sigma is not None
    rows = []
    for index, magnitude in enumerate(lines.magnitudes):
        losses, accuracies = lines.losses[:, index], 100 * lines.accuracies[:, index]
        figures = (losses.mean(), losses.min(), losses.max())
        rows.append(
            [
                f"{100 * magnitude:+.3g} %" if sized else f"{magnitude:+.3g}",
                *(f"{float(figure):.4g}" for figure in figures),
                *(f"{float(figure):.1f}" for figure in (accuracies.mean(), accuracies.min())),
            ]
        )
    first = "variation" if sized else "place (1: chip)"
    columns = [first, "loss", "lowest", "highest", "accuracy %", "worst"]
    print_table(f"{title}; {len(lines.seeds)} lines of {found.device}", columns, rows)
    typer.echo(f"Sharpness: {found.sharpness}")
    if found.surface is not None:
        typer.echo(f"Plane: {found.surface}")
    if found.histograms:
        layers = [
            [
                layer.name,
                str(layer.size),
                *(f"{x:.4g}" for x in (layer.mean, layer.std, layer.edges[0], layer.edges[-1])),
                MISSING if math.isnan(layer.kurtosis) else f"{layer.kurtosis:+.2f}",
            ]
            for layer in found.histograms
        ]
        columns = ["layer", "weights", "mean", "std", "smallest", "largest", "kurtosis"]
        print_table("Weights", columns, layers)
