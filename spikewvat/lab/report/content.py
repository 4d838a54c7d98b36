"""The parts of a report, and their Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spikewvat.formatting import escaped, markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Args:
        columns: Headings.
        rows: Texts, one per column.
        title: Title of the table, if the part has several.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def markdown(self) -> str:
        """Return the table as Markdown."""
        return markdown_table(self.columns, self.rows)


@dataclass(frozen=True)
class Picture:
    """A figure with a text alternative."""

    figure: Figure
    text: str


@dataclass(frozen=True)
class Part:
    """A comparison: summary, picture and table, and what is folded away below them.

    Args:
        name: Heading of the part.
        shows: Names of the result files shown.
        sentences: Summary, generated from the results.
        tables: Tables of the results, of at most seven columns.
        pictures: Pictures of the results.
        note: Explanation of the numbers.
        details: Tables with all figures.
        runs: Details of the run of each row.
    """

    name: str
    shows: frozenset[str]
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    note: str = ""
    details: Sequence[Table] = ()
    runs: Sequence[tuple[str, str]] = ()

    def markdown(self) -> str:
        """Return summary, tables and note as Markdown."""
        blocks = [f"### {escaped(self.name)}", *map(escaped, self.sentences)]
        for table in self.tables:
            blocks += [f"**{escaped(table.title)}**"] if table.title else []
            blocks.append(table.markdown())
        return "\n\n".join([*blocks, *([escaped(self.note)] if self.note else [])])
