"""The loss around trained weights: along lines to chips, its rise, weights of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from spikewvat.formatting import MISSING, percent, within
from spikewvat.lab.recipes.landscape import figures
from spikewvat.lab.report.collect import Section
from spikewvat.lab.report.content import Part, Picture, Table
from spikewvat.lab.suites import Suite
from spikewvat.results import Landscape
from spikewvat.robustness.landscape import LossLines, Sharpness

_TEXTS = {
    "lines": "loss along lines to simulated chips",
    "surface": "loss on a plane through the weights",
    "histograms": "weights of each layer",
}


def landscape(section: Section) -> list[Part]:
    """Return one part per device for which the loss landscape was evaluated."""
    by_device: dict[str, dict[str, Landscape]] = {}
    rows = {  # of the first seed
        row.name: replace(result.landscape[0], method=row.method)
        for setup in section.suite.setups
        for row, result in section.found(setup)
        if result.landscape
    }
    for name, found in {**of_rows(section.suite, section.landscapes), **rows}.items():
        by_device.setdefault(found.device, {})[name] = found
    return [_part(device, files) for device, files in by_device.items()]


def of_rows(suite: Suite, files: Mapping[str, Landscape]) -> dict[str, Landscape]:
    """Return landscapes with the methods of their rows, in the suite's order, others first.

    Args:
        suite: The suite.
        files: By file name without extension; ``ROW-landscape`` is a network of that row.
    """
    methods = {f"{row.name}-landscape": row.method for row in suite.rows}
    others = {name: found for name, found in files.items() if name not in methods}
    known = [(name, method) for name, method in methods.items() if name in files]
    return others | {name: replace(files[name], method=method) for name, method in known}


def _part(device: str, files: Mapping[str, Landscape]) -> Part:
    labels = [found.method for found in files.values()]
    # Several runs of one method are told apart by their files.
    unique = len(set(labels)) == len(labels)
    methods = dict(zip(labels if unique else files, files.values(), strict=True))
    rises = {name: found.sharpness for name, found in methods.items()}
    name = f"Loss around the weights: {device}"
    return Part(
        name=name,
        shows=frozenset(files),
        sentences=_words(rises),
        tables=[losses(methods)],
        pictures=[
            Picture(figure, f"{', '.join(methods)}: {_TEXTS[kind]}")
            for kind, figure in figures(methods, title=name).items()
        ],
        note="Loss without variation, and mean loss and accuracy (%) at both ends of the lines; "
        "increase of the loss over chips, mean and worst, and along the steepest ascent up to the "
        "device's variation.",
        runs=[(name, _run(found)) for name, found in methods.items()],
    )


def losses(methods: Mapping[str, Landscape]) -> Table:
    """Return the losses around the weights of each method: at the ends of the lines, on chips."""
    columns = ["method", "loss", "at the ends", "accuracy there", "expected rise, 95 % CI"]
    columns += ["on the worst chip", "along the ascent"]
    rows = [_row(name, found.lines, found.sharpness) for name, found in methods.items()]
    return Table(columns, rows)


def _row(name: str, lines: LossLines, rise: Sharpness) -> list[str]:
    ends = [0, -1]
    low, high = rise.ci95
    return [
        name,
        f"{lines.clean_loss:.3g}",
        f"{float(lines.losses[:, ends].mean()):.3g}",
        percent(float(lines.accuracies[:, ends].mean())),
        within(rise.expected, low, high, ".3g"),
        f"{rise.worst:.3g}",
        MISSING if rise.ascent is None else f"{rise.ascent:.3g}",
    ]


def _words(rises: Mapping[str, Sharpness]) -> list[str]:
    """Summarise around which weights the loss rises least and most."""
    flat = min(rises, key=lambda name: rises[name].expected)
    steep = max(rises, key=lambda name: rises[name].expected)
    text = f"On chips the loss rises by {rises[flat].expected:.3g} for {flat}"
    return [f"{text}." if flat == steep else f"{text}, by {rises[steep].expected:.3g} for {steep}."]


def _run(found: Landscape) -> str:
    lines, commit = found.lines, (found.commit or "unknown")[:12]
    return (
        f"{found.scale} scale; {len(lines.seeds)} lines of {len(lines.positions)} places; "
        f"{found.loss} of {lines.images} {found.split} images; commit {commit}"
    )
