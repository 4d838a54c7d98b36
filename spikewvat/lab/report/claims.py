"""Claims, published or a suite's own, compared with the results of the suite."""

from __future__ import annotations

from collections import Counter

from spikewvat.formatting import MISSING
from spikewvat.lab.report.collect import Section
from spikewvat.lab.report.content import Part, Table
from spikewvat.lab.suites import verdicts
from spikewvat.lab.suites.claims import FILE


def claims(section: Section) -> list[Part]:
    """Return a part on the claims about the rows of a suite, if there are any."""
    found = verdicts(section.suite.claims, section.results)
    if not found:
        return []
    counts = Counter(verdict.word for verdict in found)
    table = Table(
        ["statement", "verdict", "figures", "lead", "p after Holm"],
        [
            [
                verdict.claim.text,
                verdict.word,
                verdict.numbers(MISSING),
                verdict.lead_text or MISSING,
                verdict.p_text or MISSING,
            ]
            for verdict in found
        ],
    )
    return [
        Part(
            "Published statements" if section.suite.published else "Statements",
            frozenset([FILE.removesuffix(".json")]),
            [
                f"Of {len(found)}, {counts['supported']} supported, {counts['contradicted']} "
                f"contradicted, {counts['undecided']} undecided."
            ],
            [table],
            note="Figures are means over training seeds and chips, accuracy or lost points in %. "
            "The lead is that of the pair of rows that decides, paired by training and chip. A "
            "statement is undecided if the 95 % interval of its lead includes 0, or the margin. "
            "The p-value is for a lead of just the margin, corrected for the number of statements.",
        )
    ]
