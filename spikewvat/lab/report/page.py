"""The report as a single HTML page with embedded pictures, and its tables as Markdown."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spikewvat import files
from spikewvat.data.pictures import with_palette
from spikewvat.errors import DataError, require
from spikewvat.formatting import escaped
from spikewvat.lab.report.collect import Section, collect
from spikewvat.lab.report.content import Part
from spikewvat.lab.report.kinds import parts_of
from spikewvat.provenance import provenance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, TABLES = "report.html", "report.md"
TITLE = "Robustness of spiking networks"


class _Chapter(NamedTuple):
    """A section with all of its parts."""

    section: Section
    parts: Sequence[Part]
    gaps: Sequence[tuple[str, Sequence[str]]]

    @property
    def headline(self) -> str:
        """The first sentence of the first part, and the verdict on published results, if any."""
        said = [part for part in self.parts if part.sentences]
        said = said[: 2 if self.section.suite.claims else 1]
        return " ".join(f"{part.name}: {part.sentences[0]}" for part in said)


def write_report(folder: Path | str, out: Path | str | None = None, *, title: str = "") -> Path:
    """Write one page for all suites in a folder of results, and their tables as Markdown.

    The page is one self-contained file; clicking on a column sorts a table.

    Args:
        folder: See :func:`spikewvat.lab.report.collect`.
        out: Folder for ``report.html`` and ``report.md``; by default ``folder``.
        title: Title of the page.

    Returns:
        Path of the page.

    Raises:
        DataError: If there are no results.
        CheckpointError: If the files cannot be written.
        MissingExtraError: If Jinja2 or matplotlib is not installed.
    """
    jinja2 = require("jinja2", extra="cli", purpose="The report")
    chapters, others = _chapters(collect(folder))
    if not chapters:
        raise DataError(
            f"{str(folder)!r} holds no results that a report can show, only {', '.join(others)}. "
            "Pass the --out or --results folder of spikewvat bench."
        )
    target = Path(out or folder)
    files.check_writable(target)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("page.html").render(
        title=title or TITLE,
        made=provenance(),
        overview=_overview(chapters),
        chapters=chapters,
        others=others,
        picture=_picture,
    )
    files.write_atomic(target / PAGE, page)
    files.write_atomic(target / TABLES, _markdown(title or TITLE, chapters))
    return target / PAGE


def _template(name: str) -> str:
    return (resources.files("spikewvat.lab.report") / name).read_text(encoding="utf-8")


def _chapters(sections: Sequence[Section]) -> tuple[list[_Chapter], list[str]]:
    """Return the chapters, and the files that belong to no kind of result."""
    chapters, others = [], []
    for section in sections:
        parts = parts_of(section)
        shown = {name for part in parts for name in part.shows}
        others += [f"{section.folder.name}/{n}.json" for n in section.others if n not in shown]
        gaps = [
            (name, texts)
            for name, texts in (
                ("Not run", section.missing),
                ("Failed", _by_error(section.failures)),
                ("Data not there", _by_error(section.skipped)),
                ("Not readable", section.unreadable),
            )
            if texts
        ]
        if parts or gaps:
            chapters.append(_Chapter(section, parts, gaps))
    return chapters, others


def _by_error(jobs: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{', '.join(names)}: {error}" for error, names in jobs.items()]


def _overview(chapters: Sequence[_Chapter]) -> str:
    """Return one sentence on the numbers of available and missing results."""

    def count(number: int, what: str, many: str) -> str:
        return f"{number} {what if number == 1 else many}"

    def gaps(kind: str) -> int:
        return sum(len(texts) for c in chapters for name, texts in c.gaps if name == kind)

    rows = sum(len(chapter.section.results) for chapter in chapters)
    failed = sum(len(names) for c in chapters for names in c.section.failures.values())
    return (
        f"{count(len(chapters), 'suite', 'suites')}, {count(rows, 'row', 'rows')} with results; "
        f"missing or incomplete: {count(gaps('Not run'), 'row', 'rows')}; "
        f"failed: {count(failed, 'job', 'jobs')}; "
        f"not readable: {count(gaps('Not readable'), 'file', 'files')}."
    )


def _markdown(title: str, chapters: Sequence[_Chapter]) -> str:
    def short(chapter: _Chapter) -> str:
        said = escaped(chapter.headline) or "no results"
        return f"- **{escaped(chapter.section.suite.title)}**: {said}"

    blocks = [f"# {escaped(title)}", _overview(chapters), "\n".join(map(short, chapters))]
    for chapter in chapters:
        blocks.append(f"## {escaped(chapter.section.suite.title)}")
        blocks += [f"{name}: {escaped('; '.join(texts))}." for name, texts in chapter.gaps]
        blocks += [part.markdown() for part in chapter.parts]
    return "\n\n".join(blocks) + "\n"


def _picture(figure: Figure) -> str:
    """Return a figure as a ``data:`` URL."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}  # the same figures are the same page
    figure.savefig(buffer, format="png", dpi=130, metadata=metadata)
    return "data:image/png;base64," + base64.b64encode(with_palette(buffer.getvalue())).decode()
