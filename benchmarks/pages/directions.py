"""The table of the study of directions: accuracy, and the paired difference from WVAT."""

from __future__ import annotations

from pages.shared import NotRunError, results_of, row_of
from spikewvat.bench import RowResult, read_suite
from spikewvat.bench.table import times
from spikewvat.robustness import compare

_SIGMAS = (0.10, 0.15)


def directions() -> str:
    """Return the table, set-up by set-up."""
    suite = read_suite("directions")
    found = results_of(suite)
    heads = ["set-up", "method", "γ", "α", "ideal", *(f"σ = {100 * s:g} %" for s in _SIGMAS)]
    heads += [*(f"minus WVAT at {100 * s:g} %" for s in _SIGMAS), "time"]
    lines = [row_of(heads), row_of(["---", "---", *["--:"] * (len(heads) - 2)])]
    for setup in suite.setups:
        rows = [row for row in setup.rows if row.name in found]
        reference = next((row for row in rows if row.name.endswith("-wvat")), None)
        if reference is None:
            continue
        duration = times(setup, found)
        for number, row in enumerate(rows):
            result = found[row.name]
            settings = dict(part.split("=", 1) for part in row.overrides)
            lines.append(
                row_of(
                    [
                        f"{setup.name}, {len(result.curves)} seeds" if number == 0 else "",
                        row.method,
                        settings.get("method.gamma", "-"),
                        settings.get("method.alpha", "-"),
                        f"{100 * result.clean:.1f}",
                        *(f"{100 * result.mean(result.sigmas.index(s)):.1f}" for s in _SIGMAS),
                        *(_difference(result, found[reference.name], s) for s in _SIGMAS),
                        duration.get(row.name, "-"),
                    ]
                )
            )
    if len(lines) == 2:
        raise NotRunError("directions")
    return "\n".join(lines)


def _difference(result: RowResult, reference: RowResult, sigma: float) -> str:
    if result is reference:
        return "-"
    methods = {"reference": reference.curves, "method": result.curves}
    found = compare(methods, sigma=sigma).between("method", "reference").found
    low, high = found.interval()
    return f"{100 * found.mean:+.2f} ({100 * low:+.2f} .. {100 * high:+.2f})"
