"""Conversion of trained runs: the command, its files, the rows of a suite."""

from __future__ import annotations

import os
import tomllib

import pytest
import torch
from test_cli import call, error

from spikewvat import files
from spikewvat.conversion import restore
from spikewvat.conversion.layers import Neurons
from spikewvat.errors import CheckpointError, RecipeError
from spikewvat.lab.recipes import convert as conversions
from spikewvat.lab.recipes import evaluation, read_recipe, schema
from spikewvat.lab.recipes import run as runs
from spikewvat.lab.recipes.lock import alone_in
from spikewvat.lab.recipes.reading import changed
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.recipes.results import RunResult
from spikewvat.lab.recipes.saved import CONVERTED, load_model, read_run
from spikewvat.results import RowResult
from spikewvat.serialisation import plain, read

RECIPE = """
name = "tiny"
data = "images"
[model]
name = "lenet"
channels = [4]
hidden = 12
classes = 3
[training]
lr = 0.02
epochs = 6
batch_size = 8
accelerator = "cpu"
[evaluation]
sigmas = [0.0, 0.1]
chips = 3
target = 0.6
[conversion]
time_steps = 8
calibration = 32
[conversion.finetune]
lr = 1e-3
[conversion.variant.stdb.finetune]
epochs = 2
images = 24
[conversion.variant.robust]
finetune = { epochs = 1, method = { name = "wvat", device = "gaussian:sigma=0.1" } }
"""


@pytest.fixture(autouse=True)
def _tiny_images(monkeypatch):
    monkeypatch.setitem(schema.DATA, "images", "training_worker:TinyImages")
    monkeypatch.setitem(schema.GENERATED, "images", "training_worker:nowhere")


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def run(recipe, tmp_path):
    call("train", recipe, "--out", tmp_path / "run", "--no-progress")
    return tmp_path / "run"


def result_of(folder):
    return read(folder / "result.json", RunResult)


def test_convert_writes_a_network_that_evaluates_to_the_same(run, tmp_path):
    out = tmp_path / "snn"
    done = call("convert", run, "--out", out, "--sweep", "2,4", "--no-progress")
    assert sorted(p.name for p in out.glob("[!.]*")) == [
        "recipe.toml",
        "result.json",
        "snn.safetensors",
    ]
    result = result_of(out)
    found = result.converted
    assert found.over_time.steps == (2, 4, 8)
    assert "T = 8" in done.stdout
    assert f"the ANN: {100 * found.ann:.2f} %" in done.stdout
    assert found.ann == result_of(run).curve.clean
    assert found.over_time.accuracies[-1] == result.curve.clean > 0.6
    assert result.method == "adam, converted"
    assert result.recipe == tomllib.loads((out / "recipe.toml").read_text())
    assert result.recipe["conversion"]["sweep"] == [2, 4]
    assert result.training.samples["test"] == 24
    assert len(found.thresholds) == 2

    call("evaluate", out, "--json", tmp_path / "again.json", "--no-progress")
    again = read(tmp_path / "again.json", RunResult)
    assert plain(again.curve) == plain(result.curve)
    assert (again.weights, again.method) == ("snn.safetensors", "adam, converted")


def test_activations_of_a_converted_network_are_quantised(run, tmp_path):
    rows = []
    for name, options in (("some", ("evaluation.activation_bits=2",)), ("all", ())):
        out = tmp_path / name
        call("convert", run, "--out", out, "--sweep", "2", *options, "--no-progress")
        call("evaluate", out, "--json", tmp_path / "again.json", "--no-progress")
        rows.append(plain(result_of(out).curve))
        assert plain(read(tmp_path / "again.json", RunResult).curve) == rows[-1]
    assert rows[0] != rows[1]


def test_chips_run_in_the_precision_of_the_recipe_but_not_converted_ones(
    recipe, tmp_path, monkeypatch
):
    seen, shared = [], []

    class Spy(evaluation.Evaluator):
        def __init__(self, *arguments, autocast, jobs, **options):
            seen.append(autocast)
            shared.append(jobs)
            super().__init__(*arguments, autocast=autocast, **options)

    monkeypatch.setattr(evaluation, "Evaluator", Spy)
    run, out = tmp_path / "run", tmp_path / "snn"
    short = ("training.epochs=1", "training.channels_last=true", "evaluation.precision=bf16-mixed")
    call("train", recipe, "--out", run, *short, "--no-progress")
    call("evaluate", run, "--jobs", 2, "--no-progress")
    call("convert", run, "--out", out, "--sweep", "2", "--no-progress")
    call("evaluate", out, "--no-progress")
    assert seen == [torch.bfloat16, torch.bfloat16, None, None]
    assert shared == [1, 2, 1, 1]
    assert result_of(run).recipe["evaluation"]["precision"] == "bf16-mixed"
    assert result_of(out).recipe["evaluation"]["precision"] == "32-true"


def test_the_default_folder_and_a_checkpoint(run):
    call("convert", run / "checkpoint.safetensors", "--no-progress")
    result = result_of(run / "converted")
    assert (result.run, result.weights) == (str(run), "checkpoint.safetensors")
    # Without averaging, the last weights are the final ones.
    call("convert", run, "--out", run / "other", "--no-progress")
    first, second = result_of(run / "converted"), result_of(run / "other")
    assert plain(first.curve) == plain(second.curve)


def test_options_reach_the_network(run, tmp_path):
    out = tmp_path / "snn"
    options = ["--time-steps", 5, "--calibration", 16, "--percentile", 99, "--coding", "poisson"]
    call(
        *("convert", run, "--out", out, *options, "--no-progress"),
        *("conversion.neurons.hard_reset=true", "conversion.neurons.surrogate=spike-time"),
        *("evaluation.chips=2", "conversion.images=6"),
    )
    plan = result_of(out).recipe["conversion"]
    assert (plan["time_steps"], plan["calibration"]) == (5, 16)
    assert plan["balancing"]["percentile"] == 99.0
    assert plan["coding"]["name"] == "poisson"
    assert {report.images for report in result_of(out).curve} == {6}
    assert result_of(out).converted.over_time.images == 24
    snn = load_model(out, resolve(read_run(out)), weights=CONVERTED)
    neurons = [module for module in snn.modules() if isinstance(module, Neurons)]
    assert type(neurons[0].dynamics.surrogate).__name__ == "SpikeTime"
    assert snn.time_steps == 5


def test_balancing_for_many_chips(run, tmp_path):
    for name, chips in (("one", 1), ("many", 4)):
        call(
            *("convert", run, "--out", tmp_path / name, "--no-progress"),
            *("conversion.balancing.variation=gaussian:sigma=0.1",),
            f"conversion.balancing.chips={chips}",
        )
    one, many = (result_of(tmp_path / name).converted.thresholds for name in ("one", "many"))
    assert one.keys() == many.keys()
    assert one != many


def test_finetuning_with_and_without_variation(run, tmp_path):
    for name, options in (("stdb", ()), ("robust", ("--variation", "gaussian:sigma=0.1"))):
        out = tmp_path / name
        call("convert", run, "--out", out, "--finetune-epochs", 2, *options, "--no-progress")
        assert result_of(out).training.epochs == 2
        assert not (out / "model.safetensors").exists()
    assert result_of(tmp_path / "stdb").method == "adam, converted, STDB"
    assert result_of(tmp_path / "robust").method == "adam, converted, STDB under wvat"
    plain, robust = (files.load(tmp_path / n / "snn.safetensors") for n in ("stdb", "robust"))
    assert any(not torch.equal(plain[key], robust[key]) for key in plain)


def test_an_interrupted_conversion_goes_on_bit_for_bit(run, tmp_path, monkeypatch):
    options = ("--finetune-epochs", 2, "conversion.finetune.images=24", "--no-progress")
    call("convert", run, "--out", tmp_path / "straight", *options)
    real, calls = torch.optim.Adam.step, []

    def dies(self, *arguments, **keywords):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *arguments, **keywords)

    out = tmp_path / "cut"
    settings = read_run(run).model_copy(deep=True)
    wanted = changed(
        settings, {}, ["conversion.finetune.epochs=2", "conversion.finetune.images=24"]
    )
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", dies)
        with pytest.raises(KeyboardInterrupt):
            conversions.convert_run(run, out, resolve(wanted), progress=False)
    assert not (out / "result.json").exists()
    assert "holds an earlier run" in error("convert", run, "--out", out, *options)
    assert "conversion.time_steps was 8, is 9" in error(
        "convert", run, "--out", out, *options, "--resume", "--time-steps", 9
    )
    call("convert", run, "--out", out, *options, "--resume")
    straight, cut = (files.load(tmp_path / n / "snn.safetensors") for n in ("straight", "cut"))
    assert all(torch.equal(straight[key], cut[key]) for key in straight)
    assert plain(result_of(out).curve) == plain(result_of(tmp_path / "straight").curve)


def test_wrong_input_is_one_line(run, recipe, tmp_path):
    out = ["--out", tmp_path / "x", "--no-progress"]
    assert "is neither a run nor a weights file in one" in error("convert", tmp_path / "gone", *out)
    assert "holds no run" in error("convert", tmp_path, *out)
    assert "the network is already trained" in error("convert", run, "training.lr=1", *out)
    assert "conversion.time_steps = 0" in error("convert", run, "--time-steps", 0, *out)
    assert "conversion.calibration = 0" in error("convert", run, "--calibration", 0, *out)
    assert "only 48 training samples" in error("convert", run, "--calibration", 49, *out)
    assert "percentile" in error("convert", run, "--percentile", 101, *out)
    assert "Did you mean 'poisson'?" in error("convert", run, "--coding", "poison", *out)
    assert "Pass --finetune-epochs too" in error(
        "convert", run, "--variation", "gaussian:sigma=0.1", *out
    )
    assert "Did you mean 'gaussian'?" in error(
        "convert", run, "--finetune-epochs", 1, "--variation", "gausian", *out
    )
    assert "Did you mean 'triangle'?" in error(
        "convert", run, "conversion.neurons.surrogate=triange", *out
    )
    assert "--sweep" in error("convert", run, "--sweep", "2,x", *out)
    assert "is the folder of the run" in error("convert", run, "--out", run, "--no-progress")
    blocked = tmp_path / "file" / "x"
    (tmp_path / "file").write_text("")
    assert "cannot write into folder" in error("convert", run, "--out", blocked)
    assert not (tmp_path / "x" / "result.json").exists()
    weights = files.load(run / "model.safetensors")
    files.save(
        run / "model.safetensors", {k: torch.full_like(v, torch.nan) for k, v in weights.items()}
    )
    assert "0.weight holds a value that is not finite" in error("convert", run, *out)


def test_a_network_that_is_gone(run):
    call("convert", run, "--no-progress")
    out = run / "converted"
    (out / CONVERTED).unlink()
    with pytest.raises(CheckpointError, match=r"snn\.safetensors"):
        load_model(out, resolve(read_run(out)), weights=CONVERTED)


SUITE = """
title = "Tiny"
source = "the paper"
[seeds]
quick = [0]
[[setups]]
name = "ANN"
rows = [{ method = "plain", recipe = "tiny.toml" }]
[[setups]]
name = "converted, STDB"
rows = [
    { method = "plain", recipe = "tiny.toml", conversion = "stdb" },
    { method = "robust", recipe = "tiny.toml", conversion = "robust" },
]
"""


@pytest.fixture
def suite(recipe, tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE)
    return tmp_path


def test_two_conversions_in_a_folder(run, tmp_path):
    out = tmp_path / "snn"
    with alone_in(out):
        assert f"process {os.getpid()} is at work in {str(out)!r}" in error(
            "convert", run, "--out", out
        ).replace("\n", " ")
    assert not (out / "recipe.toml").exists()
    with alone_in(run):  # a training goes on beside it
        call("convert", run, "--out", out, "--no-progress")


def test_a_suite_trains_once_and_converts_twice(suite, tmp_path, monkeypatch):
    names = []
    real = runs.train

    def counted(recipe, *arguments, **options):
        names.append(recipe.conversion)
        return real(recipe, *arguments, **options)

    monkeypatch.setattr(runs, "train", counted)
    arguments = ["bench", suite, "--out", tmp_path / "runs", "--jobs", 1]
    call(*arguments, "--results", tmp_path / "results")
    assert names == [None]
    found = {
        name: read(tmp_path / "results" / f"{name}.json", RowResult)
        for name in ("tiny", "tiny-stdb", "tiny-robust")
    }
    assert found["tiny"].converted == ()
    assert found["tiny-stdb"].converted[0].ann == found["tiny"].curves[0].clean
    call(*arguments, "--rows", "*stdb")  # all is done
    assert names == [None]
    call(*arguments, "--rows", "*stdb", "--seeds", 1)  # what a row needs is trained too
    assert names == [None, None]


def test_a_conversion_without_its_network_fails_alone(suite, tmp_path, monkeypatch):
    def fails(recipe, *arguments, **options):
        raise ValueError("no luck")

    monkeypatch.setattr(runs, "train", fails)
    done = call("bench", suite, "--out", tmp_path / "runs", "--jobs", 1, code=1)
    assert "error: tiny, seed 0: ValueError: no luck" in done.stderr
    assert "error: tiny-stdb, seed 0: ValueError: no luck" in done.stderr


def test_variants_of_a_recipe(recipe, tmp_path):
    assert read_recipe(recipe).conversion.finetune.epochs == 0
    assert read_recipe(recipe, variants={"conversion": "stdb"}).conversion.finetune.epochs == 2
    with pytest.raises(RecipeError, match=r"no \[conversion.variant.sdtb\].*Did you mean 'stdb'"):
        read_recipe(recipe, variants={"conversion": "sdtb"})
    (tmp_path / "none.toml").write_text('name = "x"\ndata = "images"\nmodel = "lenet"\n')
    with pytest.raises(RecipeError, match=r"has no table \[conversion\]"):
        read_recipe(tmp_path / "none.toml", variants={"conversion": "stdb"})


OWN = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from spikewvat.conversion import QCFS


def make_model():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12), nn.Hardtanh(0.0, 1.0), nn.Linear(12, 3)
    )


def make_quantised():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), QCFS(6, 1.0), nn.Linear(12, 3))


def make_loaders():
    x = torch.rand(80, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    y = x[:, 0, 0, :3].argmax(1)
    train, test = TensorDataset(x[:60], y[:60]), TensorDataset(x[60:], y[60:])
    return DataLoader(train, 16, shuffle=True), DataLoader(test, 20)


def only_test():
    return make_loaders()[1]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module in the current folder, and trained weights."""
    name = f"own_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(OWN, scope)
    torch.manual_seed(0)
    ann = scope["make_model"]()
    optimizer = torch.optim.Adam(ann.parameters(), 0.02)
    for _ in range(60):
        for x, y in scope["make_loaders"]()[0]:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(ann(x), y).backward()
            optimizer.step()
    files.save(tmp_path / "ann.safetensors", ann.state_dict())
    options = ("--model", f"{name}:make_model", "--data", f"{name}:make_loaders", "--no-progress")
    return name, ann.eval(), scope["make_loaders"]()[1], options


def test_a_network_of_ones_own(own, tmp_path):
    name, ann, test, options = own
    done = call(
        *("convert", *options, "--weights", "ann.safetensors", "--time-steps", 8),
        *("--sweep", "2,8", "--sigma", "0.1", "--chips", 3, "--target", 0.5),
    )
    out = tmp_path / "runs" / f"{name}.make_model-converted"
    result = result_of(out)
    assert "T = 8" in done.stdout
    assert result.converted.over_time.steps == (2, 8)
    assert result.converted.over_time.fitted
    assert [report.chips for report in result.curve] == [3]
    assert result.recipe["conversion"]["time_steps"] == 8
    images, labels = next(iter(test))
    right = float((ann(images).argmax(1) == labels).float().mean())
    assert result.converted.ann == pytest.approx(right)
    snn = restore(type(ann)(*ann), out / CONVERTED, time_steps=8)
    found = float((snn(images).argmax(1) == labels).float().mean())
    assert found == pytest.approx(result.curve.clean)
    assert found > 0.6
    assert "holds an earlier conversion" in error("convert", *options)


def test_a_network_of_quantised_activations_runs_for_their_levels(own, tmp_path):
    name, _, _, options = own
    call("convert", *options, "--model", f"{name}:make_quantised", "--out", tmp_path / "out")
    assert result_of(tmp_path / "out").converted.over_time.steps == (1, 3, 6)


def test_ones_own_network_is_tuned_and_described_as_a_recipe_would(own, tmp_path):
    _, _, _, options = own
    out = tmp_path / "out"
    call(
        *("convert", "conversion.neurons.initial=0.25", "conversion.finetune.lr=1e-3", *options),
        *("--weights", "ann.safetensors", "--time-steps", 4, "--out", out, "--chips", 2),
        *("--finetune-epochs", 2, "--variation", "gaussian:sigma=0.1"),
    )
    result = result_of(out)
    assert len(result.training.history) == 2
    assert result.method == "converted, STDB"
    assert result.recipe["conversion"]["neurons"]["initial"] == 0.25
    assert len(result.curve) == 2


def test_errors_of_ones_own_network(own, run):
    name, _, _, options = own
    assert "nothing to convert" in error("convert", "--no-progress")
    assert "--model needs --data" in error("convert", "--model", f"{name}:make_model")
    assert "--weights is of use only with --model" in error("convert", run, "--weights", "x")
    assert "--resume is of use only with a run" in error("convert", *options, "--resume")
    assert "expected conversion.KEY=VALUE" in error(
        "convert", "evaluation.chips=2", *options
    ).replace("Expected", "expected")
    assert "Pass a pair (training, test)" in error(
        "convert", *options, "--data", f"{name}:only_test"
    )
    files.save(run / "other.safetensors", {"0.weight": torch.zeros(2, 2)})
    assert "other.safetensors" in error("convert", *options, "--weights", run / "other.safetensors")
    assert "Pass --finetune-epochs too" in error("convert", *options, "--variation", "gaussian")


def test_corrections_and_signs_in_a_recipe(run, tmp_path):
    for name, changes in (
        ("offsets", ["conversion.correction=offset-spikes"]),
        ("residuals", ['conversion.correction={name="silent-residuals", steps=2}']),
        ("signed", ["conversion.neurons.signed=true", "conversion.neurons.burst=2"]),
    ):
        out = tmp_path / name
        call("convert", run, "--out", out, *changes, "--sweep", "2", "--no-progress")
        call("evaluate", out, "--json", tmp_path / "again.json", "--no-progress")
        again = read(tmp_path / "again.json", RunResult)
        assert plain(again.curve) == plain(result_of(out).curve)
    assert "Did you mean 'offset-spikes'?" in error(
        "convert", run, "--out", tmp_path / "x", "conversion.correction=offset-spike"
    )
    assert "SilentResiduals needs neurons without leak" in error(
        *("convert", run, "--out", tmp_path / "x", "conversion.neurons.leak=0.9"),
        "conversion.correction=silent-residuals",
    )


def test_the_start_is_checked_on_chips_and_kept_in_the_file(run, tmp_path):
    out = tmp_path / "chips"
    call(
        *("convert", run, "--out", out, "--sweep", "2", "--no-progress"),
        *("conversion.balancing.variation=gaussian:sigma=0.1", "conversion.balancing.chips=2"),
    )
    result = result_of(out)
    assert "initial" not in result.recipe["conversion"]["neurons"]
    assert result.converted.over_time.accuracies[-1] == result.curve.clean
    call("evaluate", out, "--json", tmp_path / "again.json", "--no-progress")
    assert plain(read(tmp_path / "again.json", RunResult).curve) == plain(result.curve)
