"""The suites of CIFAR-10 and CIFAR-100: networks and settings of the paper, and a quick run."""

from __future__ import annotations

import pytest
import torch
from test_data_cifar import hundred

from spikewvat.lab.recipes import read_recipe, run
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.suites.suite import suites_folder


def recipe(row, preset="paper", overrides=()):
    return read_recipe(suites_folder() / f"{row}.toml", preset=preset, overrides=overrides)


@pytest.mark.parametrize(
    ("row", "parameters"),
    [
        ("cifar10/preresnet110_wvat", 1_146_842),
        ("cifar100/preresnet110_wvat", 1_169_972),
        ("cifar100/wrn28_10_sam", 36_546_980),
        ("cifar10/vgg5_awp", 50_595_520),
        ("cifar10/vgg16_wvat", 39_917_248),
        ("cifar100/vgg16_wvat", 40_285_888),
        ("cifar10/resnet18_sam", 11_173_962),
        ("cifar10/alexnet_dva", 3_311_434),
    ],
)
def test_networks_of_the_paper(row, parameters):
    resolved = resolve(recipe(row))
    with torch.device("meta"):
        model = resolved.build_model()
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("row", "rate", "decay", "epochs", "last", "p", "alpha"),
    [
        ("cifar10/vgg5_{}", 0.01, 5e-4, 200, 0.005, 1.0, 0.01),
        ("cifar10/vgg16_{}", 0.01, 5e-4, 200, 0.005, 1.0, 0.01),
        ("cifar10/preresnet110_{}", 0.1, 3e-4, 150, 0.01, 0.5, 0.01),
        ("cifar100/vgg16_{}", 0.01, 5e-4, 200, 0.005, 0.5, 0.01),
        ("cifar100/wrn28_10_{}", 0.1, 5e-4, 200, 0.005, 0.5, 0.05),
        ("cifar100/preresnet110_{}", 0.05, 3e-4, 150, 0.01, 0.5, 0.1),
    ],
)
def test_settings_of_the_paper(row, rate, decay, epochs, last, p, alpha):
    for method in ("sgd", "swa", "wvat"):
        found = recipe(row.format(method))
        plan = found.training
        assert (plan.optimizer, plan.momentum) == ("sgd", 0.9)
        assert (plan.lr, plan.weight_decay, plan.epochs) == (rate, decay, epochs)
        assert (plan.shift, plan.flip) == (4, True)
        assert found.data.parameters.get("limit", 50_000) == 50_000
        assert found.averaging.enabled == (method != "sgd")
        if method != "sgd":
            assert (found.averaging.start, found.averaging.lr) == (0.75, last)
    given = found.method.parameters
    assert (found.method.name, given["p"], given["alpha"], given["gamma"]) == ("wvat", p, alpha, 1)
    assert (given["device"], given["w_th"]) == ("gaussian:sigma=0.1", 0.5)
    assert found.evaluation.sigmas == (0.0, 0.05, 0.1)


def test_baselines_of_the_paper():
    assert recipe("cifar100/wrn28_10_sam").method.parameters == {"rho": 0.1}
    assert recipe("cifar10/vgg5_sam").method.parameters == {"rho": 0.05}
    assert recipe("cifar10/vgg5_awp").method.parameters == {"kappa": 0.01}
    for row in ("cifar100/wrn28_10_sam", "cifar10/vgg5_sam", "cifar10/vgg5_awp"):
        assert not recipe(row).averaging.enabled


@pytest.mark.parametrize("row", ["preresnet110_wvat", "wrn28_10_sam"])
def test_a_quick_run_of_cifar100(row, tmp_path):
    for name, seed in (("train.bin", 0), ("test.bin", 1)):
        (tmp_path / name).write_bytes(hundred(40, seed)[2])
    few = ["training.epochs=2", "training.batch_size=20", "evaluation.chips=2"]
    quick = recipe(f"cifar100/{row}", "quick", few)
    result = run.train(resolve(quick), tmp_path / "out", data_root=tmp_path, progress=False)
    assert result.scale == "quick"
    assert result.curve.sigmas == (0.0, 0.05, 0.1)
    assert result.training.averaged_epochs == ("sam" not in row)
