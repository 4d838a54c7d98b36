"""SLAYER against its published numbers, literal loops, and in every loop of this package."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_slayer import Network, delayed, kernel
from torch import nn

from spikewvat import SWA, WVAT, Gaussian
from spikewvat.adapters import adapter_for
from spikewvat.lab.models.slayer import CNN, FullyConnected
from spikewvat.lab.recipes.reading import recipe_from
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.robustness import simulate_chips
from spikewvat.spiking.layers import Dropout, SumPool2d
from spikewvat.spiking.slayer import (
    SRM,
    Conv2d,
    Delay,
    Linear,
    Neurons,
    Psp,
    Spike,
    count_loss,
    neurons,
    psp,
    spike,
    spike_time_loss,
)
from spikewvat.spiking.slayer.kernels import filtered

FORMS = [SRM(), SRM(cut_kernels=False), SRM(dt=0.5), SRM(tau_syn=3.0, dt=0.25, cut_kernels=False)]
form = pytest.mark.parametrize("constants", FORMS, ids=repr)


def impulse_response(constants, steps):
    x = torch.zeros(steps, 1, dtype=torch.float64)
    x[0] = 1
    return psp(x, constants)[:, 0]


def literal(weights, constants, *, steps):
    c = constants
    return Network(
        weights,
        theta=c.v_threshold,
        tau_s=c.tau_syn,
        tau_r=c.tau_ref,
        m_ref=c.scale_ref,
        tau_rho=c.tau_rho,
        scale_rho=c.scale_rho,
        dt=c.dt,
        limit=0.01 if c.cut_kernels else 0.0,
        steps=steps,
    )


def random_spikes(*shape, p=0.3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < p).to(dtype)


# Kernels and filter


def test_published_kernels():
    eps = impulse_response(SRM(), 300)
    assert int(eps.nonzero()[-1]) == 76  # 77 taps
    assert SRM().psp_taps == 77
    assert eps.sum().item() == pytest.approx(27.0483, abs=5e-5)
    whole = impulse_response(SRM(cut_kernels=False), 600)
    assert whole.sum().item() == pytest.approx(27.1602, abs=5e-5)
    assert eps.argmax() == 10
    assert eps[10].item() == pytest.approx(1.0)

    nu = torch.tensor(kernel(1.0, -20.0), dtype=torch.float64)
    printed = [0, -20, -14.7152, -8.1201, -3.9830, -1.8316, -0.8086, -0.3470, -0.1459]
    printed += [-0.0604, -0.0247]
    assert nu.tolist() == pytest.approx(printed, abs=5e-5)
    assert SRM().ref_taps == 11


@form
def test_refractory_response_is_the_kernel(constants):
    """One spike, forced by a pulse; potentials are read off where the next pulse just fires."""
    steps = 40
    nu = kernel(
        constants.tau_ref,
        -constants.scale_ref * constants.v_threshold,
        constants.dt,
        steps,
        0.01 if constants.cut_kernels else 0.0,
    )
    nu += [0.0] * (steps - len(nu))
    for k in range(1, steps):
        a = torch.zeros(steps, 2, dtype=torch.float64)
        a[0] = constants.v_threshold
        a[k, 0] = constants.v_threshold - nu[k] + 1e-9
        a[k, 1] = constants.v_threshold - nu[k] - 1e-9
        assert (spike(a, constants)[k] > 0).tolist() == [True, False], k


@form
@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 130), seed=st.integers(0, 99))
def test_filter_and_its_adjoint(constants, steps, seed):
    """Equal to a convolution with the literal kernel; <psp x, y> = <x, corr y>."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, steps, 3, generator=generator, dtype=torch.float64)
    limit = 0.01 if constants.cut_kernels else 0.0
    taps = kernel(constants.tau_syn, 1.0, constants.dt, steps, limit)
    taps = torch.tensor(taps, dtype=torch.float64)
    padded = torch.cat([torch.zeros(len(taps) - 1, 3, dtype=torch.float64), x])
    expected = torch.stack(
        [constants.dt * taps.flip(0) @ padded[n : n + len(taps)] for n in range(steps)]
    )
    x.requires_grad_()
    found = psp(x, constants)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    found.backward(y)
    torch.testing.assert_close((found * y).sum(), (x * x.grad).sum(), atol=1e-12, rtol=1e-12)


def test_both_forms_agree_where_the_cut_does_not_matter():
    x = torch.randn(77, 4, dtype=torch.float64)
    for adjoint in (False, True):
        cut, whole = (filtered(x, c, adjoint=adjoint) for c in FORMS[:2])
        torch.testing.assert_close(cut, whole, atol=1e-12, rtol=0)
    long = random_spikes(300, 4)
    cut, whole = (psp(long, c) for c in FORMS[:2])
    assert 0 < (whole - cut).max() < 0.12  # what is cut sums to 0.112


def test_gradcheck_of_the_filter():
    x = torch.randn(9, 2, 3, dtype=torch.float64, requires_grad=True)
    for constants in FORMS:
        assert torch.autograd.gradcheck(lambda x, c=constants: psp(x, c), x)


# Published worked example


def one_synapse():
    x = torch.zeros(40, 1, 1, dtype=torch.float64)
    x[[2, 3, 4, 15]] = 1
    return x, torch.tensor(12.0, dtype=torch.float64, requires_grad=True)


def test_one_synapse():
    x, w = one_synapse()
    a = psp(w * x)[3:9].flatten().tolist()
    printed = [2.951524, 8.292822, 15.542332, 21.336978, 25.888008, 29.379636]
    assert a == pytest.approx(printed, abs=5e-7)
    s = neurons(w * x)
    times = [5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 32, 35, 39]
    assert s.flatten().nonzero().flatten().tolist() == times
    u = s.grad_fn.saved_tensors[0][5:9].flatten().tolist()
    assert u == pytest.approx([15.542332, 1.336978, 11.172830, 1.259519], abs=5e-7)


def test_one_synapse_losses():
    label = torch.tensor([0])
    x, w = one_synapse()
    energy = count_loss(neurons(w * x), label, true_count=3, false_count=0, stop=40.0)
    energy.backward()
    assert energy.item() == pytest.approx(2.1125, abs=1e-12)
    assert math.sqrt(2 * energy.item() / 40) == pytest.approx(0.325)
    assert w.grad.item() == pytest.approx(25.322955312, abs=5e-10)

    x, w = one_synapse()
    s = neurons(w * x)
    assert s[10:30].sum() == 10
    energy = count_loss(s, label, true_count=3, false_count=0, start=10, stop=30)
    energy.backward()
    assert energy.item() == pytest.approx(108.99306864, abs=5e-9)
    assert w.grad.item() == pytest.approx(193.935957, abs=1e-6)


def test_small_network():
    x = torch.tensor(
        [[[float((5 * t + 3 * j) % 11 < 2) for j in range(3)]] for t in range(60)],
        dtype=torch.float64,
    )
    assert x.sum(0).flatten().tolist() == [11, 11, 11]
    w1 = [[4 + 1.5 * i - 2 * j for j in range(3)] for i in range(4)]
    w2 = [[5.0 - 2 * ((i + j) % 3) for j in range(4)] for i in range(2)]
    net = FullyConnected(sizes=(3, 4, 2)).double()
    with torch.no_grad():
        net.layers[0].weight.copy_(torch.tensor(w1))
        net.layers[2].weight.copy_(torch.tensor(w2))
    hidden = net.layers[:2](x)
    assert hidden.sum(0).flatten().tolist() == [17, 30, 44, 48]
    output = net(x)
    assert output.sum(0).flatten().tolist() == [45, 45]
    energy = count_loss(output, torch.tensor([0]), true_count=20, false_count=5)
    energy.backward()
    assert energy.item() == pytest.approx(18.541667, abs=5e-7)
    dw2 = [6.179491, 14.914391, 23.284218, 30.115814, 12.711000, 29.385732, 45.032656, 57.950201]
    dw1 = [67.444583, 58.078772, 58.738337, 32.050456, 24.874279, 28.057472]
    dw1 += [68.904934, 52.852632, 59.819688, 68.108703, 51.862773, 58.169250]
    assert net.layers[2].weight.grad.flatten().tolist() == pytest.approx(dw2, abs=5e-7)
    assert net.layers[0].weight.grad.flatten().tolist() == pytest.approx(dw1, abs=5e-7)


# Against literal loops


@form
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("seed", range(3))
def test_network_against_loops(constants, dtype, tolerance, seed):
    """Losses, gradients of all weights and of the input, relative to the largest entry."""
    steps, batch, sizes = 50, 2, (4, 5, 3)
    torch.manual_seed(seed)
    net = FullyConnected(sizes=sizes, constants=constants).to(dtype)
    with torch.no_grad():
        for layer in (net.layers[0], net.layers[2]):
            layer.weight.copy_(layer.weight.abs() * (2 if constants.dt == 1 else 4))
    x = (random_spikes(steps, batch, 4, seed=seed, dtype=dtype) / constants.dt).requires_grad_()
    window = {"start": 8 * constants.dt, "stop": 41 * constants.dt}
    labels, counts = torch.tensor([2, 0]), (20.0, 4.0)
    output = net(x)
    assert 10 < output.count_nonzero() < 0.9 * output.numel()
    energy = count_loss(output, labels, true_count=20, false_count=4, constants=constants, **window)
    energy.backward()

    expected, gradients = 0.0, [0.0, 0.0]
    weights = [net.layers[i].weight.detach().double() for i in (0, 2)]
    slow = literal([w.tolist() for w in weights], constants, steps=steps)
    for b in range(batch):
        potentials, trains = slow.forward(x[:, b].detach().double().tolist())
        assert trains[-1] == output[:, b].tolist()
        targets = [counts[0] if i == labels[b] else counts[1] for i in range(3)]
        e, grad = slow.count_loss(trains[-1], targets, 8, 41)
        found, grad_x = slow.backward(potentials, trains, grad)
        expected += e
        gradients = [g + torch.tensor(f, dtype=torch.float64) for g, f in zip(gradients, found)]
        assert_relative(x.grad[:, b], torch.tensor(grad_x, dtype=torch.float64), tolerance)
    assert energy.item() == pytest.approx(expected, rel=tolerance)
    for i, g in zip((0, 2), gradients):
        assert_relative(net.layers[i].weight.grad, g, tolerance)


def assert_relative(found, expected, tolerance):
    scale = expected.abs().max()
    assert scale > 0
    assert ((found.double() - expected).abs().max() / scale).item() < tolerance


@form
def test_spike_time_loss_against_loops(constants):
    s = (random_spikes(40, 1, 3) / constants.dt).requires_grad_()
    desired = random_spikes(40, 1, 3, seed=1) / constants.dt
    energy = spike_time_loss(s, desired, constants=constants)
    energy.backward()
    slow = literal([], constants, steps=40)
    e, grad = slow.spike_time_loss(s[:, 0].tolist(), desired[:, 0].tolist())
    assert energy.item() == pytest.approx(e, rel=1e-12)
    torch.testing.assert_close(s.grad[:, 0], torch.tensor(grad, dtype=torch.float64))
    same = desired.clone()
    assert spike_time_loss(same, desired, constants=constants).item() == 0


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_delay_against_loops(dt):
    x = random_spikes(12, 2, 4).requires_grad_()
    layer = Delay(4, constants=SRM(dt=dt)).double()
    values = [0.2, 1.0, 3.7, 50.0]
    with torch.no_grad():
        layer.delay.copy_(torch.tensor(values))
    grad = torch.randn(12, 2, 4, dtype=torch.float64)
    y = layer(x)
    y.backward(grad)
    total = torch.zeros(4, dtype=torch.float64)
    for b in range(2):
        out, grad_x, grad_d = delayed(x[:, b].tolist(), values, dt, grad[:, b].tolist())
        assert out == y[:, b].tolist()
        assert grad_x == x.grad[:, b].tolist()
        total += torch.tensor(grad_d, dtype=torch.float64)
    torch.testing.assert_close(layer.delay.grad, total)


def test_delay_is_never_negative_and_comes_back():
    layer = Delay(2)
    nn.init.constant_(layer.delay, -0.5)
    x = torch.tensor([[[0.0, 0.0]], [[1.0, 1.0]], [[0.0, 0.0]]])
    y = layer(x)
    assert torch.equal(y, x)
    # Less error for a later spike at the first neuron, for an earlier one at the second.
    y.backward(torch.tensor([[[0.0, 0.0]], [[1.0, -1.0]], [[-1.0, 1.0]]]))
    assert layer.delay.grad[0] < 0
    assert layer.delay.grad[1] == 0


def test_delay_per_channel_is_shared_over_space():
    layer = Delay(2, 1, 1)
    nn.init.constant_(layer.delay, 1.5)
    x = random_spikes(6, 2, 2, 3, 4)
    y = layer(x)
    assert torch.equal(y[1:], x[:-1])
    y.sum().backward()
    assert layer.delay.grad.shape == (2, 1, 1)


def test_a_delay_learns_its_time():
    layer = Delay(1)
    x = torch.zeros(40, 1, 1)
    x[5] = 1
    desired = torch.zeros(40, 1, 1)
    desired[12] = 1
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.2)
    for _ in range(100):
        optimizer.zero_grad()
        loss = spike_time_loss(layer(x), desired)
        loss.backward()
        optimizer.step()
    assert loss.item() == 0
    assert 7 <= layer.delay.item() < 8


# Neurons and layers


@form
def test_filter_commutes_with_the_synapse(constants):
    """The network's order, filter behind the weights, and the original's, in front."""
    torch.manual_seed(1)
    w = (3 * torch.randn(5, 4, dtype=torch.float64)).requires_grad_()
    x = random_spikes(60, 2, 4)
    found = []
    for call in (
        lambda: neurons(x @ w.T, constants),
        lambda: spike(psp(x, constants) @ w.T, constants),
    ):
        w.grad = None
        s = call()
        (s * torch.arange(60.0)[:, None, None]).sum().backward()
        found.append((s.detach(), w.grad.clone()))
    assert found[0][0].any()
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=1e-10)


def test_inputs_are_not_changed():
    for function in (psp, neurons, spike):
        x = 20 * torch.rand(30, 2, 3)
        kept = x.clone()
        y = function(x)
        assert torch.equal(x, kept)
        assert y.data_ptr() != x.data_ptr()


def test_any_layout_and_number_of_axes():
    x = 4 * torch.rand(20, 2, 3, 4, 5)
    expected = neurons(x)
    moved = x.movedim(0, -1).contiguous().movedim(-1, 0)
    assert torch.equal(neurons(moved), expected)
    assert torch.equal(spike(psp(moved)), expected)
    assert torch.equal(neurons(x.flatten(1)).view(x.shape), expected)
    frozen = (4 * torch.rand(1, 2, 3)).expand(20, 2, 3)
    assert torch.equal(neurons(frozen), neurons(frozen.clone()))


def test_second_backward_is_an_error():
    x = (4 * torch.rand(20, 2, 3)).requires_grad_()
    (grad,) = torch.autograd.grad(neurons(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        grad.sum().backward()


def test_initial_weights():
    torch.manual_seed(0)
    dense = Linear(400, 300)
    assert dense.bias is None
    assert dense.weight.abs().max().item() == pytest.approx(10 / 20, rel=0.01)
    conv = Conv2d(4, 50, 5)
    assert conv.bias is None
    assert conv.weight.abs().max().item() == pytest.approx(100 / 10, rel=0.01)


def test_a_pooled_spike_fires_the_pool():
    """The weight of 1.1 thresholds: a spike reaches 1.1 at the peak of the response."""
    x = torch.zeros(30, 1, 1, 3, 3)
    x[0, 0, 0, 0, 1] = x[3, 0, 0, 2, 2] = 1
    pooled = neurons(SumPool2d(2, gain=1.1 * SRM().v_threshold, pad=True)(x))
    assert pooled.shape == (30, 1, 1, 2, 2)
    assert pooled.sum(0).flatten().bool().tolist() == [True, False, False, True]


def test_networks_have_the_published_sizes():
    net = FullyConnected()
    assert sum(p.numel() for p in net.parameters()) == 1_006_800
    assert sum(w.numel() for w in adapter_for(net).synaptic_weights(net).values()) == 1_006_800
    cnn = CNN()
    assert list(adapter_for(cnn).synaptic_weights(cnn)) == [
        "layers.1.weight",
        "layers.6.weight",
        "layers.11.weight",
        "layers.14.weight",
    ]
    conv = 16 * 2 * 25 + 32 * 16 * 9 + 64 * 32 * 9
    assert sum(p.numel() for p in cnn.parameters()) == conv + 8 * 8 * 64 * 10
    assert cnn(random_spikes(3, 1, 2, 34, 34, dtype=torch.float32)).shape == (3, 1, 10)


def test_cnn_is_the_published_order_of_layers():
    """Filter in front of every synapse, neurons behind it, as the original writes it."""
    torch.manual_seed(0)
    cnn = CNN(input_shape=(2, 9, 9), channels=(3, 4), kernel_sizes=(5, 3), classes=3).double()
    x = random_spikes(40, 2, 2, 9, 9)
    first, pool, second, dense = (
        m for m in cnn.layers if isinstance(m, Conv2d | SumPool2d | Linear)
    )
    s = x
    for synapse in (first, pool, second, nn.Sequential(nn.Flatten(2), dense)):
        s = spike(synapse(psp(s)))
    assert s.any()
    assert torch.equal(cnn(x), s)


def test_delays_are_no_synaptic_weights():
    net = nn.Sequential(Linear(3, 4), Neurons(), Delay(4), Linear(4, 2), Neurons())
    assert list(adapter_for(net).synaptic_weights(net)) == ["0.weight", "3.weight"]


def test_sparse_spikes_give_the_same():
    net = FullyConnected(sizes=(18, 4, 2)).double()
    x = random_spikes(10, 2, 2, 3, 3)
    expected, found = net(x), net(x.to_sparse())
    assert torch.equal(found, expected)
    weights = list(net.parameters())
    gradient = random_spikes(10, 2, 2)
    for dense, sparse in zip(
        torch.autograd.grad(expected, weights, gradient),
        torch.autograd.grad(found, weights, gradient),
    ):
        torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-12)


def test_dropout_and_sizes():
    net = FullyConnected(sizes=(6, 5, 4, 2), dropout=0.5)
    assert sum(isinstance(m, Dropout) for m in net.layers) == 2
    assert any(isinstance(m, Dropout) for m in CNN(dropout=0.1).layers)
    assert "tau_syn=10.0" in repr(Psp())
    assert "tau_syn=10.0" in repr(Spike())
    assert repr(Delay(3, 4)) == "Delay(3, 4)"


# In training


CASE = {"sizes": (8, 12, 3)}


def batches(count=2, dtype=torch.float32):
    return [
        (random_spikes(30, 6, 8, seed=i, dtype=dtype), torch.arange(6) % 3) for i in range(count)
    ]


def loss_of(net, x, y):
    return count_loss(net(x), y, true_count=10, false_count=1)


def test_learns_under_variation_then_chips_and_averaging():
    torch.manual_seed(0)
    loader = [(random_spikes(60, 3, 8, p=0.15, dtype=torch.float32), torch.arange(3))]
    net = FullyConnected(sizes=(8, 24, 3))
    wvat = WVAT(net, Gaussian(0.05), generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    swa = SWA(net, start=40)
    for epoch in range(60):
        for x, y in loader:
            optimizer.zero_grad()
            wvat.backward(lambda x=x, y=y: loss_of(net, x, y))
            optimizer.step()
        swa.update(epoch)
    before = [p.clone() for p in net.parameters()]
    report = simulate_chips(net, loader, Gaussian(0.05), chips=10)
    assert report.accuracies.mean() > 0.6  # chance is a third
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))
    averaged = swa.finish(loader)
    assert simulate_chips(averaged, loader, Gaussian(0.0), chips=1).accuracies.item() > 0.8


def test_bf16_autocast():
    net = FullyConnected(**CASE)
    x, y = batches(1)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = net(x)
        loss = count_loss(output, y, true_count=10, false_count=1)
    loss.backward()
    assert loss.dtype == torch.float32
    assert set(output.unique().tolist()) <= {0.0, 1.0}
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in net.parameters())


def test_half_precision_potentials_are_held_in_float32():
    x = random_spikes(60, 2, 4, dtype=torch.bfloat16) * 3
    assert neurons(x).dtype == torch.bfloat16
    assert torch.equal(neurons(x).float(), neurons(x.float()))


def test_compiled_network_is_the_same():
    net = FullyConnected(**CASE)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    x, y = batches(1)[0]
    gradients = []
    for model in (net, compiled):
        net.zero_grad()
        loss_of(model, x, y).backward()
        gradients.append([p.grad.clone() for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


@pytest.mark.slow
def test_network_compiled_by_inductor():
    net = CNN(input_shape=(2, 8, 8), channels=(3, 4), kernel_sizes=(3, 3), classes=3)
    x = random_spikes(20, 2, 2, 8, 8, dtype=torch.float32)
    torch.testing.assert_close(torch.compile(net, fullgraph=True)(x), net(x))


# Names in recipes


def resolved(**changes):
    return resolve(
        recipe_from(
            {
                "name": "slayer",
                "data": {"name": "embedded", "time_steps": 50},
                "model": {
                    "name": "slayer-fc",
                    "sizes": [18, 4, 2],
                    "constants": {"v_threshold": 8.0},
                },
                "training": {"loss": {"name": "slayer-count", "true_count": 30, "false_count": 2}},
                **changes,
            }
        )
    )


def test_recipes_know_networks_and_loss():
    net = resolved().build_model()
    assert net.layers[1].constants == SRM(v_threshold=8.0)
    x = random_spikes(50, 1, 18, dtype=torch.float32)
    assert resolved().loss(net(x), torch.tensor([1])) > 0
    assert isinstance(resolved(model={"name": "slayer-cnn"}).build_model(), CNN)
    too_many = {"loss": {"name": "slayer-count", "true_count": 60}}
    with pytest.raises(ValueError, match="<= 50, the steps of the window, got true_count=60"):
        resolved(training=too_many)


# Wrong input


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"v_threshold": 0.0}, "v_threshold must be above 0 and finite, got 0.0. SLAYER was"),
        ({"tau_syn": -1.0}, "tau_syn must be above 0"),
        ({"tau_ref": math.inf}, "tau_ref must be above 0 and finite, got inf"),
        ({"scale_ref": -1.0}, "scale_ref must be at least 0 and finite, got -1.0"),
        ({"dt": 0.0}, "dt must be above 0"),
        ({"tau_rho": math.nan}, "tau_rho must be above 0 and finite, got nan"),
        ({"scale_rho": 0.0}, "scale_rho must be above 0"),
    ],
)
def test_impossible_constants(constants, message):
    with pytest.raises(ValueError, match=message):
        SRM(**constants)


def test_no_refractory_response():
    assert spike(torch.full((5, 1), 10.0), SRM(scale_ref=0.0)).sum() == 5


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3)])
@pytest.mark.parametrize(
    "function", [psp, neurons, spike, Delay(3), lambda x: count_loss(x, torch.arange(0))]
)
def test_empty_recordings(function, shape):
    with pytest.raises(ValueError, match="at least one time step and one sample"):
        function(torch.zeros(shape))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 18, 30), r"expected \[T, B, 18\]. Time seems to come last: move it in front"),
        ((2, 2, 3, 3, 30), r"expected \[T, B, 18\]. Time seems to come last: move it in front"),
        ((30, 2, 17), r"shape \(30, 2, 17\), expected \[T, B, 18\]. Check the size of the layer"),
        ((30, 2, 2, 3, 4), r"shape \(30, 2, 2, 3, 4\), expected \[T, B, 18\]"),
        ((30, 18), r"shape \(30, 18\), expected \[T, B, 18\], time first"),
    ],
)
def test_time_must_come_first(shape, message):
    with pytest.raises(ValueError, match=message):
        FullyConnected(sizes=(18, 4, 2))(torch.zeros(shape))


def test_wrong_input_of_the_cnn_and_of_delays():
    cnn = CNN(input_shape=(2, 9, 9), channels=(3,), kernel_sizes=(3,))
    with pytest.raises(ValueError, match=r"samples of \(2, 9, 9\).*movedim\(-1, 0\)"):
        cnn(torch.zeros(1, 2, 9, 9, 30))
    with pytest.raises(ValueError, match=r"expected \[T, B, C, H, W\], time first"):
        cnn(torch.zeros(2, 9, 9, 30))
    with pytest.raises(ValueError, match=r"one sample's shape \(3,\), that of the delays"):
        Delay(3)(torch.zeros(5, 2, 4))


def test_impossible_networks():
    with pytest.raises(ValueError, match="sizes needs input and output width"):
        FullyConnected(sizes=(3,))
    with pytest.raises(ValueError, match="one kernel size for each of channels"):
        CNN(kernel_sizes=(5,))
    with pytest.raises(ValueError, match="convolution 2 leaves nothing of an input of 6 x 6"):
        CNN(input_shape=(2, 6, 6), kernel_sizes=(7, 5, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": 300.0}, r"stop=300.0 ms is steps 0 to 300, but the recording has 40. Choose"),
        ({"start": -1.0}, r"start=-1.0"),
        ({"start": 20.0, "stop": 20.0}, "steps 20 to 20"),
        ({"true_count": 41.0}, "<= 40, the steps of the window, got true_count=41.0"),
        ({"true_count": 12.0, "stop": 11.0}, "<= 11, the steps of the window"),
        ({"true_count": 3.0, "false_count": 3.0}, "0 <= false_count < true_count"),
        ({"false_count": -1.0}, "got true_count=20.0, false_count=-1.0"),
    ],
)
def test_windows_and_counts_that_cannot_be_met(options, message):
    with pytest.raises(ValueError, match=message):
        count_loss(torch.zeros(40, 1, 2), torch.tensor([0]), **{"true_count": 20.0, **options})


def test_outputs_that_are_no_spikes():
    label = torch.tensor([0])
    with pytest.raises(ValueError, match="network output holds the value 0.25, expected spikes"):
        count_loss(torch.full((80, 1, 2), 0.25), label)
    with pytest.raises(ValueError, match="holds the value 1, expected spikes: 0 or 2"):
        count_loss(torch.ones(80, 1, 2), label, constants=SRM(dt=0.5))
    with pytest.raises(ValueError, match="desired spikes holds the value nan"):
        spike_time_loss(torch.zeros(4, 1, 2), torch.full((4, 1, 2), math.nan))
    with pytest.raises(ValueError, match=r"shape \(80, 2\), expected \[T, B, classes\]"):
        count_loss(torch.zeros(80, 2), label)
    with pytest.raises(ValueError, match=r"labels have shape \(3,\), expected \(2,\).*time first"):
        count_loss(torch.zeros(3, 2, 80), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"desired spikes have shape \(5, 1, 2\)"):
        spike_time_loss(torch.zeros(4, 1, 2), torch.zeros(5, 1, 2))


def test_count_loss_takes_tuples_and_sums_over_the_batch():
    s = random_spikes(80, 2, 3)
    labels = torch.tensor([0, 2])
    both = count_loss((s, None), labels)
    each = sum(count_loss(s[:, b : b + 1], labels[b : b + 1]) for b in range(2))
    torch.testing.assert_close(both, each)
