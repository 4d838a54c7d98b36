"""The page as HTML, with its pictures inside, and the tables as Markdown."""

from __future__ import annotations

import base64
import io
from importlib import resources
from pathlib import Path
from typing import Any

from spikewvat import files
from spikewvat.bench import markdown
from spikewvat.bench.table import MISSING, cells, header
from spikewvat.errors import require
from spikewvat.recipes.results import provenance
from spikewvat.report.collect import Section, collect
from spikewvat.report.words import summary
from spikewvat.robustness import plots

PAGE, TABLES = "report.html", "report.md"


def write_report(folder: Path | str, out: Path | str | None = None, *, title: str = "") -> Path:
    """Write one page on all suites in a folder of results, and their tables as Markdown.

    The page is one file: nothing is loaded from elsewhere, tables sort by a click on a column.

    Args:
        folder: See :func:`spikewvat.report.collect`.
        out: Folder for ``report.html`` and ``report.md``; by default the same.
        title: Heading of the page.

    Returns:
        Where the page lies.

    Raises:
        DataError: If there are no results.
        CheckpointError: If the files cannot be written.
        MissingExtraError: If Jinja2 is not installed.
    """
    jinja2 = require("jinja2", extra="cli", purpose="the report")
    sections = collect(folder)
    target = Path(out or folder)
    files.check_writable(target)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("page.html").render(
        title=title or "Robustness of spiking networks",
        made=provenance(),
        sections=[_content(section) for section in sections],
    )
    files.write_atomic(target / PAGE, page)
    tables = [
        f"## {section.suite.title}\n\n{markdown(section.suite, section.results)}\n"
        for section in sections
    ]
    files.write_atomic(target / TABLES, "\n".join([f"# {title or 'Results'}\n", *tables]))
    return target / PAGE


def _template(name: str) -> str:
    return (resources.files("spikewvat.report") / name).read_text(encoding="utf-8")


def _content(section: Section) -> dict[str, Any]:
    """Return what the page shows of a suite."""
    setups = []
    for setup in section.suite.setups:
        found = [
            (row, section.results[row.name]) for row in setup.rows if row.name in section.results
        ]
        if not found:
            continue
        columns = header(result for _, result in found)
        rows = [
            [row.method, *cells(section.results[row.name], row)]
            if row.name in section.results
            else [row.method, *[MISSING] * len(columns)]
            for row in setup.rows
        ]
        curves = {row.method: result.pooled for row, result in found}
        setups.append(
            {
                "name": setup.name,
                "columns": ["method", *columns],
                "rows": rows,
                "picture": _picture(plots.accuracy_against_sigma(curves, title=setup.name)),
                "runs": [(row.method, _run(result.content)) for row, result in found],
            }
        )
    return {
        "title": section.suite.title,
        "source": section.suite.source,
        "summary": summary(section),
        "setups": setups,
        "missing": section.missing,
        "failures": (*section.failures, *section.unreadable),
    }


def _picture(figure: Any) -> str:
    """Return a figure as a ``data:`` address."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _run(content: Any) -> str:
    """Return in words how a row was run."""
    seeds = ", ".join(str(seed) for seed in content["seeds"])
    samples, versions = content["samples"], content["versions"]
    return (
        f"{content['scale']} scale, training seeds {seeds}, {samples['train']} training and "
        f"{samples['test']} test samples, {sum(content['seconds']) / 60:.1f} min of training, "
        f"commit {str(content['commit'])[:12]}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )
