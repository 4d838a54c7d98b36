"""Times of training steps: every method has its turn, what fails stops nothing."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from test_cli import RECIPE, _tiny_data, call, error  # noqa: F401  (the fixture serves here too)
from torch import nn

from spikewvat.devices import Gaussian
from spikewvat.lab.suites import steps as timing
from spikewvat.lab.suites.steps import STEPS, interleaved, step_of
from spikewvat.results import StepTimes
from spikewvat.serialisation import read
from spikewvat.training import WVAT, Plain

SUITE = """
title = "Steps"
measures = "step-time"
rounds = 2
[seeds]
quick = [0]
[[setups]]
name = "CNN"
baseline = "plain"
rows = [
    { method = "Adam", recipe = "wvat.toml", name = "plain", overrides = ["method=plain"] },
    { method = "WVAT", recipe = "wvat.toml" },
    { method = "momentum", recipe = "wvat.toml", name = "late", overrides = ["method=sam"] },
]
[[setups]]
name = "other"
rows = [{ method = "N-MNIST", recipe = "real.toml" }]
"""


@pytest.fixture
def suite(tmp_path):
    folder = tmp_path / "steps"
    folder.mkdir()
    (folder / "suite.toml").write_text(SUITE)
    (folder / "wvat.toml").write_text(RECIPE)
    real = '[data]\nname = "nmnist"\ntime_steps = 2\n'
    (folder / "real.toml").write_text('extends = "wvat.toml"\n' + real)
    return folder


def test_every_method_has_its_turns(monkeypatch):
    clock, calls = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def step(name, seconds):
        def run():
            calls.append(name)
            clock[0] += seconds

        return run

    costs = {"plain": 0.002, "noise": 0.003, "ascent": 0.004}
    found = interleaved({n: step(n, s) for n, s in costs.items()}, baseline="plain", rounds=5)
    assert Counter(calls) == dict.fromkeys(costs, 1 + 5 * STEPS)
    turns = [calls[i] for i in range(3, len(calls), STEPS)]
    assert all(set(turns[i : i + 3]) == set(costs) for i in range(0, 15, 3))
    assert len({tuple(turns[i : i + 3]) for i in range(0, 15, 3)}) > 1  # in random order
    assert {name: row["ratio"] for name, row in found.items()} == {
        "plain": 1.0,
        "noise": 1.5,
        "ascent": 2.0,
    }
    assert found["noise"]["ms"] == 3.0
    assert found["noise"]["quartiles"] == (1.5, 1.5)
    assert found["noise"]["rounds"] == 5
    with pytest.raises(ValueError, match="expected at least 1 round and a baseline among"):
        interleaved({"a": step("a", 1)}, baseline="plain", rounds=1)
    with pytest.raises(ValueError, match="got 0 rounds"):
        interleaved({"a": step("a", 1)}, baseline="a", rounds=0)


@pytest.mark.parametrize("noisy", [False, True])
def test_a_step_trains(noisy):
    model = nn.Linear(3, 2)
    before, after = model.weight.detach().clone(), []
    method = WVAT(model, Gaussian(0.1)) if noisy else Plain(model)
    method.after_step = lambda: after.append(True)
    step = step_of(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        lambda output: nn.functional.cross_entropy(output, torch.tensor([0, 1])),
        torch.rand(2, 3),
        method=method,
    )
    step()
    assert not torch.equal(model.weight, before)
    assert after == [True]


def test_a_suite_of_step_times(suite, tmp_path, monkeypatch):
    monkeypatch.delenv("SPIKEWVAT_DATA", raising=False)
    out = tmp_path / "runs"
    done = call("bench", suite, "--out", out, "--results", tmp_path / "results")
    times = read(tmp_path / "results" / "methods.json", StepTimes)
    assert (times.scale, times.seeds) == ("quick", (0,))
    assert [(row.setup, row.method) for row in times.rows] == [
        ("CNN", "Adam"),
        ("CNN", "WVAT"),
        ("CNN", "momentum"),
    ]
    assert times.rows[0].ratio == 1.0
    assert "skipped: real: the data set 'nmnist' needs a folder" in done.stderr
    assert "time of a step" in done.stdout


def test_a_row_that_fails_stops_no_other(suite, tmp_path):
    text = (suite / "suite.toml").read_text()
    text = text[: text.rindex("[[setups]]")]
    text = text.replace(
        '"late", overrides = ["method=sam"]', '"late", overrides = ["training.lr=9"]'
    )
    (suite / "suite.toml").write_text(text)
    real = timing.step_of

    def breaks(model, optimizer, *arguments, **options):
        if optimizer.param_groups[0]["lr"] == 9:
            raise ValueError("too fast")
        return real(model, optimizer, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikewvat.lab.suites.overhead.step_of", breaks)
        done = call("bench", suite, "--out", tmp_path / "runs", code=1)
    assert "error: late: ValueError: too fast (see" in done.stderr
    assert "Traceback" in (tmp_path / "runs" / "steps" / "late" / "error.txt").read_text()
    times = read(tmp_path / "runs" / "steps" / "methods.json", StepTimes)
    assert [row.method for row in times.rows] == ["Adam", "WVAT"]
    call("bench", suite, "--out", tmp_path / "runs")
    assert not (tmp_path / "runs" / "steps" / "late" / "error.txt").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikewvat.lab.suites.overhead.step_of", lambda *a, **o: 1 / 0)
        done = call("bench", suite, "--out", tmp_path / "runs", code=1)
    assert "error: plain: ZeroDivisionError" in done.stderr
    refused = error("bench", suite, "--seeds", "1", "--jobs", "2")
    assert "--seeds, --jobs: " in refused
    assert "Leave out --seeds and --jobs." in refused
    assert "no preset 'paper'" in error("bench", suite, "--preset", "paper")
