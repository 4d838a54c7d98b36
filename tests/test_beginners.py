"""What people pass by mistake, and what they are told."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from spikewvat import SWA
from spikewvat.devices import (
    AbsMax,
    BinaryCells,
    Fixed,
    Gaussian,
    GaussianTable,
    Lognormal,
    RightCensored,
    SixSigma,
    Uniform,
    Weibull,
)
from spikewvat.perturbations import GAV, HSV, VariableNoise
from spikewvat.training import WVAT, PerturbedGradient, Plain
from spikewvat.training.methods import ParameterAdversary, RandomPerturbation, Statistical, Vortex

DEVICE = Gaussian(sigma=0.1)
X, Y = torch.ones(4, 3), torch.tensor([0, 1, 0, 1])


def network():
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def cross_entropy(net):
    return nn.functional.cross_entropy(net(X), Y)


METHODS = [
    WVAT,
    RandomPerturbation,
    Statistical,
    Vortex,
    lambda net, d: PerturbedGradient(net, HSV(d)),
]


class Output(dict):
    """What transformers return."""

    loss = torch.tensor(1.0)


@pytest.mark.parametrize(
    ("closure", "error", "message"),
    [
        (lambda net: cross_entropy(net), TypeError, r"got a tensor.*Write wvat\.backward\(lambda"),
        (lambda net: net, TypeError, r"a function without arguments.*got a Linear"),
        (lambda net: 3.0, TypeError, r"a function without arguments.*got a float"),
        (lambda net: lambda: None, TypeError, r"returned None, expected the loss.*return loss"),
        (lambda net: lambda: [cross_entropy(net)], TypeError, r"returned a list"),
        (lambda net: lambda: cross_entropy(net).item(), TypeError, r"a float.*not loss\.item\(\)"),
        (lambda net: lambda: Output(), TypeError, r"an Output, expected.*Return its \.loss"),
        (lambda net: lambda: (None, X), TypeError, r"returned None"),
        (lambda net: lambda: (cross_entropy(net), X, Y), TypeError, r"a tuple of 3"),
        (lambda net: lambda: (net(X), cross_entropy(net)), ValueError, r"\[4, 2\].*this order"),
        (lambda net: lambda: net(X), ValueError, r"shape \[4, 2\], expected one number"),
        (lambda net: lambda: cross_entropy(net).detach(), ValueError, r"without a graph"),
        (lambda net: lambda: torch.tensor(1.0), ValueError, r"without a graph"),
    ],
)
@pytest.mark.parametrize("method", [WVAT, Plain])
def test_closures_that_are_none(method, closure, error, message):
    net = network()
    before = net.weight.detach().clone()
    training = method(net) if method is Plain else method(net, DEVICE, warn_after=None)
    with pytest.raises(error, match=message):
        training.backward(closure(net))
    assert torch.equal(net.weight, before)
    training.backward(lambda: cross_entropy(net))  # and the method goes on


def test_other_losses_than_scalars_of_no_dimension():
    net = network()
    loss = Plain(net).backward(lambda: cross_entropy(net).reshape(1))
    assert loss.shape == (1,)
    assert net.weight.grad is not None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_switched_off_outside(mode):
    net = network()
    with mode(), pytest.raises(RuntimeError, match=rf"WVAT.*within torch\.{mode.__name__}\(\)"):
        WVAT(net, DEVICE).backward(lambda: cross_entropy(net))


def test_methods_that_look_at_the_output_without_gradients():
    net = network()

    def closure():
        output = net(X)
        return nn.functional.cross_entropy(output, Y), output

    assert math.isfinite(float(ParameterAdversary(net).backward(closure)))


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize(
    ("device", "message"),
    [
        (0.1, r"got 0\.1\. Write Gaussian\(sigma=0\.1\)"),
        (Gaussian, r"got the class Gaussian\. Write Gaussian\(\.\.\.\)"),
        ("cuda", r"got 'cuda'.*not where tensors are"),
        (torch.device("cpu"), r"not where tensors are"),
        (None, r"got none\. Write Gaussian\(sigma=0\.1\) for noise of 10 %"),
        ([DEVICE], r"got an object of list"),
        (network(), r"got the network Linear\. The network comes first"),
    ],
)
def test_devices_that_are_none(make, device, message):
    with pytest.raises(TypeError, match=rf"device must be a device model.*{message}"):
        make(network(), device)


def test_no_device():
    with pytest.raises(TypeError, match=r"device must be a device model.*got none"):
        WVAT(network())


@pytest.mark.parametrize("perturbation", [HSV, GAV, VariableNoise])
def test_perturbations_of_no_device(perturbation):
    with pytest.raises(TypeError, match=r"device must be a device model"):
        perturbation(0.1)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: torch.optim.SGD(network().parameters(), 0.1), r"got the optimizer SGD\. Pass the"),
        (lambda: nn.Linear, r"got the class Linear\. Make a network of it: Linear\(\.\.\.\)"),
        (lambda: network().parameters(), r"got generator\. Pass the network itself"),
        (lambda: None, r"got NoneType"),
    ],
)
@pytest.mark.parametrize(
    "make", [lambda m: WVAT(m, DEVICE), Plain, lambda m: RandomPerturbation(m, DEVICE)]
)
def test_models_that_are_none(make, model, message):
    with pytest.raises(TypeError, match=rf"needs a model, a torch\.nn\.Module, {message}"):
        make(model())


def test_arguments_in_the_other_order():
    with pytest.raises(TypeError, match=r"The network comes first"):
        WVAT(DEVICE, network())


@pytest.mark.parametrize("kind", [Gaussian, Uniform, Weibull, RightCensored, GaussianTable])
def test_a_forgotten_per_cent_sign(kind):
    with pytest.raises(ValueError, match=r"at most 1, got 10.*Write 0\.1 for 10 %.*Fixed"):
        kind(sigma=10)
    with pytest.raises(ValueError, match=r"Write 0\.025 for 2\.5 %"):
        kind(sigma=2.5)
    assert kind(sigma=1).sigma == 1


def test_other_devices_have_limits_of_their_own():
    with pytest.raises(ValueError, match=r"at most 3, got 10.*Write 0\.1 for 10 %"):
        Lognormal(sigma=10)
    assert Lognormal(sigma=1.5).sigma == 1.5
    with pytest.raises(ValueError, match=r"Write 0\.05 for 5 %"):
        BinaryCells(sigma=5)


class StandardDeviation:
    """A range rule of a user's own, much smaller than the layer's weights are wide."""

    def size(self, weight):
        return weight.std()

    def bounds(self, weight):
        return weight.mean() - weight.std(), weight.mean() + weight.std()


def test_more_than_a_range_is_said_by_a_wider_one():
    weights = {"fc": torch.zeros(100_000)}
    with pytest.raises(ValueError, match=r"Fixed"):
        Gaussian(3, Fixed(-0.5, 0.5))
    wide = Gaussian(1, Fixed(-1.5, 1.5)).program(weights)["fc"]
    assert float(wide.std()) == pytest.approx(3, rel=0.02)
    for rule in (SixSigma(), AbsMax(per_channel=True)):
        with pytest.raises(ValueError, match=r"at most 1"):
            Gaussian(1.5, rule)
    weights = {"fc": torch.randn(100_000)}
    own = Gaussian(1.5, StandardDeviation()).program(weights)["fc"] - weights["fc"]
    assert float(own.std()) == pytest.approx(1.5, rel=0.02)


class Module(nn.Module):
    """What of Lightning's module is looked at."""

    automatic_optimization = True

    def __init__(self, trainer):
        super().__init__()
        self.net, self._trainer = network(), trainer

    def own_method(self):
        return cross_entropy(self.net)


@pytest.mark.parametrize(
    ("model", "closure"),
    [
        (lambda m: m.net, lambda m: lambda: cross_entropy(m.net)),
        (lambda m: m.net, lambda m: m.own_method),
        (lambda m: m, lambda m: lambda n=m.net: cross_entropy(n)),
    ],
)
def test_lightnings_automatic_optimisation(model, closure):
    module = Module(trainer=object())
    wvat = WVAT(model(module), DEVICE)
    with pytest.raises(RuntimeError, match=r"automatic_optimization = False.*manual_backward"):
        wvat.backward(closure(module))
    module.automatic_optimization = False
    wvat.backward(closure(module))
    alone = Module(trainer=None)
    WVAT(model(alone), DEVICE).backward(closure(alone))


def test_averaging_of_no_model():
    with pytest.raises(TypeError, match=r"SWA needs a model"):
        SWA(torch.optim.SGD(network().parameters(), 0.1))
