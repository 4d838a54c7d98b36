"""Recipes: what they inherit, what they refuse and how they say so, what they build."""

from __future__ import annotations

import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from spikewvat import files, provenance
from spikewvat.devices import (
    AbsMax,
    AtRandomAge,
    Compensated,
    DifferentialPair,
    Fixed,
    Gaussian,
    Quantized,
    RightCensored,
    SixSigma,
    Uniform,
    Weibull,
    pcm,
)
from spikewvat.devices.base import Pipeline
from spikewvat.errors import CheckpointError, RecipeError
from spikewvat.lab.recipes import devices as specs
from spikewvat.lab.recipes import loaders, registry
from spikewvat.lab.recipes.reading import read_recipe, recipe_from, toml_value
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.recipes.schema import (
    CORRUPTIONS,
    DATA,
    DEVICES,
    ENCODINGS,
    GENERATED,
    LOSSES,
    METHODS,
    MODELS,
    OPTIMIZERS,
    PUBLISHED,
    RANGES,
)
from spikewvat.perturbations import (
    AWP,
    GAV,
    HSV,
    SAM,
    STRENGTHS,
    Mixture,
    Momentum,
    RandomLength,
    Warmup,
    variation,
)
from spikewvat.spiking.lif import LIF, Neurons
from spikewvat.training import Plain

BASE = """
name = "base"
data = {name = "embedded", time_steps = 5}
[model]
name = "snntorch-cnn"
channels = [4]
[training]
epochs = 8
lr = 1e-3
[preset.paper.training]
epochs = 100
"""
NEED_A_DEVICE = {
    "wvat",
    "hsv",
    "gav",
    "variable-noise",
    "random-perturbation",
    "vortex",
    "statistical",
    "distillation",
    "negative-feedback",
    "straight-through",
}
MINIMAL = {
    "name": "x",
    "data": {"name": "embedded", "time_steps": 5},
    "model": "snntorch-cnn",
}


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.toml"
    path.write_text(BASE)
    return path


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_tables_name_things_that_exist():
    tables = (DATA, GENERATED, ENCODINGS, MODELS, PUBLISHED, DEVICES, RANGES, METHODS, OPTIMIZERS)
    for table in (*tables, LOSSES, CORRUPTIONS):
        for name in table:
            assert callable(registry.lookup(table, name, "key"))


def test_a_child_says_only_what_differs(base):
    child = written(
        base.parent / "wvat.toml",
        'extends = "base.toml"\nname = "wvat"\n[training]\nlr = 0.01\n'
        '[method]\nname = "wvat"\ndevice = "gaussian:sigma=0.1"\n[preset.paper.training]\nlr = 0.1',
    )
    recipe = read_recipe(child)
    assert (recipe.name, recipe.training.epochs, recipe.training.lr) == ("wvat", 8, 0.01)
    assert recipe.model.parameters == {"channels": [4]}
    assert recipe.scale == "quick"
    paper = read_recipe(child, preset="paper")
    assert (paper.scale, paper.training.epochs, paper.training.lr) == ("paper", 100, 0.1)


def test_a_component_of_another_name_brings_its_own_parameters(base):
    child = written(base.parent / "c.toml", 'extends = "base.toml"\n[model]\nname = "dense"\n')
    assert read_recipe(child).model.parameters == {}
    child.write_text('extends = "base.toml"\n[model]\nbeta = 0.8\n')
    assert read_recipe(child).model.parameters == {"channels": [4], "beta": 0.8}


def test_overrides_and_seed(base):
    recipe = read_recipe(
        base,
        overrides=["training.lr=1e-4", "model.channels=[2, 3]", "training.optimizer=sgd", "seed=3"],
    )
    assert recipe.training.lr == 1e-4
    assert recipe.model.parameters["channels"] == [2, 3]
    assert recipe.training.optimizer == "sgd"
    assert recipe.seed == 3
    assert read_recipe(base, overrides=["seed=3"], seed=5).seed == 5


def test_a_written_recipe_reads_back_equal(base, tmp_path):
    recipe = resolve(read_recipe(base, preset="paper", overrides=["averaging.enabled=true"])).recipe
    files.write_toml(tmp_path / "out.toml", recipe.content())
    again = read_recipe(tmp_path / "out.toml")
    assert again == recipe
    assert resolve(again).recipe == recipe


def test_a_complete_recipe_spells_out_the_defaults(base):
    resolved = resolve(
        read_recipe(base, overrides=["method.name=wvat", "method.device=gaussian:sigma=0.1"])
    )
    complete = resolved.recipe
    assert complete.model.parameters["beta"] == 0.9
    assert "input_shape" not in complete.model.parameters
    given = complete.method.parameters
    assert (given["gamma"], given["alpha"]) == (1.0, 0.03) == STRENGTHS["either"]
    shaped = resolved.with_input_shape((2, 8, 8))
    assert shaped.recipe.model.parameters["input_shape"] == [2, 8, 8]
    assert shaped.with_input_shape((1, 1, 1)) is shaped


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainng.lr=1", r"unknown key 'trainng' in the recipe. Did you mean 'training'\?"),
        ("training.epoch=1", r"unknown key 'epoch' in \[training\]. Did you mean 'epochs'\?"),
        ("evaluation.zzz=1", r"unknown key 'zzz' in \[evaluation\]. Valid: 'split', 'device'"),
        ("training.epochs=many", r"training.epochs = 'many': .*valid integer"),
        ("training.epochs=0", r"training.epochs = 0: .*greater than 0"),
        ("training.lr=-1", r"training.lr = -1: .*greater than 0"),
        ("training.lr=nan", r"training.lr = nan: .*finite"),
        ("training.validation=1", r"training.validation = 1: .*less than 1"),
        ("training.precision=8", r"training.precision = 8: .*'32-true'"),
        ("training.schedule=linear", r"schedule = 'linear': .*'cosine' or 'exponential'"),
        ("averaging.start=1.5", r"averaging.start = 1.5: .*less than 1"),
        ("evaluation.sigmas=[0.1, -1]", r"evaluation.sigmas.1 = -1"),
        ("training=5", r"training = 5: expected a table"),
        ("data=5", r"data = 5: expected a table"),
        ("data.name=5", r"data.name = 5: .*string"),
        ("lr", r"override 'lr': expected key=value"),
        ("a..b=1", r"override 'a..b=1': expected key=value"),
    ],
)
def test_wrong_keys_and_values_of_the_recipe(base, override, message):
    with pytest.raises(RecipeError, match=message):
        read_recipe(base, overrides=[override])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.chanels=[1]"], r"unknown key 'chanels' in \[model\]. Did you mean 'channels'\?"),
        (["model.channels=3"], r"model.channels = 3: "),
        (["model.name=snntorch-cn"], r"model.name = 'snntorch-cn' is unknown. Did you mean 'snnto"),
        (["training.optimizer=adan"], r"training.optimizer = 'adan' is unknown. Did you mean 'ada"),
        (["training.momentum=0.9"], r"training.momentum = 0.9: 'adam' has no momentum"),
        (["training.loss=mse-cont"], r"training.loss = 'mse-cont' is unknown. Did you mean 'mse-c"),
        (
            ["training.loss.name=mse-count", "training.loss.corect=0.5"],
            r"unknown key 'corect' in \[training.loss\]. Did you mean 'correct'\?",
        ),
        (
            ["training.loss.name=mse-count", "training.loss.correct=7"],
            r"\[training.loss\]: mse_count needs .*got correct=7",
        ),
        (["method=wvta"], r"method.name = 'wvta' is unknown. Did you mean 'wvat'\?"),
        (["method=wvat"], r"\[method\] lacks 'device', which 'wvat' needs"),
        (["method.name=sam", "method.rh=1"], r"unknown key 'rh' in \[method\]. Did you mean 'rho'"),
        (["method={name='plain', rho=1}"], r"unknown key 'rho' in \[method\]. Valid: none"),
        (["method.name=sam", "method.rho=-1"], r"\[method\]: rho must be a finite number .* -1"),
        (["method.name=sam", "method.p=2"], r"\[method\]: p must lie between 0 and 1, got 2"),
        (
            ["method.name=wvat", "method.device=gaussian:sigma=0.1", "method.alpha=nan"],
            r"\[method\]: alpha must be a finite number of at least 0, got nan",
        ),
        (
            ["method.name=hsv", "method.device=gaussian:sigma=-0.1"],
            r"\[method.device\]: sigma must be .* at least 0, got -0.1",
        ),
        (["method.name=hsv", "method.device=gaussian"], r"\[method.device\] lacks 'sigma'"),
        (["method=ptq"], r"method 'ptq' .* but evaluation.device = 'gaussian' does not quantise"),
        (
            ["method={name='sam', source='momentum'}", "training.optimizer=sgd"],
            r"\[method.source\]: optimizer must keep a momentum, got SGD without one",
        ),
        (
            ["method={name='wvat', device='gaussian:sigma=0.1', worst='up'}"],
            r"method.worst = 'up' is unknown. Valid: 'gradient', 'momentum', 'past'",
        ),
        (["method={name='sam', ascent='past'}"], r"unknown key 'ascent' in \[method\]"),
        (
            ["method={name='qat', perturbation='qat'}"],
            r"method.perturbation = 'qat' is not a perturb",
        ),
        (["method={name='plain', p=0.5}"], r"unknown key 'p' in \[method\]. Valid: none"),
        (["method={name='sam', warmup=0}"], r"\[method\]: steps must be .* at least 1, got 0"),
        (["evaluation.device=gausian"], r"evaluation.device = 'gausian' is unknown. Did you mean"),
        (["averaging.enabled=true", "averaging.lr=0.1"], r"averaging.lr = 0.1: averaging starts"),
        (["training.schedule=exponential"], r"'exponential' lacks its factor .*training.decay = 0"),
        (["training.decay=0.9"], r"training.decay = 0.9: schedule = 'constant' has no such factor"),
        (["training.start=gone.pth"], r"training.start = 'gone.pth': there is no such file"),
        (["training.start=IMAGENET1K_V1"], r"training.start = 'IMAGENET1K_V1': there is no such"),
        (
            ["model=mobilenetv2", "training.start=a/b"],
            r"training.start = 'a/b': there is no such file. Pass the path of a safetensors",
        ),
    ],
)
def test_wrong_parameters_of_components(base, overrides, message):
    with pytest.raises(RecipeError, match=message):
        resolve(read_recipe(base, overrides=overrides))


def test_files_that_are_no_recipes(base, tmp_path):
    with pytest.raises(RecipeError, match=r"gone.toml. is no file, and no recipe has that name"):
        read_recipe(tmp_path / "gone.toml")
    with pytest.raises(RecipeError, match=r"is not a TOML file.*line 1"):
        read_recipe(written(tmp_path / "a.toml", "name = \n"))
    with pytest.raises(RecipeError, match=r"the recipe lacks 'data'"):
        read_recipe(written(tmp_path / "a.toml", 'name = "x"\nmodel = "dense"'))
    with pytest.raises(RecipeError, match=r"a.toml' extends itself"):
        read_recipe(written(tmp_path / "a.toml", 'extends = "a.toml"'))
    with pytest.raises(RecipeError, match=r"extends = 3 in .*expected a path"):
        read_recipe(written(tmp_path / "a.toml", "extends = 3"))
    for name, message in (("/", "a folder"), ("a" * 5000, "no file")):
        with pytest.raises(RecipeError, match=f"{message}, and no recipe has that name"):
            read_recipe(written(tmp_path / "a.toml", f'extends = "{name}"'))
    with pytest.raises(RecipeError, match=r"no preset 'papr'. Did you mean 'paper'\?"):
        read_recipe(base, preset="papr")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match=r"is not a TOML file"):
        read_recipe(tmp_path / "binary.toml")


def test_quick_needs_no_preset(tmp_path):
    path = written(tmp_path / "a.toml", 'name = "x"\nmodel = "dense"\ndata = "mnist"')
    assert read_recipe(path, preset="quick").scale == "quick"


def test_values_on_the_command_line():
    assert toml_value(" 3") == 3
    assert toml_value("true") is True
    assert toml_value("'3'") == "3"
    assert toml_value("six-sigma") == "six-sigma"


# Devices.


@pytest.mark.parametrize(
    ("spec", "device"),
    [
        ("gaussian:sigma=0.1", Gaussian(0.1)),
        ("weibull:k=2,sigma=0.1", Weibull(0.1, k=2.0)),
        ("gaussian:sigma=0.1,range=absmax", Gaussian(0.1, AbsMax())),
        ("gaussian:sigma=0.1,range=absmax-per-channel", Gaussian(0.1, AbsMax(per_channel=True))),
        (
            "uniform:sigma=0.2 >> gaussian:sigma=0.1",
            Pipeline((Uniform(0.2), Gaussian(0.1))),
        ),
        ({"name": "gaussian", "sigma": 1}, Gaussian(1.0)),
        (
            [{"name": "uniform", "sigma": 0.2}, {"name": "gaussian", "sigma": 0.1}],
            Pipeline((Uniform(0.2), Gaussian(0.1))),
        ),
        (
            {"name": "gaussian", "sigma": 1, "range": {"name": "fixed", "low": -1, "high": 1}},
            Gaussian(1.0, Fixed(-1, 1)),
        ),
        ({"name": "gaussian", "sigma": 1, "range": SixSigma()}, Gaussian(1.0)),
    ],
)
def test_device_specs(spec, device):
    assert specs.build_device(spec, "device") == device
    assert not specs.read_device(spec, "device").is_open


def test_lists_inside_a_spec():
    device = specs.build_device("mixture:sigma=0.1,weights=[0.5,0.5],means=[-1.0, 1.0]", "device")
    assert device.means == (-1.0, 1.0)


def test_a_device_inside_a_device():
    spec = "differential-pair:inner='quantized:bits=4>>gaussian',g_min=0.1,g_max=1.0 >> gaussian"
    device = specs.read_device(spec, "device")
    assert device.is_open
    pair = DifferentialPair(Quantized(bits=4) >> Gaussian(0.2), 0.1, 1.0)
    assert device(0.2) == pair >> Gaussian(0.2)
    closed = {"name": "differential-pair", "inner": "gaussian:sigma=0.1", "g_min": 0, "g_max": 1}
    assert not specs.read_device(closed, "device").is_open
    with pytest.raises(RecipeError, match=r"device.inner.*'gausian' is unknown"):
        specs.build_device("differential-pair:inner=gausian,g_min=0,g_max=1", "device")


def test_an_open_sigma_is_filled_in():
    device = specs.read_device("gaussian", "device")
    assert device.is_open
    assert device(0.2) == Gaussian(0.2)
    assert specs.read_device("gaussian:sigma=0.1", "device")(0.2) == Gaussian(0.1)
    device = specs.read_device("uniform:sigma=0.1>>gaussian", "d")
    assert device(0.3) == Uniform(0.1) >> Gaussian(0.3)
    with pytest.raises(RecipeError, match=r"\[d\] lacks 'sigma', which Gaussian needs"):
        specs.build_device("gaussian", "d")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gausian", r"device = 'gausian' is unknown. Did you mean 'gaussian'\?"),
        ("gaussian:sgma=1", r"unknown key 'sgma' in \[device\]. Did you mean 'sigma'\?"),
        ("gaussian:sigma", r"expected name:parameter=value,... at 'sigma'"),
        ("gaussian:sigma=x", r"device.sigma = 'x': .*valid number"),
        ("gaussian:sigma=0.1,drawn=x", r"device.drawn = 'x': .*valid boolean"),
        (
            "gaussian:sigma=0.1,range=absmx",
            r"device.range = 'absmx' is unknown. Did you mean",
        ),
        ("gaussian:sigma=0.1,range=3", r"device.range = 3: .*RangeRule"),
        ({"sigma": 0.1}, r"expected a table with either a name or a file"),
        ([], r"expected a name, a table, or a list of tables"),
        ("", r"device = '' is unknown"),
    ],
)
def test_wrong_device_specs(spec, message):
    with pytest.raises(RecipeError, match=message):
        specs.build_device(spec, "device")


def test_devices_in_words():
    spec = [{"name": "uniform", "sigma": 0.2}, {"file": "device.toml"}]
    assert specs.describe(spec, "device") == "uniform:sigma=0.2>>device.toml"
    assert specs.describe("gaussian", "device") == "gaussian"


# What a recipe builds.


def recipe(**content):
    return recipe_from({**MINIMAL, **content})


def resolved(**content):
    return resolve(recipe(**content))


def test_methods():
    model = nn.Linear(3, 2)
    device = {"name": "gaussian", "sigma": 0.1}
    assert isinstance(resolved().build_method(model), Plain)
    wvat = resolved(method={"name": "wvat", "device": device, "w_th": 0.3, "p": 0.5}).build_method(
        model
    )
    assert isinstance(wvat.perturbation, Mixture)
    assert (wvat.perturbation.w_th, wvat.p, wvat.perturbation.noise.device) == (
        0.3,
        0.5,
        Gaussian(0.1),
    )
    for content, direction in [
        ({"name": "hsv", "device": device}, HSV(Gaussian(0.1))),
        ({"name": "gav", "device": "gaussian:sigma=0.1"}, GAV(Gaussian(0.1))),
        ({"name": "sam", "rho": 0.2}, SAM(0.2)),
        ({"name": "awp", "p": 0.25}, AWP()),
    ]:
        method = resolved(method=content).build_method(model)
        assert method.perturbation == direction
        assert method.p == content.get("p", 1.0)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_by_name(name):
    """It is checked, written out and built from its name, with a device where it needs one."""
    extra = {"device": "gaussian:sigma=0.1"} if name in NEED_A_DEVICE else {}
    evaluation = {"device": "quantized:bits=8>>gaussian"}
    data = {"name": "embedded", "time_steps": 5}
    method = {"name": name, **extra}
    checked = resolved(data=data, method=method, evaluation=evaluation)
    again = resolve(recipe_from(checked.recipe.content()))
    assert again.recipe == checked.recipe
    assert pickle.loads(pickle.dumps(checked)).recipe == checked.recipe  # for other processes
    model = nn.Sequential(nn.Linear(3, 4), Neurons(LIF(v_threshold=0.1)), nn.Linear(4, 2))
    optimizer, _ = checked.optimization(model.parameters())
    method = checked.build_method(model, optimizer)
    assert isinstance(method, Plain) is (name in ("plain", "ptq"))

    def closure():
        output = model(torch.ones(1, 2, 3)).sum(0)
        return nn.functional.cross_entropy(output, torch.tensor([0, 1])), output

    method.backward(closure)
    assert model[0].weight.grad is not None


def test_a_warmup_may_be_a_share_of_the_training():
    content = {"name": "hsv", "device": "gaussian:sigma=0.1", "warmup": 0.75}
    checked = resolved(method=content)
    model = nn.Linear(3, 2)
    assert checked.build_method(model, steps=200).perturbation.steps == 150
    assert checked.recipe.method.parameters["warmup"] == 0.75
    with pytest.raises(RecipeError, match="steps must be a whole number of at least 1, got 1.5"):
        resolved(method={**content, "warmup": 1.5})


def test_parameters_of_methods():
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())

    def built(**content):
        return resolved(method=content).build_method(model, optimizer)

    device = "gaussian:sigma=0.1"
    back = {"name": "momentum", "sign": "back"}
    wvat = built(name="wvat", device=device, worst=back, alpha=0.3, warmup=9, spread=0.5)
    mixed = variation(Gaussian(0.1), alpha=0.3, worst=Momentum(optimizer, "back"))
    assert isinstance(wvat.perturbation, Warmup)
    assert wvat.perturbation.steps == 9
    assert wvat.perturbation.perturbation == RandomLength(mixed, 0.5)
    trice = built(name="hsv", device="right-censored:sigma=0.05,standardised=false", p=0.5)
    assert trice.perturbation == HSV(RightCensored(0.05, standardised=False))
    assert trice.p == 0.5
    injection = built(name="noise-injection", device="weibull:sigma=0.1", clip_sigmas=2.5)
    assert injection.perturbation.device == Weibull(0.1)
    assert injection.clip_sigmas == 2.5
    noise = {"name": "wvat", "device": device, "w_th": 1.0}
    qat = built(name="qat", bits=4, perturbation=noise)
    assert (qat.quantizer.bits, qat.perturbation) == (4, variation(Gaussian(0.1), w_th=1.0))


def test_noise_and_weights_come_from_the_seed():
    def noise(seed):
        method = {"name": "hsv", "device": "gaussian:sigma=0.1"}
        noisy = resolved(method=method, seed=seed).build_method(nn.Linear(3, 2))
        return noisy.state_dict()["noise"]

    assert torch.equal(noise(1), noise(1))
    assert not torch.equal(noise(1), noise(2))

    def weights(seed):
        model = {"name": "dense", "sizes": [4, 2]}
        return resolved(model=model, seed=seed).build_model()[1].weight

    torch.manual_seed(5)
    drawn = weights(1)
    assert torch.equal(drawn, weights(1))
    assert not torch.equal(drawn, weights(2))
    untouched = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(untouched, torch.rand(3))


def rates(content, epochs):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer, scheduler = resolved(**content).optimization([parameter])
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return found


def test_learning_rates():
    assert rates({"training": {"lr": 0.5, "epochs": 3}}, 3) == [0.5] * 3
    decay = rates({"training": {"lr": 1.0, "epochs": 10, "schedule": "decay"}}, 11)
    assert decay[:6] == [1.0] * 6
    assert decay[10] == pytest.approx(0.01)
    step = rates({"training": {"lr": 1.0, "epochs": 10, "schedule": "step"}}, 11)
    assert step == pytest.approx([1] * 6 + [0.1] * 2 + [0.01] + [0.001] * 2)
    cosine = rates({"training": {"lr": 1.0, "epochs": 10, "schedule": "cosine"}}, 11)
    assert cosine[:2] == pytest.approx([0.1, 0.97553], abs=1e-5)
    assert cosine[5] == pytest.approx(0.5)
    shrinking = {"lr": 1e-4, "epochs": 4, "schedule": "exponential", "decay": 0.95}
    assert rates({"training": shrinking}, 4) == pytest.approx([1e-4 * 0.95**e for e in range(4)])
    averaged = {"enabled": True, "start": 0.75, "lr": 0.005}
    swa = rates({"training": {"lr": 0.01, "epochs": 200}, "averaging": averaged}, 200)
    for epoch, expected in [
        (75, 0.01),
        (100, 0.007917),
        (120, 0.00625),
        (135, 0.005),
        (199, 0.005),
    ]:
        assert swa[epoch] == pytest.approx(expected, rel=1e-4)


def test_optimizers():
    weights = [nn.Parameter(torch.zeros(1))]
    training = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 5e-4, "lr": 0.1}
    optimizer, _ = resolved(training=training).optimization(weights)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.9
    assert optimizer.defaults["weight_decay"] == 5e-4
    assert not optimizer.defaults["fused"]
    for name in ("sgd", "adam", "adamw"):
        made, _ = resolved(training={"optimizer": name, "fused": True}).optimization(weights)
        assert made.defaults["fused"]
    with pytest.raises(RecipeError, match=r"training.fused = true: 'rmsprop' has no fused kernel"):
        resolved(training={"optimizer": "rmsprop", "fused": True})
    with pytest.raises(RecipeError, match=r"training.clip_norm = 1.0: .* after clipping"):
        resolved(training={"fused": True, "precision": "16-mixed", "clip_norm": 1.0})


def test_the_layout_of_weights_changes_no_weight():
    content = {"data": {"name": "cifar10"}, "model": {"name": "vgg5", "width": 0.1, "hidden": 8}}
    plain = resolved(**content).build_model()
    model = resolved(**content, training={"channels_last": True}).build_model()
    for one, other in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not model[0].weight.is_contiguous()


def test_averaging_starts_at_its_share_of_the_epochs():
    model = nn.Linear(2, 2)
    assert resolved().build_averaging(model) is None
    content = {"training": {"epochs": 10}, "averaging": {"enabled": True, "start": 0.75}}
    assert resolved(**content).build_averaging(model).start == 7


def test_losses_take_parameters():
    loss = {"name": "mse-count", "correct": 0.5, "incorrect": 0.0}
    spikes = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    found = resolved(training={"loss": loss}).loss(spikes, torch.tensor([0]))
    assert found.item() == 0


def test_losses_are_tried_on_as_many_steps_as_the_recipe_has():
    direct = {"name": "mnist", "encoding": {"name": "direct", "time_steps": 7}}
    count = {"training": {"loss": "tsslbp-count"}}
    kernel = {"training": {"loss": "tsslbp-kernel"}}
    with pytest.raises(RecipeError, match=r"no desired train of 7 time steps"):
        resolved(data=direct, **kernel)
    with pytest.raises(RecipeError, match=r"correct=15.0 is out of reach"):
        resolved(data={"name": "nmnist", "time_steps": 12}, **count)
    resolved(data={"name": "nmnist", "time_steps": 30}, **count)
    resolved(data="mnist", model="tsslbp-cnn2", **kernel)


def test_mnist_and_its_encodings(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for stem, values in [
        ("images", torch.randint(256, (12, 28, 28))),
        ("labels", torch.arange(12) % 10),
    ]:
        for part in ("train", "t10k"):
            header = bytes([0, 0, 8, values.dim()])
            sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
            name = f"{part}-{stem}-idx{values.dim()}-ubyte"
            (folder / name).write_bytes(header + sizes + values.to(torch.uint8).numpy().tobytes())
    encoding = {"name": "rate", "time_steps": 4}
    rate = resolved(data={"name": "mnist", "encoding": encoding}, training={"batch_size": 6})
    assert rate.recipe.data.parameters["encoding"] == encoding
    data = loaders.open_data(rate, tmp_path)
    assert data.input_shape == (1, 28, 28)
    spikes, labels = next(iter(data.train))
    assert spikes.shape == (4, 6, 1, 28, 28)
    still = loaders.open_data(resolved(data="mnist"), tmp_path)
    images, _ = next(iter(still.test))
    assert images.shape == (12, 1, 28, 28)
    dense = resolved(model="dense").build_model()
    assert rate.loss(dense(images), labels.repeat(2)).isfinite()
    with pytest.raises(RecipeError, match=r"data.encoding.name = 'rat' is unknown. Did you mean"):
        resolved(data={"name": "mnist", "encoding": {"name": "rat"}})
    with pytest.raises(RecipeError, match=r"unknown key 'steps' in \[data.encoding\]"):
        resolved(data={"name": "mnist", "encoding": {"name": "rate", "steps": 3}})


def test_samples_to_calibrate_with_are_drawn_anew_or_held_out(monkeypatch, tmp_path):
    monkeypatch.setitem(DATA, "tiny", "training_worker:TinyEvents")

    def drawn(training=0.0, **evaluation):
        given = {"data": "tiny", "training": {"validation": training}, "evaluation": evaluation}
        data = loaders.open_data(resolved(**given), tmp_path)
        dataset = data.calibration.dataset
        kept = dataset.dataset  # in the order of the data set, where some are held out
        return [kept.indices[i] if training else i for i in dataset.indices]

    first, other = drawn(), drawn(draw=1)
    assert drawn() == first != other
    assert sorted(first) == sorted(other) == list(range(len(first)))
    seen, fresh = drawn(0.25), drawn(0.25, calibration="validation")
    assert sorted(seen + fresh) == sorted(first)
    assert len(fresh) == len(first) // 4
    with pytest.raises(RecipeError, match="calibration = 'validation', but no data is held"):
        drawn(calibration="validation")


def test_methods_train_for_trimmed_chips_of_all_ages():
    device = {"name": "random-age", "inner": "pcm", "earliest": 1.0, "latest": 1e6}
    method = {"name": "hsv", "device": {"name": "compensated", "inner": device}, "trim": True}
    made = resolved(method=method).build_method(torch.nn.Linear(2, 2), None)
    assert made.trim
    assert made.perturbation == HSV(Compensated(AtRandomAge(pcm(), 1.0, 1e6)))
    with pytest.raises(RecipeError, match=r"unknown key 'trim' in \[method\]"):
        resolved(method={"name": "plain", "trim": True})


def test_a_network_needs_a_score_for_every_class():
    few = resolved(model={"name": "resnet20"})
    with pytest.raises(RecipeError, match=r"model.classes = 10: the data has 100 .* = 100."):
        few.check_classes(100)
    few.check_classes(2)
    few.check_classes(None)
    resolved(model="dense").check_classes(100)


def test_weights_to_start_from(tmp_path):
    small = {"name": "resnet20", "channels": [2, 3], "blocks": 1}
    trained = resolved(model=small, seed=1).build_model()
    files.save(tmp_path / "w.safetensors", trained.state_dict())
    torch.save({"state_dict": trained.state_dict(), "epoch": 3}, tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        begun = resolved(model=small, training={"start": str(tmp_path / name)})
        model = begun.build_model()
        assert not torch.equal(model.layers[0].weight, trained.layers[0].weight)
        begun.start(model)
        for key, tensor in trained.state_dict().items():
            assert torch.equal(model.state_dict()[key], tensor)
    other = resolved(model="dense", training={"start": str(tmp_path / "w.pth")})
    with pytest.raises(CheckpointError, match=r"w.pth' belongs to another model: it lacks '1.we"):
        other.start(other.build_model())
    assert resolved(model=small).start is None


# Result files.


def test_some_samples_are_spread_over_all():
    some = loaders.spread(list(range(10)), 4)
    assert [some[i] for i in range(len(some))] == [0, 2, 5, 7]
    for everything in (None, 10, 11):
        assert loaders.spread([1] * 10, everything) == [1] * 10


def test_provenance(monkeypatch, tmp_path):
    found = provenance.provenance()
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert "python" in found["versions"]
    monkeypatch.setattr("spikewvat.__file__", str(tmp_path / "__init__.py"))
    assert provenance.commit() is None  # no repository
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "__init__.py").write_text("")
    assert provenance.commit() is None  # a repository that is not the package's
    subprocess.run([*git, "add", "__init__.py"], check=True)
    subprocess.run([*git, "commit", "-qm", "x", "--no-verify"], check=True)
    clean = provenance.commit()
    assert len(clean) == 40
    (tmp_path / "__init__.py").write_text("changed")
    assert provenance.commit() == f"{clean}-dirty"
