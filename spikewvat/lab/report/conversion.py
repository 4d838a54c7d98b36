"""Converted networks: accuracy, spikes and operations against the number of time steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from spikewvat.formatting import count, percent, points
from spikewvat.lab.report.collect import Section
from spikewvat.lab.report.content import Part, Picture, Table
from spikewvat.lab.report.pictures import Line, lines
from spikewvat.lab.suites.suite import Setup
from spikewvat.results import Converted
from spikewvat.robustness.statistics import mean_of


def conversion(section: Section) -> list[Part]:
    """Return one part per set-up of converted networks that were tested over time."""
    parts = []
    for setup in section.suite.setups:
        found = {
            row.method: result.converted for row, result in section.found(setup) if result.converted
        }
        if found:
            names = frozenset(row.name for row, _ in section.found(setup))
            parts.append(_part(setup, found, names))
    return parts


def _part(setup: Setup, found: Mapping[str, Sequence[Converted]], names: frozenset[str]) -> Part:
    steps = next(iter(found.values()))[0].over_time.steps
    rows, curves, sentences = [], {}, []
    for method, seeds in found.items():
        sweeps = [seed.over_time for seed in seeds if seed.over_time.steps == steps]
        accuracies = _means(sweep.accuracies for sweep in sweeps)
        ann = mean_of([seed.ann for seed in seeds])
        rows.append(
            [
                method,
                percent(ann),
                *(percent(accuracy) for accuracy in accuracies),
                count(mean_of([sweep.spikes[-1] for sweep in sweeps])),
                count(mean_of([sweep.operations[-1] for sweep in sweeps])),
            ]
        )
        curves[method] = Line(steps, [100 * accuracy for accuracy in accuracies])
        change = accuracies[-1] - ann
        sentences.append(
            f"{method}: {percent(accuracies[-1])} % after {steps[-1]} steps, "
            f"{points(abs(change))} {'above' if change > 0 else 'below'} its ANN."
        )
    columns = ["method", "ANN", *(f"T = {step}" for step in steps)]
    columns += [f"spikes at T = {steps[-1]}", f"synaptic operations at T = {steps[-1]}"]
    figure = lines(curves, x_label="time steps T", y_label="accuracy (%)", powers_of_two=True)
    return Part(
        name=f"{setup.name}: over time",
        shows=names,
        sentences=sentences,
        tables=[Table(columns, rows)],
        pictures=[Picture(figure, f"{setup.name}: accuracy against time steps")],
        note="No variation; accuracy in %, spikes and operations per image, means over seeds.",
    )


def _means(sweeps: Iterable[Sequence[float]]) -> list[float]:
    return [mean_of(column) for column in zip(*sweeps, strict=True)]
