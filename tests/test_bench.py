"""Suites: rows, cells that run once, failures that stop nothing, the table."""

from __future__ import annotations

import json

import pytest
import torch
from test_cli import RECIPE, _tiny_data, call, error  # noqa: F401  (the fixture serves here too)

from spikewvat.bench import RowResult, cells_of, markdown, read_suite, run_suite
from spikewvat.bench.suite import suites_folder
from spikewvat.bench.table import cells
from spikewvat.errors import DataError, RecipeError
from spikewvat.recipes import run as runs
from spikewvat.robustness import ChipReport, Degradation

SUITE = """
title = "Tiny"
source = "the paper"
hint = "try more"
[seeds]
quick = [0, 1]
paper = [0, 1, 2]
[[setups]]
name = "CNN"
rows = [
    { method = "plain", recipe = "plain.toml", paper = [[98.0, 0.1], [80.0, 2.0]] },
    { method = "WVAT", recipe = "wvat.toml" },
]
"""


@pytest.fixture
def suite(tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "suite.toml").write_text(SUITE)
    (folder / "wvat.toml").write_text(RECIPE)
    (folder / "plain.toml").write_text('extends = "wvat.toml"\nmethod = "plain"\n')
    return folder


def test_setups_of_some_presets_only(suite):
    text = (suite / "suite.toml").read_text()
    (suite / "suite.toml").write_text(
        text
        + '[[setups]]\nname = "large"\npresets = ["paper"]\n'
        + 'rows = [{ method = "WVAT", recipe = "large.toml", paper = [[98.0], [80.0, 2.0]] }]\n'
    )
    read = read_suite(suite)
    assert [row.name for row in read.at(None).rows] == ["plain", "wvat"]
    assert [row.name for row in read.at("paper").rows] == ["plain", "wvat", "large"]
    assert read.rows[-1].paper == ((98.0,), (80.0, 2.0))
    with pytest.raises(RecipeError, match=r"no set-up of 'Tiny' .* 'quick'. Pass --preset paper"):
        read.chosen(["large"]).at("quick")


def trained(monkeypatch):
    """Count the trainings."""
    names = []
    real = runs.train

    def counted(recipe, *arguments, **options):
        names.append((recipe.method.name, recipe.seed))
        return real(recipe, *arguments, **options)

    monkeypatch.setattr(runs, "train", counted)
    return names


def test_a_suite_from_the_command_line(suite, tmp_path, monkeypatch):
    names = trained(monkeypatch)
    arguments = ["bench", suite, "--out", tmp_path / "runs", "--jobs", 1]
    done = call(*arguments, "--results", tmp_path / "results")
    assert sorted(names) == [("plain", 0), ("plain", 1), ("wvat", 0), ("wvat", 1)]
    assert "plain, seed 1: clean" in done.stderr
    assert done.stdout.rstrip().endswith("try more")
    row = json.loads((tmp_path / "results" / "wvat.json").read_text())
    assert {"recipe", "seeds", "scale", "commit", "versions", "rows"} <= set(row)
    assert row["seeds"] == [0, 1]
    assert [r["training_seed"] for r in row["rows"]] == [0, 0, 1, 1]
    table = (tmp_path / "runs" / "tiny" / "table.md").read_text()
    assert table.count("\n| plain |") == table.count("\n| WVAT |") == 1
    assert "(98.0, " in table
    assert "2 training seeds" in table
    assert (tmp_path / "runs" / "tiny" / "accuracy.png").stat().st_size > 10_000

    call(*arguments)  # all is done
    assert len(names) == 4
    call(*arguments, "--rows", "w*", "--seeds", "2")
    assert names[4:] == [("wvat", 2)]
    call(*arguments, "--rows", "w*", "--seeds", "2", "--override", "training.lr=0.01")
    assert names[5:] == [("wvat", 2)]  # another recipe is another cell


def test_a_failing_cell_does_not_stop_the_rest(suite, tmp_path, monkeypatch):
    real = runs.train

    def sometimes(recipe, *arguments, **options):
        if recipe.method.name == "plain":
            raise ValueError("no luck\ntoday")
        return real(recipe, *arguments, **options)

    monkeypatch.setattr(runs, "train", sometimes)
    done = call("bench", suite, "--out", tmp_path / "runs", "--jobs", 1, "--seeds", "0", code=1)
    assert "error: plain, seed 0: ValueError: no luck today (see" in done.stderr
    (log,) = (tmp_path / "runs" / "tiny").glob("plain-seed0-*/error.txt")
    assert "Traceback" in log.read_text()
    assert str(log) in done.stderr
    table = (tmp_path / "runs" / "tiny" / "table.md").read_text()
    assert "| plain | - | - |" in table
    (found,) = (line for line in table.splitlines() if line.startswith("| WVAT"))
    assert "| - |" not in found


def test_a_cell_that_was_cut_off_goes_on(suite, tmp_path, monkeypatch):
    (cell,) = cells_of(read_suite(suite).chosen(["wvat"]), preset=None, seeds=[0])
    straight = run_suite([cell], tmp_path / "straight").rows["wvat"]
    real, calls = torch.optim.Adam.step, []

    def dies(self, *arguments, **options):
        calls.append(None)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            run_suite([cell], tmp_path / "cut")
    assert (cell.folder(tmp_path / "cut") / "checkpoint.safetensors").is_file()
    names = trained(monkeypatch)
    resumed = run_suite([cell], tmp_path / "cut").rows["wvat"]
    assert names == [("wvat", 0)]
    assert resumed.content["rows"] == straight.content["rows"]


def report(sigma, accuracies):
    return ChipReport(
        "d", sigma, torch.tensor(accuracies, dtype=torch.float64), (0, 1), 10, target=0.8
    )


def test_cells_of_a_table(suite):
    curves = (
        Degradation(0.98, (report(0.0, [0.98, 0.98]), report(0.1, [0.7, 0.9]))),
        Degradation(0.96, (report(0.0, [0.96, 0.96]), report(0.1, [0.8, 0.6]))),
    )
    result = RowResult({}, curves)
    row = read_suite(suite).rows[0]
    assert cells(result, row) == [
        "97.0 ± 1.4 (98.0, -1.0)",
        "75.0 ± 7.1 (80.0, -5.0)",
        "22.0",
        "14.1",
        "60.0",
        "2 of 4 ≥ 80 %",
    ]
    assert cells(RowResult({}, curves[:1]))[:2] == ["98.0", "80.0"]


def test_a_result_file_is_read_back(suite, tmp_path):
    (cell,) = cells_of(read_suite(suite).chosen(["wvat"]), preset=None, seeds=[1])
    result = run_suite([cell], tmp_path / "runs").rows["wvat"]
    result.write(tmp_path / "row.json")
    again = RowResult.read(tmp_path / "row.json")
    assert cells(again) == cells(result)
    (tmp_path / "row.json").write_text("{}")
    with pytest.raises(DataError, match="is no result file of a row"):
        RowResult.read(tmp_path / "row.json")
    with pytest.raises(DataError, match="no row of 'Tiny' has a result yet"):
        markdown(read_suite(suite), {})


def test_wrong_input_is_one_line(suite, tmp_path):
    out = ("--out", tmp_path / "runs")
    assert "there is no suite 'demmo'" in error("bench", "demmo", *out)
    assert "'demo'" in error("bench", "demmo", *out)
    assert "there is no row 'wvatt'" in error("bench", suite, "--rows", "wvatt", *out)
    assert "no preset 'huge'" in error("bench", suite, "--preset", "huge", *out)
    assert "--seeds '0,x': expected whole" in error("bench", suite, "--seeds", "0,x", *out)
    assert "a number is there twice" in error("bench", suite, "--seeds", "0,0", *out)
    assert "unknown key 'lrr'" in error("bench", suite, "--override", "training.lrr=1", *out)
    (suite / "suite.toml").write_text(SUITE.replace("plain.toml", "wvat.toml"))
    assert "has two rows named wvat" in error("bench", suite, *out)
    (suite / "suite.toml").write_text(SUITE.replace("[[setups]]", "[[setup]]"))
    assert "setup" in error("bench", suite, *out)
    (suite / "suite.toml").write_text(SUITE.replace('method = "WVAT"', "method = 3"))
    assert "setups.0.rows.1.method" in error("bench", suite, *out)


@pytest.mark.parametrize("folder", sorted(p.parent for p in suites_folder().glob("*/suite.toml")))
def test_every_recipe_of_the_suites_is_sound(folder):
    suite = read_suite(folder)
    for preset, seeds in suite.seeds.items():
        assert cells_of(suite, preset=preset, seeds=seeds[:1])
    named = {row.recipe for row in suite.rows}
    assert named == {path.name for path in folder.glob("*.toml")} - {"suite.toml"}


def test_a_missing_recipe_is_an_error(suite):
    (suite / "plain.toml").unlink()
    with pytest.raises(RecipeError, match="plain.toml"):
        cells_of(read_suite(suite), preset=None, seeds=[0])
