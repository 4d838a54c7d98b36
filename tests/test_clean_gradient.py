"""The worst direction takes the clean gradient's memory, and only where nobody misses it."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from torch import Generator, nn

from spikewvat.devices import Gaussian
from spikewvat.perturbations import (
    ASAM,
    AWP,
    GAV,
    SAM,
    Gradient,
    Momentum,
    Past,
    Source,
    Warmup,
    variation,
)
from spikewvat.pieces import PIECE
from spikewvat.training import WVAT, PerturbedGradient

DEVICE = Gaussian(0.1)
X = torch.randn(5, 6, generator=Generator().manual_seed(0))
PERTURBATIONS = {
    "GAV": lambda: GAV(DEVICE),
    "one norm": lambda: GAV(DEVICE, per_tensor=False),
    "SAM": lambda: SAM(0.1),
    "ASAM": lambda: ASAM(0.1),
    "AWP": lambda: AWP(0.1),
    "warmup": lambda: Warmup(GAV(DEVICE), 10),
    "both": lambda: variation(DEVICE, mix="both"),
}


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))


class Passes:
    """Runs steps and writes down what each pass saw."""

    def __init__(self, model, perturbation):
        self.model = model
        self.method = PerturbedGradient(model, perturbation, generator=Generator().manual_seed(2))
        self.seen, self.places, self.gradients = [], [], []

    def step(self):
        self.model.zero_grad()
        self.seen, self.places, self.gradients = [], [], []

        def closure():
            self.seen.append([w.detach().clone() for w in self.method.weights.values()])
            self.places.append([w.data_ptr() for w in self.method.weights.values()])
            return self.model(X).square().mean()

        def backward(loss):
            loss.backward()
            self.gradients.append([w.grad.data_ptr() for w in self.method.weights.values()])

        self.method.backward(closure, backward=backward)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_second_pass_sees_weights_plus_perturbation(name):
    passes, twin = Passes(network(), PERTURBATIONS[name]()), network()
    literal, noise = PERTURBATIONS[name](), copy.deepcopy(passes.method._noise)
    names = list(passes.method.weights)
    for _ in range(3):
        passes.step()
        twin.zero_grad()
        twin(X).square().mean().backward()
        weights = {n: twin.get_parameter(n).detach() for n in names}
        grads = {n: twin.get_parameter(n).grad for n in names}
        changes = literal.pick()(weights, grads, generator=noise)
        clean, perturbed = passes.seen
        assert all(torch.equal(a, b) for a, b in zip(clean, weights.values(), strict=True))
        for found, n in zip(perturbed, names, strict=True):
            torch.testing.assert_close(found, weights[n] + changes[n])
            assert not torch.equal(found, weights[n])


@pytest.mark.parametrize("name", ["GAV", "SAM", "AWP", "warmup"])
def test_the_clean_gradient_is_where_perturbed_weights_are(name):
    passes = Passes(network(), PERTURBATIONS[name]())
    for _ in range(2):
        passes.step()
        assert passes.places[1] == passes.gradients[0]
        assert passes.places[0] != passes.places[1]


KEEPS = {
    "itself": lambda grad: grad,
    "a view": lambda grad: grad.view(-1),
    "an array": lambda grad: grad.numpy(),
}


@pytest.mark.parametrize("keep", KEEPS.values(), ids=KEEPS)
def test_a_gradient_that_a_hook_has_kept_stays_as_it_was(keep):
    model, kept, copies = network(), [], []

    def hook(parameter):
        kept.append(keep(parameter.grad))
        copies.append(parameter.grad.clone())

    model[0].weight.register_post_accumulate_grad_hook(hook)
    passes = Passes(model, GAV(DEVICE))
    passes.step()
    assert torch.equal(torch.as_tensor(kept[0]).view(40, 6), copies[0])
    assert passes.places[1][0] != passes.gradients[0][0]
    assert passes.places[1][1] == passes.gradients[0][1]  # nobody has kept the other one


class Kept(Source):
    """A direction of a user's own, kept in one dictionary."""

    def __init__(self, weights):
        self.kept = {name: torch.ones_like(weight) for name, weight in weights.items()}

    def direction(self, weights, grads):
        return self.kept


@pytest.mark.parametrize("kind", ["momentum", "past", "own"])
def test_other_directions_stay_as_they_were(kind):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    weights = {"0.weight": model[0].weight, "2.weight": model[2].weight}
    source = {"momentum": Momentum(optimizer), "past": Past(), "own": Kept(weights)}[kind]
    passes = Passes(model, GAV(DEVICE, source=source))
    for _ in range(3):
        passes.step()
        optimizer.step()
        before = {n: d.clone() for n, d in source.direction(weights, {}).items()}
        method = passes.method
        with torch.no_grad():
            perturb = method.perturbation.plan(method.weights)
        method._pass(lambda: model(X).square().mean(), lambda loss: None, perturb)
        for name, direction in source.direction(weights, {}).items():
            assert torch.equal(direction, before[name])


@pytest.mark.parametrize("views", [False, True])
def test_buckets_of_a_distributed_run_are_left_alone(tmp_path, views):
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        alone, model = network(), network()
        wrapped = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=views)
        optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (alone, model)]
        methods = [PerturbedGradient(m, GAV(DEVICE)) for m in (alone, wrapped)]
        for _ in range(3):
            for m, method, optimizer in zip((alone, wrapped), methods, optimizers, strict=True):
                optimizer.zero_grad()
                method.backward(lambda m=m: m(X).square().mean())
                optimizer.step()
        for one, other in zip(alone.parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(one, other)
    finally:
        dist.destroy_process_group()


def test_noise_on_top_reads_the_gradient_to_its_end():
    """Both at once, over several pieces: nothing may be written over before it is read."""
    torch.manual_seed(3)
    layer = nn.Linear(PIECE // 256 + 5, 600)
    inputs = torch.randn(3, layer.in_features)
    method = WVAT(layer, DEVICE, worst=Gradient(), mix="both", generator=Generator().manual_seed(4))
    noise, seen = copy.deepcopy(method._noise), []

    def closure():
        seen.append(layer.weight.detach().clone())
        return layer(inputs).square().mean()

    method.backward(closure)
    twin = copy.deepcopy(layer)
    twin.zero_grad()
    twin(inputs).square().mean().backward()
    weights = {"weight": twin.weight.detach()}
    changes = method.perturbation(weights, {"weight": twin.weight.grad}, generator=noise)
    torch.testing.assert_close(seen[1], weights["weight"] + changes["weight"])


def test_nothing_is_held_where_there_is_no_momentum_yet():
    """In the first step of momentum + noise there is nothing to add, and no memory for it."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    source = Momentum(optimizer)
    weights = {"0.weight": model[0].weight, "2.weight": model[2].weight}
    for direction in source.direction(weights, {}).values():
        assert not direction.any()
        assert direction.untyped_storage().nbytes() <= 4
    noise = Generator().manual_seed(5)
    found = variation(DEVICE, worst=source, mix="both", gamma=1.0)(weights, generator=noise)
    alone = variation(DEVICE, w_th=0.0, gamma=1.0)
    expected = alone.noise(weights, generator=Generator().manual_seed(5))
    assert all(torch.equal(found[name], expected[name]) for name in weights)
