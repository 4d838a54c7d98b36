"""Vortex and statistical training: literal references, worked examples, spiking networks."""

from __future__ import annotations

import math

import pytest
import reference_methods as literal
import snntorch as snn
import torch
from model_cases import Stepwise
from test_methods_reference import X, Y, expected, net, same, trained
from torch import nn

from spikewvat.devices import Gaussian, HalfWidth, Lognormal, Quantized
from spikewvat.errors import UnsupportedModelError
from spikewvat.lab.models.spikingjelly import SpikingCNN
from spikewvat.training.methods import Statistical, Vortex
from spikewvat.training.methods.moments import chain_of, moderated, relu, through
from spikewvat.training.methods.synapses import synaptic_layers
from spikewvat.training.methods.vortex import confidence_radius


def lognormal(s):
    """Mean and variance of w e^theta, from the definition."""
    return lambda w: (
        w * math.exp(s**2 / 2),
        w.square() * math.exp(s**2) * (math.exp(s**2) - 1),
    )


@pytest.mark.parametrize("rho", [1.0, 2.5])
def test_vortex(rho):
    variance = lognormal(0.3)
    same(
        trained(lambda model, _: Vortex(model, Lognormal(0.3), strength=0.7, rho=rho)),
        expected(lambda step, w, m: literal.vortex(w, lambda v: variance(v)[1], 0.7, rho, X, Y)),
    )


def test_worked_vortex():
    """The deviation at 90 % of three inputs with lognormal errors, to first order in their width.

    The numbers are x = (1, .5, -2), w = (.2, -.4, .1), s = .1.
    """
    assert confidence_radius(3, 0.9) == pytest.approx(2.500278, abs=1e-6)

    class FirstOrder(Lognormal):
        def moments(self, weights):
            return {name: (w, (self.sigma * w).square()) for name, w in weights.items()}

    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.2, -0.4, 0.1]]))
    x = torch.tensor([[1.0, 0.5, -2.0]], dtype=torch.float64)
    vortex = Vortex(model, FirstOrder(0.1), strength=1.0, confidence=0.9)
    worse = vortex.backward(lambda: model(x).sum())
    assert float(worse) - float(model(x).detach()) == pytest.approx(0.0866122, abs=1e-6)


@pytest.mark.parametrize("inputs", [1, 30, 784])
@pytest.mark.parametrize("confidence", [0.01, 0.5, 0.9, 0.999])
def test_confidence_radius_is_that_of_draws(inputs, confidence):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randn(4000, inputs, generator=generator).norm(dim=1)
    share = float((lengths <= confidence_radius(inputs, confidence)).float().mean())
    assert share == pytest.approx(confidence, abs=4 * math.sqrt(0.25 / 4000))


def test_deviations_add_up_over_time():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    model = Stepwise(layer)
    x = torch.rand(5, 4, 3)
    device = Gaussian(0.1)
    worse = Vortex(model, device, strength=1.0).backward(lambda: model(x).sum())
    variance = device.moments({"w": layer.weight.detach()})["w"][1]
    deviation = (x.square() @ variance.T).sqrt().sum()
    assert float(worse) == pytest.approx(float((model(x).sum() + deviation).detach()), rel=1e-5)


def test_vortex_takes_the_layer_that_runs_last():
    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.readout = nn.Linear(4, 2)
            self.hidden = nn.Linear(3, 4)

        def forward(self, x):
            return self.readout(self.hidden(x).relu())

    model, x = Reversed(), torch.rand(5, 3)
    last, signs = Vortex(model, Gaussian(0.1))._signs(lambda: -model(x).sum())
    assert last is model.readout
    assert len(signs) == 1
    assert torch.equal(signs[0], -torch.ones(5, 2))


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_statistical_training(penalty):
    same(
        trained(lambda model, _: Statistical(model, Lognormal(0.3), variance_penalty=penalty)),
        expected(lambda step, w, m: literal.statistical(w, lognormal(0.3), penalty, X, Y)),
    )


def test_statistical_training_by_samples(monkeypatch):
    generator = torch.Generator().manual_seed(7)
    draws = {
        "0.weight": torch.randn(6, 5, dtype=torch.float64, generator=generator),
        "2.weight": torch.randn(6, 3, dtype=torch.float64, generator=generator),
    }
    monkeypatch.setattr(
        Statistical,
        "_draw",
        lambda self, shape, like: next(d for d in draws.values() if d.shape == shape),
    )
    same(
        trained(lambda model, _: Statistical(model, Lognormal(0.3), form="sampled")),
        expected(lambda step, w, m: literal.sampled(w, lognormal(0.3), draws, X, Y)),
    )


def test_worked_moments():
    mean, variance = relu(
        torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64)
    )
    assert float(mean) == pytest.approx(0.384336366, abs=1e-9)
    assert float(variance) == pytest.approx(0.149023188, abs=1e-9)
    layer = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.2, -0.4, 0.1]]))
    moments = Lognormal(0.1).moments({"weight": layer.weight})
    x = torch.tensor([[1.0, 0.5, -2.0]], dtype=torch.float64)
    mean, variance = through([layer], x, moments, {layer: "weight"})
    assert float(mean.detach()) == pytest.approx(-0.201002504, abs=1e-8)
    assert float(variance.detach()) == pytest.approx(0.001218141, abs=1e-8)


def test_moments_are_those_of_many_chips():
    """Of a net of two layers under Gaussian variation, where nothing is approximated."""
    model, device = net(), Gaussian(0.15, HalfWidth())
    names = synaptic_layers(model, dict(model.named_parameters()))
    weights = {name: w.detach() for name, w in model.named_parameters()}
    mean, variance = through(chain_of(model), X, device.moments(weights), names)
    generator = torch.Generator().manual_seed(0)
    chips = torch.stack(
        [literal.scores(device.program(weights, generator=generator), X) for _ in range(20_000)]
    )
    tolerance = 5 * (variance / 20_000).sqrt()
    assert bool(((chips.mean(0) - mean).abs() < tolerance).all())
    torch.testing.assert_close(chips.var(0), variance, rtol=0.06, atol=1e-6)
    softmax = torch.softmax(chips, 2).mean(0)
    torch.testing.assert_close(
        torch.softmax(moderated(mean, variance), 1), softmax, atol=0.01, rtol=0
    )


def matrix_of(layer, shape):
    """A linear map on images as a matrix."""
    size = math.prod(shape)
    columns = layer(torch.eye(size, dtype=torch.float64).reshape(size, *shape)).flatten(1)
    return columns.T.detach()


def test_moments_through_convolutions_and_pools():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.ReLU()),
        nn.AvgPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(12, 4, bias=False),
    ).double()
    model.eval()
    device = Gaussian(0.1)
    weights = dict(model.named_parameters())
    moments = device.moments(weights)
    x = torch.randn(5, 2, 4, 4, dtype=torch.float64)
    mean, variance = through(chain_of(model), x, moments, synaptic_layers(model, weights))

    conv, spread = model[0][0], nn.Conv2d(2, 3, 3, padding=1, bias=False).double()
    with torch.no_grad():
        spread.weight.copy_(moments["0.0.weight"][1])
    pool = matrix_of(nn.AvgPool2d(2), (3, 4, 4))
    layers = [
        (matrix_of(conv, (2, 4, 4)), matrix_of(spread, (2, 4, 4))),
        "relu",
        (pool, torch.zeros_like(pool)),  # an average of independent values
        moments["4.weight"],
    ]
    expected_mean, expected_variance = literal.propagated(layers, x.flatten(1))
    torch.testing.assert_close(mean, expected_mean)
    torch.testing.assert_close(variance, expected_variance)


def test_dropout_silences_mean_and_variance_alike():
    model = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5))
    moments = Gaussian(0.1).moments({"0.weight": model[0].weight})
    mean, variance = through(chain_of(model), torch.ones(2, 3), moments, {model[0]: "0.weight"})
    assert torch.equal(mean == 0, variance == 0)
    assert 20 < int((mean == 0).sum()) < 80


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(3, 4), nn.Sigmoid()),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.AvgPool2d(3, padding=1)),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)),
        Stepwise(nn.Linear(3, 4)),
    ],
    ids=["sigmoid", "max-pool", "padded-pool", "batch-norm", "stepwise"],
)
def test_other_networks_are_sampled(model):
    assert Statistical(model, Gaussian(0.1)).form == "sampled"
    with pytest.raises(UnsupportedModelError, match=r"is no sequence .* Pass form='sampled'"):
        Statistical(model, Gaussian(0.1), form="analytic")


def test_a_chips_errors_last_over_time_steps():
    """Equal inputs make equal outputs in all steps, of a loop over time and of a whole train."""
    torch.manual_seed(0)
    x = torch.rand(1, 4, 3).expand(5, 4, 3)
    for model in (Stepwise(nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 2))):
        seen = []

        def closure(model=model, seen=seen):
            seen.append(model(x))
            return seen[-1].sum()

        Statistical(model, Gaussian(0.5), form="sampled").backward(closure)
        assert torch.equal(seen[0], seen[0][:1].expand_as(seen[0]))
        assert not torch.allclose(seen[0], model(x))


def test_samples_spread_as_chips_do():
    torch.manual_seed(0)
    layer, device = nn.Linear(20, 10, bias=False), Gaussian(0.1)
    model, x = nn.Sequential(layer), torch.rand(1, 20).expand(3000, 20)
    seen = []

    def closure():
        seen.append(model(x).detach())
        return model(x).sum()

    Statistical(model, device, form="sampled").backward(closure)
    generator = torch.Generator().manual_seed(0)
    chips = [
        x[0] @ device.program({"w": layer.weight}, generator=generator)["w"].detach().T
        for _ in range(3000)
    ]
    torch.testing.assert_close(seen[0].std(0), torch.stack(chips).std(0), rtol=0.08, atol=0)


def test_the_model_is_itself_again():
    model = net()
    forward = model.forward
    for form in ("analytic", "sampled"):
        with pytest.raises(RuntimeError):
            Statistical(model, Gaussian(0.1), form=form).backward(lambda: model(torch.ones(2, 7)))
        assert model.forward == forward
        assert not any(module._forward_hooks for module in model.modules())


def test_one_layer_is_a_chain():
    inputs, layer = torch.rand(4, 3), nn.Linear(3, 2)
    alone, chained = layer, nn.Sequential(layer)
    grads = []
    for model in (alone, chained):
        model.zero_grad()
        Statistical(model, Gaussian(0.1)).backward(lambda: model(inputs).square().mean())
        grads.append(layer.weight.grad.clone())
    assert torch.equal(*grads)


def test_spiking_convolutions_are_sampled():
    model = SpikingCNN(
        input_shape=(2, 8, 8), channels=(3, 4), kernel_size=3, classes=4, threshold=0.1
    )
    x = (torch.rand(4, 2, 2, 8, 8) < 0.5).float()
    for method in (Statistical(model, Gaussian(0.1)), Vortex(model, Gaussian(0.1))):
        model.zero_grad()
        method.backward(lambda: model(x).square().mean())
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


RECURRENT = Stepwise(
    nn.Linear(3, 4),
    snn.RLeaky(beta=0.9, threshold=0.3, V=0.5, all_to_all=False, init_hidden=True),
)


@pytest.mark.parametrize("kind", [Statistical, Vortex])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Stepwise(nn.LSTM(3, 4)), r"weight 'layers.0.weight_ih_l0' belongs to LSTM, expected"),
        (RECURRENT, r"weight 'layers.1.V' belongs to RecurrentOneToOne, expected a linear"),
    ],
    ids=["lstm", "one-to-one"],
)
def test_synapses_elsewhere(kind, model, message):
    with pytest.raises(UnsupportedModelError, match=message):
        kind(model, Gaussian(0.1))


@pytest.mark.parametrize("kind", [Statistical, Vortex])
def test_devices_without_moments(kind):
    with pytest.raises(ValueError, match=r"mean and variance are known, got Quantized"):
        kind(net(), Quantized(4))


@pytest.mark.parametrize("kind", [Statistical, Vortex])
def test_a_closure_that_calls_another_model(kind):
    model, other = net(), net()
    with pytest.raises(UnsupportedModelError, match="the closure never called"):
        kind(model, Gaussian(0.1)).backward(lambda: other(X).sum())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Vortex(m, Gaussian(0.1), strength=2), "strength must lie between 0 and 1"),
        (lambda m: Vortex(m, Gaussian(0.1), rho=-1), "rho must be .* got -1"),
        (lambda m: Vortex(m, Gaussian(0.1), confidence=1.0), "confidence must lie .* got 1.0"),
        (lambda m: Statistical(m, Gaussian(0.1), form="exact"), "form must be .* got 'exact'"),
        (lambda m: Statistical(m, Gaussian(0.1), variance_penalty=-1), "variance_penalty must be"),
    ],
)
def test_impossible_values(make, message):
    with pytest.raises(ValueError, match=message):
        make(net())
