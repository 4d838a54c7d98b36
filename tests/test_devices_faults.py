"""Stuck cells: how many, where, and the errors of impossible probabilities."""

from __future__ import annotations

import math

import pytest
import torch

from spikewvat.devices import AbsMax, Fixed, MinMax, SixSigma, StuckAt


def test_as_many_cells_are_stuck_as_stated():
    w = torch.rand(400, 500) - 0.5
    generator = torch.Generator().manual_seed(1)
    chip = StuckAt(low=0.02, high=0.005, range=Fixed(-2, 3)).program({"w": w}, generator=generator)
    low, high = chip["w"] == -2, chip["w"] == 3
    for share, stuck in ((0.02, low), (0.005, high)):
        tolerance = 4 * math.sqrt(share * (1 - share) / w.numel())
        assert abs(float(stuck.float().mean()) - share) < tolerance
    working = ~(low | high)
    assert torch.equal(chip["w"][working], w[working])


@pytest.mark.parametrize("rule", [SixSigma(), AbsMax(), MinMax(per_channel=True)], ids=repr)
def test_cells_are_stuck_at_the_ends_of_the_range(rule):
    w = torch.randn(5, 20)
    low, high = (bound.expand(5, 20) for bound in rule.bounds(w))
    assert torch.equal(StuckAt(low=1.0, range=rule).program({"w": w})["w"], low)
    assert torch.equal(StuckAt(high=1.0, range=rule).program({"w": w})["w"], high)
    both = StuckAt(low=0.7, high=0.3, range=rule).program({"w": w})["w"]
    assert ((both == low) | (both == high)).all()


def test_without_faults_the_weights_are_as_they_were():
    w = torch.randn(5, 6).bfloat16()
    assert torch.equal(StuckAt().program({"w": w})["w"], w)


def test_norm_is_exact_where_every_cell_is_stuck():
    w = torch.randn(5, 6, dtype=torch.float64)
    norm = StuckAt(low=1.0, range=Fixed(-1, 1)).expected_norms({"w": w})["w"]
    torch.testing.assert_close(norm, (w + 1).norm())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": -0.1}, r"low must lie between 0 and 1, got -0\.1"),
        ({"high": 1.5}, r"high must lie between 0 and 1, got 1\.5"),
        ({"high": math.nan}, "high must lie between 0 and 1, got nan"),
        ({"low": "0.1"}, "low must lie between 0 and 1, got '0.1'"),
        ({"low": 0.6, "high": 0.5}, r"low \+ high must be at most 1, got 0\.6 \+ 0\.5"),
    ],
)
def test_impossible_probabilities(options, message):
    with pytest.raises(ValueError, match=message):
        StuckAt(**options)
