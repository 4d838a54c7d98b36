"""Recipes, suites and results that somebody else has written, or several people at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import tomllib

import pytest
import tomli_w
from test_cli import call, error

from spikewvat.data.embedded import embedded_root
from spikewvat.errors import CheckpointError, DataError, RecipeError
from spikewvat.files import check_name
from spikewvat.formatting import escaped, markdown_table
from spikewvat.lab.recipes import read_recipe, recipe_from
from spikewvat.lab.recipes.lock import alone_in
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.suites import read_suite
from spikewvat.robustness import Activity
from spikewvat.serialisation import plain, restored

RECIPE = """
name = "tiny"
[data]
name = "embedded"
per_class = 4
time_steps = 2
[model]
name = "snntorch-cnn"
channels = [2]
stride = 4
[training]
epochs = 1
batch_size = 20
accelerator = "cpu"
[evaluation]
sigmas = [0.0, 0.1]
chips = 2
"""
SUITE = """
title = "Tiny"
[seeds]
quick = [0]
[[setups]]
name = "CNN"
rows = [{{ method = "plain", recipe = "tiny.toml", name = {name} }}]
"""
NAMES = [
    "../../../x",
    "..",
    ".",
    "",
    "a/b",
    "/etc/x",
    "a\\b",
    "C:x",
    "nul",
    "CON.txt",
    "a\0b",
    "a\nb",
    ".hidden",
    "x" * 200,
    "a\u202eb",
    "x.",
]


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_no_file(name, tmp_path, embedded_data):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "tiny.toml").write_text(RECIPE)
    (folder / "suite.toml").write_text(SUITE.format(name=json.dumps(name)))
    with pytest.raises(RecipeError, match="cannot name a file: it"):
        read_suite(folder)
    before = sorted(tmp_path.rglob("*"))
    arguments = ["bench", folder, "--out", tmp_path / "a" / "b" / "out", "--jobs", 1]
    assert "cannot name a file" in error(*arguments)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["wvat", "cnn-wvat_2", "w 0", "η=0.5", "a.b", "x" * 150])
def test_names_of_files(name):
    check_name(name, "row")


def test_a_suites_folder_names_its_results(tmp_path, monkeypatch):
    """``bench ..`` writes into OUT/NAME, not above OUT; no suite takes the networks' folder."""
    for name in ("tiny", "trained"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "suite.toml").write_text(SUITE.format(name='"row"'))
    monkeypatch.chdir(tmp_path / "tiny" / "inner")
    assert read_suite("..").folder.name == "tiny"
    with pytest.raises(RecipeError, match="is the folder of trained networks"):
        read_suite(tmp_path / "trained")


def content(**data):
    base = {"name": "tiny", "data": {"name": "embedded", "time_steps": 2}, "model": "snntorch-cnn"}
    return base | {"data": base["data"] | data}


@pytest.mark.parametrize("given", [{"cache": "/tmp/elsewhere"}, {"cache": ""}, {"download": True}])
def test_recipes_do_not_choose_what_is_written_where(given):
    with pytest.raises(RecipeError, match=r"data\.\w+ = .*does not choose what is written where"):
        resolve(recipe_from(content(**given)))
    resolve(recipe_from(content(**dict.fromkeys(given, False))))


def _hold(folder, ready, done):
    with alone_in(folder):
        ready.set()
        done.wait(60)


def test_two_trainings_in_a_folder(tmp_path, embedded_data):
    (tmp_path / "tiny.toml").write_text(RECIPE)
    out = tmp_path / "run"
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(out, ready, done))
    process.start()
    try:
        assert ready.wait(60)
        said = error("train", tmp_path / "tiny.toml", "--out", out)
        assert f"process {process.pid} is at work in {str(out)!r}" in said.replace("\n", " ")
        assert sorted(path.name for path in out.iterdir()) == [".train.lock", ".train.pid"]
    finally:
        done.set()
        process.join(60)
    call("train", tmp_path / "tiny.toml", "--out", out)
    assert (out / "result.json").is_file()
    assert not (out / ".train.pid").exists()


def test_other_processes_of_a_distributed_run_do_not_take_the_lock(tmp_path, monkeypatch):
    with alone_in(tmp_path):
        said = f"process {os.getpid()} is at work"
        with pytest.raises(CheckpointError, match=said), alone_in(tmp_path):
            pass
        monkeypatch.setenv("LOCAL_RANK", "1")
        with alone_in(tmp_path):
            pass


def test_what_is_evaluated_is_all_that_has_to_be_there(tmp_path, embedded_data):
    """A run's test data alone, at a customer's who never sees the training data."""
    (tmp_path / "tiny.toml").write_text(RECIPE)
    call("train", tmp_path / "tiny.toml", "--out", tmp_path / "run")
    root = embedded_root()
    for part in ("Train", "Test"):
        shutil.copytree(root / "NMNIST" / part, tmp_path / part / "NMNIST" / part)
    found = [
        call("evaluate", tmp_path / "run", "--data-root", tmp_path / part, "--split", split).stdout
        for part, split in (("Test", "test"), ("Train", "train"))
    ]
    assert all("10 %" in text for text in found)
    said = error("evaluate", tmp_path / "run", "--data-root", tmp_path / "Train")
    assert "Test" in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("[here](javascript:alert(1))", r"\[here\](javascript:alert(1))"),
        ("a | b\n| c |", r"a \| b \| c \|"),
        ("**bold** `code` keep_mean _em_", r"\*\*bold\*\* \`code\` keep_mean \_em\_"),
        ("# not a heading", r"\# not a heading"),
        ("&lt;", "&amp;lt;"),
        ("accuracy 95.6 ± 0.3 (σ = 10 %), -0.5 .. +1.2", None),
        ("- item", r"\- item"),
        ("-", "-"),
    ],
)
def test_markdown_of_strangers(text, shown):
    assert escaped(text) == (text if shown is None else shown)
    table = markdown_table(["", text], [[text, "1"]])
    assert len(table.splitlines()) == 3
    assert "<" not in table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": 1.5}, r"preset = 1\.5 in '.*': expected tables \[preset\.NAME\]"),
        ({"preset": {"quick": 3}}, r"preset\.quick = 3 in '.*': expected a table"),
        ({"evaluation": {"variant": 3}}, r"evaluation\.variant = 3 in '.*': expected tables"),
        ({"evaluation": {"variant": {"x": 1}}}, r"evaluation\.variant\.x = 1 .*: expected a table"),
        ({"extends": "a\0b"}, r"extends = 'a\\x00b' in '.*': expected a path"),
        ({"data": {"time_steps": 10**9}}, r"time_steps = 1000000000: no more than 100000"),
        ({"evaluation": {"device": [3]}}, r"evaluation\.device.* = \[3\]"),
        ({"evaluation": {"device": []}}, r"a name, a table, or a list of tables"),
        ({"method": {"name": "wvat", "device": 1.5}}, r"method\.device = 1\.5: expected a name"),
        (
            {"method": {"name": "qat", "bits": 8, "perturbation": {"name": []}}},
            r"method\.perturbation = .*: expected a name, or a table with a name",
        ),
    ],
)
def test_recipes_that_are_wrong_in_one_place(change, message, tmp_path):
    whole = tomllib.loads(RECIPE)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(whole.get(key), dict)
        whole[key] = {**whole[key], **value} if both else value
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(whole))
    with pytest.raises(RecipeError, match=message):
        resolve(read_recipe(tmp_path / "recipe.toml"))


def test_networks_that_fit_into_no_memory():
    recipe = content()
    recipe["model"] = {"name": "dense", "sizes": [10**9, 10**9]}
    with pytest.raises(RecipeError, match=r"\[model\]"):
        resolve(recipe_from(recipe)).build_model()


def test_activities_of_other_layers_or_less_than_nothing():
    one, other = Activity(1.0, 2.0, {"a": 0.5}), Activity(1.0, 2.0, {"b": 0.5})
    with pytest.raises(ValueError, match="firing rates are of the layers a and of b"):
        Activity.mean([one, other])
    for wrong in ({"spikes": -1.0}, {"spikes": None}, {"operations": -1.0}, {"rates": {"a": 1.5}}):
        content = {"kind": "Activity 1", **plain(one), **wrong}
        with pytest.raises(DataError, match="is no Activity"):
            restored(content, Activity, source="it")
