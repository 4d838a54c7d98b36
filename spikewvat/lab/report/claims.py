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
    published = section.suite.published
    counts = Counter(verdict.word for verdict in found)
    one = counts["reproduced"] == 1
    if published:
        held = f"published statements {counts['reproduced']} {'is' if one else 'are'} reproduced"
    else:
        held = f"statements {counts['reproduced']} {'holds' if one else 'hold'}"
    sentences = [
        f"Of {len(found)} {held}, {counts['not reproduced']} not, "
        f"{counts['unknown']} cannot be judged; "
        f"{sum(verdict.beyond_chance is True for verdict in found)} verdicts are beyond chance."
    ]
    if published:
        sentences += [f"{verdict}." for verdict in found if verdict.reproduced is False]
    words = {} if published else {"reproduced": "holds", "not reproduced": "does not hold"}
    table = Table(
        ["statement", "here", "figures", "closest lead"],
        [
            [
                verdict.claim.text,
                words.get(verdict.word, verdict.word),
                verdict.numbers(MISSING),
                verdict.lead_text or MISSING,
            ]
            for verdict in found
        ],
    )
    return [
        Part(
            "Published statements" if published else "Statements",
            frozenset([FILE.removesuffix(".json")]),
            sentences,
            [table],
            note="Mean over training seeds and chips, accuracy or lost points in %. The lead is "
            "that of the closest pair of rows, paired by training and chip, in the same unit; "
            "chance is 5 % over trainings and chips.",
        )
    ]
