"""``recipes`` and ``recipes copy``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from spikewvat.cli.base import typer

app = typer.Typer(help="Recipes of the package: list them, copy them.")


@app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """List the recipes of the package, each with its name, its data and what it trains."""
    from spikewvat.lab.recipes.shipped import shipped

    if context.invoked_subcommand is not None:
        return
    suites = shipped()
    found = [recipe for inside in suites.values() for recipe in inside]
    name, data = (max(len(getattr(each, key)) for each in found) for key in ("name", "data"))
    for suite, inside in suites.items():
        typer.echo(f"{suite}: all of it with spikewvat bench {suite}")
        for each in inside:
            typer.echo(f"  {each.name:<{name}}  {each.data:<{data}}  {each.description}")


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="Name of a recipe, such as demo/wvat.")],
    folder: Annotated[Path, typer.Argument(help="Folder for the copy.")] = Path(),
) -> None:
    """Copy a recipe to a file that you can change.

    What it extends is copied into it.
    """
    from spikewvat.lab.recipes.shipped import copy_recipe

    path = copy_recipe(name, folder)
    typer.echo(f"Written: {path}. Train it: spikewvat train {path}")
