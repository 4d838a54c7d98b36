"""The commands as a user types them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from spikewvat import files
from spikewvat.cli import app
from spikewvat.devices import pcm
from spikewvat.errors import TrainingStalledWarning
from spikewvat.lab.recipes import evaluation, schema
from spikewvat.lab.recipes.results import RunResult
from spikewvat.results import Landscape
from spikewvat.robustness.axis import AGE
from spikewvat.serialisation import plain, read

RECIPE = """
name = "tiny"
data = "tiny"
[model]
name = "snntorch-cnn"
channels = [3]
kernel_size = 3
classes = 3
[training]
lr = 0.02
epochs = 4
batch_size = 8
accelerator = "cpu"
[method]
name = "wvat"
device = "gaussian:sigma=0.05"
[averaging]
enabled = true
start = 0.5
[evaluation]
sigmas = [0.0, 0.1]
chips = 3
target = 0.6
[preset.paper.training]
epochs = 5
"""
WRITTEN = [
    *("best.safetensors", "checkpoint.safetensors", "model.safetensors"),
    *("recipe.toml", "result.json"),
]


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch):
    monkeypatch.setitem(schema.DATA, "tiny", "training_worker:TinyEvents")
    monkeypatch.setitem(schema.GENERATED, "tiny", "training_worker:nowhere")


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def call(*arguments, code=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done


def error(*arguments):
    """Return the one line that a failing command prints."""
    (line,) = call(*arguments, code=2).stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def run(recipe, tmp_path):
    call("train", recipe, "--out", tmp_path / "run", "--no-progress")
    return tmp_path / "run"


def test_train_writes_everything(recipe, tmp_path):
    out = tmp_path / "deep" / "run"
    done = call("train", recipe, "--out", out, "--seed", 3, "training.lr=0.01", "--no-progress")
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert names == WRITTEN
    written = tomllib.loads((out / "recipe.toml").read_text())
    assert written["seed"] == 3
    assert written["training"]["lr"] == 0.01
    assert written["model"]["input_shape"] == [2, 6, 6]
    assert written["model"]["beta"] == 0.9  # defaults are spelled out
    assert written["data"]["time_steps"] == 3
    result = result_of(out)
    assert (result.seed, result.scale, result.method) == (3, "quick", "wvat")
    assert result.recipe == written
    assert result.settings["gamma"] == written["method"]["gamma"]
    assert result.training.averaged_epochs == 2
    assert result.training.samples == {"train": 48, "validation": 0, "test": 24}
    assert len(result.training.history) == 4
    assert result.versions["torch"]
    assert result.curve.sigmas == (0.0, 0.1)
    assert "sigma 10 %" in done.stdout
    assert "no variation" in done.stdout


def test_presets_and_the_default_folder(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("train", recipe, "--preset", "paper", "evaluation.sigmas=[]", "--no-progress")
    result = result_of(tmp_path / "runs" / "tiny-seed0")
    assert result.scale == "paper"
    assert len(result.training.history) == 5
    assert len(result.curve) == 0


def test_held_out_samples_are_watched(recipe, tmp_path):
    out = tmp_path / "run"
    overrides = ["training.validation=0.25", "training.patience=1", "evaluation.split=train"]
    call("train", recipe, "--out", out, "--no-progress", *overrides, "training.shift=1")
    training = result_of(out).training
    assert training.watching == "validation"
    assert training.samples == {"train": 36, "validation": 12, "test": 24}
    assert rows(out, "--split", "validation").curve[0].images == 12
    looked = tmp_path / "around.json"
    options = ("--images", 4, "--directions", 1, "--points", 2, "--chips", 2, "--no-progress")
    call("landscape", out, "--split", "validation", *options, "--out", looked)
    assert read(looked, Landscape).lines.images == 4


def test_nothing_is_held_out(recipe, run, tmp_path):
    message = "evaluation.split = 'validation', but no data is held out. Train with"
    assert message in error("evaluate", run, "--split", "validation")
    assert message in error("train", recipe, "--out", tmp_path / "x", "evaluation.split=validation")
    assert not (tmp_path / "x" / "model.safetensors").exists()


def test_activations_are_quantised_while_chips_are_tested(recipe, tmp_path, monkeypatch):
    seen = []

    def spy(model, *arguments, tested=evaluation.on_chips, **options):
        seen.append([len(module._forward_pre_hooks) for module in model.convs])
        return tested(model, *arguments, **options)

    for module in ("evaluation", "run"):
        monkeypatch.setattr(f"spikewvat.lab.recipes.{module}.on_chips", spy)
    out = tmp_path / "run"
    short = ("training.epochs=1", "averaging.enabled=false", "evaluation.chips=1")
    options = ("evaluation.activation_bits=4", *short, "--no-progress")
    call("train", recipe, "--out", out, *options)
    call("evaluate", out, "--no-progress")
    call("train", recipe, "--out", tmp_path / "plain", *short, "--no-progress")
    assert seen == [[1], [1], [0]]
    assert "evaluation.activation_bits" in error("train", recipe, "evaluation.activation_bits=1")


def test_a_part_of_the_samples_is_evaluated(recipe, tmp_path):
    out = tmp_path / "run"
    arguments = ("--out", out, "evaluation.images=5", "training.epochs=2", "--no-progress")
    call("train", recipe, *arguments)
    result = result_of(out)
    assert result.training.samples["test"] == 5
    assert {report.images for report in result.curve} == {5}
    call("evaluate", out, "--split", "train", "--json", tmp_path / "x.json", "--no-progress")
    assert read(tmp_path / "x.json", RunResult).curve[0].images == 5


def test_evaluate_repeats_the_rows_of_train(run, tmp_path):
    figures = tmp_path / "new" / "rows.json"
    picture = tmp_path / "new" / "rows.png"
    call("evaluate", run, "--json", figures, "--plot", picture, "--no-progress")
    found = read(figures, RunResult)
    assert plain(found.curve) == plain(result_of(run).curve)
    report = found.curve[1]
    assert (report.chips, report.target) == (3, 0.6)
    assert picture.read_bytes()[:4] == b"\x89PNG"


def result_of(folder):
    return read(folder / "result.json", RunResult)


def rows(run, *arguments):
    figures = run / "rows.json"
    call("evaluate", run, "--json", figures, "--no-progress", *arguments)
    return read(figures, RunResult)


def test_the_same_chips_are_looked_at_older(run, tmp_path):
    figures = tmp_path / "ages.json"
    options = ("--device", "pcm", "--time", "0,1h,1y", "--chips", 2, "--no-progress")
    found = call("evaluate", run, *options, "--json", figures, "--plot", tmp_path / "ages.png")
    for text in ("age 1 h", "age 1 y", "of the 6-sigma width", "in units of conductance"):
        assert text in found.stdout
    result = read(figures, RunResult)
    assert result.curve.axis == AGE
    assert result.curve.sigmas == (0.0, 3600.0, 31536000.0)
    assert result.curve.at(3600.0).device == repr(pcm(time=3600.0))
    assert len({report.seeds for report in result.curve}) == 1
    for wrong, message in (
        (("--time", "1h"), "leaves|sweep|swept"),
        (("--time", "1h", "--device", "gaussian:sigma=0.1"), "does not change with time"),
        (("--time", "1y", "--device", "sonos"), "measured for 432000 s"),
        (("--time", "soon", "--device", "pcm"), "'soon' is no duration"),
    ):
        assert re.search(message, error("evaluate", run, *wrong))


def test_evaluate_with_other_options(run):
    found = rows(run, "--device", "weibull:k=2", "--sigma", "0.2,0.1", "--chips", 4, "--seed", 1)
    assert found.curve.sigmas == (0.2, 0.1)
    assert all(report.chips == 4 for report in found.curve)
    assert "Weibull" in found.curve[0].device
    again = rows(run, "--device", "weibull:k=2", "--sigma", "0.2,0.1", "--chips", 4, "--seed", 1)
    assert plain(again) == plain(found)
    seeds = [rows(run, "--seed", seed).curve[1].seeds for seed in (1, 2)]
    assert seeds[0] != seeds[1]
    assert rows(run, "--target", 0.5).curve[0].target == 0.5
    assert rows(run, "--split", "train").curve[0].images == 48
    assert rows(run, "--best").weights == "best.safetensors"


def test_a_device_without_a_sigma_is_one_row(run, tmp_path):
    picture = tmp_path / "yield.svg"
    found = rows(run, "--device", "quantized:bits=3>>gaussian:sigma=0.1", "--plot", picture)
    (report,) = found.curve
    assert report.sigma is None
    assert picture.read_text().startswith("<?xml")


def test_wrong_input_is_one_line(recipe, run, tmp_path):
    out = ["--out", tmp_path / "x", "--no-progress"]
    assert "Did you mean 'epochs'?" in error("train", recipe, "training.epoch=3", *out)
    assert "channels" in error("train", recipe, "model.chanels=[3]", *out)
    assert "time_steps" in error("train", recipe, "data.time_step=3", *out)
    assert "alpha" in error("train", recipe, "method.alpha=nan", *out)
    assert "stages of" in error("train", recipe, "model.channels=[3, 3, 3, 3]", *out)
    assert "holds a checkpoint" in error("train", recipe, "--out", run)
    assert "belongs to another run: recipe.seed was 0, is 1" in error(
        "train", recipe, "--out", run, "--resume", "--seed", 1
    )
    assert "no preset 'papr'" in error("train", recipe, "--preset", "papr", *out)
    (tmp_path / "file").write_text("")
    blocked = tmp_path / "file" / "x"
    assert "cannot write into folder" in error("train", recipe, "--out", blocked)
    assert "holds no run" in error("evaluate", tmp_path)
    assert "Did you mean 'gaussian'?" in error("evaluate", run, "--device", "gausian")
    assert "sigma" in error("evaluate", run, "--sigma", "0,x")
    assert "evaluation.sigmas" in error("evaluate", run, "--sigma", "-0.1")
    assert "evaluation.chips = 0" in error("evaluate", run, "--chips", 0)
    assert "no file 'gone.toml'" in error("evaluate", run, "--device", "gone.toml")
    assert "cannot write into folder" in error("evaluate", run, "--json", blocked / "rows.json")
    assert "cannot draw" in error("evaluate", run, "--plot", tmp_path / "x.xyz", "--no-progress")
    files.save(run / "model.safetensors", {"w": torch.zeros(1)})
    assert "belongs to another model" in error("evaluate", run)


def test_wrong_calls_are_one_line():
    for words, message in [
        (("foo",), "no such command 'foo'. See "),
        (("--foo",), "no such option: --foo. See "),
        (("train",), "missing argument 'recipe'"),
        (("evaluate", "run", "--chips", "many"), "'--chips'"),
        (("evaluate", "run", "--chip", "3"), "no such option: --chip "),
        (("data", "chek"), "no such command 'chek'. "),
        (("data", "simulate", "a", "b", "--out", "c", "--first", "0"), "'--first'"),
    ]:
        line = error(*words)
        assert message.lower() in line.lower()
        assert line.endswith(" --help.")


def test_diverging_training_is_one_line(recipe, tmp_path):
    line = error("train", recipe, "training.lr=1e30", "--out", tmp_path / "x", "--no-progress")
    assert "training has diverged" in line


def test_unexpected_errors_keep_their_traceback(recipe, monkeypatch):
    def broken(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr("spikewvat.lab.recipes.run.train", broken)
    with pytest.raises(ZeroDivisionError):
        call("train", recipe)


def test_the_stall_warning_is_one_line(recipe, monkeypatch):
    import warnings

    def stalled(*arguments, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("lower alpha", TrainingStalledWarning, stacklevel=1)

    monkeypatch.setattr("spikewvat.lab.recipes.run.train", stalled)
    shown = warnings.showwarning
    assert call("train", recipe).stderr == "warning: lower alpha\n"
    assert warnings.showwarning is shown


def test_killed_on_the_command_line_and_resumed(recipe, tmp_path):
    """The whole command, killed after some checkpoint, ends with the same weights."""
    script = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from spikewvat.lab.recipes import schema\n"
        "schema.DATA['tiny'] = 'training_worker:TinyEvents'\n"
        "schema.GENERATED['tiny'] = 'training_worker:nowhere'\n"
        "from spikewvat.cli import app; app()\n"
    )
    options = ["training.epochs=30", "evaluation.sigmas=[]", "--no-progress"]
    command = [sys.executable, "-c", script, str(Path(__file__).parent), "train", str(recipe)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = tmp_path / "killed"
    process = subprocess.Popen([*command, *options, "--out", str(out)], env=environment)
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "model.safetensors").exists()
    call("train", recipe, *options, "--out", out, "--resume")
    call("train", recipe, *options, "--out", tmp_path / "whole")
    for name in ("model.safetensors", "best.safetensors", "recipe.toml"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_python_m_and_help():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "spikewvat", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("train", "evaluate", "devices", "data"):
        assert command in done.stdout
        assert "--help" in call(command, "--help").stdout


# Devices.


@pytest.fixture
def table(tmp_path):
    generator = torch.Generator().manual_seed(0)
    lines = ["device,level,time,g"]
    for device in range(20):
        for level in range(4):
            for repeat in range(3):
                noise = 0.05 * float(torch.randn((), generator=generator))
                for t in (0, 1):
                    lines.append(f"{device},{level},{t},{level + noise * (1 + t)}")
                assert repeat >= 0
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines))
    return path


COLUMNS = ["--level-column", "level", "--value-column", "g"]


def test_fit_show_and_use_a_device(table, run, tmp_path):
    device, picture = tmp_path / "d" / "device.toml", tmp_path / "d" / "fit.png"
    more = ["--time-column", "time", "--time", "1", "--device-column", "device"]
    done = call("devices", "fit", table, *COLUMNS, *more, "--out", device, "--plot", picture)
    assert re.search(r"1 s after programming", done.stdout)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    shown = call("devices", "show", device, "--plot", tmp_path / "show.png")
    assert "model std %" in shown.stdout
    call("devices", "show", device, "--data", table, *COLUMNS, "--value-range", "0,3")
    assert "--level-column" in error("devices", "show", device, "--data", table)
    (report,) = rows(run, "--device", f"gaussian:sigma=0.01>>{device}").curve
    assert "Empirical" in report.device


def test_wrong_input_for_devices(table, tmp_path):
    out = ["--out", tmp_path / "device.toml"]
    assert "no column named 'lvl'" in error(
        "devices", "fit", table, "--level-column", "lvl", "--value-column", "g", *out
    )
    assert "no file" in error("devices", "fit", tmp_path / "gone.csv", *COLUMNS, *out)
    assert "--value-range '1': expected LOW,HIGH" in error(
        "devices", "fit", table, *COLUMNS, *out, "--value-range", "1"
    )
    assert "--range = 'absmx' is unknown" in error(
        "devices", "fit", table, *COLUMNS, *out, "--range", "absmx"
    )
    assert "cannot fit" in error(
        "devices", "fit", table, *COLUMNS, *out, "--time-column", "time", "--time", "-1"
    )
    assert "no file" in error("devices", "show", tmp_path / "gone.toml")
    assert "is no empirical device" in error("devices", "show", table)
    assert not (tmp_path / "device.toml").exists()


# Data.


@pytest.fixture
def recordings(tmp_path):
    from spikewvat.data.saccades import write_recordings

    images = torch.rand(20, 28, 28, generator=torch.Generator().manual_seed(0))
    labels = [index % 10 for index in range(20)]
    for part in ("Train", "Test"):
        folder = tmp_path / "root" / "NMNIST" / part
        write_recordings(
            folder, images, labels, range(20), generator=torch.Generator().manual_seed(1)
        )
    return tmp_path / "root"


def test_check_describes_what_is_there(recordings):
    shown = call("data", "check", recordings).stdout
    assert "train" in shown
    assert "2 .. 2" in shown
    assert "test" not in call("data", "check", recordings, "--split", "train").stdout.split()
    assert "expected train or test" in error("data", "check", recordings, "--split", "trian")
    (recordings / "NMNIST" / "Test" / "3" / "00003.bin").write_bytes(b"1234567")
    assert "7 bytes" in error("data", "check", recordings)
    assert "there is no folder" in error("data", "check", recordings / "NMNIST" / "Train" / "3")


def test_embedded_prints_the_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("spikewvat.data.embedded_root", lambda cache: tmp_path / str(cache))
    assert call("data", "embedded", "--cache", "x").stdout == f"{tmp_path / 'x'}\n"


def test_where_data_lies(recordings, monkeypatch, tmp_path):
    monkeypatch.delenv("SPIKEWVAT_DATA", raising=False)
    recipe = Path(__file__).parent.parent / "benchmarks" / "recipes" / "nmnist" / "wvat.toml"
    small = [
        *("training.epochs=2", "data.time_steps=2", "model.channels=[2]", "averaging.start=0.5"),
        *("evaluation.chips=2", "--no-progress"),
    ]
    out = ["--out", tmp_path / "out", *small]
    assert "Pass --data-root, or set SPIKEWVAT_DATA" in error("train", recipe, *out)
    gone = tmp_path / "gone"
    assert "there is no folder" in error("train", recipe, *out, "--data-root", gone)
    monkeypatch.setenv("SPIKEWVAT_CACHE", str(tmp_path / "cache"))
    call("train", recipe, *out, "--data-root", recordings)
    monkeypatch.setenv("SPIKEWVAT_DATA", str(recordings))
    call("evaluate", tmp_path / "out", "--sigma", "0.1", "--chips", 2, "--no-progress")


def idx(path: Path, values: torch.Tensor) -> Path:
    """Write the idx format of MNIST."""
    header = bytes([0, 0, 8, values.dim()])
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(header + sizes + values.to(torch.uint8).numpy().tobytes())
    return path


def test_simulate_re_enacts_images(tmp_path):
    images = idx(tmp_path / "images", torch.randint(256, (12, 28, 28)))
    labels = idx(tmp_path / "labels", torch.arange(12) % 10)
    out = tmp_path / "root"
    call("data", "simulate", images, labels, "--out", out, "--first", 11, "--split", "test")
    written = sorted(path.name for path in (out / "NMNIST" / "Test").rglob("*.bin"))
    assert written == [f"{number:05d}.bin" for number in range(1, 12)]
    assert (out / "NMNIST" / "Test" / "0" / "00011.bin").exists()
    again = tmp_path / "again"
    call("data", "simulate", images, labels, "--out", again, "--first", 11, "--split", "test")
    for path in (out / "NMNIST").rglob("*.bin"):
        assert path.read_bytes() == (again / path.relative_to(out)).read_bytes()
    some = tmp_path / "some"
    call("data", "simulate", images, labels, "--out", some, "--skip", 9, "--first", 2)
    assert sorted(path.name for path in some.rglob("*.bin")) == ["00010.bin", "00011.bin"]
    assert "leaves none of the 12" in error(
        "data", "simulate", images, labels, "--out", some, "--skip", 12
    )
    fewer = idx(tmp_path / "fewer", torch.arange(3))
    assert "12 images" in error("data", "simulate", images, fewer, "--out", out)
    assert "expected train or test" in error(
        "data", "simulate", images, labels, "--out", out, "--split", "x"
    )
