"""``report``: one page with all results in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from spikewvat.cli.base import typer


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The --out folder of bench, compare or train.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and report.md; DIR by default.")
    ] = None,
    title: Annotated[str, typer.Option(help="Heading of the page.")] = "",
) -> None:
    """Write a self-contained HTML page, and the same in words as Markdown.

    On top stands how many chips work with each method, and what to do next.
    """
    from spikewvat.lab.report import write_report

    typer.echo(f"Written: {write_report(folder, out, title=title)}")
