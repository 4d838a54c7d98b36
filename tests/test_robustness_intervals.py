"""Intervals for chips against scipy, against their formulas, and against repeated experiments."""

from __future__ import annotations

import math

import pytest
import reference_statistics as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spikewvat.robustness import ChipReport, yield_over_trainings
from spikewvat.robustness.intervals import (
    chip_interval,
    over_images,
    running_interval,
    share_interval,
    skewed_interval,
    skewness,
    unseen_share,
)
from spikewvat.robustness.statistics import Interval, mean_interval, wilson_interval
from spikewvat.robustness.yields import free_interval, training_yield

shares = st.floats(0, 1, allow_subnormal=False)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_share_interval_is_that_of_scipy(data):
    trials = data.draw(st.integers(1, 300))
    successes = data.draw(st.integers(0, trials))
    confidence = data.draw(st.sampled_from([0.5, 0.9, 0.95, 0.99]))
    found = share_interval(successes, trials, confidence=confidence)
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="exact")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(st.lists(shares, min_size=3, max_size=40))
def test_skewness_is_that_of_scipy(values):
    if tensor(values).std() > 1e-4:
        assert skewness(tensor(values)) == pytest.approx(float(stats.skew(values)), abs=1e-6)
    assert skewness(tensor([values[0]] * 3)) == 0


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 40), min_size=2, max_size=40),
    st.sampled_from([0.9, 0.95]),
    st.booleans(),
)
def test_intervals_of_skewed_values_are_those_of_their_definition(counts, confidence, cautious):
    values = [count / 40 for count in counts]
    options = {"confidence": confidence, "cautious": cautious}
    found = skewed_interval(tensor(values), **options)
    expected = reference.skewed_interval(values, confidence, always_below=cautious)
    assert tuple(found) == pytest.approx(expected, abs=1e-9)
    low, high = reference.skewed_interval(values, confidence, 0, 1, always_below=cautious)
    expected = max(low, 0), min(high, 1)
    assert tuple(chip_interval(tensor(values), **options)) == pytest.approx(expected, abs=1e-9)
    student = mean_interval(values, confidence=confidence)
    assert found.low <= student.low <= student.high <= found.high


def test_one_more_chip_by_hand():
    left, right = tensor([0.9, 0.8, 0.95]), tensor([0.1, 0.2, 0.05])
    low = mean_interval([0.9, 0.8, 0.95, 0.65]).low
    assert chip_interval(left) == pytest.approx((low, 1.0))
    high = mean_interval([0.1, 0.2, 0.05, 0.35]).high
    assert skewed_interval(right) == pytest.approx((mean_interval(right).low, high))
    # The extra chip is an accuracy too.
    low = mean_interval([0.1, 0.8, 0.9, 0.0]).low
    assert chip_interval(tensor([0.1, 0.8, 0.9])).low == max(low, 0)
    # Eleven chips that hardly lean need none.
    even = tensor([0.9 + 0.01 * n for n in range(10)] + [0.9])
    assert skewed_interval(even) == mean_interval(even)


def test_the_worst_of_many_chips_bounds_a_percentile():
    # All n chips are better than the percentile q with probability (1 - q)^n.
    for chips in (1, 10, 25, 59, 1000):
        assert (1 - unseen_share(chips)) ** chips == pytest.approx(0.05)


@settings(max_examples=60, deadline=None)
@given(shares, st.integers(2, 500), st.floats(0, 0.2))
def test_new_images_widen_an_interval(mean, images, half):
    inner = Interval(mean - half, mean + half)
    found = over_images(inner, mean, images)
    wilson = wilson_interval(mean * images, images)
    assert found.low <= min(wilson.low, max(inner.low, 0)) + 1e-9
    assert found.high >= max(wilson.high, min(inner.high, 1)) - 1e-9


def test_images_that_all_chips_agree_on_count_once():
    inner = Interval(0.75, 0.75)
    agreed = over_images(inner, 0.75, 400, hits=tensor([1.0, 1.0, 1.0, 0.0] * 100))
    assert agreed == pytest.approx(over_images(inner, 0.75, 400), abs=1e-4)
    # Chips that err at random tell more of an image than one pass does, at most twice as much.
    spread = over_images(inner, 0.75, 400, hits=tensor([0.75] * 400))
    assert spread == pytest.approx(over_images(inner, 0.75, 800), abs=1e-12)
    nan = Interval(math.nan, math.nan)
    assert all(math.isnan(bound) for bound in over_images(nan, 0.5, 10))


def test_a_running_interval_narrows():
    values = 0.9 + 0.01 * torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    widths = [running_interval(values[:n], 100).width for n in (1, 2, 25, 100, 400)]
    assert widths[:2] == [1, 1]
    assert widths == sorted(widths, reverse=True)
    assert running_interval(values, 100).width > mean_interval(values).width


@pytest.mark.parametrize(("trainings", "bound"), [(3, 0.292), (5, 0.478), (10, 0.692)])
def test_what_trainings_without_a_failure_show_at_most(trainings, bound):
    works = [torch.ones(25, dtype=torch.float64)] * trainings
    low, high = free_interval(works, same_chips=True, confidence=0.95)
    assert low == pytest.approx(bound, abs=0.02)
    assert low == pytest.approx(share_interval(trainings, trainings).low, abs=0.02)
    assert high == pytest.approx(1, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=8))
def test_without_assumptions_trainings_of_0_and_1_count_as_single_trials(works):
    found = free_interval(
        [torch.full((4,), float(work), dtype=torch.float64) for work in works],
        same_chips=False,
        confidence=0.95,
    )
    assert found == pytest.approx(share_interval(sum(works), len(works)), abs=0.02)


def a_report(accuracies, seeds=None, **options):
    values = tensor(accuracies)
    return ChipReport("Gaussian", 0.1, values, tuple(seeds or range(len(values))), 100, **options)


def test_yield_over_trainings_says_what_it_assumes():
    good = [a_report([0.95 + 0.001 * i - 0.0002 * n for n in range(25)]) for i in range(3)]
    found = yield_over_trainings(good, 0.9)
    assert (found.working, found.chips, found.share) == (75, 75, 1)
    assert 0.8 < found.model.low < 1
    assert found.free.low == pytest.approx(0.29, abs=0.02)
    assert found.model.high == found.free.high == 1
    assert str(found).startswith(
        "yield at 90 %: all 75 chips work. If trainings differ like normal"
    )
    assert "3 trainings show only 29 .. 100 %" in str(found)
    assert str(yield_over_trainings(good, 0.9)) == str(found)
    # Trainings that differ much tell less.
    mixed = [a_report([0.95 - shift] * 25) for shift in (0, 0.1, 0.03)]
    wide = yield_over_trainings(mixed, 0.9)
    assert wide.model.width > 0.5
    assert wide.free.width > 0.5


def test_yield_of_one_training_is_its_own():
    found = yield_over_trainings([a_report([0.95] * 24 + [0.5])], 0.9)
    assert found.model == share_interval(24, 25)
    assert "says nothing of other trainings" in str(found)
    assert found.free == (0, 1)


def test_trainings_on_other_chips():
    reports = [a_report([0.95, 0.94, 0.80] * 8, range(i, i + 24)) for i in (0, 100, 200)]
    found = yield_over_trainings(reports, 0.9)
    assert found.working == 48
    assert found.model.low < 2 / 3 < found.model.high
    assert found.free.low < found.model.low


def test_impossible_values():
    with pytest.raises(ValueError, match="target must be a fraction"):
        yield_over_trainings([a_report([0.9])], 90)
    with pytest.raises(ValueError, match="there are no reports"):
        yield_over_trainings([], 0.9)
    with pytest.raises(ValueError, match="does not show whether it works"):
        yield_over_trainings([a_report([0.9, 0.8], sampled_from=1000)], 0.9)
    with pytest.raises(ValueError, match="got 3 of 2"):
        share_interval(3, 2)
    with pytest.raises(ValueError, match="chips must be at least 1, got 0"):
        unseen_share(0)
    with pytest.raises(ValueError, match="at least 1 image, got 0.5 of 0 images"):
        over_images(Interval(0.4, 0.6), 0.5, 0)
    with pytest.raises(ValueError, match="planned must be at least 2, got 1"):
        running_interval(tensor([0.5, 0.6]), 1)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 95"):
        training_yield([tensor([0.9])], 0.5, images=10, same_chips=True, confidence=95)
