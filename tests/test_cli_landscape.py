"""``spikewvat landscape`` as a user types it."""

from __future__ import annotations

import pytest
import torch
from test_cli import RECIPE, call, error

from spikewvat.errors import CheckpointError
from spikewvat.lab.recipes import schema
from spikewvat.lab.recipes.landscape import figures, landscape_run
from spikewvat.results import Landscape
from spikewvat.serialisation import plain, read

SHORT = ["--directions", 2, "--points", 3, "--chips", 2, "--ascent", 1, "--no-progress"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("landscape")
    (folder / "tiny.toml").write_text(RECIPE)
    call("train", folder / "tiny.toml", "--out", folder / "run", "--no-progress")
    return folder / "run"


@pytest.fixture(autouse=True, scope="module")
def _tiny_data():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(schema.DATA, "tiny", "training_worker:TinyEvents")
        patch.setitem(schema.GENERATED, "tiny", "training_worker:nowhere")
        yield


def test_everything_is_printed_written_and_drawn(run, tmp_path):
    out, plot = tmp_path / "landscape.json", tmp_path / "deep" / "landscape.png"
    done = call(
        *("landscape", run, *SHORT, "--surface", 2, "--histograms"),
        *("--out", out, "--plot", plot),
    )
    assert "2 lines of gaussian, sigma 0.15" in " ".join(done.stdout.split())
    for magnitude in ("-15 %", "+0 %", "+15 %"):
        assert magnitude in done.stdout
    assert "Sharpness: loss " in done.stdout
    assert "on the worst of 2" in done.stdout
    assert "Plane: 2 x 2 positions" in done.stdout
    assert "convs.0.weight" in done.stdout
    found = read(out, Landscape)
    assert found.recipe["method"]["name"] == "wvat"
    assert (found.seed, found.scale) == (0, "quick")
    assert (found.method, found.split, found.weights) == ("wvat", "test", "model.safetensors")
    lines = found.lines
    assert (lines.losses.shape, lines.sigma, lines.images) == ((2, 3), 0.15, 24)
    assert found.sharpness.report.seeds == lines.seeds
    assert found.surface.losses.shape == (2, 2)
    assert [layer.name for layer in found.histograms] == ["convs.0.weight", "readout.weight"]
    drawn = sorted(path.name for path in plot.parent.iterdir())
    assert drawn == ["landscape-histograms.png", "landscape-surface.png", "landscape.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in plot.parent.iterdir())


def test_what_is_not_asked_for_is_not_done(run, tmp_path):
    plot = tmp_path / "lines.svg"
    done = call("landscape", run, *SHORT, "--ascent", 0, "--plot", plot)
    assert "Plane" not in done.stdout
    assert "ascent" not in done.stdout
    assert "Weights" not in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["lines.svg"]


def a_landscape(run, **options):
    short = {"directions": 2, "points": 3, "chips": 2, "ascent_points": 1, "progress": False}
    return landscape_run(run, **{**short, **options})


def test_options_change_what_is_measured(run):
    first = a_landscape(run)
    assert plain(a_landscape(run).lines) == plain(first.lines)
    assert a_landscape(run, seed=5).lines.seeds != first.lines.seeds
    assert a_landscape(run, images=6).lines.images == 6
    assert a_landscape(run, split="train").lines.images == 48
    other = a_landscape(run, loss="mse-count")
    assert other.loss == "mse-count" != first.loss
    assert not torch.equal(other.lines.losses, first.lines.losses)
    assert torch.equal(other.lines.accuracies, first.lines.accuracies)
    quantized = a_landscape(run, device="quantized:bits=3")
    assert quantized.device == "quantized:bits=3"
    assert quantized.lines.sigma is None
    assert a_landscape(run, sigma=0.3).lines.sigma == 0.3
    assert a_landscape(run, weights="best.safetensors").weights == "best.safetensors"


def test_a_run_is_left_as_it_was(run):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    a_landscape(run, surface=2, histograms=True)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_pictures_of_several_runs(run):
    one, other = a_landscape(run, surface=2, histograms=True), a_landscape(run, seed=4)
    assert list(figures({"one": one})) == ["lines", "surface", "histograms"]
    both = figures({"one": one, "other": other})
    assert list(both) == ["lines"]
    assert [line.get_label() for line in both["lines"].axes[0].get_lines()] == ["one", "other"]


def test_a_device_without_a_size_is_shown_by_place(run):
    done = call("landscape", run, *SHORT, "--device", "quantized:bits=3")
    assert "place (1: chip)" in done.stdout


def test_wrong_input_is_one_line(run, tmp_path):
    assert "holds no run" in error("landscape", tmp_path)
    assert "Did you mean 'gaussian'?" in error("landscape", run, "--device", "gausian")
    assert "--surface 1: expected at least 2 positions per side" in error(
        "landscape", run, "--surface", 1
    )
    assert "Did you mean 'mse-count'?" in error("landscape", run, "--loss", "mse-cuont")
    assert "evaluation.split" in error("landscape", run, "--split", "tset")
    (tmp_path / "file").write_text("")
    blocked = tmp_path / "file" / "x.json"
    assert "cannot write into folder" in error("landscape", run, "--out", blocked)
    assert "cannot draw" in error("landscape", run, *SHORT, "--plot", tmp_path / "x.xyz")
    with pytest.raises(CheckpointError, match="missing.safetensors"):
        a_landscape(run, weights="missing.safetensors")
