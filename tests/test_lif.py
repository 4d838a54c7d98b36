"""LIF neurons: literal loops and two frameworks beside the fast code, layers, networks."""

from __future__ import annotations

import functools

import pytest
import reference_lif as reference
import snntorch as snn
import torch
from snntorch import surrogate as snn_surrogate
from spikingjelly.activation_based import neuron, surrogate
from torch import nn
from torch.nn import functional

from spikewvat import SWA, WVAT, Gaussian, adapter_for
from spikewvat.lab.models.lif import CNN, FullyConnected
from spikewvat.lab.models.spikingjelly import SpikingCNN
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.robustness import simulate_chips
from spikewvat.spiking.lif import LIF, ATan, FastSigmoid, Neurons, neurons
from spikewvat.spiking.losses import rate_cross_entropy
from spikewvat.spiking.pooled import PooledConv2d

DOUBLE = torch.float64
RESETS = {
    "subtract": {},
    "after decay": {"reset_after_decay": True},
    "zero": {"hard_reset": True},
}
SURROGATES = {"atan": ATan(3.0), "fast sigmoid": FastSigmoid(7.0)}
SMALL = {"input_shape": (2, 9, 8), "channels": (3, 4), "kernel_size": 3, "classes": 4}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def some_spikes(*shape, seed=0, rate=0.4):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) < rate).double()


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("reset", RESETS)
def test_against_literal_loops(reset, name, detach):
    """Spikes, what is left, and all gradients, those of the decay and the carry too."""
    kind = SURROGATES[name]
    sharpness = kind.alpha if name == "atan" else kind.slope
    constants = LIF(0.8, 0.7, detach_reset=detach, surrogate=kind, **RESETS[reset])
    currents = (drawn(9, 2, 3) + 0.4).requires_grad_()
    carry = drawn(2, 3, seed=1).requires_grad_()
    beta = torch.tensor([0.8, 0.5, 0.95], dtype=DOUBLE, requires_grad=True)
    spikes, left = neurons(currents, constants, beta=beta, carry=carry)
    assert 0.1 < spikes.mean() < 0.8
    of_spikes, of_left = drawn(9, 2, 3, seed=2), drawn(2, 3, seed=3)
    torch.autograd.backward([spikes, left], [of_spikes, of_left])
    slope_at = functools.partial(reference.slope, surrogate=name, sharpness=sharpness)
    of_beta = torch.zeros(3, dtype=DOUBLE)
    for b in range(2):
        for n in range(3):
            about = (currents[:, b, n].tolist(), reset, beta[n].item(), 0.7)
            fired, _, rest = reference.forward(*about, carry[b, n].item())
            assert spikes[:, b, n].tolist() == fired
            assert left[b, n].item() == pytest.approx(rest, abs=1e-12)
            of_currents, of_carry, share = reference.backward(
                of_spikes[:, b, n].tolist(),
                of_left[b, n].item(),
                *about,
                slope_at,
                detach,
                carry[b, n].item(),
            )
            assert currents.grad[:, b, n].tolist() == pytest.approx(of_currents, abs=1e-10)
            assert carry.grad[b, n].item() == pytest.approx(of_carry, abs=1e-10)
            of_beta[n] += share
    torch.testing.assert_close(beta.grad, of_beta, rtol=1e-10, atol=1e-10)


def trained(run, currents):
    """Return spikes, and the gradient of the currents under random gradients of the spikes."""
    currents = currents.clone().requires_grad_()
    spikes = run(currents)
    spikes.backward(drawn(*spikes.shape, seed=5).to(spikes.dtype))
    return spikes.detach(), currents.grad


@pytest.mark.parametrize("kind", [ATan(2.0), FastSigmoid(25.0)])
@pytest.mark.parametrize(("reset", "theirs"), [("after decay", "subtract"), ("zero", "zero")])
def test_equal_to_snntorch(reset, theirs, kind):
    peer = (
        snn_surrogate.atan(alpha=kind.alpha)
        if isinstance(kind, ATan)
        else snn_surrogate.fast_sigmoid(slope=kind.slope)
    )
    leaky = snn.Leaky(beta=0.9, threshold=0.8, spike_grad=peer, reset_mechanism=theirs)

    def run(currents):
        mem, found = leaky.reset_mem(), []
        for current in currents:
            spike, mem = leaky(current, mem)
            found.append(spike)
        return torch.stack(found)

    constants = LIF(0.9, 0.8, surrogate=kind, **RESETS[reset])
    currents = (drawn(12, 3, 5) + 0.3).float()
    spikes, grad = trained(lambda x: neurons(x, constants)[0], currents)
    expected, expected_grad = trained(run, currents)
    assert torch.equal(spikes, expected)
    assert 0.1 < spikes.mean() < 0.8
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize(("reset", "v_reset"), [("subtract", None), ("zero", 0.0)])
def test_equal_to_spikingjelly(reset, v_reset, detach):
    node = neuron.LIFNode(
        tau=4.0,
        decay_input=False,
        v_threshold=0.8,
        v_reset=v_reset,
        surrogate_function=surrogate.ATan(alpha=2.0),
        detach_reset=detach,
        step_mode="m",
    )
    constants = LIF(0.75, 0.8, detach_reset=detach, **RESETS[reset])
    currents = drawn(12, 3, 5) + 0.3
    spikes, grad = trained(lambda x: neurons(x, constants)[0], currents)
    expected, expected_grad = trained(node, currents)
    assert torch.equal(spikes, expected)
    assert 0.1 < spikes.mean() < 0.8
    torch.testing.assert_close(grad, expected_grad)


@pytest.mark.parametrize("reset", RESETS)
def test_parts_of_the_steps_are_the_whole(reset):
    layer = Neurons(LIF(0.8, **RESETS[reset]), learn_beta=True).double()
    currents = drawn(7, 2, 3)

    def in_parts(x):
        carry, found = None, []
        for part in x.split(3):
            spikes, carry = layer.steps(part, carry)
            found.append(spikes)
        return torch.cat(found)

    whole, grad = trained(layer, currents)
    of_beta, layer.beta.grad = layer.beta.grad, None
    spikes, other = trained(in_parts, currents)
    assert torch.equal(spikes, whole)
    torch.testing.assert_close(other, grad)
    torch.testing.assert_close(layer.beta.grad, of_beta)


def test_half_precision_and_other_layouts():
    currents = drawn(6, 2, 4, 3, 3).bfloat16()
    spikes, left = neurons(currents)
    assert spikes.dtype == torch.bfloat16
    assert left.dtype == torch.float32
    expected = neurons(currents.float())
    torch.testing.assert_close(spikes.float(), expected[0], rtol=0, atol=0)
    turned = currents.float().movedim(2, -1).contiguous().movedim(-1, 2)
    torch.testing.assert_close(neurons(turned)[0], expected[0], rtol=0, atol=0)


def test_decays_stay_between_0_and_1():
    currents = drawn(5, 2, 3)
    for outside, held in ((1.5, 1.0), (-0.5, 0.0)):
        beta = torch.tensor(outside, dtype=DOUBLE, requires_grad=True)
        _, left = neurons(currents, beta=beta)
        _, expected = neurons(currents, beta=torch.tensor(held, dtype=DOUBLE))
        assert torch.equal(left, expected)
        left.sum().backward()
        assert beta.grad == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LIF(beta=1.1), r"beta must lie in \[0, 1\], got 1.1"),
        (lambda: LIF(v_threshold=0.0), "v_threshold must be finite and above 0, got 0.0"),
        (lambda: LIF(hard_reset=True, reset_after_decay=True), "Choose one of them"),
        (lambda: ATan(0.0), "alpha must be finite and above 0, got 0.0"),
        (lambda: FastSigmoid(-1.0), "slope must be finite and above 0, got -1.0"),
        (lambda: neurons(torch.zeros(0, 2)), r"shape \(0, 2\), expected \[T, B, ...\]"),
        (lambda: PooledConv2d(1, 1, 3, pool=0), "pool must be at least 1, got 0"),
        (lambda: PooledConv2d(1, 1, 3)(torch.zeros(2, 1, 8, 8)), "expected .T, B, 1, H, W."),
        (lambda: FullyConnected(sizes=(4,)), r"sizes needs input and output width, got \(4,\)"),
        (lambda: CNN(chunk=0), "chunk must be at least 1, got 0"),
        (lambda: CNN(channels=(2,) * 7), "leave nothing of an input"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("kernel", "pool", "stride"), [(5, 2, 1), (3, 3, 2), (3, 1, 2), (4, 2, 3)])
def test_pooled_convolution_is_convolution_and_pooling(kernel, pool, stride, sparse):
    torch.manual_seed(1)
    layer = PooledConv2d(2, 3, kernel, pool=pool, stride=stride, padding=2, bias=True).double()
    spikes = some_spikes(3, 2, 2, 17, 14)
    given = spikes.to_sparse() if sparse else spikes.requires_grad_()
    currents = layer(given)
    grad = drawn(*currents.shape)
    (currents * grad).sum().backward()
    of_weight, layer.weight.grad = layer.weight.grad, None
    of_spikes = spikes.grad
    spikes = spikes.detach().clone().requires_grad_()
    maps = functional.conv2d(spikes.flatten(0, 1), layer.weight, layer.bias, stride, 2)
    expected = functional.avg_pool2d(maps, pool).view_as(currents)
    (expected * grad).sum().backward()
    torch.testing.assert_close(currents, expected)
    torch.testing.assert_close(of_weight, layer.weight.grad)
    if not sparse:
        torch.testing.assert_close(of_spikes, spikes.grad)


def gradients(model, spikes):
    model.zero_grad()
    output = model(spikes)
    (output * drawn(*output.shape, seed=6)).sum().backward()
    return output, [parameter.grad.clone() for parameter in model.parameters()]


def test_the_cnn_is_spikingjellys_twin():
    constants = LIF(0.9, 0.1)
    ours = CNN(**SMALL, constants=constants).double()
    twin = SpikingCNN(**SMALL, threshold=0.1).double()
    with torch.no_grad():
        for mine, theirs in zip(ours.parameters(), twin.parameters(), strict=True):
            theirs.copy_(mine)
    spikes = some_spikes(6, 2, 2, 9, 8)
    output, grads = gradients(ours, spikes)
    expected, expected_grads = gradients(twin, spikes)
    assert torch.equal(output, expected)
    assert output.sum() > 0
    torch.testing.assert_close(grads, expected_grads)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CNN(**SMALL, constants=LIF(0.9, 0.1), learn_beta=True),
        lambda: CNN(**SMALL, constants=LIF(0.9, 0.1), chunk=4),
        lambda: FullyConnected(sizes=(144, 8, 4), constants=LIF(0.9, 0.1), learn_beta=True),
    ],
)
def test_events_and_chunks_change_nothing(make):
    torch.manual_seed(2)
    model = make().double()
    spikes = some_spikes(6, 2, 2, 9, 8)
    output, grads = gradients(model, spikes)
    assert output.sum() > 0
    events, of_events = gradients(model, spikes.to_sparse())
    assert torch.equal(events, output)
    torch.testing.assert_close(of_events, grads)
    if isinstance(model, CNN):
        for model.chunk in (1, 5, None):
            other, of_other = gradients(model, spikes)
            assert torch.equal(other, output)
            torch.testing.assert_close(of_other, grads)


@pytest.mark.parametrize("make", [lambda: CNN(**SMALL, constants=LIF(0.9, 0.1), chunk=2)])
def test_stacked_chips(make):
    """Under vmap each copy of the weights gives what it gives alone."""
    torch.manual_seed(2)
    model = make().double()
    spikes = some_spikes(5, 2, 2, 9, 8)
    names = [name for name, _ in model.named_parameters()]
    stacked = {n: drawn(3, *model.get_parameter(n).shape, seed=8) for n in names}

    def run(weights):
        return torch.func.functional_call(model, weights, (spikes,))

    together = torch.func.vmap(run)(stacked)
    for number, output in enumerate(together):
        assert torch.equal(output, run({n: w[number] for n, w in stacked.items()}))
    assert together.sum() > 0


def test_stacked_decays():
    currents, carry, beta = drawn(5, 2, 3), drawn(4, 2, 3, seed=1), drawn(4, seed=2).sigmoid()

    def run(beta, carry):
        return neurons(currents, beta=beta, carry=carry)[0]

    together = torch.func.vmap(run)(beta, carry)
    for number, spikes in enumerate(together):
        assert torch.equal(spikes, run(beta[number], carry[number]))


def test_wvat_swa_and_chips():
    torch.manual_seed(0)
    model = CNN(**SMALL, constants=LIF(0.9, 0.3), learn_beta=True)
    generator = torch.Generator().manual_seed(4)
    wvat = WVAT(model, Gaussian(0.1), alpha=0.1, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    labels = torch.arange(8) % 4
    quarter = torch.arange(4).repeat_interleave(18)
    allowed = (quarter == labels[:, None]).view(8, 1, 9, 8)
    spikes = (some_spikes(6, 8, 2, 9, 8, rate=0.7) * allowed).float()
    adapter, swa = adapter_for(model), SWA(model)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = wvat.backward(lambda: rate_cross_entropy(model(spikes), labels))
        optimizer.step()
        losses.append(loss.item())
        swa.update(0)
    assert losses[-1] < 0.5 * losses[0]
    adapter.reset_state(model)
    report = simulate_chips(model, [(spikes, labels)], Gaussian(0.05), chips=4)
    assert report.accuracies.mean() > 0.9


@pytest.mark.parametrize("name", ["lif-fc", "lif-cnn"])
def test_by_name_in_recipes(tmp_path, name):
    sizes = "sizes = [2312, 8, 10]" if name == "lif-fc" else "channels = [3, 4]"
    path = tmp_path / "lif.toml"
    path.write_text(f"""
name = "lif"
[data]
name = "embedded"
time_steps = 4
[model]
name = "{name}"
{sizes}
learn_beta = true
constants = {{ beta = 0.8, hard_reset = true, surrogate = {{ slope = 10.0 }} }}
""")
    model = resolve(read_recipe(path)).build_model()
    constants = {m.constants for m in model.modules() if isinstance(m, Neurons)}
    assert constants == {LIF(0.8, hard_reset=True, surrogate=FastSigmoid(10.0))}
    assert model(torch.ones(4, 2, 2, 34, 34)).shape == (4, 2, 10)
    assert isinstance(model, nn.Module)
