"""Perturbations against the worked examples and the literal equations."""

from __future__ import annotations

import math

import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import PERTURBATIONS

from spikewvat.devices import Gaussian, HalfWidth, SixSigma
from spikewvat.devices.base import norm_of
from spikewvat.perturbations import (
    ASAM,
    AWP,
    GAV,
    HSV,
    SAM,
    Gradient,
    Mixture,
    Momentum,
    Past,
    Perturbation,
    RandomLength,
    Sum,
    VariableNoise,
    Warmup,
    variation,
)
from spikewvat.perturbations.base import _adding_times
from spikewvat.weights import adding

W = [0.5, -0.3, 0.1, 0.9, -0.7, 0.2]
GAUSSIAN = Gaussian(0.1)
XI = [0.3, -1.2, 0.5, 0.1, -0.4, 2.0]
DELTA = [0.093193, -0.372773, 0.155322, 0.031064, -0.124258, 0.621289]
G = [0.2, -0.1, 0.4, 0.0, 0.1, -0.3]


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


class GivenNoise(Gaussian):
    """Gaussian variation whose draw is given: the worked example's xi."""

    def standard_noise(self, shape, *, dtype, generator=None):
        return f64(XI).reshape(shape)


def test_worked_hsv():
    delta = HSV(GivenNoise(sigma=0.1))({"w": f64(W)})["w"]
    torch.testing.assert_close(delta, f64(DELTA), atol=5e-7, rtol=0)
    assert float(delta.norm()) == pytest.approx(0.7577434, abs=5e-8)
    torch.testing.assert_close(delta, f64(reference.hsv(W, XI, sigma=0.1)), atol=1e-12, rtol=0)


def test_worked_hsv_at_half_the_width():
    half = HSV(GivenNoise(sigma=0.1, range=HalfWidth()))({"w": f64(W)})["w"]
    gamma = HSV(GivenNoise(sigma=0.1), gamma=0.5)({"w": f64(W)})["w"]
    torch.testing.assert_close(half, f64(DELTA) / 2, atol=5e-7, rtol=0)
    torch.testing.assert_close(gamma, half)


def test_worked_gav():
    direction = GAV(GivenNoise(sigma=0.1), alpha=0.1, draw_length=True)
    v = direction({"w": f64(W)}, {"w": f64(G)})["w"]
    expected = [0.027219, -0.013609, 0.054438, 0, 0.013609, -0.040828]
    torch.testing.assert_close(v, f64(expected), atol=5e-7, rtol=0)
    assert float(v.norm()) == pytest.approx(0.0757743, abs=5e-8)
    torch.testing.assert_close(
        v, f64(reference.gav(reference.hsv(W, XI, sigma=0.1), G, alpha=0.1)), atol=1e-12, rtol=0
    )


class GivenLengths(Gaussian):
    """A device whose draws have the lengths of the worked example."""

    def expected_norms(self, weights):
        return {"a": f64(1.0), "b": f64(2.0)}


def test_worked_gav_per_tensor_and_global():
    weights = {"a": f64([1.0, 1.0]), "b": f64([1.0, 1.0])}
    grads = {"a": f64([3.0, 4.0]), "b": f64([0.3, 0.4])}
    layerwise = GAV(GivenLengths(sigma=0.1), alpha=1.0)(weights, grads)
    glob = GAV(GivenLengths(sigma=0.1), alpha=1.0, per_tensor=False)(weights, grads)
    assert [float(v.norm()) for v in layerwise.values()] == pytest.approx([1.0, 2.0])
    assert [float(v.norm()) for v in glob.values()] == pytest.approx([2.224971, 0.222497], abs=5e-7)


def test_worked_sam_asam_awp():
    weights, grads = {"w": f64([1.0, 2.0])}, {"w": f64([3.0, 2.0])}
    sam = SAM(rho=0.05)(weights, grads)["w"]
    asam = ASAM(rho=0.5)(weights, grads)["w"]
    awp = AWP(kappa=0.01)(weights, grads)["w"]
    torch.testing.assert_close(sam, f64([0.041603, 0.027735]), atol=5e-7, rtol=0)
    torch.testing.assert_close(asam, f64([0.3, 0.8]), atol=1e-9, rtol=0)
    torch.testing.assert_close(awp, f64([0.018605, 0.012403]), atol=5e-7, rtol=0)
    curvature = f64([3.0, 1.0])
    torch.testing.assert_close(
        curvature * (weights["w"] + sam), f64([3.124808, 2.027735]), atol=5e-7, rtol=0
    )
    torch.testing.assert_close(
        curvature * (weights["w"] + awp), f64([3.055816, 2.012403]), atol=5e-7, rtol=0
    )


tensors = st.lists(st.floats(-3, 3).filter(lambda x: abs(x) > 1e-3), min_size=2, max_size=6)


@settings(max_examples=50, deadline=None)
@given(tensors, tensors, st.floats(0.001, 2), st.randoms())
def test_against_the_literal_equations(a, b, size, random):
    ga = [random.uniform(-1, 1) + 1e-3 for _ in a]
    gb = [random.uniform(-1, 1) + 1e-3 for _ in b]
    weights, grads = {"a": f64(a), "b": f64(b)}, {"a": f64(ga), "b": f64(gb)}
    sam = SAM(rho=size)(weights, grads)
    asam = ASAM(rho=size)(weights, grads)
    awp = AWP(kappa=size)(weights, grads)
    for key, index in (("a", 0), ("b", 1)):
        expected = reference.sam([ga, gb], rho=size)[index]
        torch.testing.assert_close(sam[key], f64(expected), atol=1e-9, rtol=1e-9)
        expected = reference.asam([a, b], [ga, gb], rho=size)[index]
        torch.testing.assert_close(asam[key], f64(expected), atol=1e-9, rtol=1e-9)
        expected = reference.awp([a, b][index], [ga, gb][index], kappa=size)
        torch.testing.assert_close(awp[key], f64(expected), atol=1e-9, rtol=1e-9)


def test_gav_climbs_to_first_order():
    """The loss rises by alpha ||Delta|| ||g|| for a small step."""
    w = torch.randn(40, dtype=torch.float64, requires_grad=True)
    loss = torch.sin(w).sum()
    (grad,) = torch.autograd.grad(loss, w)
    direction = GAV(Gaussian(sigma=0.1), alpha=1e-4)
    v = direction({"w": w}, {"w": grad})["w"]
    length = 1e-4 * float(Gaussian(sigma=0.1).expected_norms({"w": w})["w"])
    rise = float((torch.sin(w + v).sum() - loss).detach())
    assert rise == pytest.approx(length * float(grad.norm()), rel=1e-2)
    assert float(v.norm()) == pytest.approx(length, rel=1e-9)


@pytest.mark.parametrize("direction", PERTURBATIONS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_contract(direction, dtype):
    weights = {"a": torch.randn(4, 3).to(dtype), "b": torch.randn(6, 5).to(dtype).t()}
    grads = {name: torch.randn(w.shape).to(dtype) for name, w in weights.items()}
    before = {name: w.clone() for name, w in weights.items()}
    seeded = [
        direction(weights, grads, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1)
    ]
    assert list(seeded[0]) == list(weights)
    for name, w in weights.items():
        assert seeded[0][name].shape == w.shape
        assert seeded[0][name].dtype == dtype
        assert torch.equal(seeded[0][name], seeded[1][name])
        assert torch.equal(w, before[name])
        assert not seeded[0][name].requires_grad
        assert float(seeded[0][name].float().norm()) > 0


def moved(direction, device=GAUSSIAN):
    """Return weights whose optimizer has a momentum, their gradients, and the direction."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"a": (4, 3), "b": (9,)}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for weight in weights.values():
        weight.requires_grad_().grad = torch.randn(weight.shape, generator=generator)
    optimizer = torch.optim.SGD(weights.values(), lr=0.1, momentum=0.9)
    optimizer.step()
    grads = {name: torch.randn(w.shape, generator=generator) for name, w in weights.items()}
    made = direction if isinstance(direction, Perturbation) else direction(device, optimizer)
    made.note(grads)
    return weights, grads, made


def both(device, optimizer):
    """Return noise around the place ahead."""
    return Sum(HSV(device, 0.5), GAV(device, source=Momentum(optimizer)))


PLANNED_PERTURBATIONS = [
    *PERTURBATIONS,
    Sum(HSV(GAUSSIAN), GAV(GAUSSIAN)),
    RandomLength(HSV(GAUSSIAN)),
    VariableNoise(GAUSSIAN),
    GAV(GAUSSIAN, source=Past()),
    lambda device, optimizer: GAV(device, source=Momentum(optimizer)),
    lambda device, optimizer: SAM(0.3, Momentum(optimizer)),
    lambda device, optimizer: AWP(source=Momentum(optimizer)),
    both,
]


@pytest.mark.parametrize(
    "direction", PLANNED_PERTURBATIONS, ids=lambda d: getattr(d, "__name__", str(d))
)
def test_a_plan_adds_the_perturbation_that_the_weights_had(direction):
    weights, grads, direction = moved(direction)
    delta = direction(weights, grads, generator=torch.Generator().manual_seed(5))
    displace = direction.plan(weights, grads, generator=torch.Generator().manual_seed(5))
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    with torch.no_grad():
        for weight in weights.values():
            weight.mul_(3)  # by now others may have displaced them
        displace(weights)
    for name, weight in weights.items():
        expected = 3 * before[name] + delta[name]
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-6)
        assert float(delta[name].norm()) > 0


@pytest.mark.parametrize("kind", [HSV, GAV])
def test_what_a_subclass_adds_is_what_it_returns(kind):
    class Ones(kind):
        def plan(self, weights, grads=None, *, generator=None):
            return adding({name: torch.ones_like(weight) for name, weight in weights.items()})

    assert Ones(Gaussian(0.1))({"w": torch.zeros(3)})["w"].tolist() == [1.0] * 3
    with pytest.raises(
        TypeError, match="overrides '__call__', which Perturbation derives from plan"
    ):
        type("Twice", (kind,), {"__call__": lambda self, weights, grads=None: weights})


@pytest.mark.parametrize(
    "direction", [both, lambda device, optimizer: SAM(0.3, Momentum(optimizer))]
)
def test_an_optimizer_of_other_weights_is_refused(direction):
    weights, _, _ = moved(SAM())
    elsewhere = torch.optim.Adam([torch.zeros(3, requires_grad=True)])
    with pytest.raises(ValueError, match=r"holds none of the perturbed weights \('a', 'b'\)"):
        direction(GAUSSIAN, elsewhere)(weights)


def test_noise_and_the_place_ahead_measure_a_range_once():
    asked = []

    class Counting(SixSigma):
        def size(self, weight):
            asked.append(weight)
            return super().size(weight)

    weights, _, direction = moved(both, Gaussian(0.1, Counting()))
    direction(weights)
    assert [id(weight) for weight in asked] == [id(weight) for weight in weights.values()]
    with torch.no_grad():
        weights["a"].mul_(2)
    found = direction(weights, generator=torch.Generator().manual_seed(1))
    assert len(asked) == 4  # the next perturbation measures anew
    literal = both(GAUSSIAN, direction.second.source.optimizer)
    expected = literal(weights, generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(found[name], expected[name]) for name in weights)


def test_factors_that_stay_on_the_device_add_as_much():
    """As on a GPU, where nothing waits for a number."""
    grads = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor([math.inf, 1.0])}
    found = {name: torch.ones(2) for name in grads}
    _adding_times(grads, {"a": torch.tensor(0.5), "b": torch.tensor(0.0)})(found)
    assert found["a"].tolist() == [1.5, 0.0]
    assert found["b"].tolist() == [1.0, 1.0]  # a norm that is not finite


@pytest.mark.parametrize("shape", [(40,), (3, 5, 7), (2**20 + 3,)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 1e-15, 1e12])
def test_norms_are_the_literal_ones(shape, scale):
    torch.manual_seed(0)
    x = scale * torch.randn(shape)
    assert float(norm_of(x)) == pytest.approx(float(x.double().norm()), rel=2e-6)


@pytest.mark.parametrize(
    "direction",
    [d for d in PERTURBATIONS if d.needs_gradient and not isinstance(d, Mixture)],
    ids=repr,
)
def test_zero_and_non_finite_gradients_perturb_nothing(direction):
    weights = {"a": torch.randn(4, 3)}
    zero = direction(weights, {"a": torch.zeros(4, 3)})["a"]
    assert torch.equal(zero, torch.zeros(4, 3))
    for bad in (math.nan, math.inf):
        grads = {"a": torch.randn(4, 3).index_fill_(0, torch.tensor([1]), bad)}
        assert torch.equal(direction(weights, grads)["a"], torch.zeros(4, 3))


@pytest.mark.parametrize(
    "direction", [HSV(Gaussian(0.1)), GAV(Gaussian(0.1)), SAM(), ASAM(), AWP()]
)
def test_scale(direction):
    """Range- and weight-relative directions scale with the weights; SAM is absolute."""
    weights, grads = {"a": torch.randn(50, 4)}, {"a": torch.randn(50, 4)}
    one = direction(weights, grads, generator=torch.Generator().manual_seed(0))["a"]
    scaled = {"a": 4 * weights["a"]}
    four = direction(scaled, grads, generator=torch.Generator().manual_seed(0))["a"]
    factor = 1 if isinstance(direction, SAM) else 4
    torch.testing.assert_close(four, factor * one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("mix", "gamma", "alpha"), [("either", 1.0, 0.03), ("both", 0.5, 0.1)])
def test_the_default_strength_depends_on_the_mix(mix, gamma, alpha):
    assert variation(GAUSSIAN, mix=mix) == variation(GAUSSIAN, mix=mix, gamma=gamma, alpha=alpha)
    noise, worst = variation(GAUSSIAN, mix=mix, gamma=0.0).parts
    assert (noise.gamma, worst.gamma, worst.alpha) == (0.0, 0.0, alpha)


def test_mixture_ends_and_share():
    noise, ascent = HSV(Gaussian(0.1)), AWP()
    generator = torch.Generator().manual_seed(0)
    for w_th, expected in ((0.0, noise), (1.0, ascent)):
        mixture = Mixture(noise, ascent, w_th)
        assert all(mixture.pick(generator=generator) is expected for _ in range(200))
    picks = [Mixture(noise, ascent, 0.3).pick(generator=generator) is ascent for _ in range(4000)]
    assert sum(picks) / 4000 == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 4000))
    assert not Mixture(noise, ascent, 0.0).needs_gradient
    assert Mixture(noise, ascent, 0.1).needs_gradient


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: HSV(Gaussian(0.1), gamma=-1),
            "gamma must be a finite number of at least 0, got -1",
        ),
        (lambda: GAV(Gaussian(0.1), alpha=math.nan), "alpha must be .* got nan"),
        (lambda: GAV(Gaussian(0.1), gamma=math.inf), "gamma must be .* got inf"),
        (lambda: SAM(rho=-0.1), "rho must be .* got -0.1"),
        (lambda: ASAM(rho=math.nan), "rho must be .* got nan"),
        (lambda: AWP(kappa=-1), "kappa must be .* got -1"),
        (lambda: Mixture(SAM(), SAM(), 1.5), "w_th must lie between 0 and 1, got 1.5"),
        (lambda: SAM(source="momentum"), "source must be a source .* Past\\(\\), got 'momentum'"),
        (lambda: GAV(Gaussian(0.1), source=Gradient), "source must be a source .* got <class"),
        (lambda: variation(Gaussian(0.1), w_th=2), "w_th must lie between 0 and 1, got 2"),
        (
            lambda: variation(Gaussian(0.1), w_th=0.3, mix="both"),
            "w_th = 0.3 has no meaning with mix='both'.* Leave w_th out",
        ),
        (lambda: Warmup(SAM(), 0), "steps must be .* at least 1, got 0"),
    ],
)
def test_impossible_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_missing_gradients():
    with pytest.raises(
        ValueError, match="SAM needs the gradients of an unperturbed pass, got none"
    ):
        SAM()({"w": torch.ones(2)})
    with pytest.raises(ValueError, match="grads has no entry for weight 'w'"):
        SAM()({"w": torch.ones(2)}, {})
