"""What a method holds on to is checked: parameters, gradients, momentum, buffers."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from spikewvat.devices import Gaussian
from spikewvat.errors import TrainingStalledWarning
from spikewvat.perturbations import GAV, HSV, Momentum
from spikewvat.training import WVAT, PerturbedGradient, Plain
from spikewvat.training.methods import QAT, ParameterAdversary, Statistical

X = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def perturbs_all(model, method):
    """Take a step; return whether every matrix was perturbed in it and came back."""
    seen, matrices = [], [m for m in model.modules() if isinstance(m, nn.Linear)]
    before = [m.weight.detach().clone() for m in matrices]

    def closure():
        seen.append([m.weight.detach().clone() for m in matrices])
        return model(X).square().mean()

    method.backward(closure)
    moved = [not torch.equal(a, b) for a, b in zip(seen[-1], before, strict=True)]
    back = [torch.equal(m.weight, b) for m, b in zip(matrices, before, strict=True)]
    return all(moved) and all(back)


def assign(model):
    model.load_state_dict({k: t + 1 for k, t in model.state_dict().items()}, assign=True)


def swap(model):
    model[2] = nn.Linear(8, 5)


def new_parameter(model):
    model[0].weight = nn.Parameter(torch.randn(8, 6))


def add_layer(model):
    model.append(nn.Linear(2, 2))


def replacing_conversion(model):
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.double().float()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


CHANGES = [assign, swap, new_parameter, add_layer, replacing_conversion]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("steps", [0, 1])
def test_replaced_parameters_are_found_again(change, steps):
    model = net()
    method = WVAT(model, Gaussian(0.1), w_th=0.0)
    for _ in range(steps):
        assert perturbs_all(model, method)
    change(model)
    assert perturbs_all(model, method)
    assert all(any(w is p for p in model.parameters()) for w in method.weights.values())


def test_a_pruned_layer_is_read_anew():
    model = net()
    method = WVAT(model, Gaussian(0.1), w_th=0.0)
    perturbs_all(model, method)
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    seen = []
    model[0].register_forward_hook(lambda m, args, out: seen.append(m.weight.detach().clone()))
    method.backward(lambda: model(X).square().mean())
    masked = model[0].weight_mask == 0
    assert (seen[0][masked] == 0).all()
    assert not torch.equal(seen[0][~masked], model[0].weight_orig[~masked])


@pytest.mark.parametrize("kind", [lambda m: QAT(m, bits=4, activation_bits=4), ParameterAdversary])
def test_methods_that_know_layers_read_them_anew(kind):
    model = net()
    method = kind(model)

    def closure():
        output = model(X)
        return output.square().mean(), output

    method.backward(closure)
    swap(model)
    method.backward(closure)
    assert model[2].weight.grad is not None


def test_statistical_training_reads_its_layers_anew():
    model = net()
    method = Statistical(model, Gaussian(0.1))
    method.backward(lambda: model(X).square().mean())
    swap(model)
    method.backward(lambda: model(X).square().mean())
    assert model[2].weight.grad.shape == (5, 8)


def test_given_weights_that_are_replaced_raise():
    model = net()
    method = WVAT(model, Gaussian(0.1), weights={"first": model[0].weight})
    new_parameter(model)
    with pytest.raises(ValueError, match="weights 'first' are no parameters of the model any more"):
        method.backward(lambda: model(X).square().mean())


def test_parameters_replaced_within_a_step_raise():
    model = net()
    method = WVAT(model, Gaussian(0.1), w_th=0.0)

    def closure():
        loss = model(X).square().mean()
        new_parameter(model)
        return loss

    with pytest.raises(RuntimeError, match=r"'0.weight' were replaced within a step"):
        method.backward(closure)


def test_a_closure_over_a_copy_raises():
    model = net()
    twin = copy.deepcopy(model)
    method = WVAT(model, Gaussian(0.1), w_th=0.0)
    with pytest.raises(ValueError, match="no weight of the model got a gradient"):
        method.backward(lambda: twin(X).square().mean())
    method.backward(lambda: model(X).square().mean())  # and with gradients of an earlier step
    with pytest.raises(ValueError, match="no weight of the model got a gradient"):
        method.backward(lambda: twin(X).square().mean())


def test_weights_without_a_gradient_are_named_once():
    model = net()
    method = PerturbedGradient(model, HSV(Gaussian(0.1)))
    with pytest.warns(TrainingStalledWarning, match=r"weights '2.weight' got no gradient") as told:
        method.backward(lambda: model[0](X).square().mean())
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.backward(lambda: model[0](X).square().mean())


def test_frozen_weights_need_no_gradient():
    model = net()
    model[0].weight.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PerturbedGradient(model, GAV(Gaussian(0.1))).backward(lambda: model(X).square().mean())
        Plain(nn.ReLU()).backward(lambda: torch.ones((), requires_grad=True) * 1)


class Wrapper:
    """An optimizer around another, with a state of its own, as Lookahead and Fabric have it."""

    def __init__(self, optimizer, name):
        vars(self)[name] = optimizer
        self.param_groups = optimizer.param_groups
        self.state = {p: {"slow": p} for group in self.param_groups for p in group["params"]}


@pytest.mark.parametrize("name", ["optimizer", "optim", "_optimizer", "base_optimizer"])
def test_momentum_inside_wrappers_arrives(name):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    outer = Wrapper(Wrapper(optimizer, name), "optimizer")
    method = WVAT(model, Gaussian(0.1), worst=Momentum(outer), w_th=1.0)
    method.backward(lambda: model(X).square().mean())
    optimizer.step()
    assert perturbs_all(model, method)


def test_an_optimizer_whose_momentum_is_not_found_raises():
    model = net()

    class Odd(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"betas": (0.9, 0.99)})

        def step(self):
            for group in self.param_groups:
                for parameter in group["params"]:
                    self.state[parameter]["mean"] = torch.zeros_like(parameter)

    optimizer = Odd(model.parameters())
    method = WVAT(model, Gaussian(0.1), worst=Momentum(optimizer), w_th=1.0)
    method.backward(lambda: model(X).square().mean())
    optimizer.step()
    with pytest.raises(ValueError, match="Odd has made steps and keeps no momentum"):
        method.backward(lambda: model(X).square().mean())


def test_weights_without_momentum_are_named_once():
    model = net()
    optimizer = torch.optim.Adam(model[0].parameters(), lr=0.01)
    method = WVAT(model, Gaussian(0.1), worst=Momentum(optimizer), w_th=1.0)
    method.backward(lambda: model(X).square().mean())
    optimizer.step()
    with pytest.warns(TrainingStalledWarning, match=r"no momentum of weights '2.weight'"):
        method.backward(lambda: model(X).square().mean())


class Own(nn.Module):
    """A normalisation of the user's own."""

    def __init__(self, size, *, replaces):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.replaces = replaces

    def forward(self, x):
        if self.training:
            if self.replaces:
                self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            else:
                self.mean.data.mul_(0.9).add_(0.1 * x.detach().mean(0))
            self.count += 1
        return x - self.mean


@pytest.mark.parametrize("replaces", [False, True])
def test_statistics_of_the_users_own_change_once(replaces):
    model = nn.Sequential(nn.Linear(6, 8), Own(8, replaces=replaces), nn.Linear(8, 2))
    method = PerturbedGradient(model, GAV(Gaussian(0.0)))
    with torch.no_grad():
        once = 0.1 * model[0](X).mean(0)
    method.backward(lambda: model(X).square().mean())
    torch.testing.assert_close(model[1].mean, once)
    assert int(model[1].count) == 1
