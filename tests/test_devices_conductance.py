"""Differential pairs: the mapping there and back, and what happens to the conductances."""

from __future__ import annotations

import math

import pytest
import torch
from reference_devices import differential_pair, mean_and_std

from spikewvat.devices import (
    AbsMax,
    DifferentialPair,
    Drift,
    Empirical,
    Fixed,
    Gaussian,
    HalfWidth,
    Lognormal,
    SixSigma,
    StuckAt,
)
from spikewvat.devices.levels import MeasuredLevel

G_MIN, G_MAX = 2e-6, 128e-6


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rule", [AbsMax(), AbsMax(per_channel=True), SixSigma(), Fixed(-2, 1)])
def test_conductances_are_the_literal_ones(rule):
    w = torch.randn(3, 40, dtype=torch.float64)
    pair = DifferentialPair(Gaussian(0.0), G_MIN, G_MAX, range=rule)
    plus, minus = pair.conductances(w)
    chip = pair.program({"w": w})["w"]
    low, high = rule.bounds(w)
    largest = torch.maximum(low.abs(), high.abs()).expand_as(w)
    for i in range(3):
        for j in range(40):
            p, m, back = differential_pair(float(w[i, j]), float(largest[i, j]), G_MIN, G_MAX)
            assert float(plus[i, j]) == pytest.approx(p, rel=1e-12)
            assert float(minus[i, j]) == pytest.approx(m, rel=1e-12)
            assert float(chip[i, j]) == pytest.approx(back, rel=1e-9, abs=1e-12)


def test_perfect_devices_give_the_weights_back():
    for dtype, tolerance in ((torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 0.01)):
        w = torch.randn(20, 30).to(dtype)
        chip = DifferentialPair(Gaussian(0.0), G_MIN, G_MAX).program({"w": w})["w"]
        torch.testing.assert_close(chip, w, rtol=tolerance, atol=tolerance)
    zero = torch.zeros(2, 3)
    assert not DifferentialPair(Gaussian(0.0), 0.0, 1.0).program({"w": zero})["w"].any()


@pytest.mark.parametrize("rule", [SixSigma(), HalfWidth(), Fixed(G_MIN, G_MAX)], ids=repr)
def test_noise_is_a_fraction_of_the_conductance_window_on_both_devices(rule):
    w = torch.randn(300, 300, dtype=torch.float64)
    device = DifferentialPair(Gaussian(0.05, rule), G_MIN, G_MAX)
    delta = device.errors({"w": w}, generator=seeded(1))["w"]
    mean, std = mean_and_std(delta.flatten().tolist())
    expected = 0.05 * math.sqrt(2) * float(w.abs().max())
    assert std == pytest.approx(expected, rel=4 / math.sqrt(2 * w.numel()))
    assert abs(mean) < 4 * expected / math.sqrt(w.numel())


def test_a_fixed_range_inside_is_kept():
    w = {"w": torch.randn(50, 50, dtype=torch.float64)}
    half = DifferentialPair(Gaussian(0.1, Fixed(0.0, G_MAX / 2)), G_MIN, G_MAX)
    same = DifferentialPair(Gaussian(0.05, Fixed(0.0, G_MAX)), G_MIN, G_MAX)
    torch.testing.assert_close(
        half.program(w, generator=seeded(2))["w"], same.program(w, generator=seeded(2))["w"]
    )


def test_stuck_conductances_are_at_the_ends_of_the_window():
    w = torch.randn(10, 10, dtype=torch.float64)
    both_off = DifferentialPair(StuckAt(low=1.0), G_MIN, G_MAX).program({"w": w})["w"]
    both_on = DifferentialPair(StuckAt(high=1.0), G_MIN, G_MAX).program({"w": w})["w"]
    assert not both_off.any()
    assert not both_on.any()
    one = DifferentialPair(StuckAt(low=0.5, high=0.5), G_MIN, G_MAX)
    values = one.program({"w": w}, generator=seeded(3))["w"] / w.abs().max()
    torch.testing.assert_close(values, values.round(), rtol=0, atol=1e-12)
    assert values.round().unique().tolist() == [-1, 0, 1]


def test_drift_of_both_devices_shrinks_the_weight_by_the_power_law():
    w = torch.randn(5, 6, dtype=torch.float64)
    chip = DifferentialPair(Drift(nu=0.1, time=100.0), G_MIN, G_MAX).program({"w": w})["w"]
    torch.testing.assert_close(chip, w * 100**-0.1, rtol=1e-10, atol=1e-12)


def test_measured_errors_are_those_of_the_conductance_level():
    lowest = MeasuredLevel(0.0, 0.0, 1, errors=(0.0,))
    highest = MeasuredLevel(1.0, 1.0, 1, errors=(-0.5,))
    pair = DifferentialPair(Empirical((lowest, highest)), 0.0, 1.0)
    # g+ = 1 loses half of the window, g- = 0 nothing
    assert pair.program({"w": torch.tensor([2.0, -2.0])})["w"].tolist() == [1.0, -1.0]


def test_inner_devices_compose():
    w = {"w": torch.randn(20, 20)}
    pair = DifferentialPair(Lognormal(0.1) >> Gaussian(0.02) >> StuckAt(0.01), G_MIN, G_MAX)
    chip = (pair >> Lognormal(0.1)).program(w, generator=seeded(4))["w"]
    assert chip.isfinite().all()
    assert not torch.equal(chip, w["w"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.1, 0.0, 1.0), r"inner must be a device model, got 0\.1"),
        ((Gaussian, 0.0, 1.0), "inner must be a device model"),
        ((Gaussian(0.1), 1.0, 1.0), r"0 <= g_min < g_max, got g_min=1\.0, g_max=1\.0"),
        ((Gaussian(0.1), -1.0, 1.0), r"0 <= g_min < g_max, got g_min=-1\.0"),
        ((Gaussian(0.1), 0.0, math.inf), "0 <= g_min < g_max, .* g_max=inf"),
        ((Gaussian(0.1), math.nan, 1.0), "0 <= g_min < g_max, got g_min=nan"),
    ],
)
def test_impossible_pairs(arguments, message):
    with pytest.raises(ValueError, match=message):
        DifferentialPair(*arguments)
