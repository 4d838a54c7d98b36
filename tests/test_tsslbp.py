"""TSSL-BP: worked examples, literal loops beside the fast code, layers, losses, networks."""

from __future__ import annotations

import pytest
import reference_tsslbp as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikewvat import SWA, WVAT, Gaussian, adapter_for
from spikewvat.lab.models.tsslbp import (
    NMNISTCNN,
    ConvNet,
    SpikingCNN1,
    SpikingCNN2,
    SpikingNetwork,
    Stage,
)
from spikewvat.robustness import simulate_chips
from spikewvat.spiking.losses import class_scores, rate_cross_entropy
from spikewvat.spiking.tsslbp import (
    TSSL,
    Conv2d,
    Linear,
    Neurons,
    Psp,
    count_loss,
    desired_psc,
    kernel_loss,
    neurons,
    psp,
)

DOUBLE = torch.float64
LABEL_0 = torch.tensor([0])
CONSTANTS = [TSSL(), TSSL(8.0, 4.0), TSSL(2.5, 1.5, 0.7)]


def printed(tensor, values, digits=6):
    """Check against numbers printed with so many digits."""
    expected = torch.tensor(values, dtype=DOUBLE).reshape(tensor.shape)
    torch.testing.assert_close(tensor.detach(), expected, rtol=0, atol=0.51 * 10**-digits)


def one_neuron(currents):
    """Return currents, PSC and loss of one neuron under the kernel loss, label 0."""
    currents = torch.tensor(currents, dtype=DOUBLE)[:, None, None].requires_grad_()
    psc = neurons(currents)
    loss = kernel_loss(psc, LABEL_0)
    loss.backward()
    return currents, psc, loss


# Worked examples of the specification.


def test_a_neuron_that_fires():
    currents, psc, loss = one_neuron([0.6, 0.6, 0.3, 1.5, 0.2])
    printed(psc, [0, 0.333333, 0.222222, 0.481481, 0.320988])
    printed(desired_psc(5), [0, 0.333333, 0.555556, 0.703704, 0.802469])
    printed(loss, 0.196159122, digits=9)
    printed(currents.grad, [-0.054089, -0.367246, -0.100594, -0.125743, 0])


def test_a_silent_neuron_is_woken():
    currents, psc, _ = one_neuron([0.1, 0.2, 0.1, 0.1, 0.1])
    assert not psc.any()
    printed(currents.grad, [-0.015143, -0.054119, -0.073309, -0.077404, -0.057052])


W1 = [[0.9, 0.3, 0.5], [-0.6, 0.2, 1.1], [0.4, -0.8, 0.7], [1.2, 0.1, -0.3]]
W2 = [[0.7, 0.9, -0.2, 0.5], [-0.4, 0.6, 0.8, 1.0]]


def test_a_network_of_two_layers():
    w1, w2 = (torch.tensor(w, dtype=DOUBLE).requires_grad_() for w in (W1, W2))
    x = torch.tensor([0.8, -0.4, 1.6], dtype=DOUBLE).expand(5, 1, 3)
    hidden = neurons(psp(x, 3.0) @ w1.T)
    output = neurons(hidden @ w2.T)

    def spikes(psc):
        before = torch.cat([torch.zeros_like(psc[:1]), psc[:-1]])
        trains = (psc - before + before / 3 > 0.1).int()[:, 0].T.tolist()
        return "/".join("".join(map(str, train)) for train in trains)

    assert spikes(hidden) == "01011/00101/01111/00001"
    assert spikes(output) == "00001/00011"
    loss = kernel_loss(output, LABEL_0)
    loss.backward()
    printed(loss, 0.777396738, digits=9)
    printed(kernel_loss(output, LABEL_0, double_filter=True), 0.353816322, digits=9)
    dw2 = [[-0.328964, -0.215446, -0.474143, -0.070267], [0.499689, 0.286504, 0.724616, 0.061576]]
    dw1 = [
        [-0.457011, 0.228506, -0.914022],
        [-0.043504, 0.021752, -0.087009],
        [0.386181, -0.193090, 0.772362],
        [0.281521, -0.140761, 0.563043],
    ]
    printed(w2.grad, dw2)
    printed(w1.grad, dw1)


def test_count_loss_of_the_specification():
    sums = torch.tensor([1.2, 0.2, 0.5, 2.0], dtype=DOUBLE)
    psc = (sums / 5).expand(5, 1, 4).clone().requires_grad_()
    loss = count_loss(psc, LABEL_0, correct=4, incorrect=1)
    loss.backward()
    printed(loss, 0.884)
    for step in psc.grad:  # the gradient is delta in every step
        printed(step[0], [-0.56, 0, 0, 0.2])


# The fast code beside the literal loops.


@pytest.mark.parametrize("constants", CONSTANTS, ids=repr)
@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("steps", [1, 5, 30])
def test_neurons_are_the_literal_ones(constants, dtype, tolerance, steps):
    generator = torch.Generator().manual_seed(steps)
    values = 0.3 + torch.randn(steps, 2, 60, generator=generator, dtype=dtype)
    grad = torch.randn(steps, 2, 60, generator=generator, dtype=dtype)
    currents = values.clone().requires_grad_()
    psc = neurons(currents, constants)
    psc.backward(grad)
    tau_mem, tau_syn, threshold = constants.tau_mem, constants.tau_syn, constants.v_threshold
    state = reference.forward(values.flatten(1), tau_mem, tau_syn, threshold)
    expected = reference.backward(state, grad.flatten(1), tau_mem, tau_syn, threshold)
    assert state["s"].any()
    assert not state["s"].all()
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(psc.flatten(1).double(), state["a"], rtol=0, atol=tolerance)
    found = currents.grad.flatten(1).double() / scale
    torch.testing.assert_close(found, expected / scale, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(DOUBLE, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("seed", range(3))
def test_networks_are_the_literal_ones(dtype, tolerance, seed):
    torch.manual_seed(seed)
    constants = CONSTANTS[seed]
    network = ConvNet(input_shape=(1, 2, 3), hidden=(8,), classes=3, constants=constants).to(dtype)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(3)
    x, labels = torch.rand(5, 2, 1, 2, 3, dtype=dtype), torch.tensor([2, 0])
    loss = kernel_loss(network(x), labels, tau_syn=constants.tau_syn)
    loss.backward()
    target = torch.zeros(5, 2, 3, dtype=DOUBLE)
    train = reference.psp(torch.tensor([[0.0], [1], [1], [1], [1]]), constants.tau_syn)[:, 0]
    target[:, [0, 1], labels] = train[:, None]
    expected = reference.network(
        [weight.detach() for weight in network.parameters()],
        x.flatten(2),
        target,
        (constants.tau_mem, constants.tau_syn, constants.v_threshold),
    )
    assert expected["output"].any()
    torch.testing.assert_close(network(x).double(), expected["output"], rtol=0, atol=tolerance)
    assert loss.item() == pytest.approx(expected["loss"], rel=10 * tolerance)
    for weight, grad in zip(network.parameters(), expected["grads"]):
        scale = max(1.0, float(grad.abs().max()))
        close = {"rtol": 0, "atol": 10 * tolerance}
        torch.testing.assert_close(weight.grad.double() / scale, grad / scale, **close)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.floats(1.01, 50.0), st.integers(0, 10**6))
def test_psp_has_its_adjoint_as_gradient(steps, tau_syn, seed):
    """<psp x, y> = <x, psp* y>, and psp is the literal recursion."""
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, steps, 3, generator=generator, dtype=DOUBLE)
    x.requires_grad_()
    filtered = psp(x, tau_syn)
    filtered.backward(y)
    left, right = (filtered * y).sum().detach(), (x * x.grad).sum().detach()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    expected = reference.psp(x.detach(), tau_syn)
    torch.testing.assert_close(filtered.detach(), expected, rtol=1e-12, atol=1e-12)


def test_psp_passes_a_numeric_gradient_check():
    x = torch.randn(6, 2, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: psp(x, 3.0), x)


def test_any_memory_layout_and_dtype_of_the_input():
    currents = torch.randn(5, 2, 3, 4, 4) + 0.5
    grad = torch.randn_like(currents)
    results = []
    for x in (currents, currents.flatten(0, 1).to(memory_format=torch.channels_last)):
        x = x.view(currents.shape).detach().requires_grad_()
        psc = neurons(x)
        psc.backward(grad)
        results.append((psc, x.grad))
    for found, expected in zip(results[1], results[0]):
        assert torch.equal(found, expected)
    constant = torch.full((1, 2, 3), 0.7).requires_grad_()
    neurons(constant.expand(5, 2, 3)).sum().backward()
    assert constant.grad.any()
    low = (currents.bfloat16()).requires_grad_()
    neurons(low).sum().backward()
    assert neurons(low).dtype == low.grad.dtype == torch.bfloat16
    state = neurons(low.detach().float())
    assert torch.equal(neurons(low), state.bfloat16())  # held in float32


# Losses.


def test_desired_trains():
    alternating = torch.tensor([0.0, 1.0] * 10, dtype=DOUBLE)
    assert torch.equal(desired_psc(20, 4.0), psp(alternating, 4.0))
    twice = [0, 0.1111, 0.2593, 0.4074, 0.5391]
    printed(desired_psc(5, double_filter=True), twice, digits=4)
    assert torch.equal(
        desired_psc(3, desired=[1, 0, 1]), psp(torch.tensor([1, 0, 1.0]).double(), 3)
    )


@pytest.mark.parametrize("steps", [1, 4, 6, 15, 25])
def test_steps_without_a_desired_train(steps):
    with pytest.raises(ValueError, match=rf"no desired train of {steps} time steps.*desired="):
        kernel_loss(torch.zeros(steps, 1, 2), LABEL_0)


def test_a_desired_train_of_another_length_or_of_other_values():
    for desired in ([1, 0], [0, 1, 2]):
        with pytest.raises(ValueError, match=r"desired must be 3 zeros and ones"):
            kernel_loss(torch.zeros(3, 1, 2), LABEL_0, desired=desired)


def test_losses_are_sums_over_the_batch():
    psc, labels = torch.rand(30, 4, 5), torch.tensor([0, 1, 2, 4])
    for loss in (kernel_loss, count_loss):
        parts = [loss(psc[:, i : i + 1], labels[i : i + 1]) for i in range(4)]
        torch.testing.assert_close(loss((psc, None), labels), torch.stack(parts).sum())


def test_softmax_option_is_the_cross_entropy_of_the_summed_currents():
    psc, labels = torch.rand(5, 3, 4), torch.tensor([1, 0, 3])
    expected = nn.functional.cross_entropy(torch.log_softmax(psc.sum(0), 1), labels)
    torch.testing.assert_close(rate_cross_entropy(psc, labels), expected)


def test_impossible_counts():
    psc = torch.zeros(10, 1, 2)
    with pytest.raises(ValueError, match=r"correct=15.0 is out of reach.*10 time steps.*Lower"):
        count_loss(psc, LABEL_0)
    with pytest.raises(ValueError, match="0 <= incorrect < correct"):
        count_loss(psc, LABEL_0, correct=2, incorrect=3)
    for loss in (count_loss, kernel_loss):
        with pytest.raises(ValueError, match=r"shape \(10, 2\), expected \[T, B, classes\]"):
            loss(psc[:, 0], LABEL_0)


# Layers.


def test_initial_weights():
    dense, conv = Linear(1000, 400, scale=2.0), Conv2d(64, 64, 3, scale=5.0)
    assert dense.bias is None
    assert conv.bias is None
    torch.testing.assert_close(dense.weight.std().item(), 2 * (2 / 1000) ** 0.5, rtol=0.01, atol=0)
    bound = 5 / (64 * 9) ** 0.5
    assert 0.99 * bound < conv.weight.abs().max() <= bound
    before = conv.weight.clone()
    conv.reset_parameters()
    assert not torch.equal(conv.weight, before)
    assert 0.99 * bound < conv.weight.abs().max() <= bound


def test_layers_in_a_loop_of_ones_own():
    constants = TSSL(4.0, 2.0)
    network = nn.Sequential(Psp(2.0), Linear(3, 4), Neurons(constants))
    x = torch.rand(6, 2, 3)
    assert torch.equal(network(x), neurons(network[1](psp(x, 2.0)), constants))
    assert "TSSL(tau_mem=4.0, tau_syn=2.0, v_threshold=1.0)" in repr(network)
    assert "Psp(tau_syn=2.0)" in repr(network)


@pytest.mark.parametrize("value", [1.0, 0.5, -3.0, float("nan"), float("inf")])
def test_impossible_time_constants(value):
    for name in ("tau_mem", "tau_syn"):
        with pytest.raises(ValueError, match=f"{name} must be finite and above 1.*time steps"):
            TSSL(**{name: value})
    for call in (lambda: psp(torch.ones(2, 1), value), lambda: Psp(value)):
        with pytest.raises(ValueError, match="tau_syn must be finite and above 1"):
            call()


def test_impossible_thresholds_and_scales():
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="v_threshold must be above 0"):
            TSSL(v_threshold=value)
        for make in (lambda: Linear(2, 2, scale=value), lambda: Conv2d(2, 2, 1, scale=value)):
            with pytest.raises(ValueError, match="scale must be finite and above 0"):
                make()


@pytest.mark.parametrize("shape", [(0, 2, 3), (5, 0, 3), ()])
def test_no_time_steps_or_no_samples(shape):
    for function in (lambda x: psp(x, 3.0), neurons):
        with pytest.raises(ValueError, match=r"at least one time step and one sample"):
            function(torch.zeros(shape))


def test_time_last_is_recognised():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 5\), expected \[T, B, 3\].*movedim"):
        Linear(3, 4)(torch.zeros(2, 3, 5))
    network = SpikingCNN2()
    with pytest.raises(ValueError, match=r"Time is last: move it to the front with movedim"):
        network(torch.zeros(2, 1, 28, 28, 5))
    with pytest.raises(ValueError, match=r"shape \(2, 1, 27, 28\), expected \[T, B, 1, 28, 28\]"):
        network(torch.zeros(2, 1, 27, 28))


# Networks.


@pytest.mark.parametrize(
    ("network", "weights", "shape"),
    [
        (lambda: SpikingCNN1(), 340_112, (1, 28, 28)),
        (lambda: SpikingCNN1(head="flatten"), 8_336, (1, 28, 28)),
        (lambda: SpikingCNN2(), 210_375, (1, 28, 28)),
        (lambda: NMNISTCNN(), 2 * 12 * 25 + 12 * 64 * 25 + 23_040, (2, 34, 34)),
    ],
)
def test_parameter_counts_and_shapes(network, weights, shape):
    network = network()
    synaptic = adapter_for(network).synaptic_weights(network)
    assert sum(w.numel() for w in synaptic.values()) == weights
    assert sum(p.numel() for p in network.parameters()) == weights
    assert network(torch.rand(3, 2, *shape)).shape == (3, 2, 10)


def test_the_flattened_head_reads_288_features():
    assert SpikingCNN1(head="flatten").layers[-2].in_features == 288
    with pytest.raises(ValueError, match="head must be 'hidden' or 'flatten', got 'dense'"):
        SpikingCNN1(head="dense")


@pytest.mark.parametrize("make", [SpikingCNN1, SpikingCNN2])
def test_still_images_are_the_same_as_repeated_ones(make):
    network = make(time_steps=4).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(3)
    images = torch.randn(2, 1, 28, 28, dtype=DOUBLE)
    gradients = []
    for x in (images, images.expand(4, *images.shape)):
        output = network(x)
        gradients.append(
            torch.autograd.grad(class_scores(output)[:, 0].sum(), network.parameters())
        )
    assert output.any()
    torch.testing.assert_close(network(images), output)
    for still, repeated in zip(*gradients):
        torch.testing.assert_close(still, repeated, rtol=1e-9, atol=1e-9)


def test_impossible_networks():
    with pytest.raises(ValueError, match=r"leave nothing of an input of 8 x 8"):
        SpikingCNN2(input_shape=(1, 8, 8))
    with pytest.raises(ValueError, match="time_steps must be at least 1, got 0"):
        SpikingCNN2(time_steps=0)
    with pytest.raises(ValueError, match="layers has no Neurons"):
        SpikingNetwork([nn.Linear(2, 2)], input_shape=(2,), constants=TSSL())


def small(**options):
    """Return a small network whose neurons fire."""
    torch.manual_seed(1)
    stages = (Stage(4, 3, padding=1, pool=2, scale=3.0),)
    return ConvNet(input_shape=(1, 6, 6), stages=stages, hidden=(12,), classes=3, **options)


def test_dropout_in_training_alone():
    network = small(dropout=0.5)
    assert sum(type(layer).__name__ == "Dropout" for layer in network.layers) == 2
    x = torch.rand(2, 1, 6, 6) + 1
    assert not torch.equal(network(x), network(x))
    network.eval()
    assert torch.equal(network(x), network(x))


def test_it_learns_under_variation_and_averages():
    """Three patterns, WVAT with both kinds of step, SWA, simulated chips."""
    network = small()
    patterns = (torch.rand(3, 1, 6, 6) > 0.5).float()
    labels = torch.arange(48) % 3
    images = patterns[labels] + 0.2 * torch.randn(48, 1, 6, 6)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-2)
    wvat = WVAT(network, Gaussian(0.05), generator=torch.Generator().manual_seed(0))
    average = SWA(network, start=50)
    losses = []
    for epoch in range(60):
        optimizer.zero_grad()
        losses.append(wvat.backward(lambda: kernel_loss(network(images), labels)).item())
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(epoch)
    assert losses[-1] < 0.3 * losses[0]
    batches = [(images, labels)]
    final = average.finish(batches)
    report = simulate_chips(final, batches, Gaussian(0.05), chips=3)
    assert report.mean > 0.85


def test_autocast_in_bf16():
    network = small()
    images, labels = torch.rand(4, 1, 6, 6), torch.tensor([0, 1, 2, 0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = kernel_loss(network(images), labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(p.grad.isfinite().all() and p.grad.dtype == p.dtype for p in network.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_compiled():
    network = small()
    images, labels = torch.rand(4, 1, 6, 6) * 2, torch.tensor([0, 1, 2, 0])
    results = []
    for run in (network, torch.compile(network)):
        network.zero_grad()
        loss = kernel_loss(run(images), labels)
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in network.parameters())])
    for compiled, eager in zip(results[1], results[0]):
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)
