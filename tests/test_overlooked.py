"""Matrices that multiply data in a way of their own: held by devices, or refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from spikewvat import WVAT, Evaluator, Gaussian, adapter_for
from spikewvat.errors import TrainingStalledWarning, UnsupportedModelError
from spikewvat.weights import replaced

X, Y = torch.rand(6, 5, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3


class Cell(nn.Module):
    """Spiking neurons with matrices of their own; ``tau`` is a row."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.randn(7, 5) / 2)
        self.back = nn.Parameter(torch.randn(7, 7) / 3)
        self.tau = nn.Parameter(torch.rand(1, 7))

    def forward(self, x):
        v = z = torch.zeros(x.shape[1], 7)
        for step in x:
            v = v * self.tau.sigmoid() + step @ self.own.T + z @ self.back.T
            z = (v > 0.3).float()
        return z


class Gates(nn.Module):
    """All gates of a recurrent cell in one parameter of three dimensions."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.randn(2, 7, 5))
        self.back = nn.Parameter(torch.randn(2, 7, 7))

    def forward(self, x):
        h = torch.zeros(x.shape[1], 7)
        for step in x:
            gate, new = torch.einsum("ghi,bi->gbh", self.own, step) + torch.einsum(
                "ghk,bk->gbh", self.back, h
            )
            h = torch.lerp(h, new.tanh(), gate.sigmoid())
        return h


class Delays(nn.Module):
    """A kernel over time for every synapse."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.randn(7, 5, 3))

    def forward(self, x):
        return functional.conv1d(functional.pad(x.permute(1, 2, 0), (2, 0)), self.own).sum(2)


class Heads(nn.Module):
    """Four dimensions."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.randn(2, 3, 5, 4))

    def forward(self, x):
        return torch.einsum("tbi,hgio->bhgo", x, self.own).flatten(1)


@pytest.mark.parametrize(
    ("kind", "names"),
    [(Cell, ["own", "back"]), (Gates, ["own", "back"]), (Delays, ["own"]), (Heads, ["own"])],
)
def test_matrices_of_own_layers_are_held(kind, names):
    torch.manual_seed(0)
    net, twin, x = kind(), kind(), torch.rand(4, 6, 5)
    weights = adapter_for(net).synaptic_weights(net)
    assert list(weights) == names
    chip = Gaussian(0.3).program({name: w.detach() for name, w in weights.items()})
    twin.load_state_dict({**net.state_dict(), **chip})
    with replaced(weights, chip), torch.no_grad():
        assert torch.equal(net(x), twin(x))
    assert not torch.equal(net(x), twin(x))


class Columns(nn.Module):
    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.randn(3, 5))

    def forward(self, x):
        return sum(x[:, i, None] * self.own[:, i] for i in range(5))


class Prototypes(Columns):
    def forward(self, x):
        return -torch.cdist(x, self.own)


class Spectra(Columns):
    def forward(self, x):
        return (torch.fft.rfft(x)[:, None] * torch.fft.rfft(self.own)).abs().sum(2)


class Bag(nn.Module):
    """The event-driven way to multiply spikes with a matrix."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.randn(5, 3))

    def forward(self, x):
        events = [row.nonzero()[:, 0] for row in x > 0.5]
        starts = torch.tensor([0, *map(len, events[:-1])]).cumsum(0)
        return functional.embedding_bag(torch.cat(events), self.own, starts, mode="sum")


@pytest.mark.parametrize("kind", [Columns, Prototypes, Spectra, Bag])
def test_a_matrix_that_meets_data_in_an_unknown_way_is_named(kind):
    net = nn.Sequential(kind(), nn.Linear(3, 3))
    with pytest.raises(UnsupportedModelError, match=r"'0\.own'.*weights=.*ignore="):
        Evaluator(net, [(X, Y)])
    assert list(WVAT(net, Gaussian(0.1), ignore=["0"]).weights) == ["1.weight"]


class Reservoir(nn.Module):
    """A fixed random matrix that is no parameter."""

    def __init__(self, *, buffer):
        super().__init__()
        fixed = torch.randn(5, 4)
        if buffer:
            self.register_buffer("fixed", fixed)
        else:
            self.fixed = fixed
        self.register_buffer("rest", torch.zeros(6, 4))  # neuron state, at rest
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out((x @ self.fixed + self.rest @ torch.eye(4)).tanh())


class Looked(nn.Module):
    """A table that multiplies, too."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(4, 5), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(functional.linear(x, self.table.weight))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Reservoir(buffer=True), "fixed"),
        (lambda: Reservoir(buffer=False), "fixed"),
        (Looked, "table.weight"),
    ],
)
def test_a_matrix_that_no_device_holds_must_not_multiply_data(make, name):
    net = make()
    message = rf"^'{name}' of the model multiplies data, but no device holds it.*ignore="
    with pytest.raises(UnsupportedModelError, match=message):
        _ = Evaluator(net, [(X, Y)]).accuracy
    wvat = WVAT(net, Gaussian(0.1))
    with pytest.raises(UnsupportedModelError, match=message):
        wvat.backward(lambda: net(X).square().mean())
    assert 0 <= Evaluator(net, [(X, Y)], ignore=[name]).accuracy <= 1
    held = {**dict(net.named_parameters()), **dict(net.named_buffers())}.get(name)
    if held is None:
        return  # a mere attribute
    weights = {name: held, "out.weight": net.out.weight}  # on a device if the user says so
    assert Evaluator(net, [(X, Y)], weights=weights).chips(Gaussian(0.5), chips=4).std > 0
    WVAT(net, Gaussian(0.1), weights=weights).backward(lambda: net(X).square().mean())


@pytest.mark.parametrize("table_first", [True, False])
def test_a_tied_table_is_a_synapse_where_a_layer_multiplies_with_it(table_first):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            if table_first:
                self.table = nn.Embedding(7, 5)
            self.out = nn.Linear(5, 7, bias=False)
            if table_first:
                self.out.weight = self.table.weight
            else:
                self.table = nn.Embedding.from_pretrained(self.out.weight, freeze=False)
                self.table.weight = self.out.weight

        def forward(self, x):
            return self.out(self.table(x).mean(1))

    net = Tied()
    wvat = WVAT(net, Gaussian(0.1))
    assert list(wvat.weights) == ["out.weight"]
    assert "left out" not in str(wvat)
    assert list(WVAT(nn.Sequential(net, nn.Linear(7, 2)), Gaussian(0.1), ignore=["0"]).weights) == [
        "1.weight"
    ]


class Other(nn.Module):
    """A weight that is another layer's, transposed."""

    def __init__(self, layer):
        super().__init__()
        self.layers = [layer]  # not registered as a child

    def forward(self, weight):
        return self.layers[0].weight.T


class Merged(nn.Module):
    """A frozen layer and a low-rank change, merged in front of the product."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, base.in_features))
        self.up = nn.Parameter(torch.randn(base.out_features, 2))

    def forward(self, x):
        return functional.linear(x, self.base.weight + self.up @ self.down)


def _tied(first):
    last = nn.Linear(4, 5, bias=False)
    parametrize.register_parametrization(last, "weight", Other(first))
    return nn.Sequential(first, nn.Tanh(), last)


@pytest.mark.parametrize(
    ("make", "name", "source"),
    [
        (lambda: _tied(nn.Linear(5, 4)), "2.weight", "0.weight"),
        (lambda: _tied(parametrizations.weight_norm(nn.Linear(5, 4))), "2.weight", "0.weight"),
        (lambda: nn.Sequential(Merged(nn.Linear(5, 4)), nn.Linear(4, 3)), "0.", "0.base.weight"),
    ],
)
def test_a_weight_computed_from_one_that_is_held_is_refused(make, name, source):
    net = make()
    before = [p.detach().clone() for p in net.parameters()]
    message = rf"weight '{name}.*from '{source}', which devices hold too.*ignore="
    with pytest.raises(UnsupportedModelError, match=message):
        WVAT(net, Gaussian(0.1))
    with pytest.raises(UnsupportedModelError, match=message):
        Evaluator(net, [(X, Y)])
    assert all(map(torch.equal, net.parameters(), before))
    assert source not in WVAT(net, Gaussian(0.1), ignore=[source]).weights


class Tracks(nn.Module):
    """Of a quantiser: holds another layer's weight for its statistics, as brevitas does."""

    __module__ = "brevitas.core.stats"

    def __init__(self, parameter):
        super().__init__()
        self.parameter = parameter


class Quantiser(nn.Module):
    def __init__(self, *tracked):
        super().__init__()
        self.tracked = nn.ModuleList(map(Tracks, tracked))

    def forward(self, weight):
        step = max(t.parameter.abs().max() for t in self.tracked).detach() / 7
        return weight + ((weight / step).round() * step - weight).detach()


class QuantLinear(nn.Linear):
    def quant_weight(self):
        return self.weight_quant(self.weight[slice(None)])

    def forward(self, x):
        return functional.linear(x, self.quant_weight(), self.bias)


def test_layers_that_share_a_quantiser_hold_their_own_weights():
    torch.manual_seed(0)
    layers = QuantLinear(5, 5), QuantLinear(5, 5)
    shared = Quantiser(*(layer.weight for layer in layers))
    for layer in layers:
        layer.weight_quant = shared
    net = nn.Sequential(layers[0], nn.Tanh(), layers[1])
    weights = adapter_for(net).synaptic_weights(net)
    assert list(weights) == ["0.weight", "2.weight"]
    chip = Gaussian(0.3).program({name: w.detach() for name, w in weights.items()})
    by_hand = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5)).requires_grad_(False)
    by_hand.load_state_dict(
        {**chip, "0.bias": layers[0].bias.detach(), "2.bias": layers[1].bias.detach()}
    )
    with replaced(weights, chip):
        assert torch.equal(net(X), by_hand(X))
    WVAT(net, Gaussian(0.1)).backward(lambda: net(X).square().mean())
    assert all(bool(layer.weight.grad.any()) for layer in layers)


def test_a_model_whose_modules_cannot_be_walked_is_named():
    class Named(nn.Module):
        def modules(self):
            return {"layer": nn.Linear(2, 2)}

    for use in (lambda: WVAT(Named(), Gaussian(0.1)), lambda: Evaluator(Named(), [(X, Y)])):
        with pytest.raises(TypeError, match=r"Named has its own way.*nn\.Sequential\(model\)"):
            use()


def test_weights_that_store_numbers_in_a_way_of_their_own_are_named():
    layout = pytest.importorskip("torch.testing._internal.two_tensor")
    net = nn.Linear(3, 2)
    net.weight = nn.Parameter(layout.TwoTensor(torch.rand(2, 3), torch.rand(2, 3)))
    with pytest.raises(ValueError, match="'weight' is a TwoTensor, which stores .*Dequantise"):
        WVAT(net, Gaussian(0.1))


@pytest.mark.parametrize("computed_first", [True, False])
@pytest.mark.parametrize("kind", ["pruned", "both pruned", "spectral norm"])
def test_layers_that_share_a_parameter_and_compute_with_different_weights(kind, computed_first):
    computing, other = nn.Linear(5, 5), nn.Linear(5, 5)
    other.weight = computing.weight
    if kind == "spectral norm":
        parametrizations.spectral_norm(computing)
    else:
        prune.random_unstructured(computing, "weight", 0.5)
    if kind == "both pruned":
        prune.random_unstructured(other, "weight", 0.5)
    layers = (computing, other) if computed_first else (other, computing)
    net = nn.Sequential(layers[0], nn.Tanh(), layers[1])
    with pytest.raises(UnsupportedModelError, match=r"'2\.weight' .*shares a parameter with '0\.w"):
        WVAT(net, Gaussian(0.1))
    alone = WVAT(net, Gaussian(0.1), ignore=["2"]).weights
    assert list(alone) == ["0.weight"]


class Elsewhere(nn.Module):
    """Computes with the weight of a layer that it does not call."""

    def __init__(self, use):
        super().__init__()
        self.layer, self.unused, self.use = nn.Linear(5, 3), nn.Linear(5, 3), use

    def forward(self, x):
        return self.use(self.layer, x)


def _twice(layer, x):
    changed = {"weight": 2 * layer.weight, "bias": layer.bias}
    return torch.func.functional_call(layer, changed, (x,))


@pytest.mark.parametrize(
    "use", [lambda layer, x: functional.linear(x, layer.weight.tanh(), layer.bias), _twice]
)
def test_a_weight_from_which_others_compute_theirs_is_named(use):
    net = Elsewhere(use)
    before = net.layer.weight.detach().clone()
    message = r"weight 'layer\.weight' moves the output but meets no data as it is"
    with pytest.raises(UnsupportedModelError, match=message):
        _ = Evaluator(net, [(X, Y)]).accuracy
    wvat = WVAT(net, Gaussian(0.1))
    with pytest.raises(UnsupportedModelError, match=message):
        wvat.backward(lambda: net(X).square().mean())
    assert torch.equal(net.layer.weight, before)
    assert not net.layer._forward_pre_hooks


def _events(layer, x):
    """Add up the columns of events."""
    events = [row.nonzero()[:, 0] for row in x > 0.5]
    starts = torch.tensor([0, *map(len, events[:-1])]).cumsum(0)
    return functional.embedding_bag(torch.cat(events), layer.weight.T, starts, mode="sum")


@pytest.mark.parametrize(
    "use",
    [
        lambda layer, x: layer(x),
        lambda layer, x: functional.linear(x, layer.weight),
        lambda layer, x: x @ layer.weight.T,
        lambda layer, x: torch.func.functional_call(layer, dict(layer.named_parameters()), (x,)),
        _events,
    ],
)
def test_a_weight_that_meets_data_as_it_is_may_do_so_anywhere(use):
    net = Elsewhere(use)
    assert Evaluator(net, [(X, Y)]).chips(Gaussian(0.9), chips=25).std > 0
    with pytest.warns(TrainingStalledWarning, match=r"'unused\.weight' got no gradient"):
        WVAT(net, Gaussian(0.1)).backward(lambda: net(X).square().mean())
