"""Which measures make enough chips work: the same chips for each, costs, the cheapest."""

from __future__ import annotations

import pytest
import torch
from test_calibration import chip_of, loader, net
from test_cli import _tiny_data, call, error, recipe, run  # noqa: F401 -- fixtures

from spikewvat import BiasTrim, Scale, Verified, programming_plan
from spikewvat.devices import Gaussian, pcm
from spikewvat.lab.recipes.results import RunResult
from spikewvat.robustness import Evaluator
from spikewvat.robustness.cost import Cost
from spikewvat.robustness.measures import Measures, draw_measures, find_measures
from spikewvat.serialisation import read

YEAR = pcm(time=365 * 86400.0)


@pytest.fixture(scope="module")
def found():
    return find_measures(
        net(),
        loader(samples=40, seed=7),
        loader(samples=40),
        YEAR,
        target=0.3,
        share=0.5,
        verify=(0.2, 0.6),
        samples=10,
        fisher_samples=20,
        chips=4,
    )


def test_each_set_is_tried_on_the_same_chips(found):
    names = [outcome.name for outcome in found.outcomes]
    assert names == [
        "nothing",
        "a factor a layer",
        "a factor a layer, offsets",
        "a factor a layer, gains, offsets",
        "a factor a layer, offsets, distillation",
        "20 % verified, a factor a layer, offsets",
        "60 % verified, a factor a layer, offsets",
    ]
    assert len({outcome.report.seeds for outcome in found.outcomes}) == 1
    test = Evaluator(net(), loader(samples=40, seed=7))
    plainly = test.chips(YEAR, chips=4)
    assert torch.equal(found.outcomes[0].report.accuracies, plainly.accuracies)
    reports = [outcome.report.calibrated for outcome in found.outcomes]
    assert all(report is None or report.before is None for report in reports)
    plan = programming_plan(net(), loader(samples=40), YEAR, 0.6, samples=20)
    verified = test.chips(
        Verified(YEAR, plan),
        chips=4,
        calibrate=[Scale(), BiasTrim(10)],
        calibration=loader(samples=40),
    )
    assert torch.equal(found.outcomes[-1].report.accuracies, verified.accuracies)
    assert found.clean == test.accuracy


def test_costs_are_those_of_measures_and_pulses(found):
    weights = sum(weight.numel() for weight in chip_of(net()).values())
    assert found.outcomes[0].cost == Cost()
    assert found.outcomes[1].cost == Cost(numbers=3, reads=weights)
    last = found.outcomes[-1].cost
    assert last.pulses == pytest.approx(round(0.6 * weights) / 0.0796557, rel=1e-4)
    assert last.reads == 2 * weights + round(last.pulses)
    assert (last.samples, last.labels) == (10, 0)


def test_the_cheapest_is_the_first_that_is_enough(found):
    accuracies = [outcome.report for outcome in found.outcomes]
    for target in (0.0, 0.2, 0.4, 1.0):
        other = Measures(found.clean, target, 0.5, found.outcomes)
        enough = [n for n, r in enumerate(accuracies) if r.yield_at(target).share >= 0.5]
        if enough:
            assert other.cheapest is other.outcomes[enough[0]]
            assert other.cheapest.name in str(other)
        else:
            assert other.cheapest is None
            assert "no set of measures that was tried is enough" in str(other)


def test_a_device_that_does_not_age_needs_no_factor():
    found = find_measures(
        net(),
        loader(samples=20, seed=7),
        loader(samples=40),
        Gaussian(0.1),
        target=0.3,
        verify=(),
        samples=10,
        chips=2,
    )
    assert [o.name for o in found.outcomes] == [
        *("nothing", "offsets", "gains, offsets", "offsets, distillation")
    ]


def test_the_picture_has_a_row_of_chips_for_each_set(found):
    figure = draw_measures(found)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == [o.name for o in found.outcomes]
    rows = [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in rows] == [4] * len(found.outcomes)


def test_the_command_prints_a_table_and_says_what_is_enough(run, tmp_path):  # noqa: F811
    options = ("--chips", 2, "--verify", "0.5", "--target", 0.1, "--share", 0.5)
    options += ("--crossbar", "rows=16,adc_bits=6")
    shown = call(
        *("plan", run, "--device", "pcm", "--age", "1d", *options, "--no-progress"),
        *("--json", tmp_path / "plan.json", "--plot", tmp_path / "plan.svg"),
    ).stdout
    for text in ("nothing", "a factor a layer", "50 % verified", "no variation", "at 10 %:"):
        assert text in shown
    result = read(tmp_path / "plan.json", Measures)
    assert len(result.outcomes) == 6
    assert all("Crossbar(rows=16" in outcome.report.device for outcome in result.outcomes)
    assert result.outcomes[1].cost.numbers == 2
    assert (tmp_path / "plan.svg").read_text().startswith("<?xml")
    for wrong, message in (
        (("--device", "gaussian:sigma=0.1", "--age", "1d"), "does not change with time"),
        (("--device", "sonos", "--age", "1y"), "measured for 432000 s"),
        (("--device", "pcm", "--target", "90"), "expected a fraction"),
        (("--device", "pcm", "--verify", "5"), "expected fractions"),
        (("--device", "pcm", "--chips", "0"), "expected at least 1"),
    ):
        assert message in error("plan", run, *wrong)
    assert "digits-wvat" in error("plan", "digits-none", "--device", "pcm")


def test_evaluate_calibrates_and_verifies(run, tmp_path):  # noqa: F811
    figures = tmp_path / "x.json"
    options = ("--device", "pcm", "--chips", 2, "--json", figures, "--no-progress")
    done = ("--calibrate", "scale>>bias-trim:samples=10", "--verify", "0.5")
    shown = call("evaluate", run, *options, "--time", "1h,1y", *done).stdout
    assert "% before Scale(samples=0) + BiasTrim(samples=10" in shown
    result = read(figures, RunResult)
    assert all("50 %" in report.device for report in result.curve)
    assert result.curve[0].calibrated.cost.samples == 10
    call("evaluate", run, "--sigma", "0,0.1", "--verify", "1", "--chips", 2, "--json", figures)
    assert read(figures, RunResult).curve.at(0.1).device.startswith("Verified(device=Gaussian")
    done = ("--crossbar", "rows=16,adc_bits=4,adc_range=calibrated", "--calibrate", "scale")
    shown = call("evaluate", run, *options, "--time", "1h", *done).stdout
    assert "crossbar:rows=16" in "".join(shown.split())
    (report,) = read(figures, RunResult).curve
    assert "Crossbar(rows=16" in report.device
    assert "adc_range={'" in report.device
    for wrong, message in (
        (("--crossbar", "rowz=3"), "Did you mean 'rows'?"),
        (("--calibrate", "bias-trimm"), "Did you mean 'bias-trim'?"),
        (("--calibrate", "bias-trim:samples=0"), "samples must be a whole number"),
        (("--verify", "2"), "evaluation.verify = 2"),
        (("--corruption", "deletion", "--verify", "0.1"), "neither calibrates nor verifies"),
    ):
        assert message in error("evaluate", run, *wrong)
