"""Train the recipes of a suite, several seeds each, and compare how many chips work.

    python benchmarks/compare.py demo
    python benchmarks/compare.py nmnist --data-root DIR --seeds 0 1 2 --framework spikingjelly

A cell is one recipe with one seed. Cells run side by side, one thread each; finished cells are
kept in --out and not run again. With --save the evaluation rows of all seeds go to
benchmarks/results/<suite>/<recipe>.json (or to the folder of that name), from which
benchmarks/tables.py makes the tables and pictures of the documentation.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from rich.console import Console
from rich.table import Table

from spikewvat.recipes import Recipe, read_recipe
from spikewvat.recipes.results import write_json
from spikewvat.robustness import Degradation, plots

HERE = Path(__file__).parent
METHODS = ("adam", "swa", "wvat")
Cells = dict[str, list[dict[str, Any]]]


def run_cell(recipe: Recipe, out: Path, data_root: Path | None) -> dict[str, Any]:
    """Train and evaluate one recipe with one seed, or read it back if that was done."""
    from spikewvat.recipes.run import train

    torch.set_num_threads(1)
    finished = out / "result.json"
    if finished.is_file():
        return dict(json.loads(finished.read_text()))
    print(
        f"  {recipe.name}, seed {recipe.seed}: training {recipe.training.epochs} epochs", flush=True
    )
    resume = (out / "checkpoint.safetensors").is_file()
    result = train(recipe, out, data_root=data_root, resume=resume, progress=False)
    print(f"  {recipe.name}, seed {recipe.seed}: {curve(result)[-1]}", flush=True)
    return result


def run_suite(arguments: argparse.Namespace) -> Cells:
    """Run all cells of a suite; return their results by row."""
    suffix = "" if arguments.framework == "snntorch" else f"_{arguments.framework}"
    cells = []
    for method in arguments.methods:
        row = f"{method}{suffix}"
        for seed in arguments.seeds:
            recipe = read_recipe(
                HERE / "recipes" / arguments.suite / f"{row}.toml",
                preset=arguments.preset,
                overrides=arguments.override,
                seed=seed,
            )
            out = arguments.out / arguments.suite / f"{recipe.scale}-{row}-{seed}"
            cells.append((row, recipe, out))
    # The slowest first: two processes then end at about the same time.
    order = sorted(range(len(cells)), key=lambda i: cells[i][1].method.name == "plain")
    done = Parallel(n_jobs=arguments.jobs)(
        delayed(run_cell)(cells[i][1], cells[i][2], arguments.data_root) for i in order
    )
    results: Cells = {row: [] for row, _, _ in cells}
    for i, result in sorted(zip(order, done, strict=True)):
        results[cells[i][0]].append(result)
    return results


def curve(result: Mapping[str, Any]) -> Degradation:
    """Return the degradation curve of one cell."""
    return Degradation.from_dict(result)


def summary(results: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return, for each sigma, means over seeds of accuracy, drop and spread over chips."""
    curves = [curve(result) for result in results]
    rows = []
    for reports in zip(*curves, strict=True):
        means = torch.tensor([report.mean for report in reports], dtype=torch.float64)
        drops = torch.tensor([c.clean for c in curves], dtype=torch.float64) - means
        rows.append(
            {
                "sigma": reports[0].sigma or 0.0,
                "mean": float(means.mean()),
                "std_over_seeds": float(means.std()) if len(means) > 1 else float("nan"),
                "drop": float(drops.mean()),
                "std_over_chips": float(torch.tensor([r.std for r in reports]).mean()),
                "worst": min(report.worst for report in reports),
                "working": sum(int((r.accuracies >= (r.target or 0)).sum()) for r in reports),
                "chips": sum(report.chips for report in reports),
                "target": reports[0].target or 0.0,
            }
        )
    return rows


def show(results: Cells, console: Console) -> None:
    """Print the comparison."""
    some = summary(next(iter(results.values())))
    table = Table(title="Accuracy on simulated chips, mean ± spread over chips (drop)")
    table.add_column("recipe")
    for row in some:
        table.add_column(f"sigma {100 * row['sigma']:g} %", justify="right")
    table.add_column("worst chip", justify="right")
    table.add_column(f"chips ≥ {100 * some[-1]['target']:g} %", justify="right")
    for name, cells in results.items():
        rows = summary(cells)
        table.add_row(
            name,
            *(
                f"{100 * row['mean']:.1f} ± {100 * row['std_over_chips']:.1f} "
                f"({100 * row['drop']:.1f})"
                for row in rows
            ),
            f"{100 * rows[-1]['worst']:.1f}",
            f"{rows[-1]['working']:.0f} of {rows[-1]['chips']:.0f}",
        )
    console.print(table)


def save_results(results: Cells, suite: str) -> None:
    """Write one result file for each row, all seeds in it."""
    for name, cells in results.items():
        first = cells[0]
        write_json(
            HERE / "results" / suite / f"{name}.json",
            {
                "recipe": first["recipe"],
                "seeds": [cell["recipe"]["seed"] for cell in cells],
                "scale": first["scale"],
                "commit": first["commit"],
                "versions": first["versions"],
                "samples": first["training"]["samples"],
                "seconds": [sum(e["seconds"] for e in c["training"]["history"]) for c in cells],
                "clean": [cell["clean"] for cell in cells],
                "rows": [
                    {"training_seed": cell["recipe"]["seed"], **row}
                    for cell in cells
                    for row in cell["rows"]
                ],
            },
        )


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("suite", choices=sorted(p.name for p in (HERE / "recipes").iterdir()))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--framework", choices=("snntorch", "spikingjelly"), default="snntorch")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--preset", default=None)
    parser.add_argument("--override", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--data-root", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        "--save", nargs="?", const="", metavar="NAME", help="write benchmarks/results/NAME"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a suite, print its table, draw its picture."""
    arguments = parsed(argv)
    console = Console()
    results = run_suite(arguments)
    show(results, console)
    picture = arguments.out / arguments.suite / f"accuracy_{arguments.framework}.png"
    curves = {
        name.split("_")[0]: Degradation.pooled([curve(cell) for cell in cells])
        for name, cells in results.items()
    }
    plots.save(plots.accuracy_against_sigma(curves), picture)
    console.print(f"Picture: {picture}")
    if arguments.save is not None:
        save_results(results, arguments.save or arguments.suite)
    if arguments.suite == "demo":
        console.print(
            "\nThe same on your own recordings (DIR/NMNIST/{Train,Test}/<digit>/*.bin):\n"
            "  spikewvat train benchmarks/recipes/nmnist/wvat.toml --data-root DIR --out my-run\n"
            "  spikewvat evaluate my-run --data-root DIR --sigma 0,0.05,0.10 --plot chips.png",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


if __name__ == "__main__":
    main()
