"""Tables of networks: suites with published figures, conversions over time and against peers."""

from __future__ import annotations

from typing import Any

from pages.shared import RESULTS, SNNTORCH, NotRunError, load, markdown_table, path_of, results_of
from spikewvat.formatting import MISSING, percent, within
from spikewvat.lab.suites import markdown, read_suite
from spikewvat.lab.suites.table import cells
from spikewvat.results import RowResult
from spikewvat.robustness.hierarchy import Hierarchy, hierarchical
from spikewvat.robustness.statistics import FRACTIONS, mean_of
from spikewvat.serialisation import read

WRONG = 0.1
"""Error of the scores, relative to their size, above which a network counts as wrong."""


def comparison(name: str, *patterns: str) -> str:
    """Return the table of a suite: accuracy at each sigma, drop, spread, worst chip, yield."""
    suite = read_suite(name).chosen(patterns)
    found = results_of(suite)
    if not found:
        raise NotRunError(name)
    return markdown(suite, found)


def screening() -> str:
    """Return the accuracy at the largest variation of each method on each network."""
    suite = read_suite("screening")
    found = results_of(suite)
    if not found:
        raise NotRunError("screening")
    lines: dict[str, list[str]] = {}
    for setup in suite.setups:
        for row in setup.rows:
            result = found.get(row.name)
            method = "plain" if row.name == setup.baseline else row.method
            lines.setdefault(method, []).append(
                MISSING
                if result is None
                else f"{percent(result.mean(-1))} ({percent(result.clean)})"
            )
    heads = ["", *(setup.name for setup in suite.setups)]
    return markdown_table(heads, [[method, *texts] for method, texts in lines.items()])


def corruptions() -> str:
    """Return the table of corruptions of spikes, at the middle and the strongest level."""
    suite = read_suite("spikes")
    found = results_of(suite)
    if not found:
        raise NotRunError("spikes")
    methods = [row.method for row in suite.setups[0].rows]
    lines = []
    for setup in suite.setups:
        rows = [found[row.name] for row in setup.rows if row.name in found]
        if len(rows) < len(methods):
            continue
        last = len(rows[0].sigmas) - 1
        for place in ((last + 1) // 2, last):
            name = setup.name if place < last else ""
            texts = [percent(row.mean(place)) for row in rows]
            reports = [curve.reports[place] for curve in rows[0].curves]
            spikes = mean_of([r.activity.spikes for r in reports if r.activity is not None])
            severity = rows[0].axis.size(rows[0].sigmas[place])
            lines.append([name, severity, *texts, f"{spikes:.0f}"])
    heads = ["corruption", "severity", *methods, f"spikes, {methods[0]}"]
    return markdown_table(heads, lines, names=2)


def simulated() -> str:
    """Return the table of networks trained on simulated and on real recordings."""
    lines = []
    for folder, source in (("nmnist", "real recordings"), ("simulated", "simulated recordings")):
        for row in read_suite("nmnist").chosen(SNNTORCH).rows:
            path = RESULTS / folder / f"{row.name}.json"
            if path.exists():
                unvaried, *_, noisy, _, _, _, _ = cells(read(path, RowResult))
                lines.append([source, row.method, unvaried, noisy])
    heads = ["trained on", "method", "real test recordings", "at σ = 10 %"]
    return markdown_table(heads, lines, names=2)


def conversion_steps() -> str:
    """Return the table of converted networks against the number of steps."""
    rows = [row for row in read_suite("conversion").rows if row.name.startswith("lenet")]
    found = {row.name: row for row in rows if row.conversion == "convert"}
    results = {name: read(path_of("conversion", name), RowResult).converted for name in found}
    steps = next(iter(results.values()))[0].over_time.steps
    lines = []
    for name, seeds in results.items():
        sweeps = [seed.over_time for seed in seeds]
        means = [mean_of(column) for column in zip(*(s.accuracies for s in sweeps), strict=True)]
        spikes = mean_of([s.spikes[s.steps.index(16)] for s in sweeps])
        ann = mean_of([seed.ann for seed in seeds])
        figures = [percent(value, 2) for value in (ann, *means)]
        lines.append([found[name].method, *figures, f"{spikes:.0f}"])
    heads = ["ANN trained by", "ANN", *(f"T = {step}" for step in steps), "spikes at T = 16"]
    return markdown_table(heads, lines)


def conversion_peer() -> str:
    """Return the table of accuracy and time compared with SpikingJelly's ann2snn."""
    result = load("speed", "conversion_peer")
    steps = [row["steps"] for row in result["speed"]]
    chips = f"σ = {100 * result['sigma']:g} %"
    lines = [
        [row["side"], *(percent(value) for value in (*row["clean"], *row["chips_mean"]))]
        for row in result["rows"]
    ]
    times = [within(row["ratio"], *row["quartiles"]) for row in result["speed"]]
    lines.append(["our time as a share of ann2snn's", *times, *[""] * len(steps)])
    heads = ["", *(f"T = {step}" for step in steps), *(f"{chips}, T = {step}" for step in steps)]
    return markdown_table(heads, lines)


def convertible() -> str:
    """Return the table of what becomes of small networks of many kinds."""
    result = load("conversion", "convertible")
    lines = []
    for side, count in result["counts"].items():
        wrong = [row["network"] for row in result["rows"] if row[side].get("error", 0) > WRONG]
        numbers = [str(count[kind]) for kind in ("converted", "refused", "wrong")]
        lines.append([side, *numbers, "; ".join(wrong)])
    return markdown_table(["", "converted", "refused", "wrong", "which"], lines)


def few_steps() -> str:
    """Return the table of accuracy within few steps without variation, and of what it costs."""
    result = load("conversion", "few_steps")
    steps, four = result["steps"], result["steps"].index(4)
    taken = result.get("times", {}).get("ms", {})
    lines = []
    for side, rows in _sides(result).items():
        means = [mean_of(column) for column in zip(*(r["accuracy"] for r in rows), strict=True)]
        line = [side, str(len(rows)), *map(percent, means)]
        if len(means) == len(steps):
            line += [
                f"{mean_of([row['spikes'][four] for row in rows]):.0f}",
                f"{mean_of([row['operations'][four] for row in rows]) / 1e3:.0f}",
                f"{taken[side]:.2f}" if side in taken else "",
            ]
        lines.append(line)
    heads = ["", "trainings", *(f"T = {step}" for step in steps)]
    return _filled([*heads, "spikes", "1000 operations", "ms an image"], lines)


def few_steps_on_chips(sigma: str) -> str:
    """Return the table of accuracy on chips within few steps, with 95 % intervals."""
    result = load("conversion", "few_steps")
    lines = []
    for side, rows in _sides(result).items():
        by_steps = zip(*(row["chips"][sigma] for row in rows), strict=True)
        found = [hierarchical(chips, same_chips=True, bounds=FRACTIONS) for chips in by_steps]
        lines.append([side, str(len(rows)), *map(_percent_within, found)])
    return _filled(["", "trainings", *(f"T = {step}" for step in result["steps"])], lines)


def _percent_within(found: Hierarchy) -> str:
    low, high = found.interval()
    return within(*(100 * v for v in (found.mean, max(low, 0), min(high, 1))), ".1f")


def _sides(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of all trainings by side."""
    sides: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        sides.setdefault(row["side"], []).append(row)
    return sides


def _filled(heads: list[str], lines: list[list[str]]) -> str:
    return markdown_table(heads, [line + [""] * (len(heads) - len(line)) for line in lines])


def torchvision() -> str:
    """Return the table of torchvision's networks."""
    result = load("conversion", "torchvision")
    lines = []
    for row in result["rows"]:
        peer = row.get("ann2snn_ms")
        lines.append(
            [
                row["network"],
                f"{row['parameters'] / 1e6:.1f}",
                str(row["handed_over"]),
                *(f"{value:.3f}" for value in row["correlation"]),
                f"{row['amplification']:.0f}" if "amplification" in row else "",
                f"{row['seconds'][1]:.1f}",
                f"{row['memory_mb']}",
                f"{row['ours_ms']:.1f}",
                "refused" if peer is None else f"{peer:.1f}",
            ]
        )
    heads = ["", "million parameters", "layers with analog input"]
    heads += [f"correlation, T = {step}" for step in result["steps"]]
    return markdown_table(
        [*heads, "amplification", "s", "MB", "ms an image-step", "ann2snn"], lines
    )


def balancing() -> str:
    """Return the table of thresholds chosen without variation, over chips, for each chip."""
    lines = []
    for row in load("conversion", "balancing")["rows"]:
        gain = ""
        if "gain" in row:
            gain = within(*(100 * value for value in (row["gain"], *row["gain_ci95"])), "+.2f")
        side = row["side"].replace("clean weights", "weights without variation")
        lines.append([side, str(row["steps"]), percent(row["mean"], 2), gain])
    return markdown_table(["thresholds from", "T", "accuracy", "gain in points (95 % CI)"], lines)
