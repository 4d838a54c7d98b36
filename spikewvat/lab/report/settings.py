"""Settings that were tried on held-out data, and those that were chosen."""

from __future__ import annotations

from spikewvat.lab.report.collect import Section
from spikewvat.lab.report.content import Part, Table
from spikewvat.lab.suites.tried import HEADS, how_chosen, settings_tried


def settings(section: Section) -> list[Part]:
    """Return a part on the choice of settings for each set-up that had one."""
    parts = []
    for setup in section.suite.setups:
        chosen = [result for _, result in section.found(setup) if result.selection is not None]
        if chosen:
            table = Table(HEADS, settings_tried(setup, section.results))
            name = f"Settings: {setup.name}"
            parts.append(Part(name, frozenset(), note=how_chosen(chosen[0]), details=[table]))
    return parts
