"""The gradient at displaced weights: numbers, side effects, and every way of using it."""

from __future__ import annotations

import copy
import math
import warnings

import pytest
import reference
import snntorch as snn
import torch
from model_cases import ADAPTERS, PERTURBATIONS
from spread import spread
from torch import nn

from spikewvat.devices import Gaussian, Quantized
from spikewvat.devices.base import DeviceModel
from spikewvat.errors import TrainingStalledWarning, UnsupportedModelError
from spikewvat.perturbations import ASAM, AWP, GAV, HSV, SAM, Mixture, Perturbation
from spikewvat.training import WVAT, PerturbedGradient, Plain
from spikewvat.weights import adding

CURVATURE = torch.tensor([3.0, 1.0], dtype=torch.float64)


class Quadratic(nn.Module):
    """L = 1/2 w^T diag(3, 1) w."""

    def __init__(self, start=(1.0, 2.0)):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self):
        return 0.5 * (CURVATURE * self.w**2).sum()


class Fixed(Perturbation):
    """A perturbation that is given."""

    def __init__(self, v):
        self.v = torch.tensor(v, dtype=torch.float64)

    def plan(self, weights, grads=None, *, generator=None):
        return adding(dict.fromkeys(weights, self.v))


class OwnLoop:
    """A user's loop around any gradient method; returns the weights after some steps."""

    def __init__(self, case, *, optimizer=torch.optim.SGD, lr=0.05, **kwargs):
        torch.manual_seed(3)
        self.model = case.make()
        self.case = case
        self.optimizer = optimizer(self.model.parameters(), lr=lr, **kwargs)
        self.x, self.y = case.input(), torch.tensor([0, 1, 2])

    def loss(self):
        output = self.case.run(self.model, self.x)
        scores = output.sum(0) if output.dim() == 3 else output
        return nn.functional.cross_entropy(scores, self.y[: len(scores)])

    def run(self, gradient, steps=3):
        for _ in range(steps):
            self.optimizer.zero_grad()
            gradient.backward(self.loss)
            self.optimizer.step()
        return [p.detach().clone() for p in self.model.parameters()]


def run(case, direction, steps=3, p=1.0, seed=0, **kwargs):
    loop = OwnLoop(case, **kwargs)
    gradient = PerturbedGradient(
        loop.model, direction, p=p, generator=torch.Generator().manual_seed(seed)
    )
    return loop.run(gradient, steps)


def test_worked_quadratic_step():
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradient = PerturbedGradient(model, Fixed([0.1, -0.2]), weights={"w": model.w})
    loss = gradient.backward(model)
    optimizer.step()
    torch.testing.assert_close(model.w.detach(), torch.tensor([0.67, 1.82], dtype=torch.float64))
    assert float(loss) == pytest.approx(0.5 * (3 * 1.1**2 + 1.8**2))


def test_weight_decay_sees_the_undisplaced_weight():
    """Restore then step: it differs from stepping first by eta * decay * v."""
    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=5e-4)
    PerturbedGradient(model, Fixed([0.1, -0.2]), weights={"w": model.w}).backward(model)
    optimizer.step()
    step_first = torch.tensor([1.1, 1.8], dtype=torch.float64)
    step_first = step_first - 0.1 * (CURVATURE * step_first + 5e-4 * step_first)
    step_first = step_first - torch.tensor([0.1, -0.2], dtype=torch.float64)
    difference = step_first - model.w.detach()
    expected = torch.tensor([-5e-6, 1e-5], dtype=torch.float64)
    torch.testing.assert_close(difference, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(
    ("direction", "literal"),
    [
        (SAM(rho=0.05), lambda w, g: reference.sam([g], rho=0.05)[0]),
        (ASAM(rho=0.5), lambda w, g: reference.asam([w], [g], rho=0.5)[0]),
        (AWP(kappa=0.1), lambda w, g: reference.awp(w, g, kappa=0.1)),
        (
            GAV(Gaussian(0.1), alpha=0.3),
            lambda w, g: reference.gav(
                [6 * 0.1 * reference.mean_std(w)[1] * math.sqrt(len(w) / 2)] * 2, g, alpha=0.3
            ),
        ),
    ],
)
def test_training_equals_the_literal_loop(direction, literal, momentum):
    def gradient(w):
        return [3 * w[0], 1 * w[1]]

    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum, weight_decay=0.01)
    displaced = PerturbedGradient(model, direction, weights={"w": model.w})
    for _ in range(5):
        optimizer.zero_grad()
        displaced.backward(model)
        optimizer.step()
    expected = reference.sgd_steps(
        [1.0, 2.0],
        gradient,
        lr=0.1,
        steps=5,
        momentum=momentum,
        decay=0.01,
        displacement=lambda step, w: literal(w, gradient(w)),
    )
    torch.testing.assert_close(
        model.w.detach(), torch.tensor(expected, dtype=torch.float64), atol=1e-10, rtol=0
    )


@spread("case, optimizer", ADAPTERS, [torch.optim.SGD, torch.optim.Adam])
def test_p_zero_is_plain_training_bit_for_bit(case, optimizer):
    loop = OwnLoop(case, optimizer=optimizer)
    from spikewvat.adapters import adapter_for

    adapter = adapter_for(loop.model)
    for _ in range(3):
        loop.optimizer.zero_grad()
        adapter.reset_state(loop.model)
        loop.loss().backward()
        loop.optimizer.step()
    plain = [p.detach() for p in loop.model.parameters()]
    ours = run(case, GAV(Gaussian(0.1)), p=0.0, optimizer=optimizer)
    assert all(torch.equal(a, b) for a, b in zip(plain, ours, strict=True))


@spread("case, direction", ADAPTERS, PERTURBATIONS, each=2)
def test_every_direction_on_every_framework(case, direction):
    """Weights stay with lr = 0, move otherwise; a seed repeats the run bit for bit."""
    still = run(case, direction, lr=0.0)
    torch.manual_seed(3)
    fresh = [p.detach() for p in case.make().parameters()]
    assert all(torch.equal(a, b) for a, b in zip(still, fresh, strict=True))
    one, two = run(case, direction, seed=5), run(case, direction, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, fresh, strict=True))


def count_passes(direction, steps=40, p=1.0):
    model = nn.Linear(3, 2)
    calls = {"forward": 0, "backward": 0}

    def closure():
        calls["forward"] += 1
        return model(torch.ones(4, 3)).square().mean()

    def backward(loss):
        calls["backward"] += 1
        loss.backward()

    gradient = PerturbedGradient(
        model, direction, p=p, generator=torch.Generator().manual_seed(0), warn_after=None
    )
    for _ in range(steps):
        gradient.backward(closure, backward=backward)
    assert calls["forward"] == calls["backward"]
    return calls["backward"] / steps


def test_number_of_passes():
    noise, ascent = HSV(Gaussian(0.1)), GAV(Gaussian(0.1))
    assert count_passes(Mixture(noise, ascent, w_th=0.0)) == 1
    assert count_passes(Mixture(noise, ascent, w_th=1.0)) == 2
    assert count_passes(ascent, p=0.0) == 1
    assert count_passes(Mixture(noise, ascent, 0.5), steps=500) == pytest.approx(1.5, abs=0.09)
    assert count_passes(ascent, steps=500, p=0.25) == pytest.approx(1.25, abs=0.08)


class Boom(Exception):
    pass


@spread(
    "case, error, failing_call, where, dtype",
    ADAPTERS,
    [Boom, KeyboardInterrupt],
    [1, 2],
    ["closure", "backward"],
    [torch.float32, torch.bfloat16],
)
def test_weights_gradients_and_statistics_survive_an_exception(
    case, error, failing_call, where, dtype
):
    if case.float32_only:  # the framework's layer mixes dtypes itself
        dtype = torch.float32
    loop = OwnLoop(case)
    loop.model.to(dtype)
    loop.x = loop.x.to(dtype)
    for parameter in loop.model.parameters():
        parameter.grad = torch.full_like(parameter, 0.25)
    before = [p.detach().clone() for p in loop.model.parameters()]
    calls = {"closure": 0, "backward": 0}

    def count(what):
        calls[what] += 1
        if what == where and calls[what] == failing_call:
            raise error

    def closure():
        count("closure")
        return loop.loss()

    def backward(loss):
        count("backward")
        loss.backward()

    gradient = PerturbedGradient(loop.model, GAV(Gaussian(0.5), alpha=1.0))
    with pytest.raises(error):
        gradient.backward(closure, backward=backward)
    for parameter, value in zip(loop.model.parameters(), before, strict=True):
        assert torch.equal(parameter, value)
        assert torch.equal(parameter.grad, torch.full_like(parameter, 0.25))


@pytest.mark.parametrize("case", ADAPTERS, ids=lambda case: case.name)
def test_weights_survive_a_nan_loss(case):
    loop = OwnLoop(case)
    before = [p.detach().clone() for p in loop.model.parameters()]
    wvat = WVAT(loop.model, Gaussian(0.1), w_th=1.0)
    loss = wvat.backward(lambda: loop.loss() * math.nan)
    assert math.isnan(float(loss))
    assert all(
        torch.equal(p, value) for p, value in zip(loop.model.parameters(), before, strict=True)
    )


@pytest.mark.parametrize("direction", [HSV(Gaussian(0.1)), GAV(Gaussian(0.1)), SAM()], ids=repr)
def test_gradients_accumulate(direction):
    """Two half batches give the gradient of the sum, as in plain training."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    x = torch.randn(8, 3)
    deltas = []

    class Spy(Perturbation):
        needs_gradient = direction.needs_gradient

        def plan(self, weights, grads=None, *, generator=None):
            deltas.append(direction(weights, grads, generator=generator))
            return adding(deltas[-1])

    gradient = PerturbedGradient(model, Spy())
    model.zero_grad()
    for half in (x[:4], x[4:]):
        gradient.backward(lambda half=half: model(half).square().sum())
    expected = torch.zeros(2, 3)
    for half, delta in zip((x[:4], x[4:]), deltas, strict=True):
        weight = (model.weight.detach() + delta["weight"]).requires_grad_()
        nn.functional.linear(half, weight, model.bias.detach()).square().sum().backward()
        expected += weight.grad
    torch.testing.assert_close(model.weight.grad, expected)


def batch_norm_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize("direction", [HSV(Gaussian(0.1)), GAV(Gaussian(0.1))], ids=repr)
def test_batch_norm_statistics_change_once_on_the_displaced_pass(direction):
    model, x = batch_norm_model(), torch.randn(16, 3)
    gradient = PerturbedGradient(model, direction, generator=torch.Generator().manual_seed(1))
    seen = {}

    class Spy(Perturbation):
        needs_gradient = direction.needs_gradient

        def plan(self, weights, grads=None, *, generator=None):
            seen.update(direction(weights, grads, generator=generator))
            return adding(seen)

    gradient.perturbation = Spy()
    twin = copy.deepcopy(model)
    gradient.backward(lambda: model(x).square().mean())
    with torch.no_grad():
        for name, weight in gradient.adapter.synaptic_weights(twin).items():
            weight.add_(seen[name])
    twin(x)
    assert int(model[1].num_batches_tracked) == 1
    assert torch.equal(model[1].running_mean, twin[1].running_mean)
    assert torch.equal(model[1].running_var, twin[1].running_var)


def test_batch_norm_statistics_survive_infinite_activations():
    model = batch_norm_model()
    gradient = PerturbedGradient(model, GAV(Gaussian(0.1)))
    calls = []

    def closure():
        calls.append(None)
        x = torch.full((4, 3), math.inf) if len(calls) == 1 else torch.randn(4, 3)
        return model(x).square().mean()

    gradient.backward(closure)
    assert model[1].running_mean.isfinite().all()


@pytest.mark.parametrize(
    "case", [c for c in ADAPTERS if "lstm" not in c.name], ids=lambda c: c.name
)
def test_bf16_autocast_sees_the_displacement(case):
    """One autocast block around both passes: its weight cache must not hide the displacement."""

    def gradients(direction):
        loop = OwnLoop(case)
        gradient = PerturbedGradient(
            loop.model, direction, generator=torch.Generator().manual_seed(2)
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = gradient.backward(loop.loss)
        return float(loss), [p.grad.clone() for p in loop.model.parameters() if p.grad is not None]

    plain = gradients(SAM(rho=0.0))
    displaced = gradients(SAM(rho=3.0))
    assert plain[0] != displaced[0] or any(
        not torch.equal(a, b) for a, b in zip(plain[1], displaced[1], strict=True)
    )


@pytest.mark.parametrize("direction", PERTURBATIONS, ids=repr)
def test_grad_scaler(direction):
    """Scaled gradients point the same way; an overflow skips the step and loses nothing."""
    case = ADAPTERS[0]
    loop = OwnLoop(case)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    gradient = PerturbedGradient(loop.model, direction, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        loop.optimizer.zero_grad()
        gradient.backward(loop.loss, backward=lambda loss: scaler.scale(loss).backward())
        scaler.unscale_(loop.optimizer)
        nn.utils.clip_grad_norm_(loop.model.parameters(), 100.0)
        scaler.step(loop.optimizer)
        scaler.update()
    scaled = [p.detach().clone() for p in loop.model.parameters()]
    for a, b in zip(scaled, run(case, direction), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

    before = [p.detach().clone() for p in loop.model.parameters()]
    loop.optimizer.zero_grad()
    gradient.backward(
        lambda: loop.loss() * math.inf, backward=lambda loss: scaler.scale(loss).backward()
    )
    scaler.step(loop.optimizer)
    scaler.update()
    assert all(torch.equal(p, v) for p, v in zip(loop.model.parameters(), before, strict=True))


def test_compiled_model():
    """The graph is compiled once; displaced weights are read anew in every pass."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    compiled = torch.compile(model, backend="eager")
    twin = copy.deepcopy(model)
    x = torch.randn(8, 3)
    for m, called in ((model, compiled), (twin, twin)):
        wvat = WVAT(called, Gaussian(0.2), generator=torch.Generator().manual_seed(0), w_th=0.5)
        optimizer = torch.optim.SGD(m.parameters(), lr=0.1)
        for _ in range(6):
            optimizer.zero_grad()
            wvat.backward(lambda called=called: called(x).square().mean())
            optimizer.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_resumed_run_draws_the_same_noise():
    case = ADAPTERS[0]
    through = OwnLoop(case)
    wvat = WVAT(through.model, Gaussian(0.1), generator=torch.Generator().manual_seed(4), p=0.8)
    through.run(wvat, 4)
    saved, model_state = copy.deepcopy(wvat.state_dict()), copy.deepcopy(through.model.state_dict())
    expected = through.run(wvat, 4)
    resumed = OwnLoop(case)
    resumed.model.load_state_dict(model_state)
    again = WVAT(resumed.model, Gaussian(0.1), generator=torch.Generator().manual_seed(9), p=0.8)
    again.load_state_dict(saved)
    assert again.steps == 4
    assert all(torch.equal(a, b) for a, b in zip(resumed.run(again, 4), expected, strict=True))


def train_on_constant_loss(model, wvat, steps, loss_of):
    for step in range(steps):
        model.zero_grad()
        wvat.backward(lambda step=step: model(torch.ones(4, 3)).sum() * 0 + loss_of(step))


def test_warns_once_when_the_loss_does_not_fall():
    model = nn.Linear(3, 2)
    wvat = WVAT(model, Gaussian(0.1), warn_after=40)
    with pytest.warns(
        TrainingStalledWarning, match=r"has not fallen in 40 steps .* Lower alpha"
    ) as w:
        train_on_constant_loss(model, wvat, 200, lambda step: 2.3)
    assert len(w) == 1


def test_warns_once_when_the_loss_is_not_finite():
    model = nn.Linear(3, 2)
    wvat = WVAT(model, Gaussian(0.1))
    with pytest.warns(TrainingStalledWarning, match="not finite.* Lower alpha") as w:
        train_on_constant_loss(model, wvat, 100, lambda step: math.nan)
    assert len(w) == 1


def test_warns_at_chance_accuracy():
    model = nn.Linear(3, 2)
    wvat = WVAT(model, Gaussian(0.1), warn_after=40)
    train_on_constant_loss(model, wvat, 60, lambda step: 5 - 0.05 * step)
    wvat.note_accuracy(0.2, classes=10)
    with pytest.warns(
        TrainingStalledWarning, match=r"11.0 % after 60 steps, chance for 10 classes"
    ):
        wvat.note_accuracy(0.11, classes=10)
    wvat.note_accuracy(0.11, classes=10)


def test_a_falling_loss_does_not_warn():
    model = nn.Linear(3, 2)
    wvat = WVAT(model, Gaussian(0.1), warn_after=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_on_constant_loss(model, wvat, 100, lambda step: 5 - 0.05 * step)


def test_frozen_layers_are_displaced_and_never_trained():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].weight.requires_grad_(False)
    gradient = PerturbedGradient(model, GAV(Gaussian(0.1)))
    gradient.backward(lambda: model(torch.ones(2, 3)).square().mean())
    assert set(gradient.weights) == {"0.weight", "1.weight"}
    assert model[0].weight.grad is None
    assert model[1].weight.grad is not None


def test_explicit_weights_displace_all_parameters():
    model = nn.Linear(3, 2)
    sam = PerturbedGradient(model, SAM(), weights=dict(model.named_parameters()))
    assert set(sam.weights) == {"weight", "bias"}
    sam.backward(lambda: model(torch.ones(2, 3)).square().mean())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"p": 1.5}, "p must lie between 0 and 1, got 1.5"),
        ({"w_th": -0.1}, "w_th must lie between 0 and 1, got -0.1"),
        ({"gamma": -1}, "gamma must be a finite number of at least 0, got -1"),
        ({"alpha": math.nan}, "alpha must be a finite number of at least 0, got nan"),
    ],
)
def test_impossible_values(kwargs, message):
    with pytest.raises(ValueError, match=message):
        WVAT(nn.Linear(3, 2), Gaussian(0.1), **kwargs)


def test_unknown_stateful_layer_in_the_users_loop():
    class Leak(nn.Module):
        def __init__(self):
            super().__init__()
            self.v = None

        def forward(self, x):
            self.v = x if self.v is None else 0.9 * self.v + x
            return self.v

    model = nn.Sequential(nn.Linear(3, 3), Leak())
    wvat = WVAT(model, Gaussian(0.1), w_th=0.0)
    with pytest.raises(UnsupportedModelError, match="layer '1'"):
        wvat.backward(lambda: model(torch.ones(2, 3)).sum())


def test_any_device_works_without_a_closed_form():
    class Shift(DeviceModel):
        def program(self, weights, *, generator=None):
            return {name: w.detach() + 0.5 for name, w in weights.items()}

    model = nn.Linear(3, 2)
    wvat = WVAT(model, Shift(), w_th=1.0, gamma=1.0, alpha=1.0)
    wvat.backward(lambda: model(torch.ones(2, 3)).square().mean())
    assert model.weight.grad is not None


def test_own_loop_with_snntorch_functional_output():
    """The three lines of the README on a net that returns (spk_rec, mem_rec)."""
    from snntorch import functional as sf

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(6, 4), snn.Leaky(beta=0.9)

        def forward(self, x):
            mem = self.lif.init_leaky()
            spikes, potentials = [], []
            for step in x:
                spike, mem = self.lif(self.fc(step), mem)
                spikes.append(spike)
                potentials.append(mem)
            return torch.stack(spikes), torch.stack(potentials)

    net, criterion = Net(), sf.ce_rate_loss()
    wvat = WVAT(net, Gaussian(sigma=0.1), alpha=0.05)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    x, labels = (torch.rand(5, 8, 6) < 0.5).float(), torch.arange(8) % 4
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(float(wvat.backward(lambda: criterion(net(x)[0], labels))))
        optimizer.step()
    assert sum(losses[-10:]) < sum(losses[:10])


def test_plain_is_the_gradient_and_draws_nothing():
    case = ADAPTERS[0]
    ours, theirs = OwnLoop(case), OwnLoop(case)
    before = torch.get_rng_state()
    method = Plain(ours.model)
    assert torch.equal(before, torch.get_rng_state())
    found = ours.run(method)
    zero = PerturbedGradient(theirs.model, SAM(rho=0.0), p=0.0)
    assert all(torch.equal(a, b) for a, b in zip(found, theirs.run(zero), strict=True))
    assert Plain(nn.ReLU()).weights == {}  # no synapses are needed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda m: WVAT(m, Gaussian(0.1), ascent="up", decay=7.0, optimizer="foo"),
            r"WVAT has no option 'ascent', got ascent='up'. Its options are .*worst, mix, .*p, ",
        ),
        (
            lambda m: WVAT(m, Gaussian(0.1), gama=1),
            r"WVAT has no option 'gama', got gama=1. Did you mean 'gamma'\?",
        ),
        (
            lambda m: PerturbedGradient(m, SAM(), warn_afer=3),
            r"PerturbedGradient has no option 'warn_afer', .* Did you mean 'warn_after'\?",
        ),
        (
            lambda m: PerturbedGradient(m, Gaussian(0.1)),
            r"perturbation must be a Perturbation, got Gaussian\(.* Write HSV\(device\)",
        ),
    ],
)
def test_no_option_is_accepted_and_ignored(make, message):
    with pytest.raises(TypeError, match=message):
        make(nn.Linear(3, 2))


def test_optimizers_that_call_a_closure_several_times_a_step():
    """LBFGS searches along a line: each call is a step of the method, from the ideal weights."""
    x, y = torch.rand(12, 6), torch.arange(12) % 3
    device = Quantized(bits=2)  # the same chip whenever it is programmed from the same weights
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    twin = copy.deepcopy(net)

    def optimizer_of(model):
        return torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")

    ours, theirs = optimizer_of(net), optimizer_of(twin)
    method, weights = PerturbedGradient(net, HSV(device)), dict(twin.named_parameters())
    weights = {name: w for name, w in weights.items() if w.dim() > 1}
    calls = []

    def closure():
        calls.append(1)
        ours.zero_grad()
        return method.backward(lambda: nn.functional.cross_entropy(net(x), y))

    def by_hand():
        theirs.zero_grad()
        ideal = {name: w.detach().clone() for name, w in weights.items()}
        for name, value in device.program(ideal).items():
            weights[name].data.copy_(value)
        loss = nn.functional.cross_entropy(twin(x), y)
        loss.backward()
        for name, value in ideal.items():
            weights[name].data.copy_(value)
        return loss.detach()

    for _ in range(3):
        assert ours.step(closure) == theirs.step(by_hand)
    assert method.steps == len(calls) > 6
    assert all(map(torch.equal, net.parameters(), twin.parameters()))
