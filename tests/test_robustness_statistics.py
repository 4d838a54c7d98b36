"""Intervals against scipy and against repeated experiments."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spikewvat.robustness.statistics import (
    Interval,
    holm,
    mean_interval,
    mean_of,
    sample_std,
    student_t_p_value,
    student_t_quantile,
    wilson_interval,
)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 24, 49, 99, 100, 999, 4000])
def test_student_t_is_that_of_scipy(degrees):
    probabilities = [0.001, 0.3, 0.5, 0.6, 0.9, 0.975, 0.995, 0.9999]
    quantiles = [student_t_quantile(p, degrees) for p in probabilities]
    expected = stats.t.ppf(probabilities, degrees)
    assert quantiles == pytest.approx(list(expected), rel=1e-10, abs=1e-12)
    statistics = [0.0, 1e-3, -0.5, 2.0, 6.0, 40.0, math.inf]
    p_values = [student_t_p_value(t, degrees) for t in statistics]
    expected = 2 * stats.t.sf([abs(t) for t in statistics], degrees)
    assert p_values == pytest.approx(list(expected), rel=1e-9, abs=1e-13)


def test_holm_by_hand():
    # Holm 1979: the smallest of four times 4, the next times 3, ..., never falling.
    assert holm([0.03, 0.01, 0.04, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_keeps_false_findings_rare():
    generator = torch.Generator().manual_seed(2)
    families = torch.rand(2000, 5, generator=generator, dtype=torch.float64).tolist()
    found = sum(min(holm(family)) < 0.05 for family in families) / 2000
    assert found == pytest.approx(1 - 0.99**5, abs=4 * math.sqrt(0.05 * 0.95 / 2000))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_mean_interval_is_that_of_scipy(values, confidence):
    interval = mean_interval(values, confidence=confidence)
    half = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    mean = math.fsum(values) / len(values)
    assert interval == pytest.approx((mean - half, mean + half), rel=1e-9, abs=1e-12)
    assert interval.low <= mean_of(values) <= interval.high
    assert interval.width == pytest.approx(2 * half, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_wilson_interval_is_that_of_scipy(data):
    trials = data.draw(st.integers(1, 400))
    successes = data.draw(st.integers(0, trials))
    confidence = data.draw(st.floats(0.5, 0.999))
    interval = wilson_interval(successes, trials, confidence=confidence)
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= interval.low <= successes / trials <= interval.high <= 1
    assert interval.width > 0


def test_interval_covers_the_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2000, 6, generator=generator, dtype=torch.float64)
    inside = sum(low <= 0 <= high for low, high in (mean_interval(row) for row in draws))
    assert inside / 2000 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_a_single_value_has_a_mean_and_no_spread():
    assert mean_of([0.9]) == 0.9
    assert math.isnan(sample_std([0.9]))
    assert all(math.isnan(bound) for bound in mean_interval([0.9]))


def test_low_precision_input_is_summed_in_float64():
    values = torch.full((3,), 0.1, dtype=torch.float16)
    assert mean_of(values) == float(values[0])
    assert sample_std(values) == 0


def test_interval_is_immutable():
    with pytest.raises(AttributeError):
        Interval(0.0, 1.0).low = 2.0


def test_impossible_values():
    with pytest.raises(ValueError, match="no values to summarise, expected at least one"):
        mean_of([])
    with pytest.raises(ValueError, match=r"confidence must lie between 0 and 1, got 95"):
        mean_interval([0.1, 0.2], confidence=95)
    with pytest.raises(ValueError, match="degrees must be at least 1, got 0"):
        student_t_quantile(0.5, 0)
    with pytest.raises(ValueError, match="degrees must be at least 1, got 0"):
        student_t_p_value(0.5, 0)
    with pytest.raises(ValueError, match="t must be a number, got nan"):
        student_t_p_value(math.nan, 3)
    with pytest.raises(ValueError, match=r"p_values must lie between 0 and 1, got 1\.5"):
        holm([0.1, 1.5])
    with pytest.raises(ValueError, match=r"probability must lie between 0 and 1, got 1\.0"):
        student_t_quantile(1.0, 3)
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson_interval(3, 2)
    with pytest.raises(ValueError, match="got 0 of 0"):
        wilson_interval(0, 0)
