"""The command line: parse, call, print."""

from typing import Annotated

from spikewvat import __version__
from spikewvat.cli import (
    compare,
    convert,
    data,
    devices,
    landscape,
    measures,
    recipes,
    report,
    runs,
    suites,
)
from spikewvat.cli.base import Commands, typer

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to load than all of this
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"spikewvat {__version__}")
        raise typer.Exit


@app.callback()
def spikewvat(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Train spiking networks that survive their chip, and count how many chips work."""


app.command()(runs.train)
app.command()(runs.evaluate)
app.command()(measures.plan)
app.command()(landscape.landscape)
app.command()(convert.convert)
app.command()(compare.compare)
app.command()(suites.bench)
app.command()(report.report)
app.add_typer(recipes.app, name="recipes")
app.add_typer(devices.app, name="devices")
app.add_typer(data.app, name="data")
