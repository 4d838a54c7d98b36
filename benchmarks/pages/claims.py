"""The table of published statements, each held against our results."""

from __future__ import annotations

from pages.shared import NotRunError, results_of, row_of
from spikewvat.bench import Verdict, read_suite, verdicts
from spikewvat.places import suite_names

OURS = "directions"
"""A study of our own, not of the paper."""
_UNITS = {"accuracy": "accuracy", "drop": "points lost", "rise": "rise of the loss"}


def claims(*suites: str) -> str:
    """Return the statements of suites, by default of all of the paper's, with any result."""
    found = []
    chosen = suites or [name for name in suite_names() if name != OURS]
    for name in (name for name in suite_names() if name in chosen):
        suite = read_suite(name)
        found += [(name, verdict) for verdict in verdicts(suite.claims, results_of(suite))]
    if not found:
        raise NotRunError("claims")
    heads = ["suite", "statement", "here", "figures", "closest lead"]
    lines = [row_of(heads), row_of(["---"] * len(heads))]
    for name, verdict in found:
        text = verdict.claim.text
        lines.append(
            row_of([f"`{name}`", text, verdict.word, _figures(verdict), verdict.lead_text or "-"])
        )
    return "\n".join(lines)


def _figures(verdict: Verdict) -> str:
    values = {**verdict.better, **verdict.worse}
    digits = ".3g" if verdict.claim.of == "rise" else ".1f"
    texts = (f"{n} {'-' if v is None else format(v, digits)}" for n, v in values.items())
    return f"{_UNITS[verdict.claim.of]}: {', '.join(texts)}"
