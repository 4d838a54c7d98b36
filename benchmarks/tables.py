"""Put the tables and pictures of benchmarks/results into the README and the documentation.

    python benchmarks/tables.py [--check]

A page holds a table between ``<!-- table: NAME -->`` and ``<!-- end -->``. ``--check`` changes
nothing and fails if a page is not what the results say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spikewvat.bench import RowResult, Suite, markdown, read_suite
from spikewvat.bench.table import cells
from spikewvat.robustness import plots
from spikewvat.robustness.statistics import mean_of

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
SNNTORCH = ("adam", "swa", "wvat")


def load(folder: str, name: str) -> dict[str, Any]:
    """Return a result file."""
    return dict(json.loads((RESULTS / folder / f"{name}.json").read_text()))


def results_of(suite: Suite) -> dict[str, RowResult]:
    """Return the rows of a suite that have results."""
    folder = RESULTS / suite.folder.name
    paths = {row.name: folder / f"{row.name}.json" for row in suite.rows}
    return {name: RowResult.read(path) for name, path in paths.items() if path.exists()}


def comparison(name: str, *patterns: str) -> str:
    """Return the table of a suite: accuracy at each sigma, drop, spread, worst chip, yield."""
    suite = read_suite(name).chosen(patterns)
    return markdown(suite, results_of(suite))


def overhead() -> str:
    """Return the table of step times."""
    result = load("overhead", "step")
    setups = list(dict.fromkeys(row["setup"] for row in result["rows"]))
    methods = list(dict.fromkeys(row["method"] for row in result["rows"]))
    lines = [row_of(["", *setups]), row_of(["---", *["--:"] * len(setups)])]
    for method in methods:
        cells = []
        for setup in setups:
            row = next(r for r in result["rows"] if (r["setup"], r["method"]) == (setup, method))
            low, high = row["quartiles"]
            cells.append(
                f"{row['ms']:.1f} ms"
                if method == "plain"
                else f"{row['ratio']:.2f} ({low:.2f} .. {high:.2f})"
            )
        lines.append(row_of([method, *cells]))
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


def simulator() -> str:
    """Return the table of simulated beside real recordings of the same images."""
    rows = load("data", "simulator")["rows"][:2]  # calibrated on, and not

    def bursts(recordings: dict[str, Any]) -> str:
        return ", ".join(f"{burst['centre_ms']:.0f}" for burst in recordings["bursts"])

    lines = [
        row_of(["", *(f"{row['digits']} digits" for row in rows)]),
        row_of(["---", *["--:"] * len(rows)]),
    ]
    for what, value in (
        ("events a recording", lambda part: f"{part['events_mean']:.0f}"),
        ("ON fraction", lambda part: f"{part['on_fraction']:.3f}"),
        ("centres of the three bursts, ms", bursts),
    ):
        for label, key in (("real", "real"), ("re-enacted", "re_enacted")):
            lines.append(row_of([f"{what}, {label}", *(value(row[key]) for row in rows)]))
    correlations = [
        f"{row['map_correlation']['mean']:.3f} ± {row['map_correlation']['std']:.3f}"
        for row in rows
    ]
    lines.append(row_of(["correlation of event maps", *correlations]))
    return "\n".join(lines)


def binning() -> str:
    """Return the table of binning times beside tonic's."""
    lines = [
        row_of(["tonic.transforms.ToFrame", "same frames", "tonic", "ours", "speed-up"]),
        row_of(["---", "--:", "--:", "--:", "--:"]),
    ]
    for row in load("data", "event_binning")["rows"]:
        settings = ", ".join(f"{key}={value}" for key, value in row["tonic"].items())
        low, high = row["quartiles_or"]
        lines.append(
            row_of(
                [
                    f"`{settings}`",
                    f"{row['equal']} of {row['recordings']}",
                    f"{row['ms']['tonic']:.2f} ms",
                    f"{row['ms']['or']:.2f} ms",
                    f"{row['speed_up_or']:.1f} ({low:.1f} .. {high:.1f})",
                ]
            )
        )
    return "\n".join(lines)


def tsslbp() -> str:
    """Return the table of differences from the official TSSL-BP code."""
    lines = [
        row_of(["configuration", "float64: output", "gradient", "float32: output", "gradient"]),
        row_of(["---", "--:", "--:", "--:", "--:"]),
    ]
    found = {(row["case"], row["dtype"]): row for row in load("speed", "tsslbp")["comparison"]}
    for case in dict.fromkeys(case for case, _ in found):
        cells = [case]
        for dtype in ("float64", "float32"):
            row = found[case, dtype]
            cells += [f"{row['output_max_abs']:.0e}", f"{row['gradient_max_rel']:.0e}"]
        lines.append(row_of(cells))
    return "\n".join(lines)


def tsslbp_speed() -> str:
    """Return the table of step times beside the official TSSL-BP code."""
    lines = [row_of(["", "step", "share of the official time"]), row_of(["---", "--:", "--:"])]
    for row in load("speed", "tsslbp")["rows"]:
        low, high = row["quartiles"]
        share = f"{row['ratio']:.2f} ({low:.2f} .. {high:.2f})"
        lines.append(row_of([row["side"], f"{row['ms']:.0f} ms", share]))
    return "\n".join(lines)


def event_input() -> str:
    """Return the table of event-driven beside dense first layers."""
    result = load("speed", "event_input")
    lines = [
        row_of(["", "dense", "event-driven", "speed-up"]),
        row_of(["---", "--:", "--:", "--:"]),
    ]
    for row in result["rows"]:
        low, high = row["quartiles"]
        times = [f"{row[key]:.0f} ms" for key in ("dense_ms", "event_ms")]
        speed_up = f"{row['speed_up']:.2f} ({low:.2f} .. {high:.2f})"
        lines.append(row_of([row["what"], *times, speed_up]))
    memory = [f"{value:.0f} MiB" for value in result["peak_memory_mib"].values()]
    lines.append(row_of(["peak memory that training adds", *memory, ""]))
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


def row_of(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


TABLES: dict[str, Callable[[], str]] = {
    "demo": lambda: comparison("demo", *SNNTORCH),
    "nmnist": lambda: comparison("nmnist", *SNNTORCH),
    "mnist": lambda: comparison("mnist", "fc_*", "slayer_*", "cnn2_*"),
    "nmnist-spikingjelly": lambda: comparison("nmnist", "*_spikingjelly"),
    "conversion": lambda: comparison("conversion", "lenet_*"),
    "conversion-steps": conversion_steps,
    "conversion-peer": conversion_peer,
    "balancing": balancing,
    "overhead": overhead,
    "reenacted": reenacted,
    "simulator": simulator,
    "binning": binning,
    "event-input": event_input,
    "tsslbp": tsslbp,
    "tsslbp-speed": tsslbp_speed,
}
PICTURES = {
    "demo": ("demo", SNNTORCH),
    "nmnist": ("nmnist", SNNTORCH),
    "nmnist-spikingjelly": ("nmnist", ("*_spikingjelly",)),
}


def filled(text: str) -> str:
    """Return a page with its tables made anew."""

    def fill(match: re.Match[str]) -> str:
        table = TABLES[match[1]]()
        return f"<!-- table: {match[1]} -->\n{table}\n<!-- end -->"

    return re.sub(r"<!-- table: (\S+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def draw() -> None:
    """Draw the pictures of the documentation."""
    for name, (folder, patterns) in PICTURES.items():
        suite = read_suite(folder).chosen(patterns)
        (setup,), found = suite.setups, results_of(suite)
        by_method = {r.method: found[r.name].pooled for r in setup.rows if r.name in found}
        plots.save(
            plots.accuracy_against_sigma(by_method), ROOT / "docs" / "pictures" / f"{name}.png"
        )


def main() -> None:
    """Fill or check the pages."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [page for page in PAGES if filled(page.read_text()) != page.read_text()]
    if check:
        if stale:
            names = ", ".join(str(page.relative_to(ROOT)) for page in stale)
            sys.exit(f"not what the results say: {names}. Run: python benchmarks/tables.py")
        return
    for page in stale:
        page.write_text(filled(page.read_text()))
    draw()


if __name__ == "__main__":
    main()
