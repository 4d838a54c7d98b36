"""Devices act on the weights that layers compute with, and every parameter is accounted for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from spikingjelly.activation_based import layer as jelly
from torch import Tensor, nn
from torch.ao.nn import qat
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize, prune

from spikewvat import WVAT, Gaussian, adapter_for
from spikewvat.adapters import account
from spikewvat.adapters.products import seen_in
from spikewvat.errors import UnsupportedModelError
from spikewvat.weights import EffectiveWeight, clamp_, perturbed, refresh, replaced

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")


class Sign(torch.autograd.Function):
    """A binary weight whose gradient passes straight through."""

    @staticmethod
    def forward(ctx, w):
        return w.sign()

    @staticmethod
    def backward(ctx, grad):
        return grad


class BinaryConv(nn.Conv2d):
    def forward(self, x):
        return functional.conv2d(x, Sign.apply(self.weight), self.bias, padding=self.padding)


class FourBit(nn.Linear):
    def forward(self, x):
        step = self.weight.abs().max().detach() / 7
        rounded = (self.weight / step).round() * step
        return functional.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


class WritesItsWeight(nn.Linear):
    """Binary layers of early papers: the forward pass writes ``weight.data``."""

    def __init__(self, *args):
        super().__init__(*args)
        self.real = self.weight.detach().clone()

    def forward(self, x):
        self.weight.data = self.real.sign()
        return functional.linear(x, self.weight, self.bias)


class InByOut(nn.Module):
    """A matrix the other way round, as in transformers' ``Conv1D``."""

    def __init__(self, rows, columns):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(rows, columns))
        self.offset = nn.Parameter(torch.zeros(columns))

    def forward(self, x):
        return torch.addmm(self.offset, x, self.matrix)


class LowRank(nn.Linear):
    """A low-rank change on top of a weight, merged in front of the product."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.down = nn.Parameter(torch.randn(2, inputs))
        self.up = nn.Parameter(torch.randn(outputs, 2))

    def forward(self, x):
        return functional.linear(x, self.weight + self.up @ self.down, self.bias)


class Halved(nn.Module):
    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, w):
        return w * self.mask


def _pruned(made, name="weight", amount=0.4):
    prune.random_unstructured(made, name, amount=amount)
    return made


def _parametrized(made, step):
    parametrize.register_parametrization(made, "weight", step)
    return made


def _qat(kind, *args):
    return kind(*args, qconfig=get_default_qat_qconfig("fbgemm"))


@dataclass(frozen=True)
class Row:
    """A layer, the weights that it computes with, and an input."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    weights: tuple[str, ...] = ("weight",)
    computed: bool = True
    products: bool = True  # the factors of its products are seen by a tap

    def __str__(self):
        return self.name


IMAGE = (2, 3, 6, 6)
ROWS = [
    Row("plain", lambda: nn.Conv1d(3, 4, 2), (2, 3, 5), computed=False),
    Row("weight_norm", lambda: parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), IMAGE),
    Row("spectral_norm", lambda: parametrizations.spectral_norm(nn.Linear(5, 4)), (2, 5)),
    Row("orthogonal", lambda: parametrizations.orthogonal(nn.Linear(5, 4)), (2, 5)),
    Row("weight_norm hook", lambda: nn.utils.weight_norm(nn.ConvTranspose2d(3, 4, 3)), IMAGE),
    Row("spectral_norm hook", lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)), IMAGE),
    Row("pruned", lambda: _pruned(nn.Conv2d(3, 4, 3)), IMAGE),
    Row("pruned twice", lambda: _pruned(_pruned(nn.Linear(9, 8))), (2, 9)),
    Row("mask", lambda: _parametrized(nn.Linear(4, 4), Halved(torch.eye(4))), (2, 4)),
    Row("binary", lambda: BinaryConv(3, 4, 3), IMAGE),
    Row("four bits", lambda: FourBit(5, 4), (2, 5)),
    Row("standardised", lambda: jelly.WSConv2d(3, 4, 3), IMAGE),
    Row("standardised in time", lambda: jelly.WSConv2d(3, 4, 3, step_mode="m"), (2, *IMAGE)),
    Row("QAT", lambda: _qat(qat.Conv2d, 3, 4, 3), IMAGE),
    Row("QAT linear", lambda: _qat(qat.Linear, 5, 4), (2, 5)),
    Row("low rank", lambda: LowRank(5, 4), (2, 5)),
    Row("own matrix", lambda: InByOut(5, 4), (2, 5), ("matrix",), computed=False),
    Row("writes itself", lambda: WritesItsWeight(5, 4), (2, 5)),
    Row(
        "pruned recurrent",
        lambda: _pruned(nn.GRU(3, 4), "weight_hh_l0"),
        (5, 2, 3),
        ("weight_ih_l0", "weight_hh_l0"),
        products=False,
    ),
]


@pytest.fixture(params=ROWS, ids=str)
def row(request):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        yield request.param


def _made(row: Row) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(3)
    return row.make(), torch.randn(row.shape)


def _output(model: nn.Module, x: Tensor) -> Tensor:
    output = model(x)
    return output[0] if isinstance(output, tuple) else output


def _factors(model: nn.Module, x: Tensor) -> list[Tensor]:
    found = [factor for factor in seen_in(model, x) if "mul" not in factor.slot[0].split("_")]
    return [factor.value.detach().clone() for factor in found]


def _is_in(value: Tensor, factors: list[Tensor]) -> bool:
    return any(value.shape == f.shape and torch.equal(value, f) for f in factors)


def test_finds_what_the_layer_computes_with(row):
    model, x = _made(row)
    before = copy.deepcopy(model.state_dict())
    weights = adapter_for(model).synaptic_weights(model)
    assert tuple(weights) == row.weights
    assert any(isinstance(w, EffectiveWeight) for w in weights.values()) == row.computed
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    if row.products:
        model.eval()
        assert all(_is_in(w.detach(), _factors(model, x)) for w in weights.values())


def test_a_chip_arrives_bit_for_bit_and_leaves_no_trace(row):
    model, x = _made(row)
    model.eval()
    _output(model, x)  # an observer has seen something
    state = copy.deepcopy(model.state_dict())
    clean = _output(model, x)
    weights = adapter_for(model).synaptic_weights(model)
    ideal = {name: w.detach().clone() for name, w in weights.items()}
    chip = Gaussian(0.3).program(ideal, generator=torch.Generator().manual_seed(1))
    with replaced(weights, chip), torch.no_grad():
        assert not torch.allclose(_output(model, x), clean)
        if row.products:
            factors = _factors(model, x)
            for name, value in chip.items():
                absent = getattr(weights[name], "_absent", None)
                held = value if absent is None else torch.where(absent, 0.0, value)
                assert _is_in(held, factors)
                assert not _is_in(ideal[name], factors)
    assert all(torch.equal(v, ideal[k]) for k, v in weights.items())
    assert torch.equal(_output(model, x), clean)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_gradients_go_straight_through(row):
    model, x = _made(row)
    model.eval()
    weights = adapter_for(model).synaptic_weights(model)

    def shift(live):
        for w in live.values():
            w.add_(0.1)

    with perturbed(weights, shift):
        _output(model, x).square().sum().backward()
    for name, w in weights.items():
        assert w.grad is not None, name
        assert bool(w.grad.any()), name
    grads = {n: p.grad for n, p in model.named_parameters() if p.dim() > 1}
    if row.name == "writes itself":
        return  # its real weights are no parameters
    assert all(g is not None and bool(g.any()) for g in grads.values()), grads


def test_the_gradient_is_that_of_a_layer_which_held_the_weights():
    model = nn.Sequential(_pruned(nn.Linear(5, 4)), nn.Tanh(), FourBit(4, 3))
    x = torch.randn(6, 5)
    weights = adapter_for(model).synaptic_weights(model)
    chip = Gaussian(0.1).program({k: w.detach() for k, w in weights.items()})
    by_hand = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    with torch.no_grad():
        for i in (0, 2):
            by_hand[i].bias.copy_(model[i].bias)
        mask = model[0].weight_mask
        by_hand[0].weight.copy_(chip["0.weight"] * mask)
        by_hand[2].weight.copy_(chip["2.weight"])
    by_hand(x).square().sum().backward()
    with replaced(weights, chip):
        model(x).square().sum().backward()
    torch.testing.assert_close(model[0].weight_orig.grad, by_hand[0].weight.grad * mask)
    torch.testing.assert_close(model[2].weight.grad, by_hand[2].weight.grad)
    torch.testing.assert_close(weights["0.weight"].grad, by_hand[0].weight.grad)
    assert torch.equal(model[0].bias.grad, by_hand[0].bias.grad)


def test_training_moves_the_parameters_and_the_weights_follow(row):
    model, x = _made(row)
    wvat = WVAT(model, Gaussian(0.05), w_th=0.5, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    before = {name: w.detach().clone() for name, w in wvat.weights.items()}
    for _ in range(4):
        optimizer.zero_grad()
        wvat.backward(lambda: _output(model, x).square().mean())
        optimizer.step()
    refresh(wvat.weights)
    if row.name not in ("binary", "writes itself"):
        assert all(not torch.equal(w, before[name]) for name, w in wvat.weights.items())
    found = adapter_for(model).synaptic_weights(model)
    assert all(torch.equal(w, found[name]) for name, w in wvat.weights.items())


def test_a_power_iteration_advances_once_a_pass_and_observers_see_no_noise():
    model = nn.Sequential(nn.utils.spectral_norm(nn.Linear(5, 4)), _qat(qat.Linear, 4, 3))
    twin, x = copy.deepcopy(model), torch.randn(6, 5)
    wvat = WVAT(model, Gaussian(0.2), w_th=0.0)
    for _ in range(3):
        wvat.backward(lambda: model(x).square().mean())
        twin(x)
    for (name, one), (_, other) in zip(model.named_buffers(), twin.named_buffers(), strict=True):
        assert torch.equal(one, other), name


def test_pruned_synapses_hold_nothing_whatever_the_chip():
    model = nn.Sequential(_pruned(nn.Conv2d(2, 6, 3), amount=0.5))
    weights = adapter_for(model).synaptic_weights(model)
    gone = model[0].weight_mask == 0
    with replaced(weights, {"0.weight": torch.ones_like(weights["0.weight"])}):
        model(torch.rand(1, 2, 4, 4))
        assert not bool(model[0].weight[gone].any())
        assert bool((model[0].weight[~gone] == 1).all())


def test_perturbed_inside_of_perturbed():
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2)))
    weights = adapter_for(model).synaptic_weights(model)
    clean = weights["0.weight"].detach().clone()
    with replaced(weights, {"0.weight": clean + 1}):
        with replaced(weights, {"0.weight": clean + 2}):
            model(torch.ones(1, 3))
            assert torch.equal(model[0].weight, clean + 2)
        model(torch.ones(1, 3))
        assert torch.equal(model[0].weight, clean + 1)
    model(torch.ones(1, 3))
    assert torch.equal(model[0].weight, clean)


class Patches(nn.Module):
    """A position is added, a matrix multiplies, a table is looked up."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 4))
        self.mix = nn.Parameter(torch.randn(4, 3))
        self.norm = nn.LayerNorm((2, 3))

    def forward(self, x):
        return (x + self.position) @ self.mix


def test_the_account_names_every_matrix_and_why():
    model = nn.Sequential(Patches(), nn.Embedding(7, 3), nn.utils.weight_norm(nn.Linear(3, 2)))
    found = account(model, adapter_for(model))
    assert [e.name for e in found.synapses] == ["0.mix", "2.weight"]
    assert {e.name: e.note for e in found.left_out} == {
        "0.position": "enters no product",
        "0.norm.weight": "normalisation",
        "0.norm.bias": "normalisation",
        "1.weight": "table that is looked up, no product",
    }
    assert found.devices == 18
    text = str(found)
    assert text.startswith("2 weights, 18 devices\n")
    for name, parameter in model.named_parameters():
        assert parameter.dim() < 2 or name.rpartition(".")[2] in text
    assert text in str(WVAT(model, Gaussian(0.1)))


class Attends(nn.Module):
    """Takes no single tensor, so that nobody can try it out."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 3))

    def forward(self, x, mask, *, scale):
        return (x @ self.kernel) * mask * scale


class MultipliesAndSums(nn.Module):
    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(3, 3))

    def forward(self, x):
        return (x[..., None, :] * self.kernel).sum(-1)


class CutInThree(nn.Linear):
    def forward(self, x):
        q, k, v = self.weight.tanh().chunk(3)
        return functional.linear(x, q) + functional.linear(x, k) + functional.linear(x, v)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (Attends, "kernel"),
        (MultipliesAndSums, "kernel"),
        (lambda: _pruned(jelly.WSLinear(4, 4)), "weight"),
        (lambda: CutInThree(3, 6), "weight"),
    ],
)
def test_what_nobody_can_tell_is_an_error_that_names_it(make, name):
    model = nn.Sequential(nn.Linear(3, 3), make())
    with pytest.raises(UnsupportedModelError, match=rf"'1\.{name}'.*weights=.*ignore="):
        WVAT(model, Gaussian(0.1))
    assert list(WVAT(model, Gaussian(0.1), ignore=["1"]).weights) == ["0.weight"]
    chosen = {"0.weight": model[0].weight}
    assert "not among the weights" in str(WVAT(model, Gaussian(0.1), weights=chosen))


def test_ignore_leaves_out_and_says_so():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)))
    wvat = WVAT(model, Gaussian(0.1), ignore=["1.1", "0.weight"])
    assert list(wvat.weights) == ["1.0.weight"]
    assert str(wvat).count("ignored, as was asked") == 2
    with pytest.raises(ValueError, match="ignore names 'head'"):
        adapter_for(model, ignore=["head"])
    with pytest.raises(TypeError, match="collection of names"):
        adapter_for(model, ignore="1.1")


def test_tied_computed_weights_are_one_and_cannot_be_clamped():
    shared = nn.utils.weight_norm(nn.Linear(3, 3))
    model = nn.Sequential(shared, nn.ReLU(), shared)
    weights = adapter_for(model).synaptic_weights(model)
    assert list(weights) == ["0.weight"]
    with pytest.raises(UnsupportedModelError, match="'0.weight' is computed"):
        clamp_(weights, 0.1)


def test_compiled_models_with_computed_weights_are_refused():
    model = torch.compile(nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2))))
    with pytest.raises(UnsupportedModelError, match="Leave torch.compile out"):
        adapter_for(model).synaptic_weights(model)
