"""``train`` and ``evaluate``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from spikewvat.cli.base import (
    check_writable,
    durations,
    interruptible,
    numbers,
    save_figure,
    share,
    typer,
)
from spikewvat.errors import RecipeError

if TYPE_CHECKING:
    from spikewvat.lab.recipes.results import RunResult
    from spikewvat.robustness.activity import Activity

DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder with the recipe's data set; its usual location by default."),
]
Preset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Scale: quick, the default; most recipes also have paper."),
]

Target = Annotated[
    float | None,
    typer.Option(metavar="0.9", parser=share, help="Accuracy that makes a chip work."),
]


def train(
    recipe: Annotated[
        Path,
        typer.Argument(help="Recipe: a name that spikewvat recipes lists, or a TOML file."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as training.lr=1e-4."),
    ] = None,
    data_root: DataRoot = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; runs/NAME-seedN by default.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Replaces the recipe's seed.")] = None,
    preset: Preset = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume from the checkpoint in --out, if any.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
) -> None:
    """Train a recipe and evaluate it on simulated chips.

    Writes recipe.toml, model.safetensors, best.safetensors, checkpoint.safetensors and
    result.json into --out.
    """
    from spikewvat.lab import recipes
    from spikewvat.lab.recipes import run as runs
    from spikewvat.lab.recipes.resolve import resolve

    chosen = recipes.read_recipe(recipe, preset=preset, overrides=overrides or (), seed=seed)
    folder = out or Path("runs") / f"{chosen.name}-seed{chosen.seed}"
    with interruptible(lambda: _kept(folder, chosen.training.epochs)):
        result = runs.train(
            resolve(chosen), folder, data_root=data_root, resume=resume, progress=progress
        )
    if result is None:
        return  # not the first rank of a distributed run
    print_rows(f"{chosen.name}, {result.split} set", result)
    typer.echo(f"Written to {folder}. More chips: spikewvat evaluate {folder} --chips 100")


def _kept(folder: Path, epochs: int) -> str:
    """Say what an interrupted training has left in its folder, and how to go on."""
    from spikewvat import files
    from spikewvat.lab.trainer import CHECKPOINT

    path = folder / CHECKPOINT
    if not path.is_file():
        return "before the end of the first epoch, so nothing was kept."
    done = files.load(path)["position"]["epoch"]
    return (
        f"{done} of {epochs} epochs are kept in {folder}. "
        "To go on, run the same command with --resume."
    )


def evaluate(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder written by train; or digits-swa, digits-wvat or digits-momentum."
        ),
    ],
    data_root: DataRoot = None,
    split: Annotated[
        str | None, typer.Option(metavar="train|validation|test", help="Which samples.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="gaussian, weibull:k=2, quantized:bits=4>>gaussian, or a device.toml.",
        ),
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(metavar="0,0.05,0.10", help="Sizes of the variation, if the device has one."),
    ] = None,
    corruption: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Sweep a corruption of spikes: deletion, jitter, dead-neurons, "
            "jitter>>dead-neurons:severity=0.05, ...",
        ),
    ] = None,
    severities: Annotated[
        str | None,
        typer.Option(
            metavar="0,0.1,0.2", help="Severities of --corruption; 0 and five levels by default."
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            metavar="1s,1h,1d,1y", help="Look at the same chips at these times since programming."
        ),
    ] = None,
    crossbar: Annotated[
        str | None,
        typer.Option(
            metavar="rows=128,adc_bits=8",
            help="What stands around the devices: adc_range=calibrated, output_noise=0.06, "
            "ir_drop=1.75e-6, slices=4,cell_bits=2, offset=true, ...",
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", help="Done to each chip: scale>>bias-trim:samples=64, distillation, ..."
        ),
    ] = None,
    verify: Annotated[
        float | None, typer.Option(help="Share of the weights that are verified.")
    ] = None,
    chips: Annotated[int | None, typer.Option(help="Chips at each size.")] = None,
    target: Target = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the chips.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the chips.")] = 1,
    best: Annotated[
        bool, typer.Option("--best", help="Use the weights of the best epoch, not the final ones.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the results to this file.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Plot accuracy against sigma to this file; to NAME.png by default for a network "
            "that comes with the package."
        ),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
) -> None:
    """Evaluate the weights of a run on simulated chips.

    The networks digits-swa, digits-wvat and digits-momentum come with the package. Options left out
    are taken from the run's recipe.
    """
    from spikewvat import serialisation
    from spikewvat.lab import loading, trainer
    from spikewvat.lab.recipes import evaluation

    folder = loading.run_folder(run)
    if plot is None and folder.parent == loading.NETWORKS:
        plot = Path(f"{run}.png")
    check_writable(json, plot)
    found = evaluation.evaluate(
        folder,
        data_root=data_root,
        split=split,
        device=device,
        sigmas=None if sigma is None else numbers(sigma, "--sigma"),
        corruption=corruption,
        severities=None if severities is None else numbers(severities, "--severities"),
        ages=None if time is None else durations(time, "--time"),
        crossbar=crossbar,
        calibrate=calibrate,
        verify=verify,
        chips=chips,
        target=target,
        seed=seed,
        weights=trainer.BEST if best else None,
        jobs=jobs,
        progress=progress,
    )
    print_rows(f"{run}, {found.split} set", found)
    if json is not None:
        serialisation.write(json, found)
    if plot is not None:
        _draw_rows(plot, found)


def _draw_rows(path: Path, found: RunResult) -> None:
    """Draw accuracy against sigma or severity, or the yield curve of a device without a size."""
    from spikewvat.robustness import plots

    if not found.curve:
        raise RecipeError("--plot needs at least one --sigma.")
    first = found.curve[0]
    if first.sigma is None and found.curve.axis.name is None:
        figure = plots.yield_curve({found.method: first}, target=first.target)
    else:
        device = found.device
        own = {"range_label": f"range in {device}"} if "range=" in device else {}
        figure = plots.accuracy_against_sigma({found.method: found.curve}, **own)
    save_figure(figure, path)


def print_rows(title: str, found: RunResult) -> None:
    """Print one line per size of the variation."""
    from spikewvat.formatting import MISSING, interval, percent, working
    from spikewvat.lab.trainer.console import print_table

    curve = found.curve
    counts = () if curve.activity is None else ("spikes", "operations")

    def counted(activity: Activity | None) -> list[str]:
        found = [getattr(activity, key) for key in counts]
        return [MISSING if math.isnan(count) else f"{count:.4g}" for count in found]

    rows = [
        ["no variation", percent(curve.clean), "", "", "", "", *counted(curve.activity)],
    ]
    for report in curve:
        name = "chips" if report.sigma is None else f"sigma {100 * report.sigma:g} %"
        if report.setting is not None:
            name = curve.axis.heading(report.size)
        elif report.corruption is not None:
            name = f"{report.corruption} {report.severity:g}"
        works = MISSING
        if report.target is not None:
            chips = report.yield_at(report.target)
            works = working(chips.working, chips.chips, *chips.ci95)
            title += f"; a chip works at {100 * report.target:g} %" if len(rows) == 1 else ""
        low, high = (100 * bound for bound in report.ci95)
        figures = (percent(report.mean), percent(report.std), interval(low, high, ".1f"))
        rows.append([name, *figures, percent(report.worst), works, *counted(report.activity)])
    columns = [found.device, "accuracy %", "std", "95 % CI", "worst", "working chips", *counts]
    print_table(title, columns, rows)
    if len(curve) and curve[-1].calibrated is not None:
        typer.echo(f"{rows[-1][0]}: {curve[-1].calibrated}")
    if found.errors is not None:
        typer.echo(f"{rows[-1][0]}: errors of {found.errors} (root mean square over weights)")
