"""Weights come back bit for bit whatever happens, and passes see exactly the perturbed ones."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from torch import Generator, nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from spikewvat.devices import Gaussian
from spikewvat.holding import can_point, held
from spikewvat.perturbations import GAV, HSV, Momentum, Perturbation
from spikewvat.pieces import PIECE
from spikewvat.training import WVAT, PerturbedGradient
from spikewvat.training.methods import QAT
from spikewvat.weights import adding, perturbed, replaced


class Given(Perturbation):
    """A perturbation that is given."""

    def __init__(self, changes):
        self.changes = changes

    def plan(self, weights, grads=None, *, generator=None):
        return adding(self.changes)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(checkpoint(lambda z: self.first(z).relu(), x, use_reentrant=False))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 6)
        self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(self.first(x).relu())


class TransposedTie(nn.Module):
    """An autoencoder whose second matrix is a view of the first one's memory."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.register_buffer("back", self.first.weight.data.t(), persistent=False)

    def forward(self, x):
        return self.first(x).relu() @ self.back.t()


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.LSTM(6, 5, batch_first=True)

    def forward(self, x):
        return self.net(x[:, None].expand(-1, 3, -1))[0].sum(1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x):
        return self.net(x[None], x[None], x[None])[0]


class Calls(nn.Module):
    """Calls a small network in an unusual way."""

    def __init__(self, call):
        super().__init__()
        self.net, self.call = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), call

    def forward(self, x):
        return self.call(self.net, x)


def compiled(net, x):
    return torch.compile(net, backend="aot_eager", fullgraph=True)(x)


def functional(net, x):
    return torch.func.functional_call(net, dict(net.named_parameters()), (x,))


def mapped(net, x):
    return torch.vmap(net)(x)


def convolution():
    net = nn.Sequential(
        nn.Unflatten(1, (2, 1, 3)),
        nn.Conv2d(2, 4, (1, 2)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 2),
    )
    return net.to(memory_format=torch.channels_last)


def strided():
    layer = nn.Linear(6, 4)
    layer.weight = nn.Parameter(torch.randn(4, 12)[:, ::2])
    return layer


NETS = {
    "linear": lambda: nn.Linear(6, 3),
    "channels last": convolution,
    "strided": strided,
    "checkpoint": Checkpointed,
    "tied": Tied,
    "recurrent": Recurrent,
    "attention": Attention,
    "compiled": lambda: Calls(compiled),
    "functional": lambda: Calls(functional),
    "mapped": lambda: Calls(mapped),
}
X = torch.randn(5, 6, generator=Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_a_copy_that_holds_the_perturbed_weights(name):
    torch.manual_seed(1)
    model = NETS[name]()
    twin = copy.deepcopy(model)
    method = PerturbedGradient(model, HSV(Gaussian(0.1)))
    changes = {n: 0.1 * torch.randn_like(w) for n, w in method.weights.items()}
    method.perturbation = Given(changes)
    before = [p.detach().clone() for p in model.parameters()]
    loss = method.backward(lambda: model(X).square().mean())
    with torch.no_grad():
        for n, weight in method.adapter.synaptic_weights(twin).items():
            weight.add_(changes[n])
    expected = twin(X).square().mean()
    expected.backward()
    torch.testing.assert_close(loss, expected.detach())
    for one, other, value in zip(model.parameters(), twin.parameters(), before, strict=True):
        assert torch.equal(one, value)
        # deepcopy makes a strided parameter contiguous, where sums are rounded otherwise.
        exact = {} if name == "strided" else {"rtol": 0, "atol": 0}
        torch.testing.assert_close(one.grad, other.grad, **exact)


def test_a_loss_that_is_differentiated_twice():
    def penalty(net):
        x = X.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        return slope.square().mean()

    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    twin, method = copy.deepcopy(model), PerturbedGradient(model, HSV(Gaussian(0.1)))
    changes = {n: 0.1 * torch.randn_like(w) for n, w in method.weights.items()}
    method.perturbation = Given(changes)
    method.backward(lambda: penalty(model))
    with torch.no_grad():
        for name, change in changes.items():
            twin.get_parameter(name).add_(change)
    penalty(twin).backward()
    for name in changes:
        assert torch.equal(model.get_parameter(name).grad, twin.get_parameter(name).grad)


def test_a_stored_transpose_sees_the_perturbation():
    model = TransposedTie()
    seen = []
    changes = {"first.weight": torch.ones(4, 6)}
    weights = {"first.weight": model.first.weight}
    assert not can_point(model.first.weight)
    before = model.back.clone()
    with perturbed(weights, changes):
        seen.append(model.back.clone())
    assert torch.equal(seen[0], before + 1)
    assert torch.equal(model.back, before)


@pytest.mark.parametrize("look", [lambda p: p.detach().view(-1), lambda p: p.detach().numpy()])
def test_others_who_look_at_the_memory_see_the_perturbation(look):
    layer = nn.Linear(3, 2)
    view = look(layer.weight)
    first = float(view.reshape(-1)[0])
    with perturbed({"w": layer.weight}, {"w": torch.ones(2, 3)}):
        assert float(view.reshape(-1)[0]) == pytest.approx(first + 1)
    assert float(view.reshape(-1)[0]) == first


def test_shared_memory_stays_shared_and_clean():
    layer = nn.Linear(3, 2).share_memory()
    before, place = layer.weight.detach().clone(), layer.weight.data_ptr()
    elsewhere = torch.multiprocessing.reductions.reduce_storage(layer.weight.untyped_storage())
    with perturbed({"w": layer.weight}, {"w": torch.ones(2, 3)}):
        assert torch.equal(layer.weight, before + 1)
        rebuild, arguments = elsewhere  # as another process opens it
        assert torch.equal(torch.tensor([]).set_(rebuild(*arguments), 0, (2, 3), (3, 1)), before)
    assert layer.weight.is_shared()
    assert layer.weight.data_ptr() == place
    assert torch.equal(layer.weight, before)


def test_the_memory_of_weights_is_never_written():
    layer = nn.Linear(3, 2)
    assert can_point(layer.weight)
    place, before = layer.weight.data_ptr(), layer.weight.detach().clone()
    with perturbed({"w": layer.weight}, {"w": torch.ones(2, 3)}):
        assert layer.weight.data_ptr() != place
    assert layer.weight.data_ptr() == place
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("both", [False, True])
def test_pieces_are_the_whole(drawn, both):
    """Weights of several pieces: equal, to the last bit, to adding all at once."""
    device = Gaussian(0.1, drawn=drawn)
    torch.manual_seed(2)
    layer = nn.Linear(PIECE // 128 + 77, 500)
    weights = {"w": layer.weight}
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer.weight.grad = torch.randn_like(layer.weight)
    optimizer.step()
    perturbation = HSV(device)
    if both:
        perturbation = WVAT(layer, device, worst=Momentum(optimizer), mix="both").perturbation
    plan = perturbation.plan(weights, generator=Generator().manual_seed(3))
    whole = {"w": layer.weight.detach().clone()}
    plan(whole)
    plan = perturbation.plan(weights, generator=Generator().manual_seed(3))
    with perturbed(weights, plan):
        assert torch.equal(layer.weight, whole["w"])


@pytest.mark.parametrize("drawn", [False, True])
def test_noise_on_channels_last_weights_is_as_wide(drawn):
    device = Gaussian(0.1, drawn=drawn)
    conv = nn.Conv2d(64, 64, 3).to(memory_format=torch.channels_last)
    before = conv.weight.detach().clone()
    plan = HSV(device).plan({"w": conv.weight}, generator=Generator().manual_seed(0))
    with perturbed({"w": conv.weight}, plan):
        ratio = (conv.weight.detach() - before).std() / (0.1 * 6 * before.std(correction=0))
    assert float(ratio) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", [lambda m: m.double(), lambda m: m.bfloat16(), lambda m: m.half()])
def test_a_dtype_change_between_steps(kind):
    model = nn.Linear(6, 3)
    method = WVAT(model, Gaussian(0.1), w_th=0.0)
    method.backward(lambda: model(X).square().mean())
    kind(model)
    with torch.no_grad():
        model.weight.add_(torch.finfo(model.weight.dtype).eps)
    model.zero_grad()
    before = model.weight.detach().clone()
    x = X.to(model.weight.dtype)
    method.backward(lambda: model(x).square().mean())
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("copies", [False, True])
def test_a_dtype_change_inside_a_pass_is_refused_and_does_no_damage(copies):
    model = nn.Linear(6, 3)
    kept = model.weight.detach() if copies else None
    before = model.weight.detach().clone()
    method = WVAT(model, Gaussian(0.1), w_th=0.0)

    def closure():
        loss = model(X).square().mean()
        model.bfloat16()
        return loss

    with pytest.raises(RuntimeError, match=r"weight 'weight' was moved or cast|must be the same"):
        method.backward(closure, backward=lambda loss: None)
    assert model.weight.dtype == torch.float32
    assert torch.equal(model.weight, before)
    assert kept is None or torch.equal(kept, before)


@pytest.mark.parametrize("copies", [False, True])
def test_an_optimizer_inside_the_backward_pass_is_refused(copies):
    model = nn.Linear(6, 3)
    kept = model.weight.detach() if copies else None
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    model.weight.register_post_accumulate_grad_hook(lambda p: optimizer.step())
    before = model.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"'weight' was written to while it was perturbed"):
        WVAT(model, Gaussian(0.1), w_th=0.0).backward(lambda: model(X).square().mean())
    assert torch.equal(model.weight, before)
    assert kept is None or torch.equal(kept, before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.randn(3, 4).to_sparse(), "is stored as torch.sparse_coo"),
        (lambda: torch.randn(3, 4, dtype=torch.complex64), "is of torch.complex64"),
        (lambda: torch.ones(3, 4, dtype=torch.int8), "is of torch.int8"),
        (lambda: torch.randn(3, 1).expand(3, 4), "holds one number for several entries"),
    ],
)
def test_what_cannot_be_perturbed_is_refused_by_name(make, message):
    weight = make()
    with pytest.raises(ValueError, match=f"weight 'odd' {message}"):
        perturbed({"odd": weight}, lambda weights: None).__enter__()


def test_inference_tensors():
    with torch.inference_mode():
        model = nn.Linear(3, 2)
        before = model.weight.clone()
        with perturbed({"w": model.weight}, {"w": torch.ones(2, 3)}):
            assert torch.equal(model.weight, before + 1)
        assert torch.equal(model.weight, before)
    with pytest.raises(ValueError, match="'w' was made in inference mode"):
        perturbed({"w": model.weight}, {"w": torch.ones(2, 3)}).__enter__()


def test_calls_inside_itself_are_refused():
    model = nn.Linear(6, 3)
    method = WVAT(model, Gaussian(0.1), w_th=0.0)
    before = model.weight.detach().clone()
    with pytest.raises(RuntimeError, match="called inside itself, or from two threads"):
        method.backward(lambda: method.backward(lambda: model(X).square().mean()))
    assert torch.equal(model.weight, before)
    assert not held()
    method.backward(lambda: model(X).square().mean())


def test_calls_from_two_threads_are_refused():
    model = nn.Linear(6, 3)
    method, other = (WVAT(model, Gaussian(0.1), w_th=0.0) for _ in range(2))
    before = model.weight.detach().clone()
    errors = []

    def elsewhere(which):
        try:
            which.backward(lambda: model(X).square().mean())
        except RuntimeError as error:
            errors.append(str(error))

    def closure():
        for which in (method, other):
            thread = threading.Thread(target=elsewhere, args=(which,))
            thread.start()
            thread.join()
        return model(X).square().mean()

    method.backward(closure)
    assert "two threads at once" in errors[0]
    assert "perturbed by another thread" in errors[1]
    assert torch.equal(model.weight, before)


def test_a_step_inside_replaced_weights():
    """Perturbing what holds other values already: each layer puts back its own."""
    model = nn.Linear(6, 3)
    before = model.weight.detach().clone()
    chip = {"weight": torch.randn(3, 6)}
    method = WVAT(model, Gaussian(0.1), w_th=0.0)
    with replaced({"weight": model.weight}, chip):
        method.backward(lambda: model(X).square().mean())
        assert torch.equal(model.weight, chip["weight"])
        with pytest.raises(ZeroDivisionError):
            method.backward(lambda: 1 / 0)
        assert torch.equal(model.weight, chip["weight"])
    assert torch.equal(model.weight, before)


def test_the_outer_hold_puts_back_an_inner_one_that_was_left_behind():
    """As an interrupt inside the exit of the inner block leaves it."""
    weights = {"w": nn.Parameter(torch.randn(3, 2))}
    before = weights["w"].detach().clone()
    outer = replaced(weights, {"w": torch.zeros(3, 2)})
    inner = perturbed(weights, {"w": torch.ones(3, 2)})
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert torch.equal(weights["w"], before)
    inner.__exit__(None, None, None)
    assert torch.equal(weights["w"], before)
    assert not held()


def test_copies_of_a_method_go_on_alone():
    model = nn.Linear(6, 3)
    method = WVAT(model, Gaussian(0.1), w_th=0.0, generator=Generator().manual_seed(1))
    method.backward(lambda: model(X).square().mean())
    for twin in (copy.deepcopy(method), pickle.loads(pickle.dumps(method))):
        assert twin.weights["weight"] is twin.model.weight
        assert twin.model.weight is not model.weight
        twin.model.zero_grad()
        loss = twin.backward(lambda t=twin: t.model(X).square().mean())
        assert bool(loss.isfinite())
    with pytest.raises(RuntimeError, match="cannot be copied or pickled within its own step"):
        method.backward(lambda: copy.deepcopy(method).model(X).mean())


def test_another_default_dtype():
    model = nn.Linear(6, 3)
    method = WVAT(model, Gaussian(0.1), w_th=0.5)
    before = model.weight.detach().clone()
    torch.set_default_dtype(torch.float64)
    try:
        for _ in range(4):
            method.backward(lambda: model(X).square().mean())
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(model.weight, before)


def test_an_exception_at_every_call_of_a_step():
    """The step fails at its first call of a function of torch, at its second, and so on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    method = PerturbedGradient(model, GAV(Gaussian(0.1)))
    method.backward(lambda: model(X).square().mean())
    before = [p.detach().clone() for p in model.parameters()]

    class Fails(torch.overrides.TorchFunctionMode):
        left = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.left -= 1
            if self.left == 0:
                raise ZeroDivisionError
            return function(*args, **(kwargs or {}))

    failed = 0
    for call in range(1, 400):
        with Fails() as mode:
            mode.left = call
            try:
                method.backward(lambda: model(X).square().mean())
            except ZeroDivisionError:
                failed += 1
                mode.left = -1
            else:
                if mode.left > 0:
                    break
        assert torch.is_grad_enabled()
        assert not held()
        assert all(map(torch.equal, model.parameters(), before)), call
    assert failed > 30


@pytest.mark.parametrize("kind", ["GAV", "copies", "pruned", "QAT"])
def test_interrupts_at_random_moments(benchmark_script, kind):
    hits, wrong = benchmark_script("interrupts").trial(kind, 25)
    assert hits == 25
    assert not wrong


def test_pruned_weights_stay_exactly_as_they_were():
    model = prune.l1_unstructured(nn.Linear(6, 3), "weight", amount=0.5)
    method = QAT(model, bits=4, perturbation=HSV(Gaussian(0.1)))
    before = model.weight_orig.detach().clone()
    method.backward(lambda: model(X).square().mean())
    assert torch.equal(model.weight_orig, before)
