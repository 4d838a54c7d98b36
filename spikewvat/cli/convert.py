"""``convert``: turn a trained network, from a run or one's own, into a spiking one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from spikewvat.cli import objects
from spikewvat.cli.base import interruptible, numbers, typer, whole_numbers
from spikewvat.cli.runs import DataRoot, print_rows
from spikewvat.errors import RecipeError

if TYPE_CHECKING:
    from spikewvat.lab.recipes.results import RunResult
    from spikewvat.results import Converted

_KEYS = ("conversion.", "evaluation.")  # what comes after training


def convert(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT",
            help="Folder written by train, or a weights file in it; none with --model.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Overrides, such as conversion.finetune.lr=1e-3."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODULE:FUNCTION", help="Makes your own network; with --data."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Its weights: a .safetensors file, or a state_dict.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION", help="Makes a pair of loaders for --model: training, test."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Chips for --model: gaussian by default."),
    ] = None,
    sigma: Annotated[
        str | None,
        typer.Option(metavar="0.05,0.1", help="Sizes of the variation for --model; these."),
    ] = None,
    chips: Annotated[
        int | None, typer.Option(min=1, help="Chips at each size for --model; 25.")
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Accuracy that a chip must reach to work, for --model."),
    ] = None,
    time_steps: Annotated[
        int | None,
        typer.Option(help="Steps T of a pass; the levels of QCFS layers by default, else 16."),
    ] = None,
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
        Path | None,
        typer.Option(
            help="Folder for the results; RUN/converted, or runs/MODULE.FUNCTION-converted of "
            "--model, by default."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted conversion in --out, if any.")
    ] = False,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
) -> None:
    """Convert a trained network to a spiking one and evaluate it.

    Of a run of spikewvat train, options left out are taken from [conversion] of its recipe, the
    chips from [evaluation]. Of your own network (--model, --weights, --data), they have the
    defaults of such a table. Writes snn.safetensors, result.json and recipe.toml into --out.
    """
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
    given = _given(table)
    own = {
        "--weights": weights,
        "--data": data,
        "--device": device,
        "--sigma": sigma,
        "--chips": chips,
        "--target": target,
    }
    if model is None:
        _refuse({name: value for name, value in own.items() if value is not None}, "--model")
        if source is None:
            raise RecipeError(
                "nothing to convert: pass the folder of a run, or --model and --data."
            )
        _convert_run(Path(source), given, overrides or (), out, data_root, resume, progress)
        return
    _refuse({"--data-root": data_root} if data_root else {}, "a run")
    _refuse({"--resume": resume} if resume else {}, "a run")
    if data is None:
        raise RecipeError("--model needs --data MODULE:FUNCTION, which makes the loaders.")
    changes = [*([] if source is None else [source]), *(overrides or ())]
    folder = out or Path("runs") / f"{model.replace(':', '.')}-converted"
    tested = _given({"device": device, "count": chips, "target": target})
    if sigma is not None:
        tested["sigmas"] = tuple(numbers(sigma, "--sigma"))
    _convert_own(model, data, weights, given, changes, tested, folder, progress)


def _refuse(options: Mapping[str, object], what: str) -> None:
    """Raise RecipeError for options that are of use only with something else."""
    for name in options:
        raise RecipeError(f"{name} is of use only with {what}. Leave it out.")


def _convert_run(
    source: Path,
    table: dict[str, Any],
    overrides: Sequence[str],
    out: Path | None,
    data_root: Path | None,
    resume: bool,
    progress: bool,
) -> None:
    """Convert the network of a run."""
    from spikewvat.lab.recipes import convert as conversions
    from spikewvat.lab.recipes.reading import changed
    from spikewvat.lab.recipes.resolve import resolve
    from spikewvat.lab.recipes.saved import read_run

    _check_keys(overrides, _KEYS)
    folder, _ = conversions.find(source)
    recipe = changed(read_run(folder), {"conversion": table}, overrides)
    if recipe.conversion:
        _check_variation(table, recipe.conversion.finetune.epochs)
    target = out or folder / "converted"
    kept = f"finished steps are kept in {target}. To go on, run the same command with --resume."
    with interruptible(lambda: kept):
        result = conversions.convert_run(
            source, target, resolve(recipe), data_root=data_root, resume=resume, progress=progress
        )
    _print(f"{recipe.name}, converted, {result.split} set", result)
    typer.echo(f"Written to {target}. More chips: spikewvat evaluate {target} --chips 100")


def _convert_own(
    model: str,
    data: str,
    weights: Path | None,
    table: dict[str, Any],
    overrides: Sequence[str],
    chips: dict[str, Any],
    out: Path,
    progress: bool,
) -> None:
    """Convert a network of the user's own."""
    from spikewvat.lab.recipes.own_network import Chips, convert_network
    from spikewvat.lab.recipes.reading import merge, parsed

    _check_keys(overrides, _KEYS[:1])
    for override in overrides:
        table = merge(table, parsed(override)["conversion"])
    _check_variation(table, table.get("finetune", {}).get("epochs", 0))
    with objects.current_folder_first():
        make = objects.imported(model, "--model")
        make_loaders = objects.imported(data, "--data")
        result = convert_network(
            make,
            make_loaders(),
            out,
            table,
            weights=weights,
            chips=Chips(**chips),
            progress=progress,
        )
    _print(f"{model}, converted", result)
    typer.echo(f"Written to {out}.")


def _check_keys(overrides: Sequence[str], allowed: Sequence[str]) -> None:
    expected = " or ".join(f"{key}KEY=VALUE" for key in allowed)
    for override in overrides:
        if not override.startswith(tuple(allowed)):
            raise RecipeError(
                f"override {override!r}: the network is already trained. Expected {expected}."
            )


def _check_variation(table: Mapping[str, Any], epochs: int) -> None:
    method = table.get("finetune", {}).get("method")
    if method is not None and not epochs:
        raise RecipeError(
            f"--variation {method['device']!r} applies to fine-tuning only. "
            "Pass --finetune-epochs too."
        )


def _print(title: str, result: RunResult) -> None:
    if result.converted is not None:
        _print_steps(result.converted)
    print_rows(title, result)


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
