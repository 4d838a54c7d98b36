"""Every method's update against its literal reference on a small net, and worked examples."""

from __future__ import annotations

import math

import pytest
import reference
import reference_methods as literal
import torch
from torch import nn

from spikewvat.devices import AbsMax, BinaryCells, DeviceModel, Gaussian, Quantized, RightCensored
from spikewvat.errors import UnsupportedModelError
from spikewvat.perturbations import (
    GAV,
    HSV,
    SAM,
    SAMSON,
    LayerFactors,
    Mixture,
    Momentum,
    Past,
    RandomLayers,
    RandomLength,
    Sum,
    VariableNoise,
    Warmup,
    variation,
)
from spikewvat.training import WVAT, PerturbedGradient
from spikewvat.training.methods import (
    QAT,
    Distillation,
    NegativeFeedback,
    NoiseInjection,
    ParameterAdversary,
    RandomPerturbation,
    StraightThrough,
    Vortex,
)

LR, STEPS = 0.2, 4


def net():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False))
    return model.double()


X = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
Y = torch.tensor([0, 1, 2, 0, 1, 2])
G = torch.Generator().manual_seed(3)
DRAW = {
    "0.weight": 0.1 * torch.randn(5, 3, dtype=torch.float64, generator=G),
    "2.weight": 0.1 * torch.randn(3, 5, dtype=torch.float64, generator=G),
}


class Given(DeviceModel):
    """A device whose draw is given, in proportion to the weights' norm."""

    def program(self, weights, *, generator=None):
        return {name: w.detach() + DRAW[name] * w.detach().norm() for name, w in weights.items()}


def draw(w):
    return {name: DRAW[name] * w[name].norm() for name in w}


def trained(make, *, momentum=0.9, steps=STEPS):
    """Train by a method in a loop as a user writes it; return the weights."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=momentum)
    method = make(model, optimizer)

    def closure():
        output = model(X)
        return nn.functional.cross_entropy(output, Y), output

    for _ in range(steps):
        optimizer.zero_grad()
        method.backward(closure)
        optimizer.step()
        method.after_step()
    return {name: weight.detach() for name, weight in model.named_parameters()}


def expected(grads_of, *, momentum=0.9, steps=STEPS, **options):
    start = {name: weight.detach() for name, weight in net().named_parameters()}
    return literal.sgd(start, grads_of, steps=steps, lr=LR, momentum=momentum, **options)


def same(one, two):
    for name in two:
        torch.testing.assert_close(one[name], two[name], rtol=1e-10, atol=1e-12)


def grad(w):
    return literal.gradient(lambda v: literal.loss(v, X, Y), w)


def lengths(v, factor):
    return {name: factor * v[name].norm() for name in v}


def perturbed(direction):
    return lambda model, optimizer: PerturbedGradient(model, direction)


def test_hsv_and_gav():
    same(
        trained(perturbed(HSV(Given(), gamma=0.5))),
        expected(lambda step, w, m: grad(literal.plus(w, draw(w), 0.5))),
    )
    same(
        trained(perturbed(GAV(Given(), gamma=0.5, alpha=0.4))),
        expected(
            lambda step, w, m: grad(
                literal.plus(w, literal.along(grad(w), lengths(draw(w), 0.5 * 0.4)))
            )
        ),
    )


@pytest.mark.parametrize(("sign", "factor"), [("ahead", -1), ("back", 1)])
@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_momentum_variation(sign, factor, gamma):
    def grads_of(step, w, m):
        if m is None:
            return grad(w)
        v = literal.along(m, lengths(draw(w), gamma * 0.4))
        return grad(literal.plus(w, v, factor))

    def make(model, optimizer):
        return PerturbedGradient(model, GAV(Given(), gamma, 0.4, Momentum(optimizer, sign)))

    same(trained(make), expected(grads_of))


@pytest.mark.parametrize(("sign", "factor"), [("ahead", -1), ("back", 1)])
def test_momentum_sam(sign, factor):
    def grads_of(step, w, m):
        if m is None:
            return grad(w)
        total = math.sqrt(sum(float(buffer.square().sum()) for buffer in m.values()))
        return grad(literal.plus(w, m, factor * 0.3 / total))

    def make(model, optimizer):
        return PerturbedGradient(model, SAM(0.3, Momentum(optimizer, sign)))

    same(trained(make), expected(grads_of))


def test_momentum_ahead_is_where_the_next_step_goes():
    """The published sign: as far along as momentum carries anyway, it is Nesterov's gradient."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    direction = SAM(1.0, Momentum(optimizer))
    nn.functional.cross_entropy(model(X), Y).backward()
    before = {name: w.detach().clone() for name, w in model.named_parameters()}
    optimizer.step()
    step = torch.cat(
        [(w.detach() - before[name]).flatten() for name, w in model.named_parameters()]
    )
    v = torch.cat([d.flatten() for d in direction(dict(model.named_parameters())).values()])
    assert float(torch.dot(v, step) / step.norm()) == pytest.approx(1.0)


class Fixed(DeviceModel):
    """A device whose draw has one length, whatever the weights are."""

    def program(self, weights, *, generator=None):
        return {name: w.detach() + 0.01 for name, w in weights.items()}


def on_a_quadratic(sign, *, curvature, lr=0.01, beta=0.9, steps=2000):
    """Return the mean magnitude of the momentum, once it no longer changes, over that of v."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=beta)
    method = PerturbedGradient(
        model, GAV(Fixed(), alpha=1.0, source=Momentum(optimizer, sign)), warn_after=None
    )
    seen = []
    for step in range(steps):
        optimizer.zero_grad()
        method.backward(lambda: curvature / 2 * model.weight.square().sum())
        optimizer.step()
        if step >= steps - 1000:
            seen.append(float(optimizer.state[model.weight]["momentum_buffer"].abs()))
    return sum(seen) / len(seen) / 0.01


@pytest.mark.parametrize("curvature", [5.0, 50.0])
def test_the_sign_of_momentum_on_a_quadratic(curvature):
    """Ahead settles where the docs say; back keeps a momentum of about 1 / (1 - beta)."""
    beta, lr = 0.9, 0.01
    ahead = on_a_quadratic("ahead", curvature=curvature)
    assert ahead == pytest.approx(2 * curvature / (2 * (1 + beta) - lr * curvature), rel=1e-6)
    back = on_a_quadratic("back", curvature=curvature)
    assert 0.7 < back / (curvature / (1 - beta)) < 1


def test_wvat_by_momentum():
    """w_th = 1 perturbs along the momentum alone, and never takes a second pass."""
    one = trained(
        lambda model, optimizer: WVAT(
            model, Given(), w_th=1.0, gamma=1.0, alpha=0.4, worst=Momentum(optimizer)
        )
    )
    two = trained(
        lambda model, optimizer: PerturbedGradient(
            model, GAV(Given(), alpha=0.4, source=Momentum(optimizer))
        )
    )
    same(one, two)


def test_adams_running_average_is_followed():
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    direction = GAV(Given(), alpha=0.4, source=Momentum(optimizer))
    weights = dict(model.named_parameters())
    assert all(float(v.abs().sum()) == 0 for v in direction(weights).values())
    nn.functional.cross_entropy(model(X), Y).backward()
    grads = {name: w.grad.clone() for name, w in weights.items()}
    optimizer.step()
    v = direction(weights)
    plain = {name: w.detach() for name, w in weights.items()}
    same(v, literal.along({n: -g for n, g in grads.items()}, lengths(draw(plain), 0.4)))


@pytest.mark.parametrize("decay", [0.0, 0.6])
@pytest.mark.parametrize(("sign", "factor"), [("ahead", -1), ("back", 1)])
def test_past_variation(sign, factor, decay):
    average = {}

    def grads_of(step, w, m):
        v = literal.along(average, lengths(draw(w), 0.5 * 0.4)) if average else None
        g = grad(w) if v is None else grad(literal.plus(w, v, factor))
        for name in g:
            old = average.get(name, g[name])
            average[name] = decay * old + (1 - decay) * g[name]
        return g

    same(
        trained(perturbed(GAV(Given(), 0.5, 0.4, Past(decay, sign)))),
        expected(grads_of),
    )


def test_a_past_gradient_that_is_not_finite_is_left_out():
    direction = GAV(Given(), source=Past(decay=0.5))
    weights = {name: w.detach() for name, w in net().named_parameters()}
    direction.note({name: torch.ones_like(w) for name, w in weights.items()})
    before = direction(weights)
    direction.note({name: torch.full_like(w, math.nan) for name, w in weights.items()})
    same(direction(weights), before)


def test_both_at_once():
    def grads_of(step, w, m):
        there = literal.plus(w, draw(w), 0.5)
        if m is not None:
            v = literal.along(m, lengths(draw(w), 0.5 * 0.4))
            there = literal.plus(there, v, -1)
        return grad(there)

    same(
        trained(
            lambda model, optimizer: WVAT(
                model, Given(), gamma=0.5, alpha=0.4, mix="both",
                worst=Momentum(optimizer),
            )
        ),
        expected(grads_of),
    )  # fmt: skip


def test_warmup_and_random_length():
    def ramped(step, w, m):
        return grad(literal.plus(w, draw(w), 0.5 * min(1, (step + 1) / 3)))

    def make(model, optimizer):
        return PerturbedGradient(model, Warmup(variation(Given(), w_th=0.0, gamma=0.5), 3))

    same(trained(make), expected(ramped))

    w = {name: weight.detach() for name, weight in net().named_parameters()}
    x = float(torch.rand((), generator=torch.Generator().manual_seed(5)))
    delta = RandomLength(HSV(Given()), spread=0.4)(w, generator=torch.Generator().manual_seed(5))
    same(delta, {name: (1 + 0.4 * (2 * x - 1)) * d for name, d in draw(w).items()})


def test_directions_of_directions_pass_on_what_they_need():
    """A choice inside decides about the clean pass; memories inside are noted and saved."""
    past = GAV(Given(), source=Past())
    whole = Warmup(RandomLength(Mixture(Sum(HSV(Given()), past), SAM(), w_th=1.0)), steps=2)
    assert whole.remembers
    assert whole.needs_gradient
    assert whole.pick().needs_gradient
    assert not Warmup(Sum(HSV(Given()), past), steps=2).needs_gradient
    weights = {name: w.detach() for name, w in net().named_parameters()}
    whole.note({name: torch.ones_like(w) for name, w in weights.items()})
    other = GAV(Given(), source=Past())
    again = Warmup(RandomLength(Mixture(Sum(HSV(Given()), other), SAM(), w_th=1.0)), steps=2)
    again.load_state_dict(whole.state_dict())
    assert again._taken == 1
    same(other(weights), past(weights))


def test_variable_noise():
    generator = torch.Generator().manual_seed(5)
    scale = 0.5 * max(0.0, 1 + 0.3 * float(torch.randn((), generator=generator)))
    w = {name: weight.detach() for name, weight in net().named_parameters()}
    delta = VariableNoise(Given(), gamma=0.5, spread=0.3)(
        w, generator=torch.Generator().manual_seed(5)
    )
    same(delta, {name: scale * d for name, d in draw(w).items()})
    widths = [
        float(VariableNoise(Given(), spread=3.0)(w, generator=generator)["0.weight"].norm())
        for _ in range(200)
    ]
    share = sum(width == 0 for width in widths) / 200
    assert share == pytest.approx(0.3694, abs=0.14)  # P(1 + 3 epsilon < 0)


def test_random_perturbation():
    same(
        trained(lambda model, _: RandomPerturbation(model, Given(), mix=0.3)),
        expected(lambda step, w, m: literal.mixed(w, draw(w), 0.3, X, Y)),
    )


@pytest.mark.parametrize("order", [2.0, math.inf])
def test_samson(order):
    same(
        trained(perturbed(SAMSON(0.3, order))),
        expected(lambda step, w, m: grad(literal.plus(w, literal.samson(w, grad(w), 0.3, order)))),
    )


def test_worked_samson():
    """Of a layer (3, -1) with gradient (1, 2), p = infinity: t = (1, 1/3), |t g| = 1.2019."""
    w, g = {"w": torch.tensor([3.0, -1.0])}, {"w": torch.tensor([1.0, 2.0])}
    (v,) = SAMSON(0.6)(w, g).values()
    assert v.tolist() == pytest.approx([0.6 / 1.201850, 0.6 * 2 / 9 / 1.201850], rel=1e-5)
    assert SAMSON()({"w": torch.zeros(2)}, g)["w"].tolist() == [0.0, 0.0]


def test_negative_feedback():
    def grads_of(step, w, m):
        delta = {name: 0.5 * d for name, d in draw(w).items()}
        wider = [{name: f * d for name, d in delta.items()} for f in (1.5, 1.2)]
        return literal.negative_feedback(w, delta, wider, 0.4, X, Y)

    def make(model, _):
        return NegativeFeedback(model, Given(), gamma=0.5, beta=0.4, wider=(1.5, 1.2))

    same(trained(make), expected(grads_of))


def test_distillation():
    def make(model, _):
        return Distillation(model, Given(), gamma=0.5, share=0.3, temperature=3.0)

    def grads_of(step, w, m):
        delta = {name: 0.5 * d for name, d in draw(w).items()}
        return literal.distilled(w, delta, 0.3, 3.0, X, Y)

    same(trained(make), expected(grads_of))


def test_straight_through():
    same(
        trained(lambda model, _: StraightThrough(model, Given(), gamma=0.5)),
        expected(
            lambda step, w, m: literal.straight_through(
                w, {name: 0.5 * d for name, d in draw(w).items()}, X, Y
            )
        ),
    )


def test_random_layers():
    w = {name: weight.detach() for name, weight in net().named_parameters()}
    for share, count in ((0.0, 0), (1.0, 2)):
        found = RandomLayers(HSV(Given()), share)(w)
        assert sum(bool(d.any()) for d in found.values()) == count
    same(found, draw(w))
    g = torch.Generator().manual_seed(1)
    kept = [RandomLayers(HSV(Given()), 0.3)(w, generator=g) for _ in range(300)]
    share = sum(bool(d.any()) for one in kept for d in one.values()) / 600
    assert share == pytest.approx(0.3, abs=0.08)
    assert RandomLayers(SAM()).pick().needs_gradient


def test_a_factor_for_each_layer():
    w = {name: weight.detach() for name, weight in net().named_parameters()}
    factors = dict(zip(w, (0.5, 2.0), strict=True))
    found = LayerFactors(HSV(Given()), [*factors.values()])(w)
    same(found, {name: factors[name] * d for name, d in draw(w).items()})
    assert LayerFactors(SAM(), (1.0, 1.0)).pick().needs_gradient
    with pytest.raises(ValueError, match=r"factors has 1 numbers, but there are 2 weight tensors"):
        LayerFactors(HSV(Given()), [1.0])(w)
    with pytest.raises(UnsupportedModelError):  # which the command line prints as one line
        LayerFactors(HSV(Given()), [1.0])(w)
    with pytest.raises(ValueError, match="factors"):
        LayerFactors(HSV(Given()), [1.0, -0.5])
    with pytest.raises(TypeError, match="factors must be a list of numbers, got 0.5"):
        LayerFactors(HSV(Given()), 0.5)


def test_noise_injection_clips_after_the_step():
    same(
        trained(lambda model, _: NoiseInjection(model, device=Given(), clip_sigmas=1.0)),
        expected(
            lambda step, w, m: grad(literal.plus(w, draw(w))),
            after=lambda w: literal.clipped(w, 1.0),
        ),
    )
    assert NoiseInjection(net(), sigma=0.05).perturbation == HSV(Gaussian(0.05, AbsMax()))


def test_parameter_adversary(monkeypatch):
    start = {name: 0.02 * d.abs().sqrt() for name, d in DRAW.items()}
    monkeypatch.setattr(
        ParameterAdversary,
        "_draw",
        lambda self, weight: next(d for d in start.values() if d.shape == weight.shape),
    )

    def grads_of(step, w, m):
        bounded = {n: torch.minimum(start[n], 0.1 * w[n].abs()) for n in w}  # the start is positive
        return literal.regularised(w, literal.attack(w, bounded, 0.1, 3, X), 2.0, X, Y)

    def make(model, _):
        return ParameterAdversary(model, beta=2.0, zeta=0.1, attack_steps=3)

    same(trained(make, steps=2), expected(grads_of, steps=2))


def test_the_attack_starts_at_a_share_of_each_weight():
    adversary = ParameterAdversary(net(), start=0.02, zeta=1.0)
    weight = torch.full((200, 200), 3.0)
    assert float(adversary._draw(weight).std()) == pytest.approx(0.06, rel=0.02)


@pytest.mark.parametrize("bits", [3, 8])
def test_qat(bits):
    same(
        trained(lambda model, _: QAT(model, bits=bits)),
        expected(lambda step, w, m: grad(literal.quantized(w, bits))),
    )


def test_qat_under_wvat_displaces_quantized_weights():
    def noisy(step, w, m):
        q = literal.quantized(w, 4)
        return grad(literal.plus(q, draw(q), 0.5))

    def worst(step, w, m):
        q = literal.quantized(w, 4)
        return grad(literal.plus(q, literal.along(grad(q), lengths(draw(q), 0.5 * 0.4))))

    for w_th, grads_of in ((0.0, noisy), (1.0, worst)):

        def make(model, _, w_th=w_th):
            return QAT(
                model, bits=4, perturbation=variation(Given(), w_th=w_th, gamma=0.5, alpha=0.4)
            )

        same(trained(make), expected(grads_of))


def test_worked_quantizer():
    w = torch.tensor([0.5, -0.3, 0.1, 0.9, -0.7, 0.2], dtype=torch.float64)
    for bits, numbers in ((8, [71, -42, 14, 127, -99, 28]), (4, [4, -2, 1, 7, -5, 2])):
        found = Quantized(bits).program({"w": w})["w"] / Quantized(bits).scale(w)
        torch.testing.assert_close(found, torch.tensor(numbers, dtype=torch.float64))


def test_worked_binary_cells():
    assert literal.cells(-3, 4, [0.1, -0.1, 0.05, 0.02]) == pytest.approx(-2.86)
    device = BinaryCells(bits=4, sigma=0.1)
    assert float(device.spread(torch.tensor([-3.0]))) == pytest.approx(0.9)
    values = torch.linspace(-0.9, 0.8, 40, dtype=torch.float64)
    numbers, step = literal.fixed_point(values.tolist(), 4)
    assert device.numbers(values).tolist() == numbers
    assert float(device.step(values)) == step


def test_binary_cells_have_the_law_of_single_cells():
    """Errors that are added up before they are drawn spread as errors of each cell do."""
    device = BinaryCells(bits=5, sigma=0.07, off_sigma=0.03)
    for number in (-16, -7, 0, 5, 15):
        squares = 0.0
        for bit in range(5):
            on = [0.0] * 5
            on[bit] = 1.0
            alone = literal.cells(number, 5, on) - literal.cells(number, 5, [0.0] * 5)
            squares += (0.07 * alone) ** 2
            if not (number >> bit) & 1:
                squares += (0.03 * 2**bit) ** 2
        spread = device.spread(torch.tensor([float(number)], dtype=torch.float64))
        assert float(spread) == pytest.approx(math.sqrt(squares))


def test_the_largest_power_of_two_is_clipped_and_zeros_stay():
    device = BinaryCells(bits=4, sigma=0.0)
    weights = {"w": torch.tensor([1.0, -1.0, 0.5]), "zero": torch.zeros(3)}
    chip = device.program(weights)
    assert chip["w"].tolist() == [0.875, -1.0, 0.5]
    assert chip["zero"].tolist() == [0.0, 0.0, 0.0]


def test_worked_right_censored_noise():
    device = RightCensored(0.1, censor=1.0)
    assert device.mean == pytest.approx(-0.08332, abs=1e-5)
    assert device.std == pytest.approx(0.86665, abs=1e-5)
    numbers = RightCensored(0.1, censor=0.5, standardised=False).standard_noise(
        torch.Size([100_000]), dtype=torch.float32, generator=torch.Generator().manual_seed(0)
    )
    assert float(numbers.max()) == 0.5
    assert float((numbers == 0.5).float().mean()) == pytest.approx(0.3085, abs=0.01)


def test_literal_clip_is_that_of_the_other_reference():
    values = torch.tensor([0.5, -0.3, 0.1, 0.9, -0.7, 0.2], dtype=torch.float64)
    bound = 0.5 * reference.mean_std(values.tolist())[1]
    assert float(literal.clipped({"w": values}, 0.5)["w"].max()) == pytest.approx(bound)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: NoiseInjection(m, clip_sigmas=0), "clip_sigmas must be .* above 0, got 0"),
        (lambda m: NoiseInjection(m, sigma=-1), "sigma must be .* at least 0, got -1"),
        (lambda m: RandomPerturbation(m, Gaussian(0.1), mix=2), "mix must lie between 0 and 1"),
        (lambda m: ParameterAdversary(m, beta=-1), "beta must be .* at least 0, got -1"),
        (lambda m: ParameterAdversary(m, attack_steps=0), "attack_steps must be at least 1, got 0"),
        (lambda m: QAT(m, bits=1), "bits must be a whole number from 2 to 16, got 1"),
        (lambda m: BinaryCells(bits=99), "bits must be a whole number from 2 to 16, got 99"),
        (lambda m: BinaryCells(off_sigma=-1), "off_sigma must be .* at least 0, got -1"),
        (lambda m: RightCensored(0.1, censor=math.inf), "censor must be finite .* got inf"),
        (lambda m: VariableNoise(Gaussian(0.1), spread=-1), "spread must be .* got -1"),
        (
            lambda m: WVAT(m, Gaussian(0.1), worst="momentum"),
            "worst must be a source of the worst perturbation.*, got 'momentum'",
        ),
        (
            lambda m: WVAT(m, Gaussian(0.1), mix="both", w_th=0.2),
            "w_th = 0.2 has no meaning with mix='both'",
        ),
        (
            lambda m: NoiseInjection(m, sigma=0.1, device=Gaussian(0.1)),
            "got sigma=0.1 and a device, which has its own",
        ),
        (
            lambda m: Vortex(m, Gaussian(0.1), rho=2.0, confidence=0.9),
            "got rho=2.0 and confidence=0.9.* Leave one out",
        ),
        (
            lambda m: WVAT(m, Gaussian(0.1), mix="none"),
            "mix must be 'either' or 'both'",
        ),
        (lambda m: RandomLength(SAM(), 2), "spread must lie between 0 and 1, got 2"),
        (lambda m: Past(decay=1), r"decay must lie in \[0, 1\)"),
        (lambda m: Warmup(HSV(Gaussian(0.1)), steps=0), "steps must be .* at least 1, got 0"),
        (
            lambda m: Momentum(torch.optim.SGD(m.parameters(), lr=0.1)),
            "optimizer must keep a momentum, got SGD without one. Use Adam",
        ),
        (
            lambda m: Momentum(torch.optim.Adam(m.parameters()), sign="up"),
            "sign must be 'ahead' or 'back', got 'up'",
        ),
    ],
)
def test_impossible_values(make, message):
    with pytest.raises(ValueError, match=message):
        make(net())


def test_a_closure_that_keeps_the_output_to_itself():
    model = net()
    with pytest.raises(ValueError, match=r"ParameterAdversary needs the network's output.*Return"):
        ParameterAdversary(model).backward(lambda: model(X).square().mean())
