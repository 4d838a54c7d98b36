"""``bench``: run a suite and show its table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from spikewvat.cli.base import check_writable, save_figure, typer, whole_numbers
from spikewvat.cli.own import bench_own, outcome
from spikewvat.errors import RecipeError

if TYPE_CHECKING:
    from spikewvat.bench import Found, RowResult, Suite

SuiteName = Annotated[
    str | None,
    typer.Argument(
        metavar="SUITE", help="demo, nmnist, mnist, conversion, or a folder with suite.toml."
    ),
]


def bench(
    suite: SuiteName = None,
    preset: Annotated[
        str | None, typer.Option(metavar="quick|paper", help="Scale; quick by default.")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Only these rows; * stands for anything.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="0,1,2", help="Training seeds; the preset's by default.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Change a key in every recipe.")
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder with the data sets; their usual places by default.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs"),
    results: Annotated[
        Path | None, typer.Option(help="Folder for one result file a row; in --out by default.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes; one for each core.")] = None,
    progress: Annotated[bool, typer.Option(help="Show progress.")] = True,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION", help="Bench the network that this makes, without a suite."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION", help="Makes its test loader, or (training, test) loaders."
        ),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Trains it, called (model, loader, method): compares methods.",
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="swa, wvat:alpha=0.05+swa, sam ...; plain, SWA and WVAT by default.",
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="Devices of --model, such as quantized:bits=4>>gaussian."
        ),
    ] = None,
    sigma: Annotated[
        str, typer.Option(metavar="0,0.05,0.1", help="Sizes of the variation of --model.")
    ] = "0,0.05,0.1",
    chips: Annotated[int, typer.Option(help="Chips of --model at each size.")] = 25,
) -> None:
    """Run all rows of a suite with all seeds, and show the table beside published figures.

    Finished cells are kept in --out and not run again; a cell that fails does not stop the rest.
    """
    of_suites = {
        **{"SUITE": suite, "--preset": preset, "--rows": rows, "--override": override},
        **{"--data-root": data_root, "--results": results, "--jobs": jobs},
    }
    of_models = {"--data": data, "--train": train, "--method": method, "--device": device}
    if model is not None:
        _check_absent(of_suites, "belongs to suites. Leave it out beside --model")
        folder = out / model.replace(":", ".")
        own = bench_own(
            model=model,
            data=data,
            train=train,
            methods=method or (),
            devices=device or (),
            sigma=sigma,
            chips=chips,
            seeds=seeds,
            folder=folder,
            progress=progress,
        )
        _show(own.suite, own.rows, folder)
        for name, error in own.failed.items():
            typer.echo(f"error: {name}: {outcome(error)}", err=True)
        if own.failed:
            raise typer.Exit(1)
        return
    _check_absent(of_models, "belongs to a network of your own. Add --model MODULE:FUNCTION")
    from spikewvat.bench import cells_of, read_suite, run_suite
    from spikewvat.trainer.console import CellsProgress

    if suite is None:
        raise RecipeError("which SUITE? Name one, or pass --model and --data.")
    chosen = read_suite(suite).chosen([] if rows is None else rows.split(",")).at(preset)
    folder = out / chosen.folder.name
    kept = results or folder
    check_writable(folder / "table.md", kept / "row.json")
    numbers = chosen.seeds_of(preset) if seeds is None else whole_numbers(seeds, "--seeds")
    cells = cells_of(chosen, preset=preset, seeds=numbers, overrides=override or ())
    with CellsProgress(len(cells), enabled=progress) as bar:
        found = run_suite(
            cells,
            folder,
            data_root=data_root,
            jobs=jobs or os.cpu_count() or 1,
            on_cell=lambda cell, what: bar.cell(f"{cell}: {_outcome(what)}"),
        )
    for name, result in found.rows.items():
        result.write(kept / f"{name}.json")
    if found.rows:
        _show(chosen, found.rows, folder)
    for cell, failure in found.failed:
        typer.echo(f"error: {cell}: {failure.message} (see {failure.log})", err=True)
    if found.failed:
        raise typer.Exit(1)
    if chosen.hint:
        typer.echo(f"\n{chosen.hint.strip()}")


def _check_absent(options: Mapping[str, object], why: str) -> None:
    """Raise RecipeError if an option was given that would be ignored."""
    for name, value in options.items():
        if value is not None:
            raise RecipeError(f"{name} {why}.")


def _outcome(found: Found) -> str:
    """Return what became of a cell in one line."""
    from spikewvat.bench import CellFailed
    from spikewvat.robustness import Degradation

    if isinstance(found, CellFailed):
        return f"failed: {found.message}"
    curve = Degradation.from_dict(found)
    return f"clean {100 * curve.clean:.1f} %, {curve.reports[-1]}"


def _show(suite: Suite, results: Mapping[str, RowResult], folder: Path) -> None:
    """Print, write and draw what came out."""
    from spikewvat import files
    from spikewvat.bench import markdown
    from spikewvat.bench.table import cells, header
    from spikewvat.robustness import plots
    from spikewvat.trainer.console import print_table

    files.write_atomic(folder / "table.md", markdown(suite, results) + "\n")
    for number, setup in enumerate(suite.setups, start=1):
        found = {row.method: (row, results[row.name]) for row in setup.rows if row.name in results}
        if not found:
            continue
        rows = [[method, *cells(result, row)] for method, (row, result) in found.items()]
        columns = header(result for _, result in found.values())
        print_table(f"{suite.title}: {setup.name}", ["", *columns], rows)
        curves = {method: result.pooled for method, (_, result) in found.items()}
        name = "accuracy.png" if len(suite.setups) == 1 else f"accuracy{number}.png"
        save_figure(plots.accuracy_against_sigma(curves, title=setup.name), folder / name)
    typer.echo(f"Written: {folder / 'table.md'}")
