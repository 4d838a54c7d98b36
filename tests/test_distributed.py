"""Two gloo processes: noise per rank or shared, and ranks that stay bit-identical."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from method_cases import METHODS
from torch import nn

from spikewvat.devices import Gaussian
from spikewvat.perturbations import GAV, HSV, Perturbation
from spikewvat.training import WVAT, PerturbedGradient
from spikewvat.weights import adding


class Spy(Perturbation):
    """Remembers what a perturbation was."""

    def __init__(self, direction):
        self.direction, self.deltas = direction, []

    @property
    def needs_gradient(self):
        return self.direction.needs_gradient

    def plan(self, weights, grads=None, *, generator=None):
        delta = self.direction(weights, grads, generator=generator)
        self.deltas.append(torch.cat([d.flatten() for d in delta.values()]))
        return adding(delta)


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def _train(rank, results):
    # In a file: a server in one rank would end with it, while the other still tidies up.
    meeting = f"file://{results}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    torch.set_num_threads(1)
    found = {}
    data = torch.Generator().manual_seed(100 + rank)
    x, y = torch.randn(16, 6, generator=data), torch.randint(3, (16,), generator=data)
    for name, direction, same in (
        ("own", HSV(Gaussian(0.1)), False),
        ("same", HSV(Gaussian(0.1)), True),
        ("gav", GAV(Gaussian(0.1)), False),
    ):
        model = nn.parallel.DistributedDataParallel(_net())
        spy = Spy(direction)
        gradient = PerturbedGradient(model, spy, same_noise_on_all_ranks=same)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(4):
            optimizer.zero_grad()
            gradient.backward(lambda model=model: nn.functional.cross_entropy(model(x), y))
            optimizer.step()
        found[name] = (
            torch.stack(spy.deltas),
            torch.cat([p.detach().flatten() for p in model.parameters()]),
        )
    for case in METHODS:
        model = nn.parallel.DistributedDataParallel(_net())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        method = case.make(model, optimizer)

        def closure(model=model):
            output = model(x)
            return nn.functional.cross_entropy(output, y), output

        for _ in range(3):
            optimizer.zero_grad()
            method.backward(closure)
            optimizer.step()
            method.after_step()
        found[f"method {case.name}"] = torch.cat([p.detach().flatten() for p in model.parameters()])
    # A mixture must choose the same kind of step on every rank, or the all-reduce would hang,
    # even where the ranks' own seeds differ.
    torch.manual_seed(rank)
    model = nn.parallel.DistributedDataParallel(_net())
    wvat = WVAT(model, Gaussian(0.1), p=0.7)
    for step in range(10):
        wvat.backward(lambda: nn.functional.cross_entropy(model(x), y))
        if step % 2:
            model.zero_grad()
    found["mixture"] = torch.cat(
        [p.grad.flatten() for p in model.parameters() if p.grad is not None] or [torch.zeros(1)]
    )
    torch.save(found, f"{results}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_train, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("method", ["own", "same", "gav"])
def test_ranks_stay_bit_identical(ranks, method):
    assert torch.equal(ranks[0][method][1], ranks[1][method][1])


@pytest.mark.parametrize("method", METHODS, ids=lambda case: case.name)
def test_ranks_stay_bit_identical_under_every_method(ranks, method):
    assert torch.equal(ranks[0][f"method {method.name}"], ranks[1][f"method {method.name}"])


def test_every_rank_draws_its_own_noise_by_default(ranks):
    assert not torch.equal(ranks[0]["own"][0], ranks[1]["own"][0])
    correlation = torch.corrcoef(
        torch.stack([ranks[0]["own"][0].flatten(), ranks[1]["own"][0].flatten()])
    )[0, 1]
    assert abs(float(correlation)) < 0.3


def test_the_same_noise_on_request(ranks):
    assert torch.equal(ranks[0]["same"][0], ranks[1]["same"][0])


def test_the_worst_direction_uses_the_reduced_gradient(ranks):
    assert torch.equal(ranks[0]["gav"][0], ranks[1]["gav"][0])
    model, losses = _net(), []
    for rank in range(2):
        data = torch.Generator().manual_seed(100 + rank)
        x, y = torch.randn(16, 6, generator=data), torch.randint(3, (16,), generator=data)
        losses.append(nn.functional.cross_entropy(copy.deepcopy(model)(x), y))
        twin = copy.deepcopy(model)
        (nn.functional.cross_entropy(twin(x), y) / 2).backward()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            p.grad = q.grad if p.grad is None else p.grad + q.grad
    weights = {"0.weight": model[0].weight, "3.weight": model[3].weight}
    expected = GAV(Gaussian(0.1))(weights, {name: w.grad for name, w in weights.items()})
    torch.testing.assert_close(
        ranks[0]["gav"][0][0], torch.cat([d.flatten() for d in expected.values()])
    )


def test_mixture_steps_agree(ranks):
    assert torch.equal(ranks[0]["mixture"], ranks[1]["mixture"])
