"""``convert``: from a trained network to a spiking one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from spikewvat.cli.base import typer, whole_numbers
from spikewvat.cli.runs import DataRoot, print_rows
from spikewvat.errors import RecipeError

if TYPE_CHECKING:
    from spikewvat.results import Converted

_KEYS = ("conversion.", "evaluation.")  # what comes after training


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT", help="Folder that train has written, or weights in it."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Such as conversion.finetune.lr=1e-3."),
    ] = None,
    time_steps: Annotated[int | None, typer.Option(help="Steps T of a pass.")] = None,
    calibration: Annotated[
        int | None, typer.Option(help="Training images that thresholds are chosen on.")
    ] = None,
    percentile: Annotated[
        float | None,
        typer.Option(help="Of the activations, as thresholds; the least error by default."),
    ] = None,
    coding: Annotated[
        str | None, typer.Option(metavar="direct|poisson", help="How images become input.")
    ] = None,
    finetune_epochs: Annotated[
        int | None, typer.Option(help="Epochs of fine-tuning by STDB; 0 for none.")
    ] = None,
    variation: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Fine-tune by WVAT, under gaussian:sigma=0.1, ..."),
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="8,16,32", help="Also test after so many steps.")
    ] = None,
    data_root: DataRoot = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results; RUN/converted by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was interrupted in --out, if any.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
) -> None:
    """Convert a trained network to a spiking one and evaluate it.

    What is not given is taken from the table [conversion] of the run's recipe, the chips from
    [evaluation]. Writes recipe.toml, snn.safetensors and result.json into --out.
    """
    from spikewvat.lab.recipes import convert as conversions
    from spikewvat.lab.recipes import run as runs
    from spikewvat.lab.recipes.reading import changed
    from spikewvat.lab.recipes.resolve import resolve

    for override in overrides or ():
        if not override.startswith(_KEYS):
            raise RecipeError(
                f"override {override!r}: the network is trained already. "
                "Expected conversion.KEY=VALUE or evaluation.KEY=VALUE."
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
            f"--variation {variation!r} is for fine-tuning, of which there is none. "
            "Pass --finetune-epochs too."
        )
    target = out or folder / "converted"
    result = conversions.convert_run(
        source, target, resolve(recipe), data_root=data_root, resume=resume, progress=progress
    )
    if result.converted is not None:
        _print_steps(result.converted)
    print_rows(f"{recipe.name}, converted, {result.split} set", result)
    typer.echo(f"Written to {target}. More chips: spikewvat evaluate {target} --chips 100")


def _given(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table without what was not given."""
    tables = {key: _given(v) if isinstance(v, dict) else v for key, v in table.items()}
    return {key: value for key, value in tables.items() if value is not None}


def _print_steps(result: Converted) -> None:
    """Print accuracy and cost against the number of steps."""
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
