"""The networks that come with the package, and the runs of one's own, loaded by name."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from spikewvat import Evaluator, Gaussian, lab
from spikewvat.cli import app
from spikewvat.errors import CheckpointError
from spikewvat.lab.loading import NETWORKS
from spikewvat.lab.places import suites_folder
from spikewvat.lab.recipes import read_recipe

NAMES = lab.networks()


@pytest.fixture(scope="module")
def loaded(embedded_data):
    return {name: lab.load(name) for name in NAMES}


def test_they_are_few_small_and_listed():
    assert NAMES == ["digits-momentum", "digits-swa", "digits-wvat"]
    for name in NAMES:
        files = sorted(path.name for path in (NETWORKS / name).iterdir())
        assert files == ["model.safetensors", "recipe.toml", "result.json"]
        assert sum(path.stat().st_size for path in (NETWORKS / name).iterdir()) < 100_000


def test_each_reaches_what_its_result_says(loaded):
    """The first chips, within an image or two of what another machine's arithmetic may change."""
    for network in loaded.values():
        test = Evaluator(network.model, network.test)
        curve = network.result.curve
        assert test.accuracy == pytest.approx(curve.clean, abs=0.006)
        found = test.chips(Gaussian(sigma=0.10), chips=3)
        expected = curve.at(0.10)
        assert found.seeds == expected.seeds[:3]
        assert found.accuracies.tolist() == pytest.approx(
            expected.accuracies[:3].tolist(), abs=0.011
        )
        assert not network.model.training


def test_each_is_the_recipe_of_the_demo(loaded):
    for name, network in loaded.items():
        recipe = read_recipe(suites_folder() / "demo" / f"{name.removeprefix('digits-')}.toml")
        complete = network.recipe.training_content()
        for key, table in recipe.training_content().items():
            if isinstance(table, dict):
                assert table.items() <= complete[key].items()
        assert network.result.commit
        assert network.result.versions["torch"]
        assert name in str(network)


def test_more_chips_work_where_variation_was_trained(loaded):
    working = {
        name: network.result.curve.at(0.10).yield_at(0.9).working
        for name, network in loaded.items()
    }
    assert working["digits-swa"] < min(working["digits-wvat"], working["digits-momentum"])


def test_loaders_are_those_of_the_recipe(loaded):
    network = loaded["digits-wvat"]
    spikes, _ = next(iter(network.train))
    assert spikes.shape == (6, 32, 2, 34, 34)
    assert len(network.train.dataset) == 1402
    assert sum(len(labels) for _, labels in network.test) == 395


def test_a_run_of_ones_own_is_loaded_by_its_folder(loaded):
    own = lab.load(NETWORKS / "digits-swa")
    assert own.recipe == loaded["digits-swa"].recipe


def test_an_unknown_name_is_answered_by_the_list(tmp_path):
    with pytest.raises(CheckpointError, match=r"'digits-sam' is neither .*digits-wvat"):
        lab.load("digits-sam")
    with pytest.raises(CheckpointError, match="holds no run"):
        lab.load(tmp_path)


def test_evaluate_takes_the_name_and_draws_a_picture(loaded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["evaluate", "digits-wvat", "--chips", "2", "--sigma", "0.1"])
    assert done.exit_code == 0, done.output
    assert "2 of 2" in done.output
    assert (tmp_path / "digits-wvat.png").stat().st_size > 10_000
    done = CliRunner().invoke(app, ["evaluate", "digits-sam"])
    assert done.exit_code == 2
    assert all(name in done.stderr for name in NAMES)


def test_help_names_them():
    text = CliRunner().invoke(app, ["evaluate", "--help"], terminal_width=200).output
    assert all(name in text for name in NAMES)
