"""Residual networks: sizes of the papers, blocks against literal equations, initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from spikewvat.adapters import adapter_for
from spikewvat.lab.models.preresnet import PreBlock, PreResNet, PreResNet20, PreResNet110
from spikewvat.lab.models.resnet import Block, ResNet18, ResNet20, ResNet34
from spikewvat.lab.models.wide_resnet import WideBlock, WideResNet

IMAGENET = {"stem": "imagenet", "classes": 1000}


def preresnet(layers):
    class Deep(PreResNet):
        depth = layers

    return Deep


@pytest.mark.parametrize(
    ("build", "parameters", "synaptic"),
    [
        (PreResNet110, 1_146_842, 1_130_672),
        (lambda: PreResNet110(classes=100), 1_169_972, 1_153_712),
        (PreResNet20, 272_282, 270_896),
        (WideResNet, 36_489_290, 36_461_232),
        (lambda: WideResNet(classes=100), 36_546_980, 36_518_832),
        (ResNet20, 269_722, 268_336),
        (ResNet18, 11_173_962, 11_164_352),
        (ResNet34, 21_282_122, 21_265_088),
        (lambda: ResNet18(**IMAGENET), 11_689_512, 11_678_912),
        (lambda: ResNet34(**IMAGENET), 21_797_672, 21_779_648),
    ],
)
def test_sizes_of_the_papers(build, parameters, synaptic):
    with torch.device("meta"):
        model = build()
    assert sum(p.numel() for p in model.parameters()) == parameters
    weights = adapter_for(model).synaptic_weights(model)
    assert sum(w.numel() for w in weights.values()) == synaptic


@pytest.mark.parametrize(
    ("build", "layers"), [(ResNet20, 20), (ResNet34, 34), (PreResNet20, 20), (PreResNet110, 110)]
)
def test_layers_on_the_longest_path(build, layers):
    with torch.device("meta"):
        model = build()
    kinds = (nn.Conv2d, nn.Linear)
    path = [n for n, m in model.named_modules() if isinstance(m, kinds) and "shortcut" not in n]
    assert len(path) == layers


def test_wide_networks_count_the_convolutions_of_shortcuts():
    with torch.device("meta"):
        model = WideResNet()
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 28


def randomised(model):
    """Give batch norms statistics and scales that are not those of a new one."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                nn.init.normal_(tensor)
            for tensor in (module.running_var, module.weight.data):
                nn.init.uniform_(tensor, 0.5, 2)
    return model.double().eval()


def norm_relu(norm, x):
    shape = (1, -1, 1, 1)
    scaled = (x - norm.running_mean.view(shape)) / torch.sqrt(norm.running_var.view(shape) + 1e-5)
    return (norm.weight.view(shape) * scaled + norm.bias.view(shape)).clamp(min=0)


@pytest.mark.parametrize(
    ("channels", "following", "stride"), [(8, 8, 1), (4, 8, 1), (4, 8, 2), (8, 8, 2)]
)
def test_blocks_against_their_equations(channels, following, stride):
    x = torch.randn(2, channels, 6, 6, dtype=torch.float64)
    changes = channels != following or stride > 1
    basic = randomised(PreBlock(channels, following, stride, bottleneck=False))
    norm1, _, conv1, norm2, _, conv2 = basic.layers
    y = functional.conv2d(norm_relu(norm1, x), conv1.weight, stride=stride, padding=1)
    y = functional.conv2d(norm_relu(norm2, y), conv2.weight, padding=1)
    same = functional.conv2d(x, basic.shortcut.weight, stride=stride) if changes else x
    torch.testing.assert_close(basic(x), y + same)

    deep = randomised(PreBlock(channels, following, stride, bottleneck=True))
    norm1, _, conv1, norm2, _, conv2, norm3, _, conv3 = deep.layers
    assert len(conv1.weight) == len(conv2.weight) == following // 4
    y = functional.conv2d(norm_relu(norm1, x), conv1.weight)
    y = functional.conv2d(norm_relu(norm2, y), conv2.weight, stride=stride, padding=1)
    y = functional.conv2d(norm_relu(norm3, y), conv3.weight)
    same = functional.conv2d(x, deep.shortcut.weight, stride=stride) if changes else x
    torch.testing.assert_close(deep(x), y + same)

    wide = randomised(WideBlock(channels, following, stride, dropout=0.5))
    norm1, _, conv1, _, norm2, _, conv2 = wide.layers
    y = functional.conv2d(norm_relu(norm1, x), conv1.weight, conv1.bias, padding=1)
    y = functional.conv2d(norm_relu(norm2, y), conv2.weight, conv2.bias, stride, padding=1)
    short = wide.shortcut
    same = functional.conv2d(x, short.weight, short.bias, stride) if changes else x
    torch.testing.assert_close(wide(x), y + same)


def test_shortcuts_of_a_residual_block_without_parameters():
    block = Block(2, 5, 2).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(3, 2, 6, 6)
    expected = torch.zeros(3, 5, 3, 3)
    expected[:, 1:3] = x[:, :, ::2, ::2]
    torch.testing.assert_close(block(x), expected)
    same = Block(2, 2, 1).eval()
    nn.init.zeros_(same.conv2.weight)
    torch.testing.assert_close(same(x), x)


def test_shortcuts_that_are_convolutions():
    block = randomised(Block(4, 6, 2, project=True))
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(3, 4, 6, 6, dtype=torch.float64)
    conv, norm = block.shortcut
    assert (conv.kernel_size, conv.stride, conv.bias) == ((1, 1), (2, 2), None)
    torch.testing.assert_close(
        block(x), functional.relu(norm(functional.conv2d(x, conv.weight, stride=2)) + last(block))
    )
    assert Block(4, 4, 1, project=True).shortcut is None


def last(block):
    """Return what the second batch norm of a block makes of zeros."""
    return block.norm2(torch.zeros(1, block.conv2.out_channels, 1, 1, dtype=torch.float64))


def test_where_the_sides_are_halved():
    def sides(model, shape):
        found = []
        for module in model.layers:
            module.register_forward_hook(lambda m, i, o: found.append(o.shape[-1]))
        model.eval()(torch.rand(1, *shape))
        return [
            side for number, side in enumerate(found) if number == 0 or found[number - 1] != side
        ]

    narrow = {"channels": (2, 2, 3, 3)}
    assert sides(ResNet18(**narrow), (3, 32, 32))[:4] == [32, 16, 8, 4]
    assert sides(ResNet18(**narrow, stem="imagenet"), (3, 64, 64))[:5] == [32, 16, 8, 4, 2]
    assert sides(PreResNet20(channels=(2, 3, 4)), (3, 32, 32))[:3] == [32, 16, 8]
    assert sides(WideResNet(depth=10, width=1), (3, 32, 32))[:3] == [32, 16, 8]


def test_resnet_stems():
    small, large = ResNet18().layers, ResNet18(stem="imagenet").layers
    assert (small[0].kernel_size, small[0].stride) == ((3, 3), (1, 1))
    assert (large[0].kernel_size, large[0].stride) == ((7, 7), (2, 2))
    assert isinstance(large[3], nn.MaxPool2d)
    assert not any(isinstance(module, nn.MaxPool2d) for module in small)


def test_initial_weights():
    model = PreResNet20(channels=(32, 64, 64))
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            size = module.kernel_size[0] ** 2 * module.out_channels
            assert module.weight.detach().std() * math.sqrt(size / 2) == pytest.approx(1, abs=0.05)
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
            assert not module.bias.any()
    last_norm = [
        m for m in WideResNet(depth=10, width=1).modules() if isinstance(m, nn.BatchNorm2d)
    ]
    assert [norm.momentum for norm in last_norm] == [0.1] * (len(last_norm) - 1) + [0.9]


@pytest.mark.parametrize(
    "build",
    [
        lambda: ResNet20(channels=(2, 3, 6), blocks=1),
        lambda: ResNet18(channels=(2, 3, 4, 5)),
        lambda: ResNet34(channels=(2, 3, 4, 5), stem="imagenet"),
        lambda: PreResNet20(channels=(2, 3, 4)),
        lambda: preresnet(47)(channels=(2, 2, 3)),
        lambda: WideResNet(depth=10, width=1, dropout=0.1),
    ],
)
def test_scores_gradients_and_trace(build):
    model = build()
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    scores = model(images)
    assert scores.shape == (4, 10)
    scores.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    traced = fx.symbolic_trace(model)
    torch.testing.assert_close(traced(images), model(images))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResNet20(blocks=0), r"blocks must be at least 1, got 0"),
        (lambda: ResNet20(channels=(4, 2)), r"channels must rise from at least 1, got \(4, 2\)"),
        (lambda: ResNet20(input_shape=(32, 32)), r"input_shape must be"),
        (lambda: ResNet18(stem="big"), r"stem must be 'cifar' or 'imagenet', got 'big'"),
        (lambda: ResNet18(channels=(1, 2)), r"channels must have 4 entries, got \(1, 2\)"),
        (lambda: preresnet(21)(), r"depth must be 6 n \+ 2 below 44 and 9 n \+ 2 .*, got 21"),
        (lambda: preresnet(2)(), r"depth must be .* got 2"),
        (lambda: PreResNet20(classes=0), r"classes must be at least 1, got 0"),
        (lambda: PreResNet20(channels=()), r"channels must rise from at least 1, got \(\)"),
        (lambda: WideResNet(depth=27), r"depth must be 6 n \+ 4, such as 10 or 28, got 27"),
        (lambda: WideResNet(width=0), r"width must be above 0, got 0"),
    ],
)
def test_impossible_networks_are_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
