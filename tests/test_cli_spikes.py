"""Corruptions of spikes in recipes, on the command line, in tables and pictures."""

from __future__ import annotations

import pytest
import torch
from test_cli import RECIPE, call, error

from spikewvat.errors import RecipeError
from spikewvat.lab.recipes import schema
from spikewvat.lab.recipes.corruptions import levels, read_corruption
from spikewvat.lab.recipes.reading import recipe_from
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.recipes.results import RunResult
from spikewvat.lab.recipes.schema import CORRUPTIONS, Evaluation
from spikewvat.lab.suites.claims import verdicts
from spikewvat.lab.suites.suite import Claim, Row, Setup, Suite
from spikewvat.lab.suites.table import cells, header, markdown
from spikewvat.results import RowResult
from spikewvat.robustness import Activity, ChipReport, Degradation, plots
from spikewvat.robustness.corruptions import Deletion, HotPixels, ReadNoise
from spikewvat.serialisation import plain, read


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch):
    monkeypatch.setitem(schema.DATA, "tiny", "training_worker:TinyEvents")
    monkeypatch.setitem(schema.GENERATED, "tiny", "training_worker:nowhere")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spikes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(schema.DATA, "tiny", "training_worker:TinyEvents")
        patch.setitem(schema.GENERATED, "tiny", "training_worker:nowhere")
        (folder / "tiny.toml").write_text(RECIPE.replace("epochs = 4", "epochs = 1"))
        call("train", folder / "tiny.toml", "--out", folder / "run", "--no-progress")
    return folder / "run"


def evaluated(run, tmp_path, *options):
    path = tmp_path / "found.json"
    done = call("evaluate", run, "--chips", 2, "--json", path, "--no-progress", *options)
    return done.output, read(path, RunResult)


def test_evaluate_under_a_corruption(run, tmp_path):
    output, found = evaluated(
        run,
        tmp_path,
        *("--corruption", "deletion", "--severities", "0,0.5", "--plot", tmp_path / "p.png"),
    )
    assert (found.device, found.corruption) == ("ideal", "deletion")
    clean, strong = found.curve
    assert clean.mean == found.curve.clean
    assert (strong.corruption, strong.severity) == ("deletion", 0.5)
    assert strong.unit == Deletion.UNIT
    assert clean.activity.spikes == found.curve.activity.spikes
    assert strong.activity.operations < clean.activity.operations
    assert set(found.curve.rate_shifts[1]) == {"neurons.0", "output"}
    assert "deletion 0.5" in output
    assert "operations" in output
    assert (tmp_path / "p.png").stat().st_size > 0


def test_severities_are_levels_by_default_and_devices_combine(run, tmp_path):
    _, found = evaluated(run, tmp_path, "--corruption", "dead-neurons")
    assert found.curve.sigmas == (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
    both = ("--corruption", "hot-pixels:period=2>>read-noise:severity=0.05", "--severities", "0.1")
    _, found = evaluated(run, tmp_path, *both, "--device", "gaussian:sigma=0.05")
    assert found.device == "gaussian:sigma=0.05"
    assert found.corruption == "hot-pixels:period=2>>read-noise:severity=0.05"
    (report,) = found.curve
    assert (report.sigma, report.severity) == (0.05, 0.1)
    assert report.corruption == "hot pixels >> read noise"


def test_a_recipe_with_a_corruption(tmp_path, run):
    text = RECIPE.replace("epochs = 4", "epochs = 1")
    plan = 'sigmas = [0.0, 0.4]\nchips = 2\ncorruption = "transmission-loss"\n'
    text = text.replace("sigmas = [0.0, 0.1]\nchips = 3\n", plan)
    (tmp_path / "tiny.toml").write_text(text)
    call("train", tmp_path / "tiny.toml", "--out", tmp_path / "run", "--no-progress")
    result = read(tmp_path / "run/result.json", RunResult)
    assert result.corruption == "transmission-loss"
    assert result.curve.sigmas == (0.0, 0.4)
    # What is evaluated again is the same; another corruption takes its own severities.
    _, found = evaluated(tmp_path / "run", tmp_path)
    assert plain(found.curve) == plain(result.curve)
    _, found = evaluated(tmp_path / "run", tmp_path, "--corruption", "jitter", "--severities", "1")
    assert [report.corruption for report in found.curve] == ["jitter"]


def test_mistakes_are_one_line(run):
    spikes = ("evaluate", run, "--corruption")
    assert "'deletoin' is unknown. Did you mean 'deletion'?" in error(*spikes, "deletoin")
    assert "unknown key 'p'" in error(*spikes, "deletion:p=0.1")
    assert "sets every severity" in error(*spikes, "deletion:severity=0.1")
    assert "got 2.0" in error(*spikes, "deletion", "--severities", "2")
    assert "leaves its sigma open" in error(*spikes, "deletion", "--device", "gaussian")
    line = error(*spikes, "deletion", "--sigma", "0.1")
    assert "sigmas [0.1] are sizes of weight variation" in line
    assert "Pass --severities" in line
    assert "expected numbers such as" in error(*spikes, "deletion", "--severities", "a")
    line = error(*spikes, "polarity-flip:range=absmax")
    assert "unknown key 'range'" in line
    # Without --corruption there is nothing that has a severity.
    line = error("evaluate", run, "--severities", "0.1")
    assert "severities [0.1] need a corruption. Pass --corruption too." in line


def test_corruptions_by_name():
    for name in CORRUPTIONS:
        read = read_corruption(name, "spikes")
        one = read(0.1)
        assert one.severity == 0.1
        assert one.name.replace(" ", "-") == name
        assert levels(read) == (0.0, *type(one).LEVELS)
    hot = read_corruption({"name": "hot-pixels", "period": 3}, "s")
    assert hot(0.2) == HotPixels(0.2, period=3)
    noise = read_corruption("read-noise:range=absmax", "s")(0.2)
    assert isinstance(noise, ReadNoise)
    assert type(noise.range).__name__ == "AbsMax"
    composed = read_corruption("deletion:severity=0.3>>jitter", "s")
    assert [stage.severity for stage in composed(2.0).stages] == [0.3, 2.0]
    assert levels(composed) == (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


def test_evaluation_tables():
    assert Evaluation().device == "gaussian"
    content = {"name": "x", "data": {"name": "embedded", "time_steps": 5}, "model": "snntorch-cnn"}
    plan = resolve(
        recipe_from({**content, "evaluation": {"corruption": "deletion"}})
    ).recipe.evaluation
    assert plan.device == "ideal"
    assert plan.sigmas == (0.0, *Deletion.LEVELS)
    assert Evaluation.model_validate(plan.model_dump()) == plan
    assert Evaluation.model_validate({"corruption": "deletion", "sigmas": [0.3]}).sigmas == (0.3,)
    wrong = recipe_from({**content, "evaluation": {"corruption": "deletoin"}})
    with pytest.raises(RecipeError, match=r"evaluation\.corruption = 'deletoin' is unknown"):
        resolve(wrong)
    with pytest.raises(RecipeError, match=r"leaves its sigma open.*gaussian:sigma=0\.05"):
        resolve(
            recipe_from({**content, "evaluation": {"corruption": "jitter", "device": "weibull"}})
        )


def a_row(name="deletion", unit="share of events lost", severities=(0.0, 0.4), seeds=(0, 1)):
    def report(severity, accuracies, spikes):
        return ChipReport(
            device="Ideal()",
            sigma=None,
            accuracies=torch.tensor(accuracies, dtype=torch.float64),
            seeds=(1, 2),
            images=100,
            target=0.5,
            corruption=name,
            severity=severity,
            unit=unit,
            activity=Activity(spikes, 10 * spikes, {"lif": spikes / 1000}),
        )

    curve = Degradation(
        0.9,
        tuple(report(s, [0.9 - s / 2, 0.9 - s], 200 - 100 * s) for s in severities),
        Activity(200.0, 2000.0, {"lif": 0.2}),
    )
    samples = {"train": 10, "test": 100}
    return RowResult(seeds, (curve,) * len(seeds), samples=samples, scale="quick")


def a_suite(*names):
    rows = tuple(Row(method=name, recipe=f"{name}.toml") for name in names)
    return Suite(title="Spikes", seeds={}, setups=(Setup(name="A network", rows=rows),))


def test_tables_name_the_corruption(through_a_file):
    row = a_row()
    assert header([row]) == [
        *("deletion 0", "deletion 0.4", "drop at 0.4", "spread over chips", "worst chip"),
        *("chips that work", "spikes at 0.4", "operations at 0.4"),
    ]
    assert cells(row) == [
        *("90.0 ± 0.0", "60.0 ± 0.0", "30.0", "14.1", "50.0", "4 of 4 ≥ 50 %"),
        *("160 (-20 %)", "1600 (-20 %)"),
    ]
    text = markdown(a_suite("adam"), {"adam": row})
    assert "severity of deletion: share of events lost" in text
    assert "σ" not in text
    assert cells(through_a_file(row)) == cells(row)


def test_claims_speak_of_severities():
    claim = Claim(text="wvat leads", better="wvat", worse=("adam",), sigma=0.4)
    (verdict,) = verdicts([claim], {"wvat": a_row(), "adam": a_row()})
    assert verdict.word == "undecided"
    assert "at deletion 0.4: wvat 60.0, adam 60.0" in str(verdict)


def test_pictures_name_the_corruption():
    curve = a_row().pooled
    figure = plots.accuracy_against_sigma({"adam": curve})
    (axes,) = figure.axes
    assert axes.get_xlabel() == "deletion (share of events lost)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.4"]
    with pytest.raises(ValueError, match="curves sweep deletion, jitter, expected the same"):
        plots.accuracy_against_sigma({"adam": curve, "wvat": a_row("jitter").pooled})
