"""State that outlives a reset is reset, or named."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import snntorch as snn
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from spikewvat import WVAT, Gaussian, adapter_for
from spikewvat.adapters.state import Call, check_state
from spikewvat.errors import UnsupportedModelError


class Scaled(nn.Module):
    """A neuron of one's own around a layer: it has a reset, a child and a plain number."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Identity()
        self.level = 0.0

    def forward(self, x):
        self.level = 0.5 * self.level + float(x.detach().abs().mean())
        return self.norm(x) * self.level

    def reset(self):
        self.level = 0.0


class Persistent(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("trace", torch.zeros(1))

    def forward(self, x):
        self.trace = 0.5 * self.trace + x.detach()
        return self.trace


class Tired(snn.Leaky):
    """A subclass of a known neuron with more state than the framework resets."""

    def forward(self, x, mem=None):
        self.fatigue = getattr(self, "fatigue", 0.0) + 0.3 * x.detach()
        return super().forward(x - self.fatigue, mem)


class Slow(neuron.LIFNode):
    def __init__(self):
        super().__init__(v_threshold=0.3)
        self.inner = {"average": [torch.zeros(1)]}

    def single_step_forward(self, x):
        self.inner["average"][0] = 0.9 * self.inner["average"][0] + x.detach().mean()
        return super().single_step_forward(x + self.inner["average"][0])


@dataclass
class Memory:
    v: object = 0.0


class InDataclass(nn.Module):
    def __init__(self, make=Memory):
        super().__init__()
        self.memory = make()

    def forward(self, x):
        self.memory.v = 0.5 * self.memory.v + x.detach()
        return self.memory.v


class InNumber(nn.Module):
    def __init__(self):
        super().__init__()
        self.charge = 1.0

    def forward(self, x):
        self.charge *= 0.5
        return x * self.charge


class InArray(nn.Module):
    def __init__(self):
        super().__init__()
        self.charge = np.ones(1)

    def forward(self, x):
        self.charge = self.charge * 0.5
        return x * float(self.charge[0])


class Counts(nn.Module):
    """Keeps a number that no output depends on."""

    def __init__(self):
        super().__init__()
        self.calls, self.log = 0, []

    def forward(self, x):
        self.calls += 1
        self.log.append(float(x.detach().sum()))
        return x


def _net(middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), middle, nn.Linear(4, 3))


def _input():
    return torch.rand(5, 4, generator=torch.Generator().manual_seed(1)) * 3


def _check(model, adapter=None):
    check_state(model, adapter or adapter_for(model), [Call(model, (_input(),))])


def test_a_module_with_children_and_a_reset_is_reset():
    model = _net(nn.Sequential(Scaled()))
    adapter = adapter_for(model)
    _check(model, adapter)
    model(_input())
    adapter.reset_state(model)
    assert model[1][0].level == 0.0


def test_a_reset_that_writes_parameters_is_not_called():
    class Fresh(nn.Linear):
        def reset(self):
            self.reset_parameters()

    with pytest.raises(UnsupportedModelError, match=r"reset\(\) of layer '1' .*writes parameters"):
        adapter_for(_net(Fresh(4, 4)))
    model = _net(Fresh(4, 4))
    _check(model, adapter_for(model, reset_state=lambda net: None))


def test_a_reset_that_fails_says_so():
    class Unready(nn.Module):
        def reset(self):
            self.missing.zero_()

    with pytest.raises(UnsupportedModelError, match=r"reset\(\) of layer '1'.*cannot be called"):
        adapter_for(_net(Unready()))


SURVIVES = [
    pytest.param(Persistent, "trace", id="persistent buffer"),
    pytest.param(lambda: Tired(beta=0.9, threshold=0.1, init_hidden=True), "fatigue", id="snn"),
    pytest.param(Slow, "inner", id="spikingjelly"),
    pytest.param(InDataclass, "memory", id="dataclass"),
    pytest.param(lambda: InDataclass(lambda: SimpleNamespace(v=0.0)), "memory", id="namespace"),
    pytest.param(InNumber, "charge", id="number"),
    pytest.param(InArray, "charge", id="array"),
]


@pytest.mark.parametrize(("make", "where"), SURVIVES)
def test_what_survives_is_named(make, where):
    model = _net(make())
    with pytest.raises(UnsupportedModelError, match=rf"layer '1' .*{where}.*Pass reset_state="):
        _check(model)


@pytest.mark.parametrize(("make", "where"), SURVIVES)
def test_training_finds_it_in_the_first_step(make, where):
    model = _net(make())
    wvat = WVAT(model, Gaussian(0.0), w_th=0.0)
    with pytest.raises(UnsupportedModelError, match=rf"layer '1' .*{where}"):
        wvat.backward(lambda: model(_input()).square().mean())


def test_numbers_that_nothing_depends_on_are_no_state():
    model = _net(Counts())
    wvat = WVAT(model, Gaussian(0.1))
    for _ in range(3):
        wvat.backward(lambda: model(_input()).square().mean())


def test_the_check_leaves_everything_as_it_was():
    model = nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), layer.Dropout(0.5), neuron.IFNode()
    )
    adapter = adapter_for(model)
    model[3].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    _check(model, adapter)
    assert [module.training for module in model] == [True, True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]
    assert model[4].v == 0.0


class Draws(nn.Module):
    def __init__(self, source):
        super().__init__()
        self.source = source

    def forward(self, x):
        return x + self.source(x.shape)


def test_draws_from_the_global_generators_are_no_state_and_private_ones_are_named():
    def by_numpy(shape):
        return torch.as_tensor(np.random.rand(*shape), dtype=torch.float32)  # noqa: NPY002

    for source in (torch.rand, by_numpy, lambda shape: random.random()):
        _check(_net(Draws(source)))
    private = torch.Generator().manual_seed(0)
    with pytest.raises(UnsupportedModelError, match="draw from torch's, numpy's or Python's"):
        _check(_net(Draws(lambda shape: torch.rand(shape, generator=private))))

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = torch.Generator().manual_seed(0)

        def forward(self, x):
            return x + torch.rand(x.shape, generator=self.generator)

    with pytest.raises(UnsupportedModelError, match="layer '1' .*generator"):
        _check(_net(Own()))


def test_the_closure_is_called_as_often_as_before_and_the_model_checked_once():
    model = _net(nn.ReLU())
    calls, passes = [], []
    model.register_forward_hook(lambda *_: passes.append(1))

    def closure():
        calls.append(1)
        return model(_input()).square().mean()

    wvat = WVAT(model, Gaussian(0.1), w_th=0.0)
    wvat.backward(closure)
    assert (len(calls), len(passes)) == (1, 3)
    wvat.backward(closure)
    assert (len(calls), len(passes)) == (2, 4)


class Late(nn.Module):
    """Fires when what it has summed up in a place that nobody sees is large enough."""

    def __init__(self):
        super().__init__()
        charge = torch.zeros(5, 4)

        def fired(x):
            charge.add_(x.detach().abs())
            spikes = (charge > 4).float()
            charge.mul_(1 - spikes)
            return spikes + x * 0

        self.fired = fired

    def forward(self, x):
        return self.fired(x)


@pytest.mark.parametrize("parts", [False, True])
def test_a_loop_around_the_model_is_run_twice_as_a_whole(parts):
    model, x = _net(Late()), _input() / 3
    with torch.no_grad():
        charged = float(model[0](x).abs().max())
    assert charged < 4  # no step alone shows what is kept
    wvat = WVAT(model, Gaussian(0.1), w_th=0.0, warn_after=None)

    def step(x):
        return model[2](model[1](model[0](x))) if parts else model(x)

    def closure():
        return sum(step(x) for _ in range(20)).square().mean()

    def steps():
        for _ in range(2):  # where parts are called, that is seen in the first
            wvat.backward(closure)

    with pytest.raises(UnsupportedModelError, match="two passes .* give different outputs"):
        steps()


def test_parts_of_a_model_are_called_as_the_closure_does():
    model = _net(nn.ReLU())
    passes = []
    for index, part in enumerate(model):
        part.register_forward_hook(lambda *_, index=index: passes.append(index))
    wvat = WVAT(model, Gaussian(0.1), w_th=0.0)
    met = []
    for _ in range(4):
        wvat.backward(lambda: model[2](model[1](model[0](_input()))).square().mean())
        met.append(len(passes))
        passes.clear()
    assert met == [3, 9, 3, 3]
    assert not any(part._forward_pre_hooks for part in model)
