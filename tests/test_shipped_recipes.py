"""Recipes by name: listed, copied, extended, run from anywhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_cli import call

from spikewvat.errors import RecipeError
from spikewvat.lab.places import recipe_names, shown, suites_folder
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes.reading import recipe_file
from spikewvat.lab.recipes.shipped import copy_recipe
from spikewvat.lab.suites import jobs_of, read_suite


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_recipe_has_a_line_of_its_own():
    lines = call("recipes").stdout.splitlines()
    listed = [line.split() for line in lines if line.startswith("  ")]
    assert [words[0] for words in listed] == recipe_names()
    assert "demo/wvat" in recipe_names()
    for name, data, *description in listed:
        assert data == read_recipe(name).data.name
        assert description, name
        assert description[:2] != ["The", "same"], f"{name}: same as what?"


def test_names_and_paths_are_told_apart():
    assert recipe_file("demo/wvat") == suites_folder() / "demo" / "wvat.toml"
    assert shown(recipe_file("demo/wvat")) == "demo/wvat"
    assert shown("mine/wvat.toml") == "mine/wvat.toml"


@pytest.mark.parametrize("name", recipe_names())
def test_a_copy_stands_alone(name, tmp_path):
    path = copy_recipe(name, tmp_path / "mine")
    assert "extends" not in path.read_text()
    for preset in (None, "paper"):
        try:
            expected = read_recipe(name, preset=preset)
        except RecipeError:
            with pytest.raises(RecipeError, match="has no preset"):
                read_recipe(path, preset=preset)
        else:
            assert read_recipe(path, preset=preset) == expected


def test_copied_by_command():
    done = call("recipes", "copy", "demo/wvat", "mine")
    assert done.stdout == "Written: mine/wvat.toml. Train it: spikewvat train mine/wvat.toml\n"
    assert read_recipe("mine/wvat.toml") == read_recipe("demo/wvat")


def test_own_recipes_and_suites_build_on_names(tmp_path):
    (tmp_path / "own.toml").write_text('extends = "demo/wvat"\nname = "own"\n')
    assert read_recipe("own.toml").method == read_recipe("demo/wvat").method
    (tmp_path / "mine").mkdir()
    rows = '{ method = "Adam", recipe = "demo/adam" }, { method = "own", recipe = "../own.toml" }'
    suite = f'title = "Mine"\n[seeds]\nquick = [0]\n[[setups]]\nname = "x"\nrows = [{rows}]\n'
    (tmp_path / "mine" / "suite.toml").write_text(suite)
    jobs = jobs_of(read_suite("mine"), preset=None, seeds=[0])
    assert [job.recipe.name for job in jobs] == ["demo-adam", "own"]
    assert [job.row for job in jobs] == ["adam", "own"]


def test_documentation_and_hints_call_recipes_by_name():
    root = Path(__file__).parent.parent
    pages = [root / "README.md", *(root / "docs").rglob("*.md"), *suites_folder().rglob("*.toml")]
    called = []
    for page in pages:
        text = page.read_text()
        assert "benchmarks/recipes" not in text, page
        called += re.findall(r"spikewvat train ([a-z_0-9]+/[a-z_0-9/]+)", text)
    assert len(called) > 4
    assert set(called) <= set(recipe_names())
