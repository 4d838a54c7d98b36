"""What a report consists of, and how it looks as Markdown."""

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
        columns: Heads.
        rows: Cells, as many as there are columns.
        title: Above the table, where a part has several.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""

    def markdown(self) -> str:
        """Return the table as Markdown."""
        return markdown_table(self.columns, self.rows)


@dataclass(frozen=True)
class Picture:
    """A figure and what it shows, for those who do not see it."""

    figure: Figure
    text: str


@dataclass(frozen=True)
class Part:
    """A comparison: what it says, its tables and pictures.

    Args:
        name: Heading.
        shows: Names of the result files that it shows.
        sentences: A summary, made from the figures.
        tables: What was found.
        pictures: The same to look at.
        note: What the figures are.
        runs: How each row was run, by row.
    """

    name: str
    shows: frozenset[str]
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    note: str = ""
    runs: Sequence[tuple[str, str]] = ()

    def markdown(self) -> str:
        """Return summary, tables and note as Markdown."""
        blocks = [f"### {escaped(self.name)}", *map(escaped, self.sentences)]
        for table in self.tables:
            blocks += [f"**{escaped(table.title)}**"] if table.title else []
            blocks.append(table.markdown())
        return "\n\n".join([*blocks, *([escaped(self.note)] if self.note else [])])
