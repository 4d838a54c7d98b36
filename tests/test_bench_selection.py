"""Suites that choose settings on held-out data, compare them on fresh seeds, and test once."""

from __future__ import annotations

import math

import pytest
import torch
from test_cli import RECIPE, _tiny_data, call, error  # noqa: F401  (the fixture serves here too)

from spikewvat.errors import RecipeError
from spikewvat.lab.recipes.loaders import Data
from spikewvat.lab.recipes.results import RunResult, over_folds
from spikewvat.lab.suites import jobs_of, read_suite
from spikewvat.lab.suites.jobs import JobFailed
from spikewvat.lab.suites.runner import SuiteResult
from spikewvat.lab.suites.selection import comparison_jobs, select, selection_jobs
from spikewvat.results import RowResult
from spikewvat.robustness import ChipReport, Degradation, yield_over_trainings
from spikewvat.serialisation import read

SUITE = """
title = "Fair"
[seeds]
quick = [0, 1]
[selection]
validation = 0.25
seeds = [7]
sigmas = [0.05]
chips = 2
[columns]
"largest weight" = { device = "gaussian:sigma=0.1,range=absmax" }
[[methods]]
method = "plain"
name = "plain"
overrides = ["method=plain"]
settings = ["training.lr=0.02", "training.lr=1e-9"]
[[methods]]
method = "HSV"
name = "hsv"
overrides = ["method.name=hsv", "method.device=gaussian:sigma=0.1"]
settings = ["method.gamma=0.5", ["method.gamma=1.0", "training.lr=0.01"]]
[[setups]]
name = "CNN"
recipe = "cnn.toml"
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "fair"
    folder.mkdir()
    (folder / "suite.toml").write_text(SUITE)
    (folder / "cnn.toml").write_text(RECIPE.replace("epochs = 4", "epochs = 2"))
    return folder


@pytest.fixture
def opened(monkeypatch):
    """Note which parts of the data are opened, and how often the test data is handed out."""
    parts = []
    real = Data.part

    def part(self, split):
        parts.append(split)
        return real(self, split)

    monkeypatch.setattr(Data, "part", part)
    return parts


def test_settings_are_chosen_on_held_out_data_and_compared_once(folder, tmp_path, opened):
    out, kept = tmp_path / "runs", tmp_path / "results"
    arguments = ["bench", folder, "--out", out, "--results", kept, "--jobs", 1]
    done = call(*arguments)
    assert "cnn-plain: chosen training.lr=" in done.stdout
    # 4 settings and 4 networks that compare them, each trained and then evaluated.
    assert sorted(opened) == ["test"] * 4 + ["validation"] * 12
    row = read(kept / "cnn-plain.json", RowResult)
    assert row.seeds == (0, 1)
    assert row.test_reads == (1, 1)
    assert row.samples == {"train": 36, "validation": 12, "test": 24}
    assert row.selection.seeds == (7,)
    assert [one.setting for one in row.selection.tried] == [
        ("training.lr=0.02",),
        ("training.lr=1e-9",),
    ]
    scores = [one.score for one in row.selection.tried]
    assert row.selection.chosen == scores.index(max(scores))
    assert row.recipe["training"]["lr"] == (0.02, 1e-9)[row.selection.chosen]
    assert row.selection.images == 12
    tried = next(out.glob("fair-selection/cnn-plain-1-*/result.json"))
    chips = read(tried, RunResult).curve.reports[0].seeds
    assert not set(chips) & set(row.curves[0].reports[0].seeds)
    assert row.curves[0].reports[1].hits.sum() == round(
        24 * float(row.curves[0].reports[1].accuracies.sum())
    )
    assert row.columns[0]["largest weight"].device.count("AbsMax") == 1
    table = (out / "fair" / "table.md").read_text()
    assert "largest weight" in table.splitlines()[0]
    call("report", out, "--out", tmp_path / "report")
    (page,) = (tmp_path / "report").glob("*.md")
    assert "## Fair-selection" in page.read_text()
    call("report", kept, "--out", tmp_path / "page")
    (page,) = (tmp_path / "page").glob("*.md")
    note = "on 12 held-out samples, 2 chips and σ = 5 %; training seeds 7. Compared on seeds 0, 1"
    assert note in page.read_text()
    (page,) = (tmp_path / "page").glob("*.html")
    assert page.read_text().count(">chosen<") == 2

    # All is done: nothing is read again, on another machine neither.
    done = call("bench", folder, "--out", tmp_path / "other", "--results", kept, "--jobs", 1)
    assert "cnn-plain: kept from" in done.stdout
    assert len(opened) == 16
    assert not list((tmp_path / "other").glob("trained/*"))
    longer = [*arguments, "--rows", "cnn-hsv", "--override", "evaluation.target=0.5"]
    assert "test data was read for" in call(*longer, code=1).stderr  # what was asked has changed
    assert opened.count("test") == 4
    # A network that the test data has met is not tested in another way.
    text = SUITE.replace("sigma=0.1,range", "sigma=0.2,range")
    (folder / "suite.toml").write_text(text)
    done = call(*arguments, code=1)
    assert "the test data was read for" in done.stderr
    assert opened.count("test") == 4


def test_infinite_parameters_survive_a_suite(folder, tmp_path):
    """The default norm of SAMSON is of order infinity, which JSON does not know."""
    text = SUITE.replace(
        '["method.name=hsv", "method.device=gaussian:sigma=0.1"]', '["method=samson"]'
    )
    text = text.replace(
        '["method.gamma=0.5", ["method.gamma=1.0", "training.lr=0.01"]]',
        '["method.rho=0.05", "method.rho=0.1"]',
    )
    (folder / "suite.toml").write_text(text)
    kept = tmp_path / "results"
    arguments = ["bench", folder, "--rows", "cnn-hsv", "--results", kept, "--jobs", 1]
    done = call(*arguments, "--out", tmp_path / "runs", "--seeds", 3)
    assert "cnn-hsv: chosen method.rho=" in done.stdout
    assert math.isnan(read(kept / "cnn-hsv.json", RowResult).settings["order"])
    done = call(*arguments, "--out", tmp_path / "other", "--seeds", 3)
    assert "cnn-hsv: kept from" in done.stdout


def test_one_training_gives_averaged_and_last_weights(folder, tmp_path):
    """A row of the weights after the last step shares the training and has a network of its own."""
    rows = SUITE[SUITE.index("[[methods]]") :]
    rows = rows[: rows.index("[[methods]]", 1)].replace('name = "plain"', 'name = "last"', 1)
    text = SUITE[: SUITE.index("[[methods]]", SUITE.index('name = "plain"'))]
    setups = SUITE[SUITE.index("[[setups]]") :]
    rows = rows.replace("settings", "averaged = false\nsettings")
    (folder / "suite.toml").write_text(f"{text}{rows}\n{setups}")
    out = tmp_path / "runs"
    options = ["--override", "averaging.start=0", "--override", "training.lr=0.05"]
    call("bench", folder, "--out", out, "--jobs", 1, "--seeds", 3, *options)
    averaged, last = (
        read(out / "fair" / f"cnn-{name}.json", RowResult) for name in ("plain", "last")
    )
    assert averaged.seconds == last.seconds
    pairs = zip(averaged.curves[0], last.curves[0], strict=True)
    assert not all(torch.equal(one.hits, other.hits) for one, other in pairs)
    assert averaged.test_reads == last.test_reads == (1,)
    assert len(list(out.glob("trained/*/result.json"))) == 2  # alike settings, one comparison


def test_a_suite_cannot_select_on_test_data(folder, tmp_path):
    for override in ("evaluation.split=test", "evaluation.split=train", "training.validation=0"):
        message = error("bench", folder, "--out", tmp_path / "runs", "--override", override)
        assert "would choose a setting by evaluation.split" in message
    job = selection_jobs(read_suite(folder), preset=None)[0]
    assert job.recipe.evaluation.split == job.training.recipe.evaluation.split == "validation"
    with pytest.raises(RecipeError, match="keeps the test data closed"):
        _ = Data(job.resolved, tmp_path).test


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("quick = [0, 1]", "quick = [0, 7]", r"seeds.quick: settings are chosen on seeds \[7\]"),
        (', "training.lr=1e-9"]', "]", "expected equally many for all"),
        ("[selection]\nvalidation = 0.25", "[x]\nvalidation = 0.25", "unknown key"),
        ("validation = 0.25", "validation = 0.0", "greater than 0"),
        ("validation = 0.25", 'validation = 0.25\nsplit = "test"', "split"),
        ('recipe = "cnn.toml"', 'recipe = "cnn.toml"\nseeds = [7]', "seeds of 'CNN': settings are"),
        ('recipe = "cnn.toml"', 'recipe = "cnn.toml"\nwithout = ["y"]', "row or method 'y'"),
        ('recipe = "cnn.toml"', 'recipe = "cnn.toml"\ncolumns = ["x"]', "unknown column 'x'"),
    ],
)
def test_unfair_suites_are_refused(folder, old, new, message):
    (folder / "suite.toml").write_text(SUITE.replace(old, new))
    with pytest.raises(RecipeError, match=message):
        read_suite(folder)


def test_fresh_seeds_only(folder, tmp_path):
    message = error("bench", folder, "--out", tmp_path / "runs", "--seeds", "6,7")
    assert "--seeds: settings are chosen on seeds [7]" in message


def report(*accuracies, images=10, hits=None):
    return ChipReport(
        "d", 0.1, torch.tensor(accuracies, dtype=torch.float64), (4, 5), images, hits=hits
    )


def row(*accuracies):
    return RowResult((7,), (Degradation(0.9, (report(*accuracies),)),))


def test_diverged_settings_are_not_chosen(folder, tmp_path):
    suite = read_suite(folder)
    jobs = {job.row: job for job in selection_jobs(suite, preset=None)}
    rows = {"cnn-plain-2": row(0.5, 0.6), "cnn-hsv-1": row(0.5, 0.6), "cnn-hsv-2": row(0.6, 0.6)}
    diverged = JobFailed("DivergedError: loss is nan", tmp_path)
    found = select(suite, SuiteResult(rows, ((jobs["cnn-plain-1"], diverged),)))
    assert found["cnn-plain"].chosen == 1
    assert math.isnan(found["cnn-plain"].tried[0].score)
    assert found["cnn-hsv"].chosen == 1
    killed = JobFailed("its process was killed", tmp_path)
    found = select(suite, SuiteResult(rows, ((jobs["cnn-plain-1"], killed),)))
    assert list(found) == ["cnn-hsv"]


def test_folds_are_joined(folder):
    text = SUITE.replace('recipe = "cnn.toml"', 'recipe = "cnn.toml"\nfolds = 3')
    (folder / "suite.toml").write_text(text)
    with pytest.raises(RecipeError, match=r"fold"):  # this data has none
        jobs_of(read_suite(folder), preset=None, seeds=[0])

    def run(seed, fold, right, images):
        hits = torch.tensor(right, dtype=torch.int64)
        accuracies = (1.0, hits.sum().item() / images - 1.0)
        curve = Degradation(0.5 * fold, (report(*accuracies, images=images, hits=hits),))
        recipe = {"data": {"name": "x", "fold": fold}}
        return RunResult(recipe, seed, "quick", "plain", "test", "d", curve, test_reads=1)

    one = over_folds([run(4, 0, [1, 1], 2), run(5, 1, [2, 2, 1], 3)], 2)
    assert one.seed == 2
    (joined,) = one.curve.reports
    assert joined.images == 5
    assert joined.hits.tolist() == [1, 1, 2, 2, 1]
    assert joined.accuracies.tolist() == pytest.approx([1.0, 2 / 5])
    assert joined.by_fold.tolist() == [[1.0, 0.0], [1.0, pytest.approx(2 / 3)]]
    row = RowResult((2,), (one.curve,))
    (pooled,) = row.pooled
    assert pooled.accuracies.tolist() == [1.0, 0.0, 1.0, pytest.approx(2 / 3)]
    assert pooled.images == 2
    assert (pooled.chips, pooled.worst, pooled.yield_at(0.9).working) == (4, 0.0, 2)
    assert row.spread == pytest.approx((0.5**0.5 + (1 / 3) / 2**0.5) / 2)
    works = yield_over_trainings([joined], 0.9)
    assert (works.working, works.chips, works.trainings) == (2, 4, 2)
    assert one.curve.clean == pytest.approx(0.3)
    assert one.recipe == {"data": {"name": "x"}}
    alone = run(7, 0, [1, 2], 2)
    assert over_folds([alone], 7) is alone


def test_each_fold_has_trainings_of_its_own():
    suite = read_suite("tuned").chosen(["nmnist-plain"])
    (setup,) = suite.setups
    parts = setup.parts([])
    assert parts == [(seed, fold, 5 * seed + fold) for seed in (0, 1) for fold in range(5)]
    alone = setup.model_copy(update={"folds": None, "seeds": None})
    assert alone.parts([3, 4]) == [(3, None, 3), (4, None, 4)]
    jobs = jobs_of(suite, preset=None, seeds=[])
    found = [(job.seed, job.recipe.content()["data"]["fold"], job.recipe.seed) for job in jobs]
    assert found == parts
    assert len({job.training.identity for job in jobs}) == len(jobs)
    used = setup.model_copy(update={"seeds": (20,)})  # its first fold trains on seed 100
    with pytest.raises(RecipeError, match=r"seeds \[100, 101\]"):
        comparison_jobs(suite.model_copy(update={"setups": (used,)}), {}, preset=None, seeds=[])
