"""The kinds of results in a report, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable

from spikewvat.lab.report.claims import claims
from spikewvat.lab.report.collect import Section
from spikewvat.lab.report.content import Part
from spikewvat.lab.report.conversion import conversion
from spikewvat.lab.report.landscape import landscape
from spikewvat.lab.report.overhead import overhead
from spikewvat.lab.report.settings import settings
from spikewvat.lab.report.variation import variation

KINDS: tuple[Callable[[Section], list[Part]], ...] = (
    variation,
    settings,
    claims,
    conversion,
    landscape,
    overhead,
)
"""Each returns its parts of a section, none if it finds no results."""


def parts_of(section: Section) -> list[Part]:
    """Return all parts of a section."""
    return [part for kind in KINDS for part in kind(section)]
