"""Converted networks against literal loops, their ANN, and what cannot be converted."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import reference_conversion as reference
import torch
from torch import nn
from torch.nn import functional

from spikewvat import SWA, WVAT, Gaussian, adapter_for
from spikewvat.conversion import (
    HYBRID,
    Balancing,
    Direct,
    Dynamics,
    Poisson,
    convert,
    finetune,
    potential_cross_entropy,
)
from spikewvat.conversion.layers import MaxPool, MeanPool
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness import simulate_chips

STEPS = Balancing("steps", 100.0, per_channel=False)


def dense(*sizes, bias=True):
    layers = [nn.Flatten()]
    for width, following in pairwise(sizes):
        layers += [nn.Linear(width, following, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Residual(nn.Module):
    """Two convolutions with an identity shortcut, batch norm, functional calls."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm0 = nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        x = self.relu(self.norm0(self.stem(x)))
        y = functional.relu(self.norm1(self.conv1(x)))
        x = self.relu(self.norm2(self.conv2(y)) + x)
        x = self.last(functional.avg_pool2d(x, 2))
        x = functional.adaptive_avg_pool2d(x, 1)
        return self.fc(x.view(x.size(0), -1))


class PoolFirst(nn.Module):
    """Maxima before the ReLU, as many LeNets have it; a strided, padded shortcut."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 6, 3, 2, 1)
        self.drop, self.fc = nn.Dropout(0.3), nn.Linear(6 * 4, 3)

    def forward(self, x):
        x = functional.relu(functional.max_pool2d(self.conv1(x), 2))
        short = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 2))
        x = torch.relu(self.conv2(x) + short)
        return self.fc(torch.flatten(self.drop(x), 1))


def trained_statistics(model):
    """Run batches so that batch norm knows its input."""
    for _ in range(5):
        model(torch.randn(32, 1, 8, 8))
    return model.eval()


NETWORKS = {
    "dense": lambda: dense(64, 12, 8, 3),
    "conv": lambda: trained_statistics(
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 2), nn.ReLU(), nn.Dropout(0.2), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(6, 5), nn.ReLU(), nn.Identity(), nn.Linear(5, 3),
        )
    ),
    "residual": lambda: trained_statistics(Residual()),
    "pool-first": lambda: PoolFirst().eval(),
}  # fmt: skip


def images(count=16):
    return torch.rand(count, 1, 8, 8, dtype=torch.float64)


def network(name):
    return NETWORKS[name]().double()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_ann_is_kept(name):
    """Folded weights and reordered pools compute what the ANN does; the ANN is not touched."""
    ann, x = network(name), images()
    before = copy.deepcopy(ann.state_dict())
    snn = convert(ann, [x], time_steps=4)
    torch.testing.assert_close(snn.analog(x), ann.eval()(x), atol=1e-10, rtol=0)
    assert all(torch.equal(value, before[key]) for key, value in ann.state_dict().items())
    own = {p.data_ptr() for p in ann.parameters()}
    assert not any(p.data_ptr() in own for p in snn.parameters())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_output_tends_to_the_ann_as_one_over_t(name, initial):
    """Rates are exact up to one spike in T: the error times T stays bounded."""
    ann, x = network(name), images()
    with torch.no_grad():
        expected = ann(x)
        scaled = []
        for steps in (64, 256, 1024):
            snn = convert(
                ann,
                [x],
                time_steps=steps,
                dynamics=Dynamics(initial=initial),
                balancing=Balancing(percentile=100.0, per_channel=False),
            )
            scaled.append(steps * float((snn(x) - expected).abs().max()))
    assert max(scaled) < 25 * float(expected.abs().max())
    assert scaled[-1] / 1024 < 0.02 * float(expected.abs().max())


@pytest.mark.parametrize("leak", [1.0, 0.9])
def test_hybrid_network_is_the_literal_loop(leak):
    ann, x = dense(5, 4, 4, 3, bias=False).double(), torch.rand(6, 5, dtype=torch.float64) * 2 - 1
    snn = convert(
        ann, [x], time_steps=20, dynamics=HYBRID, coding=Poisson(3), leak=leak, unit_spikes=True,
        balancing=Balancing("steps", 100.0, scaling=0.7, per_channel=False),
    )  # fmt: skip
    with torch.no_grad():
        inputs = snn.encode(x)
        found = snn.run(inputs) * 20
    weights = [layer.weight.tolist() for layer in ann if isinstance(layer, nn.Linear)]
    thresholds = [level.item() for level in snn.thresholds().values()]
    for i in range(6):
        expected = reference.hybrid_network(weights, thresholds, inputs[:, i].tolist(), leak)
        assert found[i].tolist() == pytest.approx(expected, abs=1e-10)
    assert found.abs().max() > 0


def test_step_balancing_is_the_largest_single_current():
    """Layer by layer, the layers below with their new thresholds, the last one scaled after."""
    ann, x = dense(5, 4, 4, 3, bias=False).double(), torch.rand(6, 5, dtype=torch.float64)
    snn = convert(
        ann, [x], time_steps=15, dynamics=HYBRID, unit_spikes=True, coding=Direct(),
        balancing=Balancing("steps", 100.0, scaling=0.7, per_channel=False),
    )  # fmt: skip
    first, second, _ = [layer.weight.detach() for layer in ann if isinstance(layer, nn.Linear)]
    currents = x @ first.T
    expected = [currents.max().item()]
    largest = 0.0
    for sample in currents.tolist():
        trains = [reference.hybrid_neuron([c] * 15, expected[0])[0] for c in sample]
        largest = max(largest, (torch.tensor(trains, dtype=torch.float64).T @ second.T).max())
    expected.append(float(largest))
    found = [level.item() / 0.7 for level in snn.thresholds().values()]
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("initial", [0.0, 0.5])
def test_spikes_are_what_the_conventional_loop_says(initial):
    ann, x = dense(5, 4, 3).double(), torch.rand(2, 5, dtype=torch.float64)
    snn = convert(ann, [x], time_steps=12, dynamics=Dynamics(initial=initial))
    (neurons,) = snn.neurons().values()
    seen = []
    snn.observe(x, lambda node, inputs, output: seen.append((node, output)), until="3")
    spikes = torch.cat([out for node, out in seen if node.path == "2"]) / neurons.amplitude
    currents = ann[1](x).detach()
    for b in range(2):
        for i in range(4):
            level = neurons.threshold[i].item()
            given = [float(currents[b, i])] * 12
            expected = reference.conventional_neuron(given, level, initial=initial)
            assert spikes[:, b, i].round(decimals=9).tolist() == expected


def test_max_pool_follows_the_busiest_input():
    trains = (torch.rand(20, 1, 1, 2, 2) < torch.tensor([[0.3, 0.5], [0.1, 0.6]])).double()
    pool = MaxPool(nn.MaxPool2d(2))
    whole, _ = pool.steps(trains, 20, None)
    expected = reference.max_pool([trains[:, 0, 0, i, j].tolist() for i in (0, 1) for j in (0, 1)])
    assert whole.flatten().tolist() == expected
    assert set(expected) == {0.0, 1.0}
    one, counts = pool.steps(trains[:7], 7, None)
    two, _ = pool.steps(trains[7:], 13, counts)
    assert torch.equal(torch.cat([one, two]), whole)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"kernel_size": 2}, (8, 6)),
        ({"kernel_size": (3, 2)}, (9, 8)),
        ({"kernel_size": 1}, (3, 5)),
        ({"kernel_size": 2}, (7, 6)),
        ({"kernel_size": 2, "ceil_mode": True}, (7, 6)),
        ({"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}, (8, 8)),
        ({"kernel_size": 2, "divisor_override": 3}, (8, 8)),
    ],
)
def test_average_pools_are_those_of_torch(options, size):
    pool = nn.AvgPool2d(**options)
    x = torch.randn(2, 3, *size, requires_grad=True)
    found, expected = MeanPool.of(pool)(x), pool(x)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(y.square().sum(), x)[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("coding", [Direct(), Poisson(5)], ids=repr)
@pytest.mark.parametrize("name", NETWORKS)
def test_chunks_and_shortcuts_change_nothing(name, coding):
    """The mean over time in front of the last layers, and constants computed once."""
    ann, x = network(name), images()
    whole = convert(ann, [x], time_steps=10, coding=coding, chunk=10)
    parts = copy.deepcopy(whole)
    parts.chunk = 3
    with torch.no_grad():
        every = torch.cat(list(parts.outputs(x)))
        assert every.shape == (10, 16, 3)
        torch.testing.assert_close(parts(x), whole(x), atol=1e-10, rtol=0)
        torch.testing.assert_close(every.mean(0), whole(x), atol=1e-10, rtol=0)
        torch.testing.assert_close(parts.run(parts.encode(x)), whole(x), atol=1e-10, rtol=0)
        assert torch.equal(whole(x), whole(x))  # nothing is kept between passes


def test_dropout_draws_one_mask_for_all_steps():
    ann = nn.Sequential(nn.Linear(4, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 2))
    snn = convert(ann, [torch.rand(8, 4)], time_steps=9, chunk=4).train()
    seen = []
    list(
        snn.outputs(
            torch.ones(3, 4),
            observe=lambda node, i, out: seen.append((i[0], out)) if node.path == "2" else None,
        )
    )
    spikes, masked = (torch.cat(parts) for parts in zip(*seen, strict=True))
    fired, kept = (spikes != 0).any(0), (masked != 0).any(0)
    assert 0 < kept.sum() < fired.sum()
    assert torch.equal(masked, spikes * 2 * kept)


def test_poisson_coding():
    x = torch.tensor([0.0, 0.25, -0.5, 1.0, -1.0, 3.0])
    spikes = Poisson()(x, 4000, generator=torch.Generator().manual_seed(0))
    assert spikes.abs().max() == 1
    means = spikes.mean(0)
    assert means.tolist()[3:] == [1.0, -1.0, 1.0]
    assert means[:3].tolist() == pytest.approx([0.0, 0.25, -0.5], abs=0.04)
    one = Poisson(1)
    assert torch.equal(
        one(x, 9, generator=one.generator())[:4], one(x, 4, generator=one.generator())
    )


def test_every_tool_takes_a_converted_network():
    """Chips, WVAT, averaging, deepcopy; thresholds are never displaced."""
    x, labels = images(24).float(), torch.arange(24) % 3
    snn = convert(NETWORKS["conv"](), [x], time_steps=6)
    names = set(adapter_for(snn).synaptic_weights(snn))
    assert names == {f"layers.{i}.weight" for i in (0, 4, 9, 12)}
    report = simulate_chips(snn, [(x, labels)], Gaussian(0.1), chips=3)
    assert report.chips == 3
    before = snn.thresholds()
    weights = [w.detach().clone() for w in adapter_for(snn).synaptic_weights(snn).values()]
    swa = SWA(snn)
    losses = finetune(
        snn,
        [(x, labels)] * 4,
        epochs=6,
        optimizer=torch.optim.Adam(snn.parameters(), 3e-3),
        method=WVAT(snn, Gaussian(0.05)),
        swa=swa,
    )
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert swa.count == 6
    after = adapter_for(snn).synaptic_weights(snn).values()
    assert not any(torch.equal(a, b) for a, b in zip(weights, after, strict=True))
    assert all(torch.equal(level, before[name]) for name, level in snn.thresholds().items())


def test_thresholds_and_leak_can_learn():
    x, labels = torch.rand(24, 4), torch.arange(24) % 3
    snn = convert(dense(4, 9, 3), [x], time_steps=6, leak=0.95)
    snn.learn(thresholds=True, leak=True)
    before = {n: (m.threshold.clone(), m.leak.clone()) for n, m in snn.neurons().items()}
    finetune(snn, [(x, labels)], epochs=2, method=WVAT(snn, Gaussian(0.1)))
    for name, neurons in snn.neurons().items():
        assert not torch.equal(neurons.threshold, before[name][0])
        assert not torch.equal(neurons.leak, before[name][1])
    assert set(adapter_for(snn).synaptic_weights(snn)) == {"layers.1.weight", "layers.3.weight"}


def test_potential_loss():
    output, labels = torch.randn(7, 4, 3), torch.tensor([0, 1, 2, 0])
    mean = output.mean(0)
    assert potential_cross_entropy(output, labels) == potential_cross_entropy(mean, labels)
    raw = functional.cross_entropy(output.sum(0), labels)
    torch.testing.assert_close(potential_cross_entropy(mean, labels, time_steps=7), raw)


# torch.compile instantiates autograd functions while it traces them.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_bf16_and_compile():
    x = torch.rand(8, 4)
    snn = convert(dense(4, 9, 3), [x], time_steps=6)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        torch.testing.assert_close(snn(x).float(), snn.analog(x).float(), atol=0.2, rtol=0)
    compiled = torch.compile(snn, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), snn(x))


def chain(*layers):
    return nn.Sequential(nn.Conv2d(1, 2, 3), *layers, nn.Flatten(), nn.Linear(72, 3))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x, y):
        return torch.relu(self.fc(x)) + y


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x) if x.sum() > 0 else x


class Multiplies(Branches):
    def forward(self, x):
        return torch.relu(self.fc(x)) * torch.relu(x)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (chain(nn.Sigmoid()), r"layer '1' \(torch.nn.modules.activation.Sigmoid\) cannot be.*ReLU"),
        (
            chain(nn.ReLU(), nn.LayerNorm(6)),
            r"layer '2' \(torch.nn.*LayerNorm\) cannot.*batch norm",
        ),
        (nn.Sequential(*chain(nn.ReLU()), nn.Softmax(1)), r"layer '4'.*Softmax.*Leave it out"),
        (chain(nn.BatchNorm2d(2), nn.ReLU()), "batch norm '1' has no statistics.*refresh_batch"),
        (
            chain(nn.BatchNorm2d(2, track_running_stats=False), nn.ReLU()),
            "batch norm '1' has no statistics.*none kept",
        ),
        (chain(nn.Dropout()), "the model has no ReLU"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3), nn.ReLU()),
            "layer '1' takes maxima of the currents of '0'.*directly after the pool",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "the model has no ReLU"),
        (Twice(), "takes a second input 'y'"),
        (Branches(), "cannot be traced.*branches"),
        (Multiplies(), "operation 'mul'.*cannot be converted"),
        (nn.Sequential(nn.ReLU()), "no synaptic weights"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_converted_is_named(model, match):
    with pytest.raises(UnsupportedModelError, match=match):
        convert(model, [torch.rand(2, 1, 8, 8)], time_steps=4)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"time_steps": 0}, ValueError, "time_steps must be a whole number of at least 1, got 0"),
        ({"loader": []}, ValueError, "the loader yields no batch"),
        ({"loader": [torch.rand(2, 5)]}, ValueError, r"shape \(2, 5\) do not fit the model"),
        ({"loader": ["x"]}, TypeError, "a batch is a str, expected images"),
        ({"loader": [torch.full((2, 4), torch.nan)]}, ValueError, "a value that is not finite"),
        ({"loader": [-torch.ones(2, 4)]}, ValueError, "no current of layer '2' is above 0"),
        ({"leak": 0.0}, ValueError, r"leak must lie in \(0, 1\], got 0.0"),
        ({"chunk": 0}, ValueError, "chunk must be at least 1 step, got 0"),
        ({"unit_spikes": True}, ValueError, "'1' has one"),
        ({"coding": Poisson(), "loader": [torch.full((2, 4), 2.8)]}, ValueError, "reach 2.8"),
    ],
    ids=lambda value: str(list(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments(change, error, match):
    ann = dense(4, 6, 3)
    with torch.no_grad():
        ann[1].weight.abs_()
        ann[1].bias.zero_()
    arguments = {"loader": [torch.rand(8, 4)], "time_steps": 4, **change}
    with pytest.raises(error, match=match):
        convert(ann, arguments.pop("loader"), **arguments)


def test_nan_weights():
    ann = dense(4, 6, 3)
    with torch.no_grad():
        ann[3].weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="3.weight holds a value that is not finite"):
        convert(ann, [torch.rand(8, 4)], time_steps=4)


def test_unit_spikes_refuse_what_they_cannot_scale():
    x = torch.rand(8, 1, 8, 8)
    with pytest.raises(ValueError, match="unit_spikes=True needs a chain"):
        convert(PoolFirst(), [x], time_steps=4, unit_spikes=True)
    ann = dense(64, 6, 3, bias=False)
    with pytest.raises(ValueError, match="statistic='activations' needs spikes in units"):
        convert(ann, [x], time_steps=4, unit_spikes=True)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"loader": []}, ValueError, "the loader yields no batch"),
        ({"loader": [torch.rand(2, 4)]}, TypeError, "expected a pair"),
        ({"loss": lambda o, y: o.sum() * torch.nan}, ValueError, "the loss is NaN after epoch 0"),
    ],
    ids=lambda value: str(list(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_of_finetune(arguments, error, match):
    x = torch.rand(8, 4)
    snn = convert(dense(4, 6, 3), [x], time_steps=4)
    arguments = {"loader": [(x, torch.zeros(8, dtype=torch.long))], "epochs": 1, **arguments}
    with pytest.raises(error, match=match):
        finetune(snn, arguments.pop("loader"), **arguments)
    assert not snn.training
