"""The study of perturbations that need one gradient: accuracy, paired difference from WVAT."""

from __future__ import annotations

from pages.shared import NotRunError, markdown_table, results_of
from spikewvat.formatting import MISSING, percent, within
from spikewvat.lab.suites import read_suite, verdicts
from spikewvat.results import RowResult
from spikewvat.robustness import paired_differences

_SIGMAS = (0.10, 0.15)


def directions() -> str:
    """Return the table, set-up by set-up."""
    suite = read_suite("directions")
    found = results_of(suite)
    heads = [
        "set-up",
        "method",
        "γ",
        "α",
        "seeds",
        "no variation",
        *(f"σ = {100 * s:g} %" for s in _SIGMAS),
    ]
    heads += [f"minus WVAT at {100 * s:g} %" for s in _SIGMAS]
    lines = []
    for setup in suite.setups:
        rows = [row for row in setup.rows if row.name in found]
        reference = next((row for row in rows if row.name.endswith("-wvat")), None)
        if reference is None:
            continue
        for number, row in enumerate(rows):
            result = found[row.name]
            lines.append(
                [
                    setup.name if number == 0 else "",
                    row.method,
                    *(str(result.settings.get(name, MISSING)) for name in ("gamma", "alpha")),
                    str(len(result.curves)),
                    percent(result.clean),
                    *(percent(result.mean(result.sigmas.index(s))) for s in _SIGMAS),
                    *(difference(result, found[reference.name], s) for s in _SIGMAS),
                ]
            )
    if not lines:
        raise NotRunError("directions")
    return markdown_table(heads, lines, names=2)


def direction_verdicts() -> str:
    """Return whether each method is at most so much below WVAT, at each sigma of each set-up."""
    suite = read_suite("directions")
    found = results_of(suite)
    methods = {row.name: row.method for row in suite.rows}
    cells: dict[str, dict[str, list[str]]] = {}
    for verdict in verdicts(suite.claims, found):
        if verdict.lead is not None:
            (better,), (worse,) = verdict.claim.better, verdict.claim.worse
            prefix = worse.removesuffix("-wvat")
            cells.setdefault(methods[better], {}).setdefault(prefix, []).append(verdict.word)
    prefixes = list(dict.fromkeys(prefix for by_setup in cells.values() for prefix in by_setup))
    if not prefixes:
        raise NotRunError("directions")
    names = {
        row.name.removesuffix("-wvat"): setup.name for setup in suite.setups for row in setup.rows
    }
    lines = [
        [method, *(", ".join(by_setup.get(prefix, [MISSING])) for prefix in prefixes)]
        for method, by_setup in cells.items()
    ]
    heads = ["", *(names[prefix] for prefix in prefixes)]
    return markdown_table(heads, lines, names=len(heads))


def difference(result: RowResult, reference: RowResult, sigma: float) -> str:
    """Return the paired difference over the trainings of seeds that both have."""
    if result is reference:
        return MISSING
    both = {"reference": reference.by_seed, "method": result.by_seed}
    seeds = [seed for seed in result.by_seed if seed in reference.by_seed]
    methods = {name: [curves[seed] for seed in seeds] for name, curves in both.items()}
    found = paired_differences(methods, sigma=sigma).between("method", "reference").found
    return within(*(100 * value for value in (found.mean, *found.interval())), "+.2f")
