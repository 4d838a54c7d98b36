"""ANNs that are converted: sizes, layers in order, initial weights; torch.fx reads them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import fx, nn

from spikewvat.adapters import adapter_for
from spikewvat.models.lenet import LeNet
from spikewvat.models.resnet import Block, ResNet20
from spikewvat.models.vgg import VGG, VGG5, VGG16

SMALL = [
    (lambda: VGG5(width=0.05, hidden=6), (3, 32, 32)),
    (lambda: VGG16(width=0.02, hidden=6, pool="max"), (3, 32, 32)),
    (lambda: LeNet(channels=(2, 3), hidden=5), (1, 28, 28)),
    (lambda: ResNet20(channels=(2, 3, 6), blocks=1), (3, 32, 32)),
]


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("build", "parameters"),
    [
        (VGG5, 50_595_520),
        (VGG16, 39_917_248),
        (lambda: VGG16(classes=100), 40_285_888),
        (ResNet20, 269_722),
    ],
)
def test_sizes_of_the_papers(build, parameters):
    with torch.device("meta"):
        model = build()
    assert size(model) == parameters


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
    model = VGG(((40,), (60, 50)), hidden=256)
    convs = [m.weight.detach() for m in model if isinstance(m, nn.Conv2d)]
    for weight in convs[1:]:
        assert weight.std() * math.sqrt(9 * len(weight) / 2) == pytest.approx(1, abs=0.03)
    for module in model:
        if isinstance(module, nn.Linear):
            assert module.weight.detach().std() == pytest.approx(0.04, rel=0.05)
    full = VGG(((1,),), input_shape=(1, 2, 2))[-1]
    assert full.weight.detach().std() == pytest.approx(0.01, rel=0.05)


def test_lenet():
    model = LeNet()
    assert size(model) == 25 * 16 + 25 * 16 * 32 + 800 * 256 + 2560
    assert all(p.dim() > 1 for p in model.parameters())


def test_shortcuts_of_a_residual_block_have_no_parameters():
    block = Block(2, 5, 2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(3, 2, 6, 6)
    expected = torch.zeros(3, 5, 3, 3)
    expected[:, 1:3] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), expected)
    same = Block(2, 2, 1).eval()
    nn.init.zeros_(same.conv2.weight)
    torch.testing.assert_close(same(x), x)


def test_resnet_has_twenty_layers():
    kinds = (nn.Conv2d, nn.Linear)
    assert sum(isinstance(m, kinds) for m in ResNet20().modules()) == 20


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
        (lambda: ResNet20(blocks=0), r"blocks must be at least 1, got 0"),
        (lambda: ResNet20(channels=(4, 2)), r"channels must rise from at least 1, got \(4, 2\)"),
        (lambda: ResNet20(input_shape=(32, 32)), r"input_shape must be"),
    ],
)
def test_impossible_networks_are_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
