"""Converted networks: accuracy, spikes and operations against the number of time steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from spikewvat.conversion.sweep import TimeSweep
from spikewvat.formatting import count, percent, points
from spikewvat.lab.report.collect import Section
from spikewvat.lab.report.content import Part, Picture, Table
from spikewvat.lab.report.pictures import lines
from spikewvat.lab.suites.suite import Setup
from spikewvat.results import Converted
from spikewvat.robustness.curves import Curve
from spikewvat.robustness.statistics import mean_of


def conversion(section: Section) -> list[Part]:
    """Return one part per set-up of converted networks that were tested over time."""
    parts = []
    for setup in section.suite.setups:
        found = distinct((r.method, f.converted) for r, f in section.found(setup) if f.converted)
        if found:
            names = frozenset(row.name for row, _ in section.found(setup))
            parts.append(_part(setup, found, names))
    return parts


def distinct(
    rows: Iterable[tuple[str, Sequence[Converted]]],
) -> dict[str, Sequence[Converted]]:
    """Return networks by method; rows that test the same networks in other ways are one.

    Args:
        rows: Method and networks of each row.
    """
    found = dict(rows)
    groups: dict[tuple[TimeSweep, ...], list[str]] = {}
    for method, seeds in found.items():
        groups.setdefault(tuple(seed.over_time for seed in seeds), []).append(method)
    return {_shared_name(same, found): found[same[0]] for same in groups.values()}


def _shared_name(same: Sequence[str], methods: Iterable[str]) -> str:
    """Return what precedes the test in rows of the same networks, if no other row has it too."""
    training = same[0].rpartition(": ")[0]
    trained_so = [method for method in methods if method.rpartition(": ")[0] == training]
    return training if len(same) > 1 and trained_so == same else " / ".join(same)


def _part(setup: Setup, found: Mapping[str, Sequence[Converted]], names: frozenset[str]) -> Part:
    steps = next(iter(found.values()))[0].over_time.steps
    few = [0, len(steps) // 2, len(steps) - 1] if len(steps) > 3 else list(range(len(steps)))
    rows, everything, curves, sentences = [], [], {}, []
    for method, seeds in found.items():
        sweeps = [seed.over_time for seed in seeds if seed.over_time.steps == steps]
        accuracies = _means(sweep.accuracies for sweep in sweeps)
        ann = mean_of([seed.ann for seed in seeds])
        texts = [percent(accuracy) for accuracy in accuracies]
        costs = [
            count(mean_of([sweep.spikes[-1] for sweep in sweeps])),
            count(mean_of([sweep.operations[-1] for sweep in sweeps])),
        ]
        rows.append([method, percent(ann), *(texts[i] for i in few), *costs])
        everything.append([method, *texts])
        curves[method] = Curve(steps, [100 * accuracy for accuracy in accuracies])
        change = accuracies[-1] - ann
        sentences.append(
            f"{method}: {percent(accuracies[-1])} % after {steps[-1]} steps, "
            f"{points(abs(change))} {'above' if change > 0 else 'below'} its ANN."
        )
    times = [f"T = {step}" for step in steps]
    columns = ["method", "ANN", *(times[i] for i in few), "spikes", "synaptic operations"]
    title = f"{setup.name}: over time"
    figure = lines(curves, x_label="time steps T", y_label="accuracy (%)", title=title)
    return Part(
        name=title,
        shows=names,
        sentences=sentences,
        tables=[Table(columns, rows)],
        pictures=[Picture(figure, f"{setup.name}: accuracy against time steps")],
        note="No variation; accuracy in %, spikes and operations per image at "
        f"T = {steps[-1]}, means over seeds.",
        details=[Table(["method", *times], everything, title="All numbers of steps")]
        if len(few) < len(steps)
        else [],
    )


def _means(sweeps: Iterable[Sequence[float]]) -> list[float]:
    return [mean_of(column) for column in zip(*sweeps, strict=True)]
