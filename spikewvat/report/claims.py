"""Published statements, each held against the results of its suite."""

from __future__ import annotations

from collections import Counter

from spikewvat.bench import verdicts
from spikewvat.bench.claims import FILE
from spikewvat.report.collect import Section
from spikewvat.report.content import MISSING, Part, Table


def claims(section: Section) -> list[Part]:
    """Return a part on what is published about the rows of a suite, if anything is."""
    found = verdicts(section.suite.claims, section.results)
    if not found:
        return []
    counts = Counter(verdict.word for verdict in found)
    sentences = [
        f"Of {len(found)} published statements {counts['reproduced']} "
        f"{'is' if counts['reproduced'] == 1 else 'are'} reproduced, {counts['not reproduced']} "
        f"not, {counts['unknown']} cannot be judged; "
        f"{sum(verdict.beyond_chance is True for verdict in found)} verdicts are beyond chance."
    ]
    sentences += [f"{verdict}." for verdict in found if verdict.reproduced is False]
    table = Table(
        ["statement", "here", "figures", "closest lead"],
        [
            [
                verdict.claim.text,
                verdict.word,
                verdict.numbers(MISSING),
                verdict.lead_text or MISSING,
            ]
            for verdict in found
        ],
    )
    return [
        Part(
            "Published statements",
            frozenset([FILE.removesuffix(".json")]),
            sentences,
            [table],
            note="Mean over training seeds and chips, accuracy or lost points in %. The lead is "
            "that of the closest pair of rows, paired by training and chip, in the same unit; "
            "chance is 5 % over trainings and chips.",
        )
    ]
