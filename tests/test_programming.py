"""Selective write-verify: literal rankings, what verifying does, files for testers."""

from __future__ import annotations

import math

import pytest
import torch
from test_calibration import chip_of, loader, net, seeded
from torch import nn

from spikewvat import Verified, programming_plan
from spikewvat.adapters import adapter_for
from spikewvat.devices import AtRandomAge, Gaussian, ProgrammingPlan, StuckAt, pcm
from spikewvat.errors import DataError
from spikewvat.robustness import Evaluator
from spikewvat.robustness.axis import VERIFIED
from spikewvat.robustness.programming import mean_square_errors
from spikewvat.spiking.losses import rate_cross_entropy

SAMPLES = 12
WEIGHTS = {"a": torch.tensor([[1.0, -2.0], [3.0, 0.5]]), "b": torch.tensor([4.0, -1.0])}


def plan_of(budget=0.5, *, reads=True, importance=None):
    scores = importance or {name: torch.ones_like(weight) for name, weight in WEIGHTS.items()}
    return ProgrammingPlan("test", budget, scores, reads)


def live_of(model):
    return adapter_for(model).synaptic_weights(model)


def fisher(model, batches, scores=None):
    """Mean square of each weight's gradient, sample by sample."""
    live = live_of(model)
    total = {name: torch.zeros_like(weight) for name, weight in live.items()}
    signs = seeded(0)
    for inputs, labels in batches:
        for place in range(len(labels)):
            output = model(inputs[:, place : place + 1])
            if scores is None:
                loss = rate_cross_entropy(output, labels[place : place + 1])
            else:
                sign = torch.randint(2, (1, 3), generator=signs) * 2 - 1
                loss = (output.sum(0) * sign).sum()
            for name, part in zip(
                live, torch.autograd.grad(loss, list(live.values())), strict=True
            ):
                total[name] += part.square() / SAMPLES
    return total


def test_the_default_ranking_is_fisher_times_squared_error():
    model, batches = net(), loader()
    plan = programming_plan(model, batches, Gaussian(0.1), 0.2, samples=SAMPLES)
    expected = fisher(model, batches)
    errors = {n: c - live_of(model)[n].detach() for n, c in chip_of(model).items()}
    scores = {}
    for name, importance in plan.importance.items():
        torch.testing.assert_close(importance.float(), expected[name], rtol=1e-4, atol=1e-9)
        for i, (f, d) in enumerate(
            zip(importance.flatten().tolist(), errors[name].flatten().tolist(), strict=True)
        ):
            scores[name, i] = f * d * d
    best = sorted(scores, key=lambda key: -scores[key])[: plan.count]
    chosen = plan.chosen(errors)
    assert plan.count == round(0.2 * len(scores))
    assert {
        (n, i) for n, m in chosen.items() for i in m.flatten().nonzero().flatten().tolist()
    } == (set(best))
    assert all(weight.grad is None for weight in model.parameters())


def test_before_a_trim_only_what_an_offset_cannot_mend_counts():
    """The literal sum: each weight's gradient, less its mean input times its offset's gradient."""
    model, batches = net(), loader()
    plan = programming_plan(model, batches, Gaussian(0.1), trimmed=True, samples=SAMPLES)
    layers = ["first", "second", "readout"]
    means, kept = {}, {}

    def inputs_of(name):
        return lambda module, args, output: kept.setdefault(name, []).append(args[0].detach())

    handles = [model.get_submodule(n).register_forward_hook(inputs_of(n)) for n in layers]
    for inputs, _ in batches:
        model(inputs)
    for handle in handles:
        handle.remove()
    for name in layers:
        means[name] = torch.cat([x.flatten(0, 1) for x in kept[name]]).mean(0)
    total = {name: torch.zeros_like(weight) for name, weight in live_of(model).items()}
    for inputs, labels in batches:
        for place in range(len(labels)):
            offsets = {n: torch.zeros(len(model.get_submodule(n).weight)) for n in layers}
            handles = []
            for name, offset in offsets.items():
                offset.requires_grad_()
                handles.append(
                    model.get_submodule(name).register_forward_hook(
                        lambda module, args, output, offset=offset: output + offset
                    )
                )
            loss = rate_cross_entropy(
                model(inputs[:, place : place + 1]), labels[place : place + 1]
            )
            live = live_of(model)
            parts = torch.autograd.grad(loss, [*live.values(), *offsets.values()])
            for handle in handles:
                handle.remove()
            for i, name in enumerate(layers):
                for row in range(len(parts[i])):
                    own = parts[i][row] - means[name] * parts[len(layers) + i][row]
                    total[f"{name}.weight"][row] += own.square() / SAMPLES
    for name, importance in plan.importance.items():
        torch.testing.assert_close(importance.float(), total[name], rtol=1e-3, atol=1e-9)
    plainly = programming_plan(model, batches, Gaussian(0.1), samples=SAMPLES)
    assert not torch.allclose(plainly.importance["second.weight"], plan.importance["second.weight"])
    assert all(weight.grad is None for weight in model.parameters())


def test_where_cells_cannot_be_read_the_variance_of_the_device_counts():
    model, batches = net(), loader()
    device = Gaussian(0.1)
    plan = programming_plan(model, batches, device, samples=SAMPLES, cells_readable=False)
    assert not plan.reads
    for name, f in fisher(model, batches).items():
        variance = (0.1 * 6 * live_of(model)[name].detach().std(correction=0)) ** 2
        torch.testing.assert_close(plan.importance[name].float(), f * variance, rtol=1e-4, atol=0)
    one, other = (plan.chosen(chip_of(model, seed=s)) for s in (1, 2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_mean_square_errors_of_a_device_without_closed_form():
    weights = {"w": torch.full((40, 50), 0.5)}
    weights["w"][0, 0] = 1.0
    found = mean_square_errors(pcm(time=86400.0), weights, seeded(1))["w"]
    written = (0.26348 + 1.9650 * 0.5 - 1.1731 * 0.25) / 25
    reading = 0.5 * 0.0088 / 0.5**0.65 * math.sqrt(math.log(20 / 500e-9))
    at_rest = 0.26348 / 25 * math.sqrt(0.5 - 0.5 / math.pi)  # half of a normal law
    assert float(found.mean()) == pytest.approx(written**2 + reading**2 + at_rest**2, rel=0.05)


@pytest.mark.parametrize("by", ["random", "size", "largest error", "swim"])
def test_other_rankings_to_compare_with(by):
    model, batches = net(), loader()
    plan = programming_plan(model, batches, Gaussian(0.1), by=by, samples=SAMPLES, seed=0)
    live = live_of(model)
    if by == "random":
        again = programming_plan(model, batches, Gaussian(0.1), by=by, seed=0)
        other = programming_plan(model, batches, Gaussian(0.1), by=by, seed=1)
        assert all(torch.equal(s, again.importance[n]) for n, s in plan.importance.items())
        assert not torch.equal(plan.importance["first.weight"], other.importance["first.weight"])
        return
    for name, score in plan.importance.items():
        if by == "size":
            torch.testing.assert_close(score.float(), live[name].detach().abs())
        elif by == "largest error":
            assert plan.reads
            assert bool((score == 1).all())
    if by == "swim":
        expected = fisher(model, batches, scores="signed")
        for name, score in plan.importance.items():
            torch.testing.assert_close(score.float(), expected[name], rtol=1e-3, atol=1e-4)


def test_the_signed_score_is_refused():
    with pytest.raises(ValueError, match="signed first-order score leaves a coherent error"):
        programming_plan(net(), loader(), Gaussian(0.1), by="signed")
    with pytest.raises(ValueError, match="needs cells that can be read"):
        programming_plan(net(), loader(), Gaussian(0.1), by="largest error", cells_readable=False)


def test_a_verified_weight_keeps_the_share_and_others_all_of_their_error():
    device, plan = Gaussian(0.1), plan_of(0.5)
    written = device.program(WEIGHTS, generator=seeded(1))
    errors = {n: written[n] - w for n, w in WEIGHTS.items()}
    chip = Verified(device, plan, residual=0.25).program(WEIGHTS, generator=seeded(1))
    chosen = plan.chosen(errors)
    assert sum(int(mask.sum()) for mask in chosen.values()) == 3
    for name, weight in WEIGHTS.items():
        left = torch.where(chosen[name], 0.25 * errors[name], errors[name])
        torch.testing.assert_close(chip[name], weight + left)
    none = Verified(device, plan.at(0.0)).program(WEIGHTS, generator=seeded(1))
    assert all(torch.equal(none[name], written[name]) for name in WEIGHTS)


def test_cycles_write_afresh_until_it_is_right():
    weights = {"w": torch.randn(60, 60, dtype=torch.float64, generator=seeded(2))}
    plan = ProgrammingPlan("all", 1.0, {"w": torch.ones(60, 60)}, reads=True)
    std = 0.6 * float(weights["w"].std(correction=0))
    sizes = {}
    for cycles in (1, 5, 200):
        device = Verified(Gaussian(0.1), plan, residual=0.1, cycles=cycles)
        error = device.errors(weights, generator=seeded(3))["w"].abs()
        sizes[cycles] = float(error.mean()) / std
    assert sizes[1] == pytest.approx(2 * (math.sqrt(2) - 1) / math.sqrt(math.pi), rel=0.05)
    assert sizes[200] < 0.06 < sizes[5] < sizes[1]
    assert float(error.max()) < 0.12 * std
    p = math.erf(0.1 / math.sqrt(2))
    assert Verified(Gaussian(0.1), plan, 0.1).pulses == pytest.approx(3600 / p)
    assert Verified(Gaussian(0.1), plan, 0.1, cycles=1).pulses == pytest.approx(3600)
    assert Verified(Gaussian(0.1), plan, 0.1, cycles=1).reads == 7200


def test_verified_weights_age_with_the_others():
    weights = {"w": torch.randn(80, 80, generator=seeded(4))}
    plan = ProgrammingPlan("all", 1.0, {"w": torch.ones(80, 80)}, reads=True)
    year = 365 * 86400.0
    plainly = pcm(time=year).program(weights, generator=seeded(5))["w"]
    verified = Verified(pcm(time=year), plan, 0.01).program(weights, generator=seeded(5))["w"]

    def rest(found):
        slope = float((found * weights["w"]).sum() / weights["w"].square().sum())
        return slope, float((found - slope * weights["w"]).std())

    (slope, spread), (other, left) = rest(plainly), rest(verified)
    assert other == pytest.approx(slope, rel=0.02)
    assert left < 0.8 * spread
    again = Verified(pcm(), plan, 0.01).program(weights, generator=seeded(5))["w"]
    assert float((again - weights["w"]).std()) < 0.2 * spread


def test_a_stuck_cell_stays_stuck_in_cycles():
    weights = {"w": torch.randn(20, 20, generator=seeded(6))}
    plan = ProgrammingPlan("all", 1.0, {"w": torch.ones(20, 20)}, reads=True)
    device = StuckAt(low=1.0)
    found = Verified(device, plan, cycles=3).program(weights, generator=seeded(7))["w"]
    assert torch.equal(found, device.program(weights)["w"])


@pytest.mark.parametrize("reads", [False, True])
def test_a_plan_survives_its_file(tmp_path, reads):
    importance = {n: torch.rand(w.shape, generator=seeded(8)).double() for n, w in WEIGHTS.items()}
    plan = plan_of(0.37, reads=reads, importance=importance)
    plan.to_csv(tmp_path / "plan.csv")
    again = ProgrammingPlan.from_csv(tmp_path / "plan.csv", WEIGHTS)
    assert (again.by, again.budget, again.reads) == ("test", 0.37, reads)
    assert all(torch.equal(again.importance[n], s) for n, s in importance.items())
    lines = (tmp_path / "plan.csv").read_text().splitlines()
    ranked = [float(line.split(",")[3]) for line in lines[2:]]
    assert ranked == sorted(ranked, reverse=True)
    for wrong, message in (
        ("# nothing", "is no programming plan for these weights"),
        ("\n".join(lines[:-1]), "lacks 1 of "),
        ("\n".join([*lines, "9,c,0,1.0"]), "is no programming plan"),
    ):
        (tmp_path / "bad.csv").write_text(wrong)
        with pytest.raises(DataError, match=message):
            ProgrammingPlan.from_csv(tmp_path / "bad.csv", WEIGHTS)
    with pytest.raises(DataError, match="is no programming plan"):
        ProgrammingPlan.from_csv(tmp_path / "gone.csv", WEIGHTS)


def test_yield_against_the_share_that_is_verified():
    model, batches = net(), loader(samples=60, seed=7)
    plan = programming_plan(model, loader(), Gaussian(0.1), samples=SAMPLES)
    test = Evaluator(model, batches)
    shares = (0.0, 0.5, 1.0)
    curve = test.sweep(
        lambda share: Verified(Gaussian(0.1), plan.at(share), residual=1e-6),
        shares,
        axis=VERIFIED,
        chips=6,
    )
    assert curve.axis == VERIFIED
    assert curve.sigmas == shares
    assert torch.equal(curve[0].accuracies, test.chips(Gaussian(0.1), chips=6).accuracies)
    assert curve[2].mean == pytest.approx(test.accuracy)
    assert "verified 0.5" in curve.axis.heading(0.5)
    assert "Fisher x error^2, 50 %" in curve[1].device


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plan_of(1.5), "budget must lie between 0 and 1, got 1.5"),
        (lambda: Verified(Gaussian(0.1), plan_of(), residual=0.0), "residual must be above 0"),
        (lambda: Verified(Gaussian(0.1), plan_of(), cycles=0), "cycles must be a whole number"),
        (lambda: Verified(AtRandomAge(pcm(), 1.0, 9.0), plan_of()), "Wait afterwards: AtRandomAge"),
        (
            lambda: Verified(Gaussian(0.1), plan_of()).program({"c": torch.ones(2)}),
            "the chip has no entry for weight 'a'",
        ),
    ],
)
def test_impossible_plans(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_frozen_weights_have_no_importance():
    model = net().requires_grad_(False)
    with pytest.raises(ValueError, match=r"weights 'first\.weight'.* are frozen"):
        programming_plan(model, loader(), Gaussian(0.1), samples=SAMPLES)
    assert isinstance(model, nn.Module)
