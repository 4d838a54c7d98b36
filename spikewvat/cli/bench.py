"""``bench``: a suite of recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from spikewvat.cli.base import typer
from spikewvat.cli.suites import bench_suite
from spikewvat.errors import RecipeError


def bench(
    suite: Annotated[
        str | None,
        typer.Argument(metavar="SUITE", help="One of --list, or a folder with suite.toml."),
    ] = None,
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
) -> None:
    """Run all rows of a suite with all seeds, and show its table.

    Published figures stand beside the measured ones. Finished jobs are kept in --out and not run
    again; a job that fails does not stop the rest.
    """
    from spikewvat.lab.places import suite_names

    if list_:
        from spikewvat.lab.suites import read_suite

        for name in suite_names():
            typer.echo(f"{name:<14} {read_suite(name).title}")
        return
    if suite is None:
        raise RecipeError(
            f"which SUITE? There are {', '.join(suite_names())}, or a folder with suite.toml. "
            "For a network of your own: spikewvat compare."
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
