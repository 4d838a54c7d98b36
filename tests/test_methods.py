"""One contract for every training method; a new one adds a row to ``method_cases.METHODS``."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from method_cases import METHODS, OPTIMIZERS
from model_cases import ADAPTERS
from spread import spread
from torch import nn

NETS = [
    case
    for case in ADAPTERS
    if case.name
    in (
        "torch-fc",
        "torch-conv-bn",
        "lif-cnn",
        "slayer-fc",
        "converted-cnn",
        "snntorch-nested",
        "spikingjelly-single-step",
        "spikingjelly-cnn-m",
        "tsslbp-cnn",
    )
]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda case: case.name)


class Loop:
    """A user's loop around any training method."""

    def __init__(self, net, method, *, optimizer=OPTIMIZERS[0], lr=0.05, seed=0, **options):
        torch.manual_seed(3)
        self.net, self.model = net, net.make()
        self.optimizer = optimizer(self.model.parameters(), lr)
        self.x, self.y = net.input(), torch.tensor([0, 1, 2])
        self.method = method.make(self.model, self.optimizer, seed, **options)
        self.closures, self.backwards = 0, 0

    def closure(self):
        self.closures += 1
        output = self.net.run(self.model, self.x)
        scores = output.sum(0) if output.dim() == 3 else output
        return nn.functional.cross_entropy(scores, self.y[: len(scores)]), output

    def backward(self, loss):
        self.backwards += 1
        loss.backward()

    def step(self):
        self.optimizer.zero_grad()
        loss = self.method.backward(self.closure, backward=self.backward)
        self.optimizer.step()
        self.method.after_step()
        return loss

    def run(self, steps=3):
        for _ in range(steps):
            self.step()
        return self.weights()

    def weights(self):
        return [parameter.detach().clone() for parameter in self.model.parameters()]


def equal(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@spread("method, net", METHODS, NETS, each=2)
def test_on_every_framework(method, net):
    """Weights stay while gradients are taken; a seed repeats the run bit for bit."""
    still = Loop(net, method, lr=0.0)
    fresh = still.weights()
    for _ in range(3):
        still.optimizer.zero_grad()
        loss = still.method.backward(still.closure, backward=still.backward)
        assert loss.dim() == 0
        assert not loss.requires_grad
        assert equal(still.weights(), fresh)
        still.optimizer.step()  # fills momentum
        still.method.after_step()
        if not method.clips:
            assert equal(still.weights(), fresh)
        fresh = still.weights()
    one, two = Loop(net, method, seed=5).run(), Loop(net, method, seed=5).run()
    assert equal(one, two)
    assert not equal(one, fresh)


@spread("method, optimizer", METHODS, OPTIMIZERS)
def test_seeds_differ_where_there_is_chance(method, optimizer):
    one = Loop(NETS[0], method, seed=1, optimizer=optimizer).run(4)
    two = Loop(NETS[0], method, seed=2, optimizer=optimizer).run(4)
    assert equal(one, two) is not method.random


@every_method
def test_every_method_differs_from_plain_training(method):
    plain = Loop(NETS[0], method, p=0.0)
    model, optimizer = copy.deepcopy(plain.model), None
    optimizer = OPTIMIZERS[0](model.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain.net.run(model, plain.x), plain.y[:2]).backward()
        optimizer.step()
    expected = [parameter.detach() for parameter in model.parameters()]
    if not (method.clips or method.name.startswith("qat")):
        assert equal(plain.run(3), expected)
    assert equal(Loop(NETS[0], method).run(3), expected) is (method.name == "plain")


@every_method
def test_number_of_gradients(method):
    loop = Loop(NETS[0], method, warn_after=None)
    steps = 1 if method.backwards == int(method.backwards) else 150
    loop.run(steps)
    assert loop.backwards / steps == pytest.approx(method.backwards, abs=0.15)


class Boom(Exception):
    pass


@pytest.mark.parametrize(
    ("method", "where", "failing"),
    [
        pytest.param(case, where, failing, id=f"{case.name}-{where}-{failing}")
        for case in METHODS
        for where in ("closure", "backward")
        for failing in range(1, math.ceil(case.backwards) + 1)
    ],
)
def test_nothing_is_left_behind_by_an_exception(method, where, failing):
    loop = Loop(NETS[1], method)
    loop.run(2)  # there is momentum
    for parameter in loop.model.parameters():
        parameter.grad = torch.full_like(parameter, 0.25)
    before, statistics = loop.weights(), copy.deepcopy(dict(loop.model.named_buffers()))
    loop.closures = loop.backwards = 0

    def closure():
        if where == "closure" and loop.closures + 1 == failing:
            raise Boom
        return loop.closure()

    def backward(loss):
        if where == "backward" and loop.backwards + 1 == failing:
            raise Boom
        loop.backward(loss)

    try:
        loop.method.backward(closure, backward=backward)
        assert failing > int(method.backwards)  # here the second gradient was not drawn
    except Boom:
        assert all(torch.equal(p.grad, torch.full_like(p, 0.25)) for p in loop.model.parameters())
        if where == "closure":
            assert all(torch.equal(b, statistics[n]) for n, b in loop.model.named_buffers())
    assert equal(loop.weights(), before)


@every_method
def test_statistics_change_once_a_step(method):
    loop = Loop(NETS[1], method)
    loop.run(3)
    assert int(loop.model[1].num_batches_tracked) == 3


@spread("method, net", METHODS, [NETS[0], NETS[4]])
def test_gradients_are_added_and_scaled(method, net):
    """What is in .grad stays, and a factor on the loss is a factor on the gradients."""

    def gradients(factor, start):
        loop = Loop(net, method)
        loop.run(2)
        for parameter in loop.model.parameters():
            parameter.grad = torch.full_like(parameter, start)
        loop.method.backward(loop.closure, backward=lambda loss: (factor * loss).backward())
        return [parameter.grad for parameter in loop.model.parameters()]

    for plain, scaled in zip(gradients(1.0, 0.0), gradients(8.0, 0.5), strict=True):
        torch.testing.assert_close(8 * plain + 0.5, scaled, rtol=1e-4, atol=1e-5)


@every_method
def test_resumed_run_ends_alike(method):
    through = Loop(NETS[0], method, p=0.8)
    through.run(4)
    saved = copy.deepcopy(
        [part.state_dict() for part in (through.method, through.model, through.optimizer)]
    )
    expected = through.run(4)
    resumed = Loop(NETS[0], method, p=0.8, seed=9)
    for part, state in zip((resumed.method, resumed.model, resumed.optimizer), saved, strict=True):
        part.load_state_dict(state)
    assert equal(resumed.run(4), expected)


@every_method
def test_it_learns(method):
    """A small net fits its batch under every method."""
    loop = Loop(NETS[0], method, warn_after=None)
    first = float(loop.closure()[0].detach())
    loop.run(60)
    assert float(loop.closure()[0].detach()) < 0.7 * first


@every_method
def test_a_loss_scaler_that_overflows_loses_nothing(method):
    loop = Loop(NETS[0], method)
    loop.run(2)
    before = loop.weights()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    loop.optimizer.zero_grad()
    loop.method.backward(
        lambda: (loop.closure()[0] * torch.inf, loop.closure()[1]),
        backward=lambda loss: scaler.scale(loss).backward(),
    )
    scaler.step(loop.optimizer)
    assert equal(loop.weights(), before)
