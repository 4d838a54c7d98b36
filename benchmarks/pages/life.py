"""Tables of the life of a chip: what helps on which device, on how many networks, at what cost."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pages.shared import NotRunError, markdown_table, results_of
from spikewvat.devices import Ideal, ProgrammingPlan, Verified
from spikewvat.formatting import MISSING, percent
from spikewvat.lab.suites import Suite, read_suite, verdicts
from spikewvat.lab.suites.schema import Setup, Test
from spikewvat.lab.suites.table import extent
from spikewvat.results import RowResult
from spikewvat.robustness.cost import Cost


def chip_life(suite_name: str, network: str) -> str:
    """Return what helps one network: mean / 10th percentile, and working chips, by measure."""
    suite = read_suite(suite_name)
    found = results_of(suite)
    lines = []
    for setup in suite.setups:
        name, _, group = setup.name.partition(": ")
        if name == network:
            lines += _lines(suite, setup, group, found)
    if not lines:
        raise NotRunError(network)
    heads = ["chips", "trained by", "no variation", *(test.method for test in suite.tests)]
    some = next(result for row, result in found.items() if row in _names(suite, network))
    last = some.curves[0][-1]
    target = 100 * (last.target or 0)
    note = (
        f"Mean / 10th percentile of the accuracy in %, share of chips that work (≥ {target:g} %); "
        f"{extent(some)} ({last.images} used), {last.chips} chips a training."
    )
    return f"{markdown_table(heads, lines, names=2)}\n\n{note}"


def _names(suite: Suite, network: str) -> set[str]:
    return {r.name for s in suite.setups if s.name.partition(": ")[0] == network for r in s.rows}


def _lines(
    suite: Suite, setup: Setup, group: str, found: dict[str, RowResult]
) -> Iterator[list[str]]:
    """Yield a line for each size and way of training."""
    key = next(one.key for one in suite.groups if one.name == group)
    by_way = {
        way: {
            test.key: found[name]
            for test in suite.tests
            if (name := f"{base}-{key}-{test.key}") in found
        }
        for base, way in _trainings(suite, setup.name.partition(": ")[0]).items()
    }
    some = next((next(iter(by.values())) for by in by_way.values() if by), None)
    if some is None:
        return
    for place, size in enumerate(some.sigmas):
        label = some.axis.heading(size).removeprefix("age ")
        title = label if key == "gaussian" else f"{group}, {label}" if some.sized else group
        for way, by in by_way.items():
            if by:
                clean = percent(next(iter(by.values())).clean)
                cells = [_cell(by.get(test.key), place) for test in suite.tests]
                yield [title, way, clean, *cells]
                title = ""


def _cell(result: RowResult | None, place: int) -> str:
    if result is None:
        return ""
    report = result.pooled.reports[place]
    low = float(report.accuracies.quantile(0.1))
    works = report.yield_at(report.target or 0.0)
    return f"{percent(result.mean(place))} / {percent(low)}, {percent(works.share, 0)} %"


def statements(suite_name: str) -> str:
    """Return the suite's claims, one line a statement and one column a network."""
    suite = read_suite(suite_name)
    said = {v.claim.text: v for v in verdicts(suite.claims, results_of(suite))}
    if not said:
        raise NotRunError(suite_name)
    networks = dict.fromkeys(setup.name.partition(": ")[0] for setup in suite.setups)
    shown = [name for name in networks if any(text.startswith(f"{name}: ") for text in said)]
    texts = dict.fromkeys(text.split(": ", 1)[1] for text in said)
    lines = []
    for text in texts:
        found = [said.get(f"{name}: {text}") for name in shown]
        cells = [
            MISSING if one is None or not one.lead_text else f"{one.word}: {one.lead_text}"
            for one in found
        ]
        lines.append([text, *cells])
    return markdown_table(["", *shown], lines)


def losses(suite_name: str, groups: dict[str, str]) -> str:
    """Return the points that chips lose, by network, training and measure.

    Args:
        suite_name: The suite.
        groups: Keys of groups, with what to call the largest size of each.
    """
    suite = read_suite(suite_name)
    found = results_of(suite)
    tests = [(key, test) for key in groups for test in suite.tests if _is_for(test, key)]
    lines = []
    for network in dict.fromkeys(setup.name.partition(": ")[0] for setup in suite.setups):
        first = network
        for base, way in _trainings(suite, network).items():
            by = {key: found.get(f"{base}-{key[0]}-{key[1]}") for key in _keys(tests)}
            if any(by.values()):
                clean = percent(next(row.clean for row in by.values() if row is not None))
                lines.append([first, way, clean, *map(_loss, by.values())])
                first = ""
    if not lines:
        raise NotRunError(suite_name)
    heads = [f"{groups[key]}: {test.method}" for key, test in tests]
    return markdown_table(["", "trained by", "no variation", *heads], lines, names=2)


def _is_for(test: Test, key: str) -> bool:
    return not test.groups or key in test.groups


def _keys(tests: list[tuple[str, Test]]) -> list[tuple[str, str]]:
    return [(key, test.key) for key, test in tests]


def _trainings(suite: Suite, network: str) -> dict[str, str]:
    """Return the names of a network's rows in front of groups and tests, with their methods."""
    found = {}
    for setup in suite.setups:
        name, _, group = setup.name.partition(": ")
        for one in suite.groups:
            if name == network and one.name == group:
                for row in setup.rows:
                    found[row.name.partition(f"-{one.key}-")[0]] = row.method.partition(": ")[0]
    return found


def _loss(result: RowResult | None) -> str:
    return "" if result is None else f"{round(100 * (result.clean - result.mean(-1)), 1) + 0.0:.1f}"


def costs(suite_name: str) -> str:
    """Return what each measure costs a chip of each network."""
    suite = read_suite(suite_name)
    found = results_of(suite)
    lines = []
    networks = dict.fromkeys(setup.name.partition(": ")[0] for setup in suite.setups)
    for network in networks:
        names = _names(suite, network) & found.keys()
        by_test = {
            test.key: next((n for n in sorted(names) if n.endswith(f"-{test.key}")), None)
            for test in suite.tests
        }
        cells = []
        for test in suite.tests:
            name = by_test[test.key]
            report = None if name is None else found[name].curves[0][-1]
            if report is not None and report.calibrated is not None:
                cost, share = report.calibrated.cost, found[name].recipe["evaluation"].get("verify")
                cells.append(str(cost + _verifying(share, cost.reads)))
        if cells:
            lines.append([network, *cells])
    if not lines:
        raise NotRunError(suite_name)
    heads = [test.method for test in suite.tests if test.key != "nothing"]
    return markdown_table(["", *heads], lines)


def _verifying(share: float | None, weights: int) -> Cost:
    """Return what verifying a share of the weights costs beside the measures."""
    if share is None:
        return Cost()
    plan = ProgrammingPlan("", share, {"": torch.zeros(weights)}, reads=True)
    device = Verified(Ideal(), plan)
    return Cost(pulses=device.pulses, reads=device.reads)
