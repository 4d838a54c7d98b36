"""Drift: the law, the clipped exponent, one chip at several ages."""

from __future__ import annotations

import math

import pytest
import torch
from reference_devices import drift_mean_square

from spikewvat.devices import Drift


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_without_spread_it_is_the_power_law():
    w = torch.randn(4, 5, dtype=torch.float64)
    chip = Drift(nu=0.06, time=5e3, t0=20.0).program({"w": w})["w"]
    torch.testing.assert_close(chip, w * 250**-0.06, rtol=1e-13, atol=0)
    norm = Drift(nu=0.06, time=5e3, t0=20.0).expected_norms({"w": w})["w"]
    torch.testing.assert_close(norm, (chip - w).norm())


def test_exponents_are_those_of_the_chip_at_every_age():
    w = torch.ones(300, 300, dtype=torch.float64)
    ages = (10.0, 1e3, 1e6)
    exponents = []
    for time in ages:
        chip = Drift(nu=0.05, time=time, nu_std=0.04).program({"w": w}, generator=seeded(1))["w"]
        exponents.append(-chip.log() / math.log(time))
    torch.testing.assert_close(exponents[0], exponents[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(exponents[0], exponents[2], rtol=1e-9, atol=1e-12)
    assert float(exponents[0].min()) == 0  # clipped: nothing grows
    share = 0.5 * math.erfc(0.05 / 0.04 / math.sqrt(2))
    clipped = float((exponents[0] == 0).double().mean())
    assert abs(clipped - share) < 4 * math.sqrt(share * (1 - share) / w.numel())


def test_at_the_first_read_nothing_has_happened():
    w = torch.randn(10)
    assert torch.equal(Drift(nu=0.1, nu_std=0.1, time=3.0, t0=3.0).program({"w": w})["w"], w)


@pytest.mark.parametrize("spread", [1e-4, 0.02, 0.3, 3.0])
def test_norm_is_that_of_the_literal_integral(spread):
    w = torch.tensor([3.0, -4.0], dtype=torch.float64)
    for nu in (0.0, 0.05, 0.5):
        for time in (2.0, 1e4, 1e30):
            norm = float(Drift(nu=nu, time=time, nu_std=spread).expected_norms({"w": w})["w"])
            expected = 5 * math.sqrt(drift_mean_square(nu, spread, math.log(time)))
            assert norm == pytest.approx(expected, rel=2e-3), (nu, time)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nu": -0.1}, r"nu must be a finite number of at least 0, got -0\.1"),
        ({"nu": math.nan}, "nu must be a finite number of at least 0, got nan"),
        ({"nu_std": -1.0}, r"nu_std must be .* at least 0, got -1\.0"),
        ({"t0": 0.0}, r"t0 must be a finite number above 0, got 0\.0"),
        ({"time": math.inf}, "time must be a finite number above 0, got inf"),
        ({"time": 0.5}, r"time must be at least t0 = 1\.0 s, got 0\.5"),
    ],
)
def test_impossible_numbers(options, message):
    with pytest.raises(ValueError, match=message):
        Drift(**{"nu": 0.05, "time": 10.0, **options})
