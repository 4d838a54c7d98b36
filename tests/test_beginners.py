"""What people pass by mistake, and what they are told."""

from __future__ import annotations

import math

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from spikewvat import SWA, Evaluator
from spikewvat.devices import (
    AbsMax,
    BinaryCells,
    Fixed,
    Gaussian,
    Lognormal,
    RightCensored,
    SixSigma,
    Uniform,
    Weibull,
)
from spikewvat.perturbations import GAV, HSV, VariableNoise
from spikewvat.robustness import simulate_chips
from spikewvat.robustness.corruptions import Deletion, ReadNoise
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


def differentiated(net):
    loss = cross_entropy(net).square()
    loss.backward()
    return loss


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
        (lambda net: lambda: differentiated(net), RuntimeError, r"calls loss\.backward\(\) itself"),
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


@pytest.mark.parametrize("kind", [Gaussian, Uniform, Weibull, RightCensored])
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


def a_loader():
    return [(torch.randn(20, 3, generator=seeded(1)), torch.arange(20) % 2)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_an_evaluator_of_things_in_another_order():
    with pytest.raises(TypeError, match=r"Evaluator needs a model.*got list\. Pass the network"):
        Evaluator(a_loader(), network())
    for loader in (network(), nn.Sequential(network()), DEVICE, None, 0.1):
        with pytest.raises(TypeError, match=r"loader must yield batches.*model comes first"):
            Evaluator(network(), loader)
    with pytest.raises(TypeError, match=r"got Gaussian\. The model comes first, then the loader"):
        simulate_chips(network(), DEVICE, a_loader())
    with pytest.raises(TypeError, match=r"device must be.*got an object of list"):
        simulate_chips(network(), a_loader(), a_loader())


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda e: e.chips(0.1), TypeError, r"got 0\.1\. Write Gaussian\(sigma=0\.1\)"),
        (lambda e: e.chips(Gaussian), TypeError, r"the class Gaussian"),
        (lambda e: e.chips(DEVICE, target=90), ValueError, r"got 90\. Write 0\.95 for 95 %"),
        (lambda e: e.chips(DEVICE, target="90%"), ValueError, r"got '90%'\. Write 0\.95 for 95 %"),
        (lambda e: e.chips(DEVICE, chips=2.5), ValueError, r"whole number of at least 1, got 2\.5"),
        (lambda e: e.chips(DEVICE, chips=0), ValueError, r"whole number of at least 1, got 0"),
        (lambda e: e.chips(DEVICE, seed=0.5), TypeError, r"seed must be a whole number, got 0\.5"),
        (lambda e: e.chips(DEVICE, generator=0), TypeError, r"must be a torch\.Generator, got 0"),
        (lambda e: e.sweep(DEVICE, [0.1]), TypeError, r"device_at.*Pass Gaussian itself"),
        (lambda e: e.sweep(Gaussian, 0.1), TypeError, r"sigmas must be a list.*got 0\.1"),
        (lambda e: e.sweep(Gaussian, []), ValueError, r"no sigmas to sweep"),
        (lambda e: e.sweep(Gaussian, [0, 5]), ValueError, r"Write 0\.05 for 5 %"),
        (lambda e: e.corrupt(Deletion(0.1), [0]), TypeError, r"Pass Deletion itself"),
        (lambda e: e.corrupt(Deletion, 0.1), TypeError, r"severities must be a list"),
        (lambda e: e.landscape.lines(0.1), TypeError, r"device must be"),
        (lambda e: e.landscape.sharpness(0.1), TypeError, r"device must be"),
    ],
)
def test_questions_that_are_none(ask, error, message):
    with pytest.raises(error, match=message):
        ask(Evaluator(network(), a_loader()))


@pytest.mark.parametrize(
    "ask",
    [
        lambda e, **o: e.chips(Gaussian(0.3), **o),
        lambda e, **o: e.sweep(Gaussian, [0.1, 0.3], **o).reports[1],
        lambda e, **o: e.corrupt(ReadNoise, [0.05], device=Gaussian(0.3), **o).reports[0],
    ],
)
def test_a_generator_in_the_place_of_a_seed(ask):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), neuron.IFNode(v_threshold=0.2), nn.Linear(8, 2))
    test = Evaluator(net, a_loader(), time="network")
    expected = ask(test, chips=6, seed=0)
    assert len(set(expected.accuracies.tolist())) > 1
    for options in ({}, {"generator": seeded(0)}):
        found = ask(test, chips=6, **options)
        assert found.seeds == expected.seeds
        assert torch.equal(found.accuracies, expected.accuracies)
    generator = seeded(7)
    first, second = (ask(test, chips=3, generator=generator) for _ in range(2))
    together = ask(test, chips=6, seed=7)
    assert first.seeds + second.seeds == together.seeds
    with pytest.raises(ValueError, match=r"got seed=0 and a generator.*Leave one out"):
        ask(test, seed=0, generator=seeded(0))


def test_a_generator_for_chips_in_one_line():
    device = Gaussian(0.3)
    expected = simulate_chips(network(), a_loader(), device, chips=4, seed=0)
    found = simulate_chips(network(), a_loader(), device, chips=4, generator=seeded(0))
    assert found.seeds == expected.seeds == simulate_chips(network(), a_loader(), device).seeds[:4]
    assert torch.equal(found.accuracies, expected.accuracies)
