"""ANNs that are converted: sizes, layers in order, initial weights; torch.fx reads them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import fx, nn

from spikewvat.adapters import adapter_for
from spikewvat.lab.models.alexnet import AlexNet
from spikewvat.lab.models.lenet import LeNet
from spikewvat.lab.models.vgg import VGG, VGG5, VGG6, VGG16, VGG16Bias

SMALL = [
    (lambda: VGG5(width=0.05, hidden=6), (3, 32, 32)),
    (lambda: VGG16(width=0.02, hidden=6, pool="max"), (3, 32, 32)),
    (lambda: VGG6(width=0.1), (3, 32, 32)),
    (lambda: VGG6(width=0.1, levels=4), (3, 32, 32)),
    (lambda: LeNet(channels=(2, 3), hidden=5), (1, 28, 28)),
    (lambda: VGG16Bias(width=0.02, hidden=6), (3, 32, 32)),
    (lambda: AlexNet(width=0.02, hidden=6), (3, 32, 32)),
]


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


def synaptic(model):
    return sum(weight.numel() for weight in adapter_for(model).synaptic_weights(model).values())


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (VGG5, 50_595_520),
        (VGG16, 39_917_248),
        (lambda: VGG16(classes=100), 40_285_888),
    ],
)
def test_sizes_of_networks_without_biases(build, parameters):
    with torch.device("meta"):
        model = build()
    assert size(model) == synaptic(model) == parameters


@pytest.mark.parametrize(
    ("build", "parameters", "weights"),
    [
        (VGG16Bias, 15_245_130, 15_239_872),
        (lambda: VGG16Bias(classes=100), 15_291_300, 15_285_952),
        (VGG6, 307_946, 9 * (96 + 32 * 32 + 32 * 64 + 64 * 64 + 64 * 128 + 128 * 128) + 20480),
        (
            AlexNet,
            3_311_434,
            9 * (3 * 64 + 64 * 192 + 192 * 384 + 384 * 256 + 256 * 256) + 1024 * 1024 + 10240,
        ),
    ],
)
def test_sizes_of_networks_with_biases(build, parameters, weights):
    with torch.device("meta"):
        model = build()
    assert (size(model), synaptic(model)) == (parameters, weights)


def test_every_parameter_of_a_vgg_is_a_synapse():
    model = VGG16(width=0.02, hidden=6)
    assert list(adapter_for(model).synaptic_weights(model)) == [
        n for n, _ in model.named_parameters()
    ]
    assert len(list(model.parameters())) == 16


def test_layers_of_vgg5_in_order():
    names = [type(module).__name__ for module in VGG5(width=0.05, hidden=6)]
    conv, dense = ["Conv2d", "ReLU"], ["Linear", "ReLU", "Dropout"]
    pooled = [*conv, "AvgPool2d"]
    assert names == [*pooled, *conv, "Dropout", *pooled, "Flatten", *dense, *dense, "Linear"]
    drops = [m.p for m in VGG5(width=0.05, hidden=6, dropout=0.3) if isinstance(m, nn.Dropout)]
    assert drops == [0.3, 0.5, 0.5]


def test_vgg16_has_four_pools_and_none_at_the_end():
    model = VGG16(width=0.02, hidden=6, pool="max")
    names = "".join({"Conv2d": "C", "MaxPool2d": "P"}.get(type(m).__name__, "") for m in model)
    assert names == "CCPCCPCCCPCCCPCCC"
    assert next(m for m in model if isinstance(m, nn.Linear)).in_features == 10 * 2 * 2


def test_the_reduced_vgg5_of_the_quick_preset():
    model = VGG5(width=0.5, hidden=512)
    shapes = [tuple(p.shape) for p in model.parameters()]
    assert [s[0] for s in shapes] == [32, 64, 64, 512, 512, 10]
    assert shapes[3] == (512, 64 * 8 * 8)


def test_initial_weights_of_a_vgg():
    class Small(VGG):
        stages = ((40,), (60, 50))

    class Smallest(VGG):
        stages = ((1,),)

    model = Small(hidden=256)
    convs = [m.weight.detach() for m in model if isinstance(m, nn.Conv2d)]
    for weight in convs[1:]:
        assert weight.std() * math.sqrt(9 * len(weight) / 2) == pytest.approx(1, abs=0.03)
    for module in model:
        if isinstance(module, nn.Linear):
            assert module.weight.detach().std() == pytest.approx(0.04, rel=0.05)
    full = Smallest(input_shape=(1, 2, 2))[-1]
    assert full.weight.detach().std() == pytest.approx(0.01, rel=0.05)


def test_lenet():
    model = LeNet()
    assert size(model) == 25 * 16 + 25 * 16 * 32 + 800 * 256 + 2560
    assert all(p.dim() > 1 for p in model.parameters())


def test_layers_of_vgg16_with_biases_in_order():
    names = [type(module).__name__ for module in VGG16Bias(width=0.02, hidden=6)]
    conv = ["Conv2d", "ReLU"]
    convolutions = [n for count in (2, 2, 3, 3, 3) for n in [*conv * count, "MaxPool2d"]]
    dense = ["Dropout", "Linear", "ReLU"] * 2
    assert names == [*convolutions, "Flatten", *dense, "Linear"]
    model = VGG16Bias(hidden=20)
    for module in model:
        if isinstance(module, nn.Conv2d):
            assert not module.bias.any()
            scale = math.sqrt(9 * module.out_channels / 2)
            assert module.weight.detach().std() * scale == pytest.approx(1, abs=0.05)


def test_layers_of_alexnet_in_order():
    model = AlexNet(width=0.1, hidden=6)
    short = {"Conv2d": "C", "MaxPool2d": "P", "Linear": "F", "Dropout": "D"}
    assert "".join(short.get(type(m).__name__, "") for m in model) == "CPCPCCCPDFDF"
    assert [m.stride for m in model if isinstance(m, nn.Conv2d)] == [(2, 2)] + [(1, 1)] * 4
    assert AlexNet(input_shape=(1, 15, 15), width=0.1)(torch.rand(2, 1, 15, 15)).shape == (2, 10)


@pytest.mark.parametrize(("levels", "activation"), [(None, "ReLU"), (4, "QCFS")])
def test_layers_of_vgg6_in_order(levels, activation):
    names = [type(module).__name__ for module in VGG6(width=0.1, levels=levels)]
    assert names == [
        *(["Conv2d", "BatchNorm2d", activation] * 2 + ["AvgPool2d"]) * 3,
        "Flatten",
        "Linear",
    ]


@pytest.mark.parametrize(("build", "shape"), SMALL)
def test_scores_gradients_and_trace(build, shape):
    model = build()
    images = torch.rand(4, *shape) * 2 - 1
    scores = model(images)
    assert scores.shape == (4, 10)
    scores.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    traced = fx.symbolic_trace(model)
    torch.testing.assert_close(traced(images), model(images))
    assert model.double()(images.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VGG5(pool="min"), r"pool must be 'avg' or 'max', got 'min'"),
        (lambda: VGG5(width=0), r"width must be above 0, got 0"),
        (lambda: VGG5(hidden=0), r"hidden must be at least 1, got 0"),
        (lambda: VGG16(classes=0), r"classes must be at least 1, got 0"),
        (lambda: VGG16(input_shape=(3, 8, 8)), r"pooling leaves nothing of images of 8 x 8"),
        (lambda: VGG5(input_shape=(3, 32)), r"input_shape must be \(channels, height, width\)"),
        (lambda: LeNet(pool="sum"), r"pool must be 'avg' or 'max', got 'sum'"),
        (lambda: LeNet(input_shape=(1, 3, 3)), r"2 stages leave nothing of images of 3 x 3"),
        (lambda: AlexNet(input_shape=(3, 14, 14)), r"leaves nothing of images of 14 x 14.*15 x 15"),
        (lambda: AlexNet(hidden=0), r"hidden must be at least 1, got 0"),
        (lambda: VGG6(input_shape=(3, 7, 7)), r"pooling leaves nothing of images of 7 x 7"),
        (lambda: VGG6(levels=0), r"levels must be a whole number of at least 1, got 0"),
        (lambda: VGG16Bias(width=-1), r"width must be above 0, got -1"),
    ],
)
def test_impossible_networks_are_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
