"""Range rules against the literal equations, and the errors of impossible ones."""

from __future__ import annotations

import math

import pytest
import torch
from reference_devices import sizes
from spread import spread

from spikewvat.devices import (
    AbsMax,
    DifferentialPair,
    Fixed,
    Gaussian,
    HalfWidth,
    MinMax,
    SixSigma,
    StuckAt,
    Uniform,
)

W = [0.5, -0.3, 0.1, 0.9, -0.7, 0.2]
RULES = [SixSigma, HalfWidth, AbsMax, MinMax]
EVERY_RULE = [*(rule() for rule in RULES), *(rule(True) for rule in RULES), Fixed(-1, 1)]


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def test_worked_range():
    w = f64(W)
    assert float(SixSigma().size(w)) == pytest.approx(3.106445, abs=5e-7)
    low, high = SixSigma().bounds(w)
    assert float(low + high) / 2 == pytest.approx(0.1166667, abs=5e-8)
    assert float(high - low) / 6 == pytest.approx(0.5177408, abs=5e-8)
    norm = Gaussian(0.1).expected_norms({"w": w})["w"] / math.sqrt(6)
    assert float(norm) == pytest.approx(0.3106445, abs=5e-8)
    half = Gaussian(0.1, HalfWidth()).expected_norms({"w": w})["w"] / math.sqrt(6)
    assert float(half) == pytest.approx(0.1553222, abs=5e-8)


@spread("rule, offset, per_channel", RULES, [0.0, 0.05, -3.0, 100.0], [False, True], each=4)
def test_ranges_are_the_literal_ones(rule, offset, per_channel):
    w = 0.3 * torch.randn(5, 3, 4, dtype=torch.float64) + offset
    size, (low, high) = rule(per_channel).size(w), rule(per_channel).bounds(w)
    channels = list(w) if per_channel else [w]
    expected = [sizes(channel.flatten().tolist())[rule.__name__] for channel in channels]
    shape = (5, 1, 1) if per_channel else (1, 1, 1)
    for found, values in zip((size, low, high), zip(*expected)):
        torch.testing.assert_close(found, f64(values).reshape(shape), rtol=1e-11, atol=0)


@spread("shape, offset", [(1000, 1000), (2, 500_000), (1_000_000,)], [0.0, 0.03, 0.1, 3.0], each=2)
def test_width_keeps_its_digits_in_float32(offset, shape):
    w = 0.03 * torch.randn(shape) + offset
    exact = 6 * w.double().std(correction=0)
    assert abs(float(SixSigma().size(w)) / float(exact) - 1) < 2e-4
    exact = 6 * w.double().flatten(1).std(1, correction=0) if w.dim() > 1 else exact
    channels = SixSigma(per_channel=True).size(w).flatten()
    assert float((channels / exact - 1).abs().max()) < 2e-4


@spread(
    "rule, dtype",
    EVERY_RULE,
    [torch.float16, torch.bfloat16, torch.float32, torch.float64],
    each=2,
)
def test_ranges_are_of_the_draw_dtype(rule, dtype):
    w = (300 * torch.randn(8, 70)).to(dtype)  # its squares overflow float16
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    reference = w.double()
    for found, expected in zip(
        (rule.size(w), *rule.bounds(w)), (rule.size(reference), *rule.bounds(reference))
    ):
        assert found.dtype == wide
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rule", EVERY_RULE, ids=repr)
def test_tiny_and_empty_tensors_have_a_range(rule):
    for shape in ((), (1,), (0,), (4, 0), (0, 4), (3, 1)):
        w = torch.full(shape, 2.0)
        for found in (rule.size(w), *rule.bounds(w)):
            assert found.isfinite().all()
            assert torch.broadcast_shapes(found.shape, w.shape) == w.shape
        if isinstance(rule, SixSigma | HalfWidth | MinMax):
            assert not rule.size(w).any()
        assert rule.size(w.requires_grad_()).requires_grad is False


def test_a_weight_that_is_not_finite_is_seen():
    w = torch.tensor([0.1, float("nan"), 0.3])
    assert Gaussian(0.1).program({"w": w})["w"].isnan().all()


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (math.nan, 1)])
def test_fixed_needs_an_interval(low, high):
    with pytest.raises(ValueError, match=f"Fixed needs finite low < high, got low={low!r}"):
        Fixed(low, high)


@pytest.mark.parametrize("rule", ["6sigma", SixSigma, None, 3.0])
def test_range_must_be_a_rule(rule):
    for make in (
        lambda: Uniform(0.1, rule),
        lambda: StuckAt(range=rule),
        lambda: DifferentialPair(Uniform(0.1), 0.0, 1.0, range=rule),
    ):
        with pytest.raises(ValueError, match=r"range must be a range rule such as SixSigma\(\)"):
            make()
