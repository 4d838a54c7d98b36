"""``convert``: turn a trained network into a spiking one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from spikewvat.cli.base import interruptible, typer, whole_numbers
from spikewvat.cli.runs import DataRoot, print_rows
from spikewvat.errors import RecipeError

if TYPE_CHECKING:
    from spikewvat.results import Converted

_KEYS = ("conversion.", "evaluation.")  # what comes after training


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT", help="Folder written by train, or a weights file in it."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Overrides, such as conversion.finetune.lr=1e-3."
        ),
    ] = None,
    time_steps: Annotated[int | None, typer.Option(help="Steps T of a pass.")] = None,
    calibration: Annotated[
        int | None, typer.Option(help="Number of training images for choosing thresholds.")
    ] = None,
    percentile: Annotated[
        float | None,
        typer.Option(
            help="Percentile of the activations to use as threshold; least error by default."
        ),
    ] = None,
    coding: Annotated[
        str | None, typer.Option(metavar="direct|poisson", help="How images are turned into input.")
    ] = None,
    finetune_epochs: Annotated[
        int | None, typer.Option(help="Epochs of fine-tuning by STDB; 0 for none.")
    ] = None,
    variation: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", help="Fine-tune with WVAT under this device: gaussian:sigma=0.1, ..."
        ),
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="8,16,32", help="Also test after these numbers of steps.")
    ] = None,
    data_root: DataRoot = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; RUN/converted by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted conversion in --out, if any.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
) -> None:
    """Convert a trained network to a spiking one and evaluate it.

    Options left out are taken from [conversion] of the run's recipe, the chips from [evaluation].
    Writes recipe.toml, snn.safetensors and result.json into --out.
    """
    from spikewvat.lab.recipes import convert as conversions
    from spikewvat.lab.recipes import run as runs
    from spikewvat.lab.recipes.reading import changed
    from spikewvat.lab.recipes.resolve import resolve

    for override in overrides or ():
        if not override.startswith(_KEYS):
            raise RecipeError(
                f"override {override!r}: the network is already trained. Expected "
                "conversion.KEY=VALUE or evaluation.KEY=VALUE."
            )
    folder, _ = conversions.find(source)
    finetune: dict[str, Any] = {"epochs": finetune_epochs}
    if variation is not None:
        finetune["method"] = {"name": "wvat", "device": variation}
    table = {
        "time_steps": time_steps,
        "calibration": calibration,
        "coding": coding,
        "balancing": {"percentile": percentile},
        "sweep": None if sweep is None else whole_numbers(sweep, "--sweep"),
        "finetune": finetune,
    }
    recipe = changed(runs.read_run(folder), {"conversion": _given(table)}, overrides or ())
    if variation is not None and recipe.conversion and not recipe.conversion.finetune.epochs:
        raise RecipeError(
            f"--variation {variation!r} applies to fine-tuning only. Pass --finetune-epochs too."
        )
    target = out or folder / "converted"
    kept = f"finished steps are kept in {target}. To go on, run the same command with --resume."
    with interruptible(lambda: kept):
        result = conversions.convert_run(
            source, target, resolve(recipe), data_root=data_root, resume=resume, progress=progress
        )
    if result.converted is not None:
        _print_steps(result.converted)
    print_rows(f"{recipe.name}, converted, {result.split} set", result)
    typer.echo(f"Written to {target}. More chips: spikewvat evaluate {target} --chips 100")


def _given(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table without the options left out."""
    tables = {key: _given(v) if isinstance(v, dict) else v for key, v in table.items()}
    return {key: value for key, value in tables.items() if value is not None}


def _print_steps(result: Converted) -> None:
    """Print accuracy and cost by number of steps."""
    from spikewvat.formatting import percent
    from spikewvat.lab.trainer.console import print_table

    found = result.over_time
    columns_of = (found.steps, found.accuracies, found.spikes, found.operations)
    rows = [
        [f"T = {t}", percent(accuracy, 2), f"{spikes:.0f}", f"{operations:.3g}"]
        for t, accuracy, spikes, operations in zip(*columns_of, strict=True)
    ]
    columns = ["", "accuracy %", "spikes", "synaptic operations"]
    ann = percent(result.ann, 2)
    title = f"no variation, {found.images} images; the ANN: {ann} %; costs per image"
    print_table(title, columns, rows)
