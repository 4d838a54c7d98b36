"""Recurrent LIF neurons: literal loops and two frameworks beside the fast code, and their layer."""

from __future__ import annotations

import functools

import pytest
import reference_lif as reference
import snntorch as snn
import torch
from snntorch import surrogate as snn_surrogate
from spikingjelly.activation_based import layer, neuron, surrogate
from torch import nn

from spikewvat import WVAT, Gaussian, adapter_for
from spikewvat.adapters import Tap
from spikewvat.robustness import simulate_chips
from spikewvat.robustness.corruptions import DeadNeurons, corrupt
from spikewvat.spiking.layers import Linear
from spikewvat.spiking.lif import LIF, ATan, FastSigmoid, Neurons, Recurrent, State, recurrent

DOUBLE = torch.float64
RESETS = {
    "subtract": {},
    "after decay": {"reset_after_decay": True},
    "zero": {"hard_reset": True},
}


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def leaf(*shape, seed=0):
    return drawn(*shape, seed=seed).requires_grad_()


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("reset", RESETS)
def test_against_literal_loops(reset, detach, alpha):
    """Spikes, the state that is left, and all gradients, those of the state at the start too."""
    constants = LIF(0.8, 0.7, detach_reset=detach, surrogate=ATan(3.0), **RESETS[reset])
    currents, weight = (drawn(6, 2, 3) + 0.5).requires_grad_(), leaf(3, 3, seed=1)
    beta = torch.tensor([0.8, 0.5, 0.95], dtype=DOUBLE, requires_grad=True)
    sent = (drawn(2, 3, seed=2) > 0).double().requires_grad_()
    start = State(leaf(2, 3, seed=3), sent, leaf(2, 3, seed=4) if alpha else None)
    spikes, end = recurrent(currents, weight, constants, alpha=alpha, beta=beta, state=start)
    assert 0.1 < spikes.mean() < 0.8
    of_spikes, of_end = drawn(6, 2, 3, seed=5), [drawn(2, 3, seed=n) for n in (6, 7, 8)]
    of_end[1].zero_()  # the last spikes are among the spikes
    lasting = [(part, of) for part, of in zip(end, of_end) if part is not None]
    torch.autograd.backward(
        [spikes, *(p for p, _ in lasting)], [of_spikes, *(g for _, g in lasting)]
    )
    slope_at = functools.partial(reference.slope, surrogate="atan", sharpness=3.0)
    of_weight, of_beta = torch.zeros(3, 3, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE)
    for b in range(2):
        state = [[0.0] * 3 if part is None else part[b].tolist() for part in start]
        about = currents[:, b].tolist(), weight.tolist(), reset, beta.tolist(), 0.7, alpha, state
        fired, _, rest = reference.recurrent_forward(*about)
        assert spikes[:, b].tolist() == fired
        assert end.left[b].tolist() == pytest.approx(rest[0], abs=1e-12)
        of_state = [g[b].tolist() if alpha or n < 2 else [0.0] * 3 for n, g in enumerate(of_end)]
        found = reference.recurrent_backward(
            of_spikes[:, b].tolist(), of_state, *about, slope_at, detach
        )
        torch.testing.assert_close(currents.grad[:, b], torch.tensor(found[0], dtype=DOUBLE))
        of_weight += torch.tensor(found[1], dtype=DOUBLE)
        of_beta += torch.tensor(found[2], dtype=DOUBLE)
        for part, expected in zip(start, found[3]):
            if part is not None:
                torch.testing.assert_close(part.grad[b], torch.tensor(expected, dtype=DOUBLE))
    torch.testing.assert_close(weight.grad, of_weight)
    torch.testing.assert_close(beta.grad, of_beta)


def gradients(run, currents, weight):
    currents = currents.clone().requires_grad_()
    spikes = run(currents)
    assert 0.1 < spikes.mean() < 0.8
    return spikes, torch.autograd.grad(
        spikes, (currents, weight), drawn(*spikes.shape, seed=5).to(spikes)
    )


@pytest.mark.parametrize("theirs", ["RLeaky", "RSynaptic"])
def test_equal_to_snntorch(theirs):
    torch.manual_seed(0)
    alpha = 0.7 if theirs == "RSynaptic" else 0.0
    about = {"beta": 0.9, "threshold": 0.8, "linear_features": 5}
    about |= {"spike_grad": snn_surrogate.fast_sigmoid(slope=10.0)}
    peer = snn.RSynaptic(alpha=alpha, **about) if alpha else snn.RLeaky(**about)
    with torch.no_grad():
        peer.recurrent.bias.zero_()

    def run(currents):
        states, found = list(peer.reset_mem()), []
        for current in currents:
            spike, *rest = peer(current, *states)
            states = [spike, *rest]
            found.append(spike)
        return torch.stack(found)

    constants = LIF(0.9, 0.8, reset_after_decay=True, surrogate=FastSigmoid(10.0))
    weight, currents = peer.recurrent.weight, drawn(12, 3, 5).float()
    expected, expected_grads = gradients(run, currents, weight)
    spikes, grads = gradients(
        lambda x: recurrent(x, weight, constants, alpha=alpha)[0], currents, weight
    )
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(grads, expected_grads)


def test_equal_to_spikingjelly():
    torch.manual_seed(1)
    node = neuron.LIFNode(
        tau=4.0,
        decay_input=False,
        v_threshold=0.8,
        v_reset=None,
        surrogate_function=surrogate.ATan(alpha=2.0),
        detach_reset=True,
    )
    peer = layer.LinearRecurrentContainer(node, 4, 4, bias=False, step_mode="m").double()
    weight, currents = peer.rc.weight, 3 * drawn(9, 3, 4) + 1.0

    def run(x):
        return recurrent(x @ weight[:, :4].mT, weight[:, 4:], LIF(0.75, 0.8))[0]

    expected, expected_grads = gradients(peer, currents, weight)
    spikes, grads = gradients(run, currents, weight)
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(grads, expected_grads)


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_parts_of_the_steps_are_the_whole(alpha):
    torch.manual_seed(0)
    net = Recurrent(4, LIF(0.8), alpha=alpha, learn_beta=True).double()
    currents = drawn(7, 2, 4) + 0.5

    def in_parts(x):
        state, found = None, []
        for part in x.split(3):
            spikes, state = net.steps(part, state)
            found.append(spikes)
        return torch.cat(found)

    weight = net.recurrent.weight
    whole, grads = gradients(net, currents, weight)
    spikes, others = gradients(in_parts, currents, weight)
    assert torch.equal(spikes, whole)
    torch.testing.assert_close(others, grads)
    seen = []
    net.recurrent.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    for run in (net, in_parts):  # whoever watches the synapses sees every step
        spikes, others = gradients(run, currents, weight)
        assert torch.equal(spikes, whole)
        torch.testing.assert_close(others, grads)
        assert torch.equal(torch.cat(seen)[1:], whole[:-1])
        seen.clear()


def test_stacked_chips():
    """Under vmap each copy of weights, decays and states gives what it gives alone."""
    currents, weights, beta = drawn(5, 2, 3), drawn(4, 3, 3, seed=1), drawn(4, seed=2).sigmoid()
    left, sent = drawn(4, 2, 3, seed=3), (drawn(4, 2, 3, seed=4) > 0).double()

    copies = [part.requires_grad_() for part in (weights, beta, left)]

    def run(weight, beta, left, sent):
        return recurrent(currents, weight, beta=beta, state=State(left, sent))[0]

    together = torch.func.vmap(run)(*copies, sent)
    grads = torch.autograd.grad(together.sum(), copies)
    for number, spikes in enumerate(together):
        own = [part[number] for part in copies]
        alone = run(*own, sent[number])
        assert torch.equal(spikes, alone)
        expected = torch.autograd.grad(alone.sum(), own)
        torch.testing.assert_close([g[number] for g in grads], list(expected))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiler():
    torch.compiler.reset()  # what other tests have compiled
    torch.manual_seed(0)
    net = nn.Sequential(
        Linear(6, 8), Recurrent(8, LIF(0.9, 0.3), alpha=0.5), Neurons(LIF(0.9, 0.3))
    )
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    found = []
    for run in (net, compiled):
        net.zero_grad()
        spikes = run((drawn(5, 4, 6) > 0).float())
        spikes.sum().backward()
        found.append([spikes, *(parameter.grad.clone() for parameter in net.parameters())])
    assert 0 < found[0][0].mean() < 1
    torch.testing.assert_close(*found)


def test_half_precision():
    torch.manual_seed(0)
    net = Recurrent(4, LIF(0.9, 0.5))
    currents = drawn(6, 2, 4).bfloat16().requires_grad_()
    with torch.autocast("cpu"):
        spikes, state = net.steps(currents)
    spikes.sum().backward()
    assert (spikes.dtype, state.left.dtype) == (torch.bfloat16, torch.float32)
    assert (currents.grad.dtype, net.recurrent.weight.grad.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(spikes.float(), net(currents.float()))


def test_chips_training_and_corruption():
    torch.manual_seed(0)
    net = nn.Sequential(Linear(6, 8), Recurrent(8, LIF(0.9, 0.5)), Linear(8, 3))
    synapses = adapter_for(net).synaptic_weights(net)
    assert list(synapses) == ["0.weight", "1.recurrent.weight", "2.weight"]
    spikes = (drawn(5, 4, 6) > 0).float()
    labels = torch.arange(4) % 3

    def loss():
        return nn.functional.cross_entropy(net(spikes).sum(0), labels)

    WVAT(net, Gaussian(0.1)).backward(loss)
    assert net[1].recurrent.weight.grad.abs().sum() > 0
    chips = simulate_chips(net, [(spikes, labels)], Gaussian(0.5), chips=4)
    assert len(chips.accuracies) == 4
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[1].recurrent.weight.fill_(-100.0)
    sent = []
    net[1].register_forward_hook(lambda module, args, output: sent.append(output))
    net(spikes)
    (layer_of,) = adapter_for(net).neuron_layers(net).values()
    with corrupt(net, DeadNeurons(1.0)):  # nothing reaches a recurrent synapse
        net(spikes)
    assert sent[0].sum() > 0
    assert sent[1].sum() == 0
    assert layer_of.name == "1"


def test_higher_thresholds_are_weaker_currents():
    torch.manual_seed(0)
    net = nn.Sequential(Recurrent(4, LIF(0.9, 0.5)))
    (layer_of,) = adapter_for(net).neuron_layers(net).values()
    currents = drawn(8, 2, 4).float()
    with layer_of.tapped(Tap(v_threshold=lambda shape: torch.full(shape, 2.0))):
        varied = net(currents)
    with layer_of.tapped(Tap(spikes=lambda spikes: spikes)):
        assert torch.equal(net(currents), net(currents))
    expected = recurrent(currents, net[0].recurrent.weight, LIF(0.9, 1.0))[0]
    assert 0 < expected.mean() < net(currents).mean()
    assert torch.equal(varied, expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recurrent(3, alpha=1.5), r"alpha must lie in \[0, 1\], got 1.5"),
        (lambda: Recurrent(3)(torch.zeros(2, 3)), r"shape \(2, 3\) and weight \(3, 3\), expected"),
        (lambda: Recurrent(3)(torch.zeros(0, 1, 3)), "at least one time step"),
        (lambda: Recurrent(3)(torch.zeros(2, 1, 4)), r"weight \(3, 3\), expected \[T, B, N\]"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
