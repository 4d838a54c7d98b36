"""Tables and pictures of a suite's rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spikewvat.cli.base import save_figure, typer

if TYPE_CHECKING:
    from spikewvat.lab.suites import Suite
    from spikewvat.results import RowResult


def show(suite: Suite, results: Mapping[str, RowResult], folder: Path) -> None:
    """Print, save and plot the results."""
    from spikewvat import files
    from spikewvat.formatting import MISSING
    from spikewvat.lab.recipes.landscape import figures
    from spikewvat.lab.suites import markdown
    from spikewvat.lab.suites.table import cells, header, times
    from spikewvat.lab.trainer.console import print_table
    from spikewvat.robustness import plots

    for number, setup in enumerate(suite.setups, start=1):
        found = {row.method: (row, results[row.name]) for row in setup.rows if row.name in results}
        if not found:
            continue
        columns, taken = header(result for _, result in found.values()), times(setup, results)
        columns += ["training time"] if taken else []
        rows = []
        for method, (row, result) in found.items():
            last = [taken.get(row.name, MISSING)] if taken else []
            rows.append([method, *cells(result, row), *last])
        print_table(f"{suite.title}: {setup.name}", ["", *columns], rows)
        kinds = dict.fromkeys(r.axis for _, r in found.values() if r.sized)
        for place, axis in enumerate(kinds):
            curves = {m: r.pooled for m, (_, r) in found.items() if r.sized and r.axis == axis}
            name = f"accuracy{number if len(suite.setups) > 1 else ''}{'-' * place}.png"
            save_figure(plots.accuracy_against_sigma(curves, title=setup.name), folder / name)
        around = {
            method: result.landscape[0]  # of the first seed
            for method, (_, result) in found.items()
            if result.landscape
        }
        for part, figure in (figures(around, title=setup.name) if around else {}).items():
            save_figure(figure, folder / f"landscape{number}-{part}.png")
    files.write_atomic(folder / "table.md", markdown(suite, results) + "\n")
    typer.echo(f"Written: {folder / 'table.md'}")
