"""Networks of torchvision: sizes, what is perturbed, weights from its downloads, our own twin."""

from __future__ import annotations

import subprocess
import sys
import urllib.error

import pytest
import torch
from torch import nn

from spikewvat import WVAT, Gaussian
from spikewvat.adapters import adapter_for
from spikewvat.devices import HalfWidth
from spikewvat.errors import DataError, MissingExtraError
from spikewvat.lab.recipes import recipe_from
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.robustness import simulate_chips

vision = pytest.importorskip("spikewvat.lab.models.vision", exc_type=MissingExtraError)


@pytest.mark.parametrize(
    ("build_network", "parameters", "synaptic"),
    [
        (vision.resnet34, 21_797_672, 21_779_648),
        (vision.mobilenet_v2, 3_504_872, 3_469_760),
        (vision.efficientnet_b0, 5_288_548, 5_236_192),
    ],
)
def test_sizes(build_network, parameters, synaptic):
    with torch.device("meta"):
        model = build_network()
    assert sum(p.numel() for p in model.parameters()) == parameters
    weights = adapter_for(model).synaptic_weights(model)
    assert sum(w.numel() for w in weights.values()) == synaptic
    assert all(w.dim() in (2, 4) for w in weights.values())


@pytest.mark.parametrize(
    "build_network",
    [lambda: vision.mobilenet_v2(classes=3, width=0.25), lambda: vision.efficientnet_b0(classes=3)],
)
def test_training_under_variation_and_chips(build_network):
    torch.manual_seed(0)
    model = build_network()
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 1])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    device = Gaussian(0.038, HalfWidth())
    wvat = WVAT(model, device, alpha=0.005, generator=torch.Generator().manual_seed(0))
    wvat.backward(lambda: nn.functional.cross_entropy(model(images), labels))
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is not None
    report = simulate_chips(model.eval(), [(images, labels)], device, chips=2)
    assert len(report.accuracies) == 2


def test_our_resnet34_is_that_of_torchvision():
    from spikewvat.lab.models.resnet import ResNet34

    torch.manual_seed(0)
    theirs = vision.resnet34(classes=7).double().eval()
    for norm in theirs.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    ours = ResNet34(stem="imagenet", classes=7).double().eval()
    state = theirs.state_dict()
    assert [t.shape for t in ours.state_dict().values()] == [t.shape for t in state.values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), state.values(), strict=True)))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(ours(images), theirs(images))


def recipe(name, start_from):
    content = {"name": "x", "data": "imagenet", "model": name}
    return resolve(recipe_from({**content, "training": {"start": start_from}}))


def test_published_weights_of_a_recipe(monkeypatch, tmp_path):
    """The library's own file, put where it would have downloaded it to, is found there."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    known = vision.torchvision_models.get_model_weights("mobilenet_v2")["IMAGENET1K_V1"]
    kept = tmp_path / "hub" / "checkpoints" / known.url.split("/")[-1]
    kept.parent.mkdir(parents=True)
    torch.manual_seed(0)
    trained = vision.mobilenet_v2()
    torch.save(trained.state_dict(), kept)
    begun = recipe("mobilenetv2", "IMAGENET1K_V1")
    model = begun.build_model()
    begun.start(model)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def test_published_weights_that_cannot_be_had(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    for name, network in [("torchvision-resnet34", "resnet34"), ("efficientnet-b0", "efficientn")]:
        begun = recipe(name, "IMAGENET1K_V1")
        with pytest.raises(
            DataError, match=rf"cannot download .*{network}.*no network.*training.s"
        ):
            begun.start(nn.Linear(1, 1))
    with pytest.raises(DataError, match=r"no weights 'IMAGENET' of resnet34 \(it has: IMAGENET1K_"):
        vision.resnet34_weights("IMAGENET")


@pytest.mark.parametrize(
    ("build_network", "message"),
    [
        (lambda: vision.resnet34(classes=0), r"classes must be above 0, got 0"),
        (lambda: vision.mobilenet_v2(width=-1.0), r"width must be above 0, got -1.0"),
    ],
)
def test_impossible_networks_are_errors(build_network, message):
    with pytest.raises(ValueError, match=message):
        build_network()


def test_without_torchvision_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from spikewvat.errors import MissingExtraError\n"
        "try:\n    import spikewvat.lab.models.vision\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = (
        'a network of torchvision needs torchvision.models. Run: pip install "spikewvat[vision]"'
    )
    assert expected in done.stdout
