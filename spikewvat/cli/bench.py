"""``bench``: a suite, or a network of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from spikewvat.cli.base import typer
from spikewvat.cli.own import bench_own, outcome
from spikewvat.cli.suites import bench_suite, show
from spikewvat.errors import RecipeError
from spikewvat.lab.places import suite_names

SuiteName = Annotated[
    str | None,
    typer.Argument(
        metavar="SUITE", help=f"{', '.join(suite_names())}, or a folder with suite.toml."
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
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run jobs on the workers of this Dask scheduler."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the suites, and stop.")] = False,
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
    spikes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC", help="What happens to spikes of --model, such as deletion or jitter."
        ),
    ] = None,
    severities: Annotated[
        str | None,
        typer.Option(metavar="0,0.1", help="Of --model's spikes; 0 and three levels by default."),
    ] = None,
    sigma: Annotated[
        str, typer.Option(metavar="0,0.05,0.1", help="Sizes of the variation of --model.")
    ] = "0,0.05,0.1",
    chips: Annotated[int, typer.Option(help="Chips of --model at each size.")] = 25,
) -> None:
    """Run all rows of a suite with all seeds, and show the table beside published figures.

    Finished jobs are kept in --out and not run again; a job that fails does not stop the rest.
    """
    if list_:
        from spikewvat.lab.suites import read_suite

        for name in suite_names():
            typer.echo(f"{name:<14} {read_suite(name).title}")
        return
    of_suites = {
        **{"--preset": preset, "--rows": rows, "--override": override},
        **{"--data-root": data_root, "--results": results, "--jobs": jobs, "--dask": dask},
    }
    of_models = {"--data": data, "--train": train, "--method": method}
    of_models |= {"--device": device, "--spikes": spikes, "--severities": severities}
    if model is not None:
        _check_absent(of_suites, "belongs to suites. Leave it out beside --model")
        folder = out / model.replace(":", ".")
        own = bench_own(
            suite=suite,
            model=model,
            data=data,
            train=train,
            methods=method or (),
            devices=device or (),
            spikes=spikes or (),
            severities=severities,
            sigma=sigma,
            chips=chips,
            seeds=seeds,
            folder=folder,
            progress=progress,
        )
        show(own.suite, own.rows, folder)
        for name, why in own.skipped.items():
            typer.echo(f"skipped: {name}: {' '.join(why.split())}", err=True)
        for name, error in own.failed.items():
            typer.echo(f"error: {name}: {outcome(error)}", err=True)
        if own.failed:
            raise typer.Exit(1)
        return
    _check_absent(of_models, "belongs to a network of your own. Add --model MODULE:FUNCTION")
    if suite is None:
        raise RecipeError(
            f"which SUITE? There are {', '.join(suite_names())}; or pass --model and --data."
        )
    bench_suite(
        suite,
        preset=preset,
        rows=rows,
        seeds=seeds,
        overrides=override or (),
        data_root=data_root,
        out=out,
        results=results,
        jobs=jobs,
        dask=dask,
        progress=progress,
    )


def _check_absent(options: Mapping[str, object], why: str) -> None:
    """Raise RecipeError if an option was given that would be ignored."""
    for name, value in options.items():
        if value is not None:
            raise RecipeError(f"{name} {why}.")
