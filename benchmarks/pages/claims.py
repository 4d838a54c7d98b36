"""The table of published statements, each held against our results."""

from __future__ import annotations

from pages.shared import RESULTS, NotRunError, markdown_table, results_of
from spikewvat.formatting import MISSING
from spikewvat.lab.places import suite_names
from spikewvat.lab.suites import read_suite, verdicts
from spikewvat.lab.suites.claims import FILE, write_verdicts


def claims() -> str:
    """Return the published statements of all suites that have any result."""
    found = []
    for name in suite_names():
        suite = read_suite(name)
        if suite.published:
            found += [(name, verdict) for verdict in verdicts(suite.claims, results_of(suite))]
    if not found:
        raise NotRunError("claims")
    heads = ["suite", "statement", "verdict", "figures", "lead", "p after Holm"]
    rows = [
        [
            f"`{name}`",
            verdict.claim.text,
            verdict.word,
            f"{verdict.what}: {verdict.numbers(MISSING)}",
            verdict.lead_text or MISSING,
            verdict.p_text or MISSING,
        ]
        for name, verdict in found
    ]
    return markdown_table(heads, rows, names=len(heads))


def write_claims() -> None:
    """Write the verdicts beside the results of each suite, as ``spikewvat bench`` does."""
    for name in suite_names():
        suite = read_suite(name)
        if found := verdicts(suite.claims, results_of(suite)):
            write_verdicts(found, RESULTS / name / FILE)
