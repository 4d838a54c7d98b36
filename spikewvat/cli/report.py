"""``report``: one page with the results of all suites."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from spikewvat.cli.base import typer


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The --out or --results folder of bench.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and report.md; DIR by default.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "",
) -> None:
    """Write a self-contained HTML page, and its tables as Markdown."""
    from spikewvat.lab.report import write_report

    typer.echo(f"Written: {write_report(folder, out, title=title)}")
