"""Tables of networks: suites beside published figures, conversions over time and beside peers."""

from __future__ import annotations

from pages.shared import RESULTS, SNNTORCH, NotRunError, load, results_of, row_of
from spikewvat.lab.suites import RowResult, markdown, read_suite
from spikewvat.lab.suites.table import cells
from spikewvat.robustness.statistics import mean_of


def comparison(name: str, *patterns: str) -> str:
    """Return the table of a suite: accuracy at each sigma, drop, spread, worst chip, yield."""
    suite = read_suite(name).chosen(patterns)
    found = results_of(suite)
    if not found:
        raise NotRunError(name)
    return markdown(suite, found)


def corruptions() -> str:
    """Return the table of corruptions of spikes, at the middle and the strongest level."""
    suite = read_suite("spikes")
    found = results_of(suite)
    if not found:
        raise NotRunError("spikes")
    methods = [row.method for row in suite.setups[0].rows]
    lines = [
        row_of(["what happens", "severity", *methods, f"spikes, {methods[0]}"]),
        row_of(["---", "---", *["--:"] * (len(methods) + 1)]),
    ]
    for setup in suite.setups:
        rows = [found[row.name] for row in setup.rows if row.name in found]
        if len(rows) < len(methods):
            continue
        last = len(rows[0].sigmas) - 1
        for place in ((last + 1) // 2, last):
            name = setup.name if place < last else ""
            texts = [f"{100 * row.mean(place):.1f}" for row in rows]
            reports = [curve.reports[place] for curve in rows[0].curves]
            spikes = mean_of([r.activity.spikes for r in reports if r.activity is not None])
            severity = rows[0].axis.size(rows[0].sigmas[place])
            lines.append(row_of([name, severity, *texts, f"{spikes:.0f}"]))
    return "\n".join(lines)


def reenacted() -> str:
    """Return the table of networks trained on re-enacted and on real recordings."""
    lines = [
        row_of(["trained on", "method", "real test recordings", "at σ = 10 %"]),
        row_of(["---", "---", "--:", "--:"]),
    ]
    for folder, source in (("nmnist", "real recordings"), ("reenacted", "re-enacted recordings")):
        for row in read_suite("nmnist").chosen(SNNTORCH).rows:
            path = RESULTS / folder / f"{row.name}.json"
            if path.exists():
                ideal, *_, noisy, _, _, _, _ = cells(RowResult.read(path))
                lines.append(row_of([source, row.method, ideal, noisy]))
    return "\n".join(lines)


def conversion_steps() -> str:
    """Return the table of converted networks against the number of steps."""
    rows = [row for row in read_suite("conversion").rows if row.name.startswith("lenet")]
    found = {row.name: row for row in rows if row.conversion == "convert"}
    contents = {name: load("conversion", name)["conversion"] for name in found}
    steps = next(iter(contents.values()))[0]["over_time"]["steps"]
    lines = [
        row_of(["ANN trained by", "ANN", *(f"T = {step}" for step in steps), "spikes at T = 16"]),
        row_of(["---", *["--:"] * (len(steps) + 2)]),
    ]
    for name, seeds in contents.items():
        sweeps = [seed["over_time"] for seed in seeds]
        means = [mean_of(column) for column in zip(*(s["accuracies"] for s in sweeps), strict=True)]
        spikes = mean_of([s["spikes"][s["steps"].index(16)] for s in sweeps])
        ann = mean_of([seed["ann"] for seed in seeds])
        percent = [f"{100 * value:.2f}" for value in (ann, *means)]
        lines.append(row_of([found[name].method, *percent, f"{spikes:.0f}"]))
    return "\n".join(lines)


def conversion_peer() -> str:
    """Return the tables of accuracy and time beside SpikingJelly's ann2snn."""
    result = load("speed", "conversion_peer")
    steps = [row["steps"] for row in result["speed"]]
    chips = f"σ = {100 * result['sigma']:g} %"
    lines = [
        row_of(
            ["", *(f"T = {step}" for step in steps), *(f"{chips}, T = {step}" for step in steps)]
        ),
        row_of(["---", *["--:"] * (2 * len(steps))]),
    ]
    for row in result["rows"]:
        values = [*row["clean"], *row["chips_mean"]]
        lines.append(row_of([row["side"], *(f"{100 * value:.1f}" for value in values)]))
    times = [
        f"{row['ratio']:.2f} ({row['quartiles'][0]:.2f} .. {row['quartiles'][1]:.2f})"
        for row in result["speed"]
    ]
    lines.append(row_of(["our time as a share of ann2snn's", *times, *[""] * len(steps)]))
    return "\n".join(lines)


def balancing() -> str:
    """Return the table of thresholds of clean weights, of many chips, of each chip."""
    lines = [
        row_of(["thresholds from", "T", "accuracy", "gain in points (95 % CI)"]),
        row_of(["---", "--:", "--:", "--:"]),
    ]
    for row in load("conversion", "balancing")["rows"]:
        gain = ""
        if "gain" in row:
            low, high = (100 * bound for bound in row["gain_ci95"])
            gain = f"{100 * row['gain']:+.2f} ({low:+.2f} .. {high:+.2f})"
        lines.append(row_of([row["side"], str(row["steps"]), f"{100 * row['mean']:.2f}", gain]))
    return "\n".join(lines)
