"""The report as a single HTML page with embedded pictures, and in words as Markdown."""

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
from spikewvat.lab.report.answer import Answer, answer, leaderboards
from spikewvat.lab.report.collect import Section, collect
from spikewvat.lab.report.content import Part, Table
from spikewvat.lab.report.kinds import parts_of
from spikewvat.provenance import provenance

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE, TABLES = "report.html", "report.md"
TITLE = "Robustness of spiking networks"


class _Gap(NamedTuple):
    """What is missing: how much of what, and the list."""

    number: int
    what: str
    items: Sequence[str]

    def __str__(self) -> str:
        one, many = self.what.split("|")
        return f"{self.number} {one if self.number == 1 else many}"


class _Chapter(NamedTuple):
    """A section with all of its parts."""

    section: Section
    parts: Sequence[Part]
    gaps: Sequence[_Gap]


def write_report(folder: Path | str, out: Path | str | None = None, *, title: str = "") -> Path:
    """Write one page for all results in a folder, and the same in words as Markdown.

    On top stand the number of working chips with each method and what to do next, then a
    leaderboard, then the suites in the order of their importance. The page is one self-contained
    file; clicking on a column sorts a table.

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
    sections = collect(folder)
    chapters, others = _chapters(sections)
    if not chapters:
        raise DataError(
            f"{str(folder)!r} holds no results that a report can show, only {', '.join(others)}. "
            "Pass the --out folder of spikewvat bench, compare or train."
        )
    target = Path(out or folder)
    files.check_writable(target)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template), autoescape=True, undefined=jinja2.StrictUndefined
    )
    heading, found, boards = title or TITLE, answer(sections), leaderboards(sections)
    page = environment.get_template("page.html").render(
        title=heading,
        made=provenance(),
        overview=_overview(chapters),
        answer=found,
        boards=boards,
        chapters=chapters,
        others=others,
        picture=_picture,
    )
    files.write_atomic(target / PAGE, page)
    files.write_atomic(target / TABLES, _markdown(heading, chapters, found, boards))
    return target / PAGE


def _template(name: str) -> str:
    return (resources.files("spikewvat.lab.report") / name).read_text(encoding="utf-8")


def _chapters(sections: Sequence[Section]) -> tuple[list[_Chapter], list[str]]:
    """Return the chapters, and the files that belong to no kind of result."""
    chapters, others = [], []
    for section in sections:
        parts = parts_of(section)
        shown = {name for part in parts for name in part.shows}
        unknown = [*section.others, *section.results]
        others += [f"{section.folder.name}/{n}.json" for n in unknown if n not in shown]
        failed, skipped = section.failures, section.skipped
        gaps = [
            _Gap(number, what, items)
            for number, what, items in (
                (len(section.missing), "row not run|rows not run", section.missing),
                (len(section.fewer), f"row {_FEWER}|rows {_FEWER}", section.fewer),
                (_jobs(failed), "job failed|jobs failed", _by_error(failed)),
                (
                    _jobs(skipped),
                    "job without its data|jobs without their data",
                    _by_error(skipped),
                ),
                (
                    len(section.unreadable),
                    "file not readable|files not readable",
                    section.unreadable,
                ),
            )
            if number
        ]
        if parts or gaps:
            chapters.append(_Chapter(section, parts, gaps))
    return chapters, others


_FEWER = "with fewer trainings than others"


def _jobs(found: Mapping[str, Sequence[str]]) -> int:
    return sum(map(len, found.values()))


def _by_error(jobs: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{', '.join(names)}: {error}" for error, names in jobs.items()]


def _overview(chapters: Sequence[_Chapter]) -> str:
    """Return one sentence on the numbers of available and missing results."""
    found = [
        _Gap(len(chapters), "suite|suites", ()),
        _Gap(
            sum(len(c.section.results) for c in chapters), "row with results|rows with results", ()
        ),
    ]
    for what in dict.fromkeys(gap.what for chapter in chapters for gap in chapter.gaps):
        counts = (gap.number for chapter in chapters for gap in chapter.gaps if gap.what == what)
        found.append(_Gap(sum(counts), what, ()))
    return f"{', '.join(map(str, found))}."


def _markdown(
    title: str, chapters: Sequence[_Chapter], found: Answer | None, boards: Sequence[Table]
) -> str:
    blocks = [f"# {escaped(title)}"]
    if found is not None:
        blocks += [escaped(found.sentence), f"**Next:** {escaped(found.next)}"]
        blocks += [escaped(found.note)] if found.note else []
    blocks += ["## Leaderboard", escaped(boards[0].title), boards[0].markdown()] if boards else []
    blocks.append(_overview(chapters))
    for chapter in chapters:
        blocks.append(f"## {escaped(chapter.section.suite.title)}")
        blocks += [f"{gap}: {escaped('; '.join(gap.items))}." for gap in chapter.gaps]
        blocks += [part.markdown() for part in chapter.parts]
    return "\n\n".join(blocks) + "\n"


def _picture(figure: Figure) -> str:
    """Return a figure as a ``data:`` URL."""
    buffer = io.BytesIO()
    metadata: dict[str, Any] = {"Software": None}  # the same figures are the same page
    figure.savefig(buffer, format="png", dpi=130, metadata=metadata)
    return "data:image/png;base64," + base64.b64encode(with_palette(buffer.getvalue())).decode()
