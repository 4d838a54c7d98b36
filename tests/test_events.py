"""First layers on events: the currents and gradients of the dense layers."""

from __future__ import annotations

import copy

import pytest
import torch
from event_cases import write_part
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikewvat import WVAT, Gaussian, adapter_for
from spikewvat.data import make_loader
from spikewvat.data.augmentation import RandomShift
from spikewvat.data.loaders import collate
from spikewvat.robustness import simulate_chips
from spikewvat.spiking import events as seeking
from spikewvat.spiking.events import EventConv2d, EventLinear
from spikewvat.spiking.losses import rate_cross_entropy


def events(*shape, rate=0.1, counts=1, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    fired = torch.rand(shape, generator=generator) < rate
    return fired * torch.randint(1, counts + 1, shape, generator=generator).to(dtype)


def check_same(layer, dense, exactly=1e-12):
    """The sparse input gives what the dense one gives, forward and backward."""
    found, expected = layer(dense.to_sparse()), layer(dense)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=exactly, atol=exactly)
    gradient = torch.randn(expected.shape, dtype=expected.dtype)
    for one, other in zip(
        torch.autograd.grad(found, list(layer.parameters()), gradient),
        torch.autograd.grad(expected, list(layer.parameters()), gradient),
    ):
        torch.testing.assert_close(one, other, rtol=exactly, atol=exactly)
    return expected


@settings(deadline=None, max_examples=40)
@given(
    steps=st.integers(1, 5),
    samples=st.integers(1, 4),
    rate=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    counts=st.integers(1, 3),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_dense_synapses(steps, samples, rate, counts, bias, seed):
    layer = EventLinear(24, 5, bias=bias).double()
    dense = events(steps, samples, 2, 3, 4, rate=rate, counts=counts, seed=seed)
    expected = check_same(layer, dense)
    torch.testing.assert_close(
        expected, nn.functional.linear(dense.flatten(2), layer.weight, layer.bias)
    )


@settings(deadline=None, max_examples=60)
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    height=st.integers(4, 7),
    width=st.integers(4, 7),
    rate=st.sampled_from([0.0, 0.05, 1.0]),
    counts=st.integers(1, 3),
    bias=st.booleans(),
)
def test_convolutions(kernel, stride, padding, height, width, rate, counts, bias):
    layer = EventConv2d(2, 3, kernel, stride=stride, padding=padding, bias=bias).double()
    dense = events(3, 2, 2, height, width, rate=rate, counts=counts)
    expected = check_same(layer, dense)
    torch.testing.assert_close(
        expected[1], nn.functional.conv2d(dense[1], layer.weight, layer.bias, stride, padding)
    )


def test_several_entries_at_one_place_add_up():
    index = torch.tensor([[0, 0, 1], [0, 0, 0], [2, 2, 1]])
    spikes = torch.sparse_coo_tensor(index, torch.ones(3), (2, 1, 4), check_invariants=True)
    layer = EventLinear(4, 3)
    torch.testing.assert_close(layer(spikes), layer(spikes.to_dense()))
    assert torch.equal(layer(spikes)[0, 0], 2 * layer.weight[:, 2])


def test_initial_weights_are_scaled():
    torch.manual_seed(0)
    plain = nn.Linear(6, 3, bias=False)
    torch.manual_seed(0)
    assert torch.equal(EventLinear(6, 3, scale=10.0).weight, 10 * plain.weight)
    torch.manual_seed(0)
    plain = nn.Conv2d(2, 3, 3, bias=False)
    torch.manual_seed(0)
    assert torch.equal(EventConv2d(2, 3, 3, scale=100.0).weight, 100 * plain.weight)


def test_bf16_and_the_compiler():
    layer = EventLinear(24, 3).bfloat16()
    check_same(layer, events(4, 2, 24, dtype=torch.bfloat16), exactly=0.05)
    net = nn.Sequential(EventLinear(24, 3), nn.ReLU())
    compiled = torch.compile(net, backend="eager")
    spikes = events(4, 2, 24, dtype=torch.float32).to_sparse()
    assert torch.equal(compiled(spikes), net(spikes))


def plain(layer, spikes):
    """The product of matrices, whatever the spikes are."""
    return nn.functional.linear(spikes.flatten(2), layer.weight, layer.bias)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("counts", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rate", "few"), [(0.0, True), (0.04, True), (0.3, False)])
def test_few_events_in_dense_spikes_are_added_up(rate, few, bias, counts):
    """The same currents; derivatives of any order and kind."""
    layer = EventLinear(50, 128, bias=bias).double()
    spikes = events(6, 20, 2, 25, rate=rate, counts=counts)
    for held in (spikes, spikes.transpose(0, 1).contiguous().transpose(0, 1)):
        assert seeking._has_few_events(held.flatten(2), layer.weight) is few
        torch.testing.assert_close(layer(held), plain(layer, spikes))

    def loss(weight, run, x=spikes):
        about = {"weight": weight, "bias": layer.bias} if bias else {"weight": weight}
        return (
            torch.func.functional_call(layer, about, (x,)).tanh().square().sum()
            if run
            else (nn.functional.linear(x.flatten(2), weight, layer.bias).tanh().square().sum())
        )

    weight, along = layer.weight.detach(), torch.randn_like(layer.weight)
    weights = torch.stack([weight, along, -weight])
    for derivative in (
        lambda run: torch.func.grad(lambda w: loss(w, run))(weight),
        lambda run: torch.func.jvp(lambda w: loss(w, run), (weight,), (along,)),
        lambda run: torch.func.vmap(torch.func.grad(lambda w: loss(w, run)))(weights),
        lambda run: torch.autograd.functional.hvp(lambda w: loss(w, run), weight, along)[1],
        lambda run: torch.func.jvp(torch.func.grad(lambda w: loss(w, run)), (weight,), (along,)),
        lambda run: torch.func.grad(lambda x: loss(weight, run, x))(spikes),
        lambda run: torch.func.jvp(lambda x: loss(weight, run, x), (spikes,), (spikes,)),
        lambda run: torch.func.vmap(lambda x: loss(weight, run, x))(torch.stack([spikes, spikes])),
    ):
        torch.testing.assert_close(derivative(True), derivative(False))


def test_where_events_are_not_looked_for():
    """In tensors without values of their own, that want gradients, or that fit no such sum."""
    wide, spikes = torch.zeros(128, 4), torch.zeros(3, 2, 4)
    found = seeking._has_few_events
    assert found(spikes, wide)
    assert not found(spikes, wide[:64])
    assert not found(spikes.clone().requires_grad_(), wide)
    assert not found(spikes.double(), wide)
    assert not found(spikes.long(), wide.long())
    assert not found(spikes.to("meta"), wide.to("meta"))
    assert not found(nn.Parameter(spikes, requires_grad=False), wide)
    layer = EventLinear(4, 128)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(spikes + 1), plain(layer, spikes + 1))
    with torch.autocast("cpu"):
        assert layer(spikes).dtype == layer(spikes + 1).dtype == torch.bfloat16


def test_training_and_chips_with_sparse_batches():
    """The layer keeps nothing of the weights, so displaced ones are seen at once."""
    torch.manual_seed(0)
    model = nn.Sequential(EventLinear(24, 16), nn.ReLU(), nn.Linear(16, 3))
    twin = copy.deepcopy(model)
    assert list(adapter_for(model).synaptic_weights(model)) == ["0.weight", "2.weight"]
    labels = torch.tensor([0, 1, 2, 0])
    for net, sparse in ((model, True), (twin, False)):
        dense = events(5, 4, 2, 3, 4, dtype=torch.float32)
        inputs = dense.to_sparse() if sparse else dense
        wvat = WVAT(net, Gaussian(0.1), generator=torch.Generator().manual_seed(1))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            wvat.backward(lambda net=net, inputs=inputs: rate_cross_entropy(net(inputs), labels))
            optimizer.step()
    torch.testing.assert_close(model[0].weight, twin[0].weight)
    dense = events(5, 4, 2, 3, 4, dtype=torch.float32)
    reports = [
        simulate_chips(net, [(x, labels)], Gaussian(0.3), chips=6)
        for net, x in ((model, dense.to_sparse()), (twin, dense))
    ]
    assert torch.equal(reports[0].accuracies, reports[1].accuracies)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (EventLinear(18, 2), (30, 18), r"shape \(30, 18\), expected \[T, B, 18\], time first"),
        (EventLinear(18, 2), (2, 2, 3, 3, 30), "Time seems to come last: move it in front"),
        (EventLinear(18, 2), (5, 2, 17), r"expected \[T, B, 18\]. Check the size of the layer"),
        (EventLinear(18, 2), (0, 2, 18), "expected at least one time step and one sample"),
        (EventConv2d(2, 3, 3), (5, 2, 3, 8, 8), r"expected \[T, B, 2, H, W\]"),
        (EventConv2d(2, 3, 3), (5, 2, 8, 8), r"expected \[T, B, 2, H, W\], time first"),
        (EventConv2d(2, 3, 3), (5, 0, 2, 8, 8), "expected at least one time step and one sample"),
    ],
)
@pytest.mark.parametrize("sparse", [True, False])
def test_wrong_input(layer, shape, message, sparse):
    spikes = torch.zeros(shape)
    with pytest.raises(ValueError, match=message):
        layer(spikes.to_sparse() if sparse else spikes)


def test_kernels_must_fit():
    with pytest.raises(ValueError, match="kernels of 5 x 5 do not fit into spikes of 3 x 4"):
        EventConv2d(1, 1, 5)(torch.ones(1, 1, 1, 3, 4).to_sparse())


# Data


def test_sparse_batches_are_the_dense_ones():
    items = [(events(4, 2, 5, 6, counts=3, seed=i).to(torch.uint8), i) for i in range(3)]
    items[1] = (torch.zeros_like(items[1][0]), 1)  # a recording without events
    expected, labels = collate(items)
    batch, same = collate([(spikes.to_sparse(), label) for spikes, label in items])
    assert torch.equal(labels, same)
    assert batch.is_sparse
    assert batch.is_coalesced()
    assert torch.equal(batch.to_dense(), expected)
    again = batch.to_dense().to_sparse()
    assert torch.equal(batch.indices(), again.indices())


@pytest.mark.parametrize("reduce", ["or", "count", 2])
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
# torch itself makes sparse tensors without saying so when they come from another process
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_recordings_are_the_dense_ones(tmp_path, reduce, cached, workers):
    pytest.importorskip("tonic")
    from spikewvat.data import NMNIST

    root = write_part(tmp_path / "data" / "NMNIST" / "Train")
    cache = tmp_path / "cache" if cached else False
    options = {"time_steps": 7, "reduce": reduce, "cache": cache}
    dense = make_loader(NMNIST(root, "train", **options), 8)
    sparse = make_loader(NMNIST(root, "train", sparse=True, **options), 8, workers=workers)
    for (spikes, labels), (expected, same) in zip(sparse, dense):
        assert spikes.is_sparse
        assert spikes.dtype == torch.float32
        assert torch.equal(spikes.to_dense(), expected)
        assert torch.equal(labels, same)


def test_shifts_of_sparse_spikes():
    dense = events(4, 3, 2, 6, 7, rate=0.4)
    expected = RandomShift(2)(dense, generator=torch.Generator().manual_seed(3))
    shifted = RandomShift(2)(dense.to_sparse(), generator=torch.Generator().manual_seed(3))
    assert torch.equal(shifted.to_dense(), expected)
    again = shifted.to_dense().to_sparse()
    assert torch.equal(shifted.indices(), again.indices())
