"""Tables of suites that choose settings on held-out data: accuracies, margins, settings."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pages.shared import NotRunError, markdown_table, path_of, results_of
from spikewvat.formatting import MISSING, interval, percent
from spikewvat.lab.suites import Suite, markdown, read_suite
from spikewvat.lab.suites.suite import Setup
from spikewvat.lab.suites.table import cells, extent, sizes_note
from spikewvat.lab.suites.tried import HEADS, how_chosen, settings_tried
from spikewvat.results import RowResult, StepTimes
from spikewvat.robustness import paired_differences
from spikewvat.robustness.differences import Difference
from spikewvat.robustness.statistics import holm
from spikewvat.serialisation import read

SIZES = (0.05, 0.10)
"""What measured devices have, and a stress test."""
LEAGUE = ("cnn-plain", "cnn-hsv", "cnn-sam", "cnn-awp", "cnn-wvat", "cnn-momentum")
_STEPS = {
    "cnn-hsv": ("overhead", "HSV only"),
    "cnn-sam": ("overhead", "SAM"),
    "cnn-awp": ("overhead", "AWP"),
    "cnn-wvat": ("overhead", "WVAT"),
    "cnn-momentum": ("directions_steps", "momentum and HSV at once"),
}
"""Where the time of a method's step was measured, on the league's network in snnTorch."""


def league() -> str:
    """Return the short table of the tuned league: accuracies, working chips, time of a step."""
    suite = read_suite("tuned").chosen(LEAGUE)
    (setup,), found = suite.setups, results_of(suite)
    if len(found) < len(LEAGUE):
        raise NotRunError(str(set(LEAGUE) - set(found)))
    lines = []
    for row in setup.rows:
        *accuracies, _drop, _spread, _worst, works = cells(found[row.name], row)[:7]
        lines.append([row.method, *accuracies, works, _step(row.name)])
    sizes = [_sigma(size) for size in (0.0, *SIZES)]
    heads = ["", *sizes, "chips that work", "time of a step"]
    run = extent(next(iter(found.values())))
    note = (
        f"Accuracy in %, mean ± standard deviation over trainings ({run}); "
        f"{sizes_note(found.values())}; chips that work at the largest of them. "
        "Steps were timed on a network of this kind in snnTorch."
    )
    return f"{markdown_table(heads, lines)}\n\n{note}"


def _step(name: str) -> str:
    """Return the time of a method's step over a plain one."""
    if name not in _STEPS:
        return "1"
    folder, method = _STEPS[name]
    network = next(iter(read(path_of(folder, "methods"), StepTimes).by_setup.values()))
    return f"{network[method].ratio:.2f}"


def tuned(name: str, network: str) -> str:
    """Return the table of a network: accuracy at each sigma, and on the other chips."""
    return markdown(*_of(name, network))


def margins(name: str, network: str, reference: str) -> str:
    """Return the differences of all methods from one, on the same seeds, chips and images.

    Args:
        name: Name of the suite.
        network: Name of the set-up's recipe.
        reference: Name of the method that is subtracted.

    Raises:
        NotRunError: If it has no result, or no other method has.
    """
    setup, differences = _differences(name, network, reference)
    methods = {row.name: row.method for row in setup.rows}
    lines = [
        [methods[row], *(_text(one, p) for one, p in found)] for row, found in differences.items()
    ]
    heads = [f"minus {methods[f'{network}-{reference}']}", *(_sigma(size) for size in SIZES)]
    return markdown_table(heads, lines)


def networks(name: str) -> str:
    """Return the accuracies on all networks, in bold where they are not those of noise injection.

    Networks on which noise injection has not been run are left out.

    Raises:
        NotRunError: If that is so for all.
    """
    suite = read_suite(name)
    found = results_of(suite)
    blank = [MISSING] * len(SIZES)
    heads, lines = [""], {row.method: [row.method] for setup in suite.setups for row in setup.rows}
    for setup in suite.setups:
        with suppress(NotRunError):
            _, differences = _differences(name, Path(setup.recipe or "").stem, "hsv")
            heads += [f"{setup.name}, {_sigma(size)}" for size in SIZES]
            texts = {
                row.method: _accuracies(found[row.name], differences.get(row.name, ()))
                for row in setup.rows
                if row.name in found
            }
            for method, line in lines.items():
                line += texts.get(method, blank)
    if len(heads) == 1:
        raise NotRunError(name)
    return markdown_table(heads, [line for line in lines.values() if set(line[1:]) - {MISSING}])


def _accuracies(result: RowResult, differences: Sequence[tuple[Difference, float]]) -> list[str]:
    """Return the accuracy at each size, in bold where the difference is beyond chance."""
    texts = [percent(result.mean(result.sigmas.index(size))) for size in SIZES]
    for place, (_, p) in enumerate(differences):
        if p < 0.05:
            texts[place] = f"**{texts[place]}**"
    return texts


def _differences(
    name: str, network: str, reference: str
) -> tuple[Setup, dict[str, list[tuple[Difference, float]]]]:
    """Return a network's set-up and each row's differences from one, with p-values after Holm.

    Raises:
        NotRunError: If the reference has no result, or no other row has.
    """
    suite, found = _of(name, network)
    (setup,) = suite.setups
    curves = {row.name: found[row.name].curves for row in setup.rows if row.name in found}
    baseline = f"{network}-{reference}"
    if baseline not in curves or len(curves) < 2:
        raise NotRunError(baseline)
    tables = [paired_differences(curves, sigma=sigma, reference=baseline) for sigma in SIZES]
    adjusted = iter(holm([d.found.p_value for table in tables for d in table.differences]))
    rows: dict[str, list[tuple[Difference, float]]] = {}
    for table in tables:
        for difference in table.differences:
            rows.setdefault(difference.method, []).append((difference, next(adjusted)))
    return setup, rows


def _sigma(size: float) -> str:
    return f"σ = {percent(size, 0)} %"


def settings(name: str, network: str) -> str:
    """Return the settings that each method has tried, with their scores on held-out data."""
    suite, found = _of(name, network)
    (setup,) = suite.setups
    table = markdown_table(HEADS, settings_tried(setup, found), names=2)
    return f"{table}\n\n{how_chosen(next(iter(found.values())))}"


def _of(name: str, network: str) -> tuple[Suite, dict[str, RowResult]]:
    """Return the suite with the rows of a network that were run, and their results."""
    suite = read_suite(name).chosen([f"{network}-*"])
    found = results_of(suite)
    if not found:
        raise NotRunError(network)
    return suite.chosen(list(found)), found


def _text(difference: Difference, p: float) -> str:
    """Return a difference in points with its intervals, in bold if it is beyond chance."""
    low, high = (100 * bound for bound in difference.found.interval())
    mean = f"{100 * difference.found.mean + 0.0:+.2f}"
    text = f"{f'**{mean}**' if p < 0.05 else mean} ({interval(low, high, '+.2f')}"
    if difference.new_images is not None:
        text += f"; new images {interval(*(100 * b for b in difference.new_images), '+.2f')}"
    return f"{text}), p = {p:.2g}"
