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

import torch

from spikewvat.robustness import ChipReport, Degradation, plots

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
METHODS = (("adam", "Adam"), ("swa", "Adam + SWA"), ("wvat", "WVAT"))


def load(suite: str, name: str) -> dict[str, Any]:
    """Return a result file."""
    return dict(json.loads((RESULTS / suite / f"{name}.json").read_text()))


def curves(result: dict[str, Any]) -> list[Degradation]:
    """Return one degradation curve for each training seed of a row."""
    return [
        Degradation(
            clean,
            tuple(
                ChipReport.from_dict(row) for row in result["rows"] if row["training_seed"] == seed
            ),
        )
        for seed, clean in zip(result["seeds"], result["clean"], strict=True)
    ]


def pooled(result: dict[str, Any]) -> Degradation:
    """Return one curve whose chips are those of all training seeds."""
    return Degradation.pooled(curves(result))


def percent(value: float) -> str:
    """Return a fraction as a percentage with one decimal."""
    return f"{100 * value:.1f}"


def comparison(suite: str, framework: str = "") -> str:
    """Return the table of a suite: accuracy at each sigma, drop, spread, worst chip, yield."""
    suffix = f"_{framework}" if framework else ""
    results = {label: load(suite, name + suffix) for name, label in METHODS}
    some = next(iter(results.values()))
    sigmas = [report.sigma or 0.0 for report in curves(some)[0]]
    last = pooled(some).reports[-1]
    head = [
        "",
        *(f"σ = {100 * sigma:g} %" for sigma in sigmas),
        f"drop at {100 * sigmas[-1]:g} %",
        "spread over chips",
        "worst chip",
        f"chips ≥ {100 * (last.target or 0):g} %",
    ]
    lines = [row_of(head), row_of(["---", *["--:"] * (len(head) - 1)])]
    for label, result in results.items():
        seeds = curves(result)
        cells = [label]
        for index in range(len(sigmas)):
            means = torch.tensor([curve.means[index] for curve in seeds], dtype=torch.float64)
            cells.append(f"{percent(float(means.mean()))} ± {percent(float(means.std()))}")
        everything = pooled(result)
        report = everything.reports[-1]
        spread = sum(curve.reports[-1].std for curve in seeds) / len(seeds)
        chips = report.yield_at(report.target or 0.0)
        cells += [
            percent(everything.clean - report.mean),
            percent(spread),
            percent(report.worst),
            f"{chips.working} of {chips.chips}",
        ]
        lines.append(row_of(cells))
    scale = f"{some['scale']} scale, {len(some['seeds'])} training seeds"
    samples = some["samples"]
    lines += [
        "",
        f"Accuracy in %, mean ± standard deviation over training seeds ({scale}; "
        f"{samples['train']} training and {samples['test']} test recordings); σ relative to the "
        "6-sigma width of each layer; spread is the standard deviation over chips.",
    ]
    return "\n".join(lines)


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
    for suite, source in (("nmnist", "real recordings"), ("reenacted", "re-enacted recordings")):
        for name, label in METHODS:
            if not (RESULTS / suite / f"{name}.json").exists():
                continue
            result = load(suite, name)
            clean = torch.tensor(result["clean"], dtype=torch.float64)
            noisy = torch.tensor([curve.means[-1] for curve in curves(result)])
            lines.append(
                row_of(
                    [
                        source,
                        label,
                        f"{percent(float(clean.mean()))} ± {percent(float(clean.std()))}",
                        f"{percent(float(noisy.mean()))} ± {percent(float(noisy.std()))}",
                    ]
                )
            )
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


def row_of(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


TABLES: dict[str, Callable[[], str]] = {
    "demo": lambda: comparison("demo"),
    "demo-spikingjelly": lambda: comparison("demo", "spikingjelly"),
    "nmnist": lambda: comparison("nmnist"),
    "nmnist-spikingjelly": lambda: comparison("nmnist", "spikingjelly"),
    "overhead": overhead,
    "reenacted": reenacted,
    "simulator": simulator,
    "binning": binning,
}
PICTURES = {
    "demo": ("demo", ""),
    "demo-spikingjelly": ("demo", "spikingjelly"),
    "nmnist": ("nmnist", ""),
    "nmnist-spikingjelly": ("nmnist", "spikingjelly"),
}


def filled(text: str) -> str:
    """Return a page with its tables made anew."""

    def fill(match: re.Match[str]) -> str:
        table = TABLES[match[1]]()
        return f"<!-- table: {match[1]} -->\n{table}\n<!-- end -->"

    return re.sub(r"<!-- table: (\S+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def draw() -> None:
    """Draw the pictures of the documentation."""
    for name, (suite, framework) in PICTURES.items():
        suffix = f"_{framework}" if framework else ""
        by_method = {label: pooled(load(suite, row + suffix)) for row, label in METHODS}
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
