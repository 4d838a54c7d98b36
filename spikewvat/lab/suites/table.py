"""Tables of rows, with published results."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from spikewvat.devices import ErrorSize
from spikewvat.devices.conventions import over_all
from spikewvat.errors import DataError
from spikewvat.formatting import MISSING, duration, escaped, markdown_table, percent
from spikewvat.lab.suites.suite import Row, Setup, Suite
from spikewvat.results import RowResult
from spikewvat.robustness.axis import SETTINGS
from spikewvat.robustness.statistics import mean_of, sample_std

_RANGES = {
    "SixSigma": "the 6-sigma width of each layer",
    "HalfWidth": "half of the 6-sigma width of each layer",
    "AbsMax": "the largest magnitude in each layer",
    "MinMax": "the width from the least to the largest weight of each layer",
}


def published(row: Row, result: RowResult) -> float | None:
    """Return the published accuracy in % at the largest variation, or None."""
    without_ideal = len(row.paper) == len(result.sigmas)
    with_ideal = not result.holds_ideal and len(row.paper) == len(result.sigmas) + 1
    return row.paper[-1][0] if without_ideal or with_ideal else None


def header(results: Iterable[RowResult]) -> list[str]:
    """Return the headings of a table of rows evaluated at the same sizes."""
    some = next(iter(results))
    axis = some.axis
    last = axis.size(some.sigmas[-1])
    return [
        *([] if some.holds_ideal else ["no variation"]),
        *([axis.heading(size) for size in some.sigmas] if some.sized else ["on chips"]),
        f"drop at {last}" if some.sized else "drop",
        "spread over chips",
        "worst chip",
        "chips that work",
        *([f"spikes at {last}", f"operations at {last}"] if some.counted else []),
        *(some.columns[0] if some.columns else []),
    ]


def cells(result: RowResult, row: Row | None = None) -> list[str]:
    """Return the texts of one row, with published results and differences in brackets.

    Args:
        result: Our results.
        row: Holds the published results, if any.
    """
    figures = [(result.mean(i), result.std(i)) for i in range(len(result.sigmas))]
    paper = () if row is None else row.paper
    if not result.holds_ideal:
        figures.insert(0, (result.clean, result.clean_std))
        if 0 < len(paper) <= len(result.sigmas):
            paper = ((math.nan,), *paper)  # published without the accuracy for no variation
    texts = []
    for index, (mean, std) in enumerate(figures):
        text = percent(mean)
        if len(result.curves) > 1:
            text += f" ± {percent(std)}"
        if index < len(paper):
            text += _beside(100 * mean, paper[index][0])
        texts.append(text)
    everything = result.pooled
    report, drop = everything.reports[-1], everything.drops[-1]
    whole = len(paper) == len(figures)
    texts += [
        percent(drop) + (_beside(100 * drop, paper[0][0] - paper[-1][0]) if whole else ""),
        percent(result.spread),
        percent(report.worst),
    ]
    if report.target is None:
        texts.append(MISSING)
    else:
        chips = report.yield_at(report.target)
        texts.append(f"{chips.working} of {chips.chips} ≥ {100 * report.target:g} %")
    if report.activity is not None and everything.activity is not None:
        found, clean = report.activity, everything.activity
        texts += [
            _changed(found.spikes, clean.spikes),
            _changed(found.operations, clean.operations),
        ]
    for name in result.columns[0] if result.columns else ():
        means = [reports[name].mean for reports in result.columns]
        text = percent(mean_of(means))
        texts.append(f"{text} ± {percent(sample_std(means))}" if len(means) > 1 else text)
    return texts


def _beside(measured: float, published: float) -> str:
    """Return a published figure and ours minus it, in brackets; nothing if none was published."""
    return "" if math.isnan(published) else f" ({published:.1f}, {measured - published:+.1f})"


def times(setup: Setup, results: Mapping[str, RowResult]) -> dict[str, str]:
    """Return the training times of rows by name, relative to the set-up's baseline.

    Args:
        setup: Set-up with the baseline; without a baseline the result is empty.
        results: Results by row name.
    """
    if setup.baseline is None or setup.baseline not in results:
        return {}
    found = {row.name: results[row.name] for row in setup.rows if row.name in results}
    taken = {name: mean_of(result.seconds) for name, result in found.items() if result.seconds}
    unit = taken.get(setup.baseline, 0)
    return {name: f"{seconds / unit:.2f}" for name, seconds in taken.items()} if unit else {}


def _units(setups: Iterable[Setup], results: Mapping[str, RowResult]) -> str:
    """Return how long the training of each set-up's baseline took, where that is known."""
    rows = [results[s.baseline] for s in setups if s.baseline and s.baseline in results]
    found = [duration(mean_of(row.seconds)) for row in rows if row.seconds]
    return f": {', '.join(found)}" if found else ""


def markdown(suite: Suite, results: Mapping[str, RowResult]) -> str:
    """Return the table of a suite with a note that explains its numbers.

    Args:
        suite: The suite, with rows in the order of the table. Set-ups evaluated at different sizes
            get separate tables.
        results: Results by row name; rows without a result are shown as missing.

    Raises:
        DataError: If no row has a result.
    """
    if not results:
        raise DataError(f"no row of {suite.title!r} has a result yet. Run the suite first.")
    runs = {name: extent(result) for name, result in results.items()}
    mixed = len(set(runs.values())) > 1
    tables: dict[tuple[str, ...], list[Setup]] = {}
    for setup in suite.setups:
        columns = _columns(setup, results) or next(iter(tables), ())
        tables.setdefault(columns, []).append(setup)
    first, *others = tables  # set-ups before the first that has a result have no columns
    if not first:
        tables[others[0]] = tables.pop(()) + tables[others[0]]
    parts = [
        _table(setups, columns, results, runs if mixed else {}, several=len(suite.setups) > 1)
        for columns, setups in tables.items()
    ]
    note = (
        f"Accuracy in %, mean ± standard deviation over training seeds"
        f"{'' if mixed else f' ({next(iter(runs.values()))})'}; {sizes_note(results.values())}; "
        "spread is the standard deviation over chips."
    )
    if any(result.counted for result in results.values()):
        note += (
            " Spikes and synaptic operations are means per image, in brackets the change from the "
            "network without variation and corruption."
        )
    if any(setup.baseline for setup in suite.setups):
        unit = _units(suite.setups, results)
        note += f" Training time is in units of the first method's{unit}."
    if any(row.paper for row in suite.rows):
        note += f" In brackets: {suite.source or 'the published figure'}, and ours minus it."
    return "\n\n".join([*parts, escaped(note)])


def sizes_note(results: Iterable[RowResult]) -> str:
    """Return a clause that explains the sizes of rows."""
    return "; ".join(dict.fromkeys(result.axis.note(range_words(result)) for result in results))


def errors_note(results: Iterable[RowResult]) -> str:
    """Return a clause that says how large errors are in each convention; empty if not known."""
    found: dict[str, ErrorSize] = {}
    for result in results:
        if result.errors:
            at = f" at {result.axis.heading(result.sigmas[-1])}" if result.sized else ""
            found.setdefault(f"errors{at}", over_all(result.errors))
    return "; ".join(f"{what} are {size}" for what, size in found.items())


def device_words(result: RowResult) -> str:
    """Describe the chips of a row at the largest variation, as it goes on after "on".

    Example:
        >>> import torch
        >>> from spikewvat.devices import Gaussian
        >>> from spikewvat.robustness import ChipReport, Degradation
        >>> report = ChipReport(repr(Gaussian(0.1)), 0.1, torch.ones(2).double(), (0, 1), 9)
        >>> device_words(RowResult((0,), (Degradation(1.0, (report,)),)))
        'chips with Gaussian variation, σ = 10 % of the 6-sigma width of each layer'
    """
    report, axis = result.curves[0].reports[-1], result.axis
    # What the size says anyway is left out: sigma, its range, and false switches.
    name = re.sub(r"(?:, )?\b(?:sigma=[^,)]*|range=\w+\([^)]*\)|\w+=False)", "", report.device)
    name = name.replace("(, ", "(").replace("()", "").replace(" >> ", ", then ")
    chips = "chips without variation" if name == "Ideal" else f"chips with {name} variation"
    if axis.name is not None:
        under = "" if axis in SETTINGS else "under "
        return f"{chips}, {under}{axis.heading(report.size)} ({axis.unit})"
    if report.sigma is None:
        return chips
    return f"{chips}, σ = {axis.size(report.sigma)} of {range_words(result)}"


def range_words(result: RowResult) -> str:
    """Return the range that sigma is a fraction of, from the device's description."""
    device = result.curves[0].reports[-1].device
    if device.startswith("Lognormal"):
        return "the logarithm of each weight"
    rules = re.findall(r"range=(\w+)\(", device) or ["SixSigma"]
    return " and ".join(dict.fromkeys(_RANGES.get(rule, f"the range {rule}") for rule in rules))


def _columns(setup: Setup, results: Mapping[str, RowResult]) -> tuple[str, ...]:
    """Return the headings of a set-up's results; none if it has no result."""
    found = [results[row.name] for row in setup.rows if row.name in results]
    if not found:
        return ()
    return (*header(found), *(["training time"] if setup.baseline else []))


def _table(
    setups: Sequence[Setup],
    columns: Sequence[str],
    results: Mapping[str, RowResult],
    runs: Mapping[str, str],
    *,
    several: bool,
) -> str:
    """Return one table; ``runs`` gives the scale of each run, if they differ."""
    heads = [*columns, *(["run"] if runs else [])]
    lines = []
    for setup in setups:
        taken = times(setup, results)
        for number, row in enumerate(setup.rows):
            texts = [MISSING] * len(heads)
            if row.name in results:
                texts = cells(results[row.name], row)
                texts += [taken.get(row.name, MISSING)] if setup.baseline else []
                texts += [runs[row.name]] if runs else []
            first = [setup.name if number == 0 else ""] if several else []
            lines.append([*first, row.method, *texts])
    return markdown_table([""] * (1 + several) + heads, lines, names=1 + several)


def _changed(value: float, clean: float) -> str:
    """Format a count and its change."""
    if math.isnan(value):
        return MISSING
    return f"{value:.4g}" + (f" ({100 * (value / clean - 1):+.0f} %)" if clean else "")


def extent(result: RowResult) -> str:
    """Describe the extent of a run: scale, seeds, samples."""
    seeds = len(result.seeds)
    return f"{result.scale} scale, {seeds} training seed{'s' if seeds > 1 else ''}, {result.extent}"
