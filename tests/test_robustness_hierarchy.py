"""Trainings and chips: components and intervals, comparisons, and how many chips are needed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import reference_statistics as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from spikewvat.robustness import (
    ChipReport,
    Degradation,
    Hierarchy,
    chips_needed,
    chips_needed_per_training,
    hierarchical,
    holm,
    over_trainings,
    paired_differences,
)
from spikewvat.robustness.statistics import FRACTIONS
from spikewvat.serialisation import plain

TABLE = [[0.90, 0.92, 0.91], [0.94, 0.97, 0.93]]


def drawn(trainings, chips, seed, common, chip, *, generator):
    """Return a table of the model y = s + c + e with mean 0."""

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return seed * normal(trainings, 1) + common * normal(1, chips) + chip * normal(trainings, chips)


def a_report(accuracies, seeds=None, *, sigma=0.1, device="Gaussian(sigma=0.1)", images=100):
    values = torch.tensor(accuracies, dtype=torch.float64)
    return ChipReport(device, sigma, values, tuple(seeds or range(len(values))), images)


accuracies = st.floats(0, 1, allow_subnormal=False)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(accuracies, min_size=2, max_size=6), min_size=2, max_size=5))
def test_different_chips_are_nested(groups):
    found = hierarchical(groups, same_chips=False)
    mean, error, degrees, seed, within = reference.nested(groups)
    assert (found.mean, found.std_error) == pytest.approx((mean, error), abs=1e-12)
    assert (found.seed_std, found.chip_std) == pytest.approx((seed, within), abs=1e-7)
    assert (found.degrees, found.common_std, found.trainings) == (degrees, 0, len(groups))
    assert found.interval(0.9) == pytest.approx(
        reference.interval(mean, error, degrees, 0.9), abs=1e-10
    )


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_the_same_chips_are_crossed(data):
    a, n = data.draw(st.integers(2, 5)), data.draw(st.integers(2, 6))
    row = st.lists(accuracies, min_size=n, max_size=n)
    table = data.draw(st.lists(row, min_size=a, max_size=a))
    found = hierarchical(torch.tensor(table, dtype=torch.float64), same_chips=True)
    mean, error, _, seed, common, rest = reference.crossed(table)
    assert (found.mean, found.std_error) == pytest.approx((mean, error), abs=1e-8)
    stds = (found.seed_std, found.common_std, found.chip_std)
    assert stds == pytest.approx((seed, common, rest), abs=1e-7)
    assert found.degrees == (min(a, n) if found.common_std else a) - 1
    leaning = reference.lean([sum(row[j] for row in table) / a for j in range(n)])
    expected = reference.interval(mean, error, found.degrees)
    if a > 3 and leaning:
        expected = reference.extended(table, leaning)
    assert tuple(found.interval()) == pytest.approx(tuple(expected), abs=1e-6)


def test_components_of_a_table_by_hand():
    # Rows have means 1 and 3, columns 1, 2, 3; the rest is 0.
    found = hierarchical([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]], same_chips=True)
    assert found.mean == 2
    assert (found.seed_std, found.common_std, found.chip_std) == (math.sqrt(2), 1, 0)
    assert found.std_error == pytest.approx(math.sqrt(2 / 2 + 1 / 3))
    # Without common chips: MS between 6, within 1; (6 - 1) / 3 between trainings.
    found = hierarchical([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]], same_chips=False)
    assert (found.seed_std, found.chip_std) == pytest.approx((math.sqrt(5 / 3), 1))
    assert found.std_error == 1
    assert stats.f_oneway([0, 1, 2], [2, 3, 4]).statistic == pytest.approx(6)


def test_one_training_is_the_interval_over_its_chips():
    report = a_report([0.90, 0.92, 0.94])
    found = over_trainings([report])
    assert found.interval() == pytest.approx(report.ci95)
    assert math.isnan(found.seed_std)
    assert "1 training x 3 chips" in str(found)


def test_what_is_not_defined():
    single = hierarchical([[0.9]], same_chips=True)
    assert single.degrees == 0
    assert all(math.isnan(bound) for bound in single.interval())
    assert math.isnan(single.p_value)
    one_chip = hierarchical([[0.90], [0.94]], same_chips=True)
    assert (one_chip.std_error, one_chip.degrees) == (pytest.approx(0.02), 1)
    assert math.isnan(one_chip.seed_std)


def test_p_value_is_that_of_scipy():
    groups = [[0.01, 0.03], [0.02, 0.05], [-0.01, 0.02]]
    found = hierarchical(groups, same_chips=False)
    assert found.low is found.high is None  # pairs do not lean to a side
    expected = stats.ttest_1samp([0.02, 0.035, 0.005], 0).pvalue
    assert found.p_value == pytest.approx(expected, rel=1e-10)
    assert hierarchical([[0.1, 0.1], [0.1, 0.1]], same_chips=False).p_value == 0
    assert hierarchical([[0.0, 0.0], [0.0, 0.0]], same_chips=False).p_value == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(-9, 9), min_size=4, max_size=4), min_size=1, max_size=5),
    st.booleans(),
)
def test_the_p_value_is_where_the_interval_reaches_0(table, same_chips):
    found = hierarchical([[v / 10 for v in row] for row in table], same_chips=same_chips)
    p = found.p_value
    assert 0 <= p <= 1
    for confidence in (0.5, 0.9, 0.95, 0.99):
        low, high = found.interval(confidence)
        if abs(p - (1 - confidence)) > 1e-6 and found.std_error > 1e-9:
            assert (low > 0 or high < 0) == (p < 1 - confidence)


def test_a_summary_survives_a_file(through_a_file):
    for values in (TABLE, [[0.9]], [[0.9, 0.8]], [[0.9, 0.5, 0.9, 0.9]]):
        found = hierarchical(values, same_chips=True)
        again = through_a_file(found)
        assert again.interval() == found.interval() or found.degrees < 1
        assert str(again) == str(found)
        assert plain(again) == plain(found)


def test_reports_on_other_chips_are_nested():
    one, other = a_report(TABLE[0], (1, 2, 3)), a_report(TABLE[1], (1, 2, 3))
    assert over_trainings([one, other]) == hierarchical(TABLE, same_chips=True, bounds=FRACTIONS)
    elsewhere = replace(other, seeds=(4, 5, 6))
    found = over_trainings([one, elsewhere])
    assert found == hierarchical(TABLE, same_chips=False, bounds=FRACTIONS)


def test_skewed_chips_widen_the_interval_on_their_side():
    bad = [[0.95 - s] * 19 + [0.80 - 3 * s] for s in (0, 0.01, 0.02, 0.03)]
    found = hierarchical(bad, same_chips=True)
    assert found.high is None
    assert tuple(found.interval()) == pytest.approx(reference.extended(bad, -1), abs=1e-9)
    assert found.interval().low < found.mean - 1.3 * (found.interval().high - found.mean)
    good = [[1 - value for value in row] for row in bad]
    low, high = hierarchical(good, same_chips=True).interval()
    assert (1 - high, 1 - low) == pytest.approx(tuple(found.interval()), abs=1e-9)
    # Accuracies end at 0, and so does the extra chip.
    worst = [[0.9 - s] * 19 + [0.1 - s] for s in (0, 0.01, 0.02, 0.03)]
    found = over_trainings([a_report(row) for row in worst])
    assert tuple(found.interval()) == pytest.approx(reference.extended(worst, -1, low=0, high=1))
    assert tuple(found.interval()) != pytest.approx(reference.extended(worst, -1))
    # Neither chips that hardly lean nor three trainings need one.
    even = [[0.95 - 0.001 * n for n in range(20)]] * 4
    for table in (even, bad[:3]):
        assert hierarchical(table, same_chips=True).low is None


def coverage(repetitions, *design, same_chips=True):
    generator = torch.Generator().manual_seed(1)
    inside = 0
    for _ in range(repetitions):
        table = drawn(*design, generator=generator)
        low, high = hierarchical(table, same_chips=same_chips).interval()
        inside += low <= 0 <= high
    return inside / repetitions


def test_intervals_cover_as_often_as_they_say():
    tolerance = 4 * math.sqrt(0.95 * 0.05 / 1500)
    assert coverage(1500, 3, 5, 1, 0, 1, same_chips=False) == pytest.approx(0.95, abs=tolerance)
    assert coverage(1500, 3, 5, 0, 1, 0.5) > 0.95 - tolerance
    # What the second term is for: a chip that is bad for all trainings is one bad chip.
    assert coverage(500, 3, 5, 0, 1, 0.5, same_chips=False) < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("trainings", [2, 3, 5, 10])
@pytest.mark.parametrize("chips", [5, 25])
def test_intervals_never_cover_much_less(trainings, chips):
    tolerance = 4 * math.sqrt(0.95 * 0.05 / 10000)
    for stds in ((1, 0, 1), (0, 0, 1), (1, 0.3, 1), (0.2, 0.5, 1), (0, 1, 0.1), (1, 1, 0.3)):
        assert coverage(10000, trainings, chips, *stds) > 0.945 - tolerance, stds
    found = coverage(10000, trainings, chips, 1, 0, 1, same_chips=False)
    assert found == pytest.approx(0.95, abs=tolerance)


def a_curve(shift, seeds=(1, 2, 3), sigmas=(0.05, 0.1)):
    rows = [[a + shift - s for a in (0.90, 0.92, 0.91)] for s in sigmas]
    return Degradation(
        0.95,
        tuple(
            a_report(row, seeds, sigma=s, device=f"Gaussian(sigma={s})")
            for row, s in zip(rows, sigmas)
        ),
    )


def test_methods_are_compared_chip_by_chip():
    methods = {
        "sgd": [a_report([0.90, 0.80, 0.70]), a_report([0.91, 0.82, 0.73])],
        "sam": [a_report([0.91, 0.80, 0.70]), a_report([0.90, 0.82, 0.75])],
        "wvat": [a_report([0.92, 0.82, 0.73]), a_report([0.93, 0.85, 0.75])],
    }
    table = paired_differences(methods)
    named = [(d.method, d.reference) for d in table.differences]
    assert named == [("sam", "sgd"), ("wvat", "sgd"), ("wvat", "sam")]
    differences = [[0.02, 0.02, 0.03], [0.02, 0.03, 0.02]]
    mean, error, degrees, *_ = reference.crossed(differences)
    found = table.between("wvat", "sgd")
    assert found.found.mean == pytest.approx(mean)
    assert found.found.interval() == pytest.approx(reference.interval(mean, error, degrees))
    # Far narrower than the spread over chips: what both have in common drops out.
    assert found.found.interval().width < 0.05 < methods["sgd"][0].ci95.width
    p = [d.found.p_value for d in table.differences]
    assert [d.p_adjusted for d in table.differences] == holm(p) != p
    assert "wvat - sgd: +2.33 points (95 % CI" in str(table)


def test_comparing_with_a_reference_and_at_a_sigma():
    methods = {"a": [a_curve(0.0)], "b": [a_curve(0.01)], "c": [a_curve(0.03)]}
    table = paired_differences(methods, reference="b", sigma=0.05)
    assert (table.sigma, table.device) == (0.05, "Gaussian(sigma=0.05)")
    assert [(d.method, d.reference) for d in table.differences] == [("a", "b"), ("c", "b")]
    assert table.between("c", "b").found.mean == pytest.approx(0.02)
    assert paired_differences(methods).sigma == 0.1
    with pytest.raises(KeyError, match="b - c was not compared \\(compared: a - b, c - b\\)"):
        table.between("b", "c")


def test_only_common_chips_are_compared():
    one = [a_report([0.9, 0.8, 0.7], (1, 2, 3))]
    other = [a_report([0.75, 0.95], (3, 1))]
    found = paired_differences({"one": one, "other": other}).differences[0].found
    assert (found.mean, found.chips) == (pytest.approx(0.05), 2)


def test_a_comparison_survives_a_file(through_a_file):
    table = paired_differences({"a": [a_curve(0.0)] * 2, "b": [a_curve(0.01)] * 2})
    assert through_a_file(table) == table
    assert table.differences[0].is_significant


@settings(max_examples=40, deadline=None)
@given(st.floats(0.001, 0.2), st.floats(0.004, 0.2), st.sampled_from([0.8, 0.95, 0.99]))
def test_chips_needed_is_the_smallest_number(std, width, confidence):
    found = chips_needed(std, width, confidence=confidence)
    assert found == reference.fewest_chips(std, width, confidence)


@pytest.mark.parametrize(
    "values",
    [
        [0.90, 0.92, 0.94, 0.91],
        [0.95] * 10 + [0.94] * 5 + [0.93, 0.92, 0.85, 0.80],
        [0.99, 1.0, 1.0, 0.98, 1.0, 0.97, 1.0, 1.0, 0.9, 1.0, 0.99],
    ],
)
@pytest.mark.parametrize("ratio", [0.4, 1.0, 3.0])
def test_chips_needed_from_a_pilot_run(values, ratio):
    report = a_report(values)
    width = ratio * report.std

    def enough(chips):
        return reference.typical_width(values, chips, 0.95, 0, 1) <= width

    found = chips_needed(report, width)
    assert enough(found)
    assert not any(enough(fewer) for fewer in range(max(2, found - 5), found) if fewer != 10)
    skewed = reference.lean(values) if len(values) > 10 else 0
    assert (found > 1.5 * chips_needed(report.std, width)) == bool(skewed and ratio < 3)


def test_equal_chips_need_no_more_than_two():
    assert chips_needed(0.0, 0.01) == chips_needed(a_report([0.9] * 3), 0.01) == 2


def test_skewed_pilots_ask_for_more_chips_per_training():
    shifts = (0, 0.001, 0.002, 0.003)
    rows = [[0.95 + s] * 10 + [0.94 + s] * 5 + [0.92, 0.85] for s in shifts]
    skewed = hierarchical(rows, same_chips=True)
    even = replace(skewed, low=None)
    width = 0.06
    few, many = (chips_needed_per_training(pilot, width) for pilot in (even, skewed))
    assert many > few >= 11


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_chips_per_training_is_the_smallest_number(data):
    trainings = data.draw(st.integers(2, 8))
    seed, common, chip = (data.draw(st.sampled_from([0.0, 0.001, 0.01])) for _ in range(3))
    found = Hierarchy(0.9, 3, 25.0, seed, common, chip, 0.01, 2)
    at_best = 2 * stats.t.ppf(0.975, trainings - 1) * seed / math.sqrt(trainings)
    width = at_best + data.draw(st.floats(0.005, 0.1))
    n = chips_needed_per_training(found, width, trainings=trainings)
    assert n == reference.fewest_chips_per_training(seed, common, chip, trainings, width, 0.95)


def test_impossible_values():
    with pytest.raises(ValueError, match=r"values hold \[2, 0\] chips, expected at least one"):
        hierarchical([[0.1, 0.2], []], same_chips=False)
    with pytest.raises(ValueError, match=r"values hold \[2, 1\] chips, expected the same chips"):
        hierarchical([[0.1, 0.2], [0.1]], same_chips=True)
    with pytest.raises(ValueError, match=r"values of training 1 are not finite: \[nan\]"):
        hierarchical([[0.1], [math.nan]], same_chips=False)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 95"):
        hierarchical(TABLE, same_chips=True).interval(95)


def test_comparisons_that_cannot_be_made():
    one = [a_report([0.9, 0.8])]
    with pytest.raises(ValueError, match=r"nothing to compare in \['a'\], expected two methods"):
        paired_differences({"a": one})
    with pytest.raises(ValueError, match=r"reference 'sgd' is not one of the methods \('a', 'b'\)"):
        paired_differences({"a": one, "b": one}, reference="sgd")
    with pytest.raises(ValueError, match=r"numbers of trainings are \{'a': 1, 'b': 2\}"):
        paired_differences({"a": one, "b": one * 2})
    with pytest.raises(ValueError, match="on 50 images with Gaussian.*Evaluate all methods alike"):
        paired_differences({"a": one, "b": [a_report([0.9, 0.8], images=50)]})
    with pytest.raises(ValueError, match="'b' and 'a' share 0 chips, expected at least two"):
        paired_differences({"a": one, "b": [a_report([0.9, 0.8], (7, 8))]})
    with pytest.raises(KeyError, match=r"sigma 0\.2 was not swept"):
        paired_differences({"a": [a_curve(0.0)], "b": [a_curve(0.1)]}, sigma=0.2)


def test_plans_that_cannot_be_made():
    with pytest.raises(ValueError, match=r"spread must be at least 0, got nan\. A pilot run needs"):
        chips_needed(a_report([0.9]), 0.01)
    with pytest.raises(ValueError, match=r"width must be a finite number above 0, got 0\.0"):
        chips_needed(0.01, 0.0)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 95"):
        chips_needed(0.01, 0.01, confidence=95)
    pilot = Hierarchy(0.9, 3, 25.0, 0.01, 0.0, 0.01, 0.006, 2)
    with pytest.raises(ValueError, match=r"no number of chips .* of 3 trainings .* at least 18"):
        chips_needed_per_training(pilot, 0.01)
    with pytest.raises(ValueError, match="trainings must be at least 2, got 1"):
        chips_needed_per_training(pilot, 0.1, trainings=1)
    with pytest.raises(ValueError, match="components of 2 trainings x 1 chips are not known"):
        chips_needed_per_training(hierarchical([[0.9], [0.8]], same_chips=True), 0.1)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_trainings_of_folds_are_compared_within_their_folds(data):
    folds, a, n = (data.draw(st.integers(2, most)) for most in (4, 3, 5))
    row = st.lists(accuracies, min_size=n, max_size=n)
    tables = data.draw(
        st.lists(st.lists(row, min_size=a, max_size=a), min_size=folds, max_size=folds)
    )
    # Seed by seed, as the reports of a suite are.
    rows = [tables[fold][seed] for seed in range(a) for fold in range(folds)]
    found = hierarchical(rows, same_chips=True, folds=list(range(folds)) * a)
    mean, error, seed, common, rest = reference.crossed_in_folds(tables)
    assert (found.mean, found.std_error) == pytest.approx((mean, error), abs=1e-8)
    stds = (found.seed_std, found.common_std, found.chip_std)
    assert stds == pytest.approx((seed, common, rest), abs=1e-7)
    freedom = folds * (a - 1)
    assert found.degrees == (min(freedom, n - 1) if found.common_std else freedom)
    assert found.trainings == folds * a
    other = hierarchical(rows, same_chips=False, folds=list(range(folds)) * a)
    means = [[sum(row) / n for row in table] for table in tables]
    squares = sum((m - sum(fold) / a) ** 2 for fold in means for m in fold)
    assert other.std_error**2 == pytest.approx(squares / freedom / (folds * a), abs=1e-12)
    assert other.degrees == freedom


def test_intervals_over_folds_cover():
    """Folds differ in difficulty and in what a chip does to them: the interval is for these."""
    generator = torch.Generator().manual_seed(0)
    folds, a, n, runs = 5, 2, 25, 400
    hits = 0
    for _ in range(runs):
        difficulty = 0.3 * torch.randn(folds, 1, generator=generator, dtype=torch.float64)
        chips = 0.02 * torch.randn(folds, n, generator=generator, dtype=torch.float64)
        truth = float(difficulty.mean())
        rows = [
            row
            for _ in range(a)
            for row in difficulty + chips + drawn(folds, n, 0.01, 0.0, 0.02, generator=generator)
        ]
        low, high = hierarchical(rows, same_chips=True, folds=list(range(folds)) * a).interval()
        hits += low <= truth <= high
    assert 0.92 <= hits / runs <= 1


def test_differences_of_folds_have_the_trainings_of_all():
    def row(shift, generator):
        table = 0.8 + 0.01 * torch.randn(5, 25, generator=generator, dtype=torch.float64) + shift
        return ChipReport("d", 0.1, table.mean(0), tuple(range(25)), 50, by_fold=table)

    generator = torch.Generator().manual_seed(0)
    plain_rows, better = ([row(shift, generator) for _ in range(2)] for shift in (0.0, 0.02))
    found = paired_differences({"plain": plain_rows, "better": better}).between("better", "plain")
    assert (found.found.trainings, found.found.degrees) == (10, 5)
    table = torch.cat([b.by_fold - p.by_fold for p, b in zip(plain_rows, better, strict=True)])
    expected = hierarchical(table, same_chips=True, folds=[*range(5), *range(5)])
    assert found.found.interval() == pytest.approx(expected.interval())
    assert over_trainings(better).degrees == 5
    assert Degradation.pooled([Degradation(0.8, (one,)) for one in better]).reports[0].chips == 250
    (one,) = [
        found.found
        for found in paired_differences({"plain": plain_rows[:1], "better": better[:1]}).differences
    ]
    assert (one.trainings, one.degrees) == (1, 24)  # nothing to compare within a fold
    other = replace(better[1], by_fold=better[1].by_fold[:4])
    with pytest.raises(ValueError, match=r"4 folds, 'plain' on 5"):
        paired_differences({"plain": plain_rows, "better": [better[0], other]})
    with pytest.raises(ValueError, match=r"by fold have the shape \(5, 24\)"):
        replace(better[0], by_fold=better[0].by_fold[:, 1:])
    with pytest.raises(ValueError, match=r"two trainings or more in each"):
        hierarchical([[0.1, 0.2]] * 3, same_chips=True, folds=[0, 0, 1])


def test_folds_survive_a_file(through_a_file):
    table = torch.tensor([[0.5, 0.25], [1.0, 0.75]], dtype=torch.float64)
    report = ChipReport("d", 0.1, table.mean(0), (0, 1), 8, by_fold=table)
    assert torch.equal(through_a_file(report).by_fold, table)
