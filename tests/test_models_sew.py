"""The spiking residual network: blocks against their equations, sizes, both step modes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikewvat import WVAT, Gaussian
from spikewvat.adapters import adapter_for
from spikewvat.lab.models.sew import SEWBlock, SEWResNet
from spikewvat.lab.models.spikingjelly import Neurons
from spikewvat.robustness import simulate_chips
from spikewvat.spiking.losses import rate_cross_entropy

BETA, THRESHOLD = 0.8, 0.4


def spikes(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < 0.4).double()


def fire(currents):
    """Run neurons step by step: decay, add, fire from the threshold on, subtract it."""
    v, found = torch.zeros_like(currents[0]), []
    for current in currents:
        v = BETA * v + current
        spike = (v >= THRESHOLD).to(v)
        v = v - THRESHOLD * spike
        found.append(spike)
    return torch.stack(found)


def convolved(conv, norm, x, stride, padding):
    steps = [functional.conv2d(step, conv.weight, stride=stride, padding=padding) for step in x]
    return fire(
        torch.stack(
            [
                functional.batch_norm(
                    step, norm.running_mean, norm.running_var, norm.weight, norm.bias
                )
                for step in steps
            ]
        )
    )


@pytest.mark.parametrize(("channels", "following", "stride"), [(4, 4, 1), (3, 4, 1), (4, 4, 2)])
@pytest.mark.parametrize("connect", ["add", "and", "iand"])
def test_blocks_against_their_equations(channels, following, stride, connect):
    torch.manual_seed(3)
    neurons = Neurons(BETA, THRESHOLD, 2.0, "m")
    block = SEWBlock(channels, following, stride, neurons=neurons, connect=connect)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    block = block.double().eval()
    x = spikes(5, 2, channels, 6, 6)
    conv1, norm1, _, conv2, norm2, _ = block.layers
    a = convolved(conv2, norm2, convolved(conv1, norm1, x, stride, 1), 1, 1)
    s = x
    if channels != following or stride > 1:
        s = convolved(block.shortcut[0], block.shortcut[1], x, stride, 0)
    expected = {"add": a + s, "and": a * s, "iand": (1 - a) * s}[connect]
    assert torch.equal(block(x), expected)
    assert 0 < a.mean() < 1
    assert expected.any()


def test_the_size_of_sew_resnet_18():
    with torch.device("meta"):
        model = SEWResNet(
            input_shape=(3, 32, 32), classes=1000, channels=(64, 128, 256, 512), blocks=2
        )
    # ResNet-18 with 1000 classes and the stem of CIFAR, without the last layer's biases.
    assert sum(p.numel() for p in model.parameters()) == 11_689_512 - 64 * 3 * (49 - 9) - 1000
    assert sum(w.numel() for w in adapter_for(model).synaptic_weights(model).values()) == (
        11_678_912 - 64 * 3 * (49 - 9)
    )


def test_both_step_modes_give_the_same_spikes():
    torch.manual_seed(0)
    whole = SEWResNet(input_shape=(2, 12, 12), channels=(4, 6), threshold=0.3).eval()
    stepwise = SEWResNet(
        input_shape=(2, 12, 12), channels=(4, 6), threshold=0.3, step_mode="s"
    ).eval()
    stepwise.load_state_dict(whole.state_dict())
    x = spikes(6, 3, 2, 12, 12).float()
    output = whole(x)
    assert output.shape == (6, 3, 10)
    assert set(output.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(stepwise(x), output)


def test_training_under_variation_and_chips():
    torch.manual_seed(0)
    model = SEWResNet(input_shape=(2, 12, 12), classes=3, channels=(4, 8), threshold=0.5)
    x, labels = torch.zeros(5, 12, 2, 12, 12), torch.arange(12) % 3
    for sample, label in enumerate(labels):  # classes differ by where their events lie
        x[:, sample, :, 4 * label : 4 * label + 4] = spikes(5, 2, 4, 12, seed=sample).float()
    wvat = WVAT(model, Gaussian(0.05), alpha=0.05, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        losses.append(wvat.backward(lambda: rate_cross_entropy(model(x), labels)).item())
        optimizer.step()
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    report = simulate_chips(model.eval(), [(x, labels)], Gaussian(0.05), chips=3)
    assert len(report.accuracies) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"connect": "or"}, r"connect must be 'add', 'and' or 'iand', got 'or'"),
        ({"step_mode": "x"}, r"step_mode must be 'm' or 's', got 'x'"),
        ({"channels": (4, 2)}, r"channels must rise from at least 1, got \(4, 2\)"),
        ({"blocks": 0}, r"blocks must be at least 1, got 0"),
        ({"stride": 0}, r"stride must be at least 1, got 0"),
        ({"input_shape": (2, 34)}, r"input_shape must be \(channels, height, width\)"),
    ],
)
def test_impossible_networks_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        SEWResNet(**options)
