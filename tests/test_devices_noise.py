"""Random noise: the numbers of each distribution, its moments, its errors."""

from __future__ import annotations

import math

import pytest
import torch
from reference_devices import moments

from spikewvat.devices import (
    AbsMax,
    Fixed,
    Gaussian,
    Lognormal,
    MixtureNoise,
    SixSigma,
    SkewNormal,
    Uniform,
    Weibull,
)

N = 200_000


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_weibull_numbers():
    assert Weibull(0.1).k == 1.5
    assert Weibull(0.1).scale == pytest.approx(1.631492, abs=5e-7)
    assert Weibull(0.1).mean == pytest.approx(1.472822, abs=5e-7)
    assert Weibull(0.1, k=2.0).scale == pytest.approx(2.158655, abs=5e-7)
    assert Weibull(0.1, k=2.0).mean == pytest.approx(1.913058, abs=5e-7)


def test_skew_normal_numbers():
    device = SkewNormal(0.0383, a=4.0)
    assert device.omega == pytest.approx(1.579504, abs=5e-7)
    assert device.xi == pytest.approx(-1.222634, abs=5e-7)
    assert SkewNormal(0.1, a=0.0).omega == 1
    assert SkewNormal(0.1, a=0.0).xi == 0


def test_mixture_numbers():
    device = MixtureNoise(0.1)
    assert device.mean == pytest.approx(0.05, abs=1e-12)
    assert device.scale == pytest.approx(1.222702, abs=5e-7)
    standard = [(m - device.mean) / device.scale for m in device.means]
    assert standard == pytest.approx([-0.8588, 0.3680, 1.5948], abs=5e-5)
    assert device.std / device.scale == pytest.approx(0.2863, abs=5e-5)


@pytest.mark.parametrize(
    ("device", "skewness"),
    [
        (Gaussian(0.1), 0.0),
        (Uniform(0.1), 0.0),
        (Weibull(0.1), 1.0720),
        (Weibull(0.1, k=2.0), 0.6311),
        (SkewNormal(0.1), 0.7844),
        (SkewNormal(0.1, a=-4.0), -0.7844),
        (MixtureNoise(0.1), 0.5096),
    ],
    ids=repr,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_standard_noise_has_its_moments(device, skewness, dtype):
    noise = device.standard_noise(torch.Size([N]), dtype=dtype, generator=seeded(1))
    assert noise.dtype == dtype
    mean, std, skew = moments(noise.tolist())
    assert abs(mean) < 4 / math.sqrt(N)
    assert abs(std - 1) < 4 / math.sqrt(2 * N)
    assert abs(skew - skewness) < 0.03


def test_uniform_stays_within_its_bounds():
    noise = Uniform(0.1).standard_noise(torch.Size([N]), dtype=torch.float64, generator=seeded(2))
    assert 1.7320 < noise.max() <= 1.7320508076
    assert -1.7320508076 <= noise.min() < -1.7320


def test_mixture_of_points_has_only_its_points():
    device = MixtureNoise(0.1, weights=[0.25, 0.75], means=[3.0, -1.0], std=0.0)
    assert hash(device) == hash(MixtureNoise(0.1, weights=(0.25, 0.75), means=(3.0, -1.0), std=0))
    noise = device.standard_noise(torch.Size([N]), dtype=torch.float64, generator=seeded(3))
    values, counts = noise.unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([-1 / 3**0.5, 3**0.5], dtype=torch.float64))
    assert abs(float(counts[1]) / N - 0.25) < 0.005


def test_noise_is_sigma_times_range_times_the_standard_draw():
    w = torch.randn(6, 5, dtype=torch.float64)
    xi = torch.randn(6, 5, dtype=torch.float64, generator=seeded(4))
    for rule in (SixSigma(), AbsMax(per_channel=True)):
        delta = Gaussian(0.1, rule).errors({"w": w}, generator=seeded(4))["w"]
        torch.testing.assert_close(delta, 0.1 * rule.size(w) * xi, rtol=1e-14, atol=0)


def test_low_precision_noise_is_the_float32_draw_rounded():
    w = torch.randn(50, 60)
    for dtype in (torch.bfloat16, torch.float16):
        low = w.to(dtype)
        delta = Gaussian(0.1).errors({"w": low}, generator=seeded(5))["w"]
        wide = Gaussian(0.1).errors({"w": low.float()}, generator=seeded(5))["w"]
        assert torch.equal(delta, wide.to(dtype))


def test_every_channel_gets_noise_of_its_own_size():
    w = torch.randn(3, 50_000) * torch.tensor([[0.01], [1.0], [100.0]])
    delta = Gaussian(0.1, SixSigma(per_channel=True)).errors({"w": w}, generator=seeded(6))
    ratio = delta["w"].std(1) / (0.6 * w.std(1))
    assert float((ratio - 1).abs().max()) < 4 / math.sqrt(2 * 50_000)


def test_sigma_zero_changes_nothing():
    w = torch.randn(4, 5)
    for device in (
        Gaussian(0.0),
        Uniform(0),
        Weibull(0),
        SkewNormal(0),
        Lognormal(0),
    ):
        assert torch.equal(device.program({"w": w})["w"], w)


@pytest.mark.parametrize("keep_mean", [False, True])
def test_lognormal_moments(keep_mean):
    s = 0.4
    device = Lognormal(s, keep_mean=keep_mean)
    chip = device.program({"w": torch.full((N,), -2.0, dtype=torch.float64)}, generator=seeded(7))
    ratio = chip["w"] / -2.0
    mean = 1.0 if keep_mean else math.exp(s * s / 2)
    std = mean * math.sqrt(math.expm1(s * s))
    assert float(ratio.mean()) == pytest.approx(mean, abs=4 * std / math.sqrt(N))
    assert float(ratio.std()) == pytest.approx(std, rel=0.02)
    assert float(ratio.log().std()) == pytest.approx(s, rel=4 / math.sqrt(2 * N))
    assert not device.program({"w": torch.zeros(3)})["w"].any()


@pytest.mark.parametrize("kind", [Gaussian, Uniform, Weibull, SkewNormal, MixtureNoise, Lognormal])
def test_sigma_must_be_a_number_of_at_least_zero(kind):
    for sigma in (-0.1, math.nan, math.inf, "0.1", None):
        with pytest.raises(
            ValueError, match=f"sigma must be a finite number of at least 0, got {sigma!r}"
        ):
            kind(sigma)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Weibull(0.1, k=0.0), r"k must be a finite number above 0, got 0\.0"),
        (lambda: Weibull(0.1, k=math.nan), "k must be a finite number above 0, got nan"),
        (lambda: Weibull(0.1, k=0.01), r"k must be at least 0\.05, got 0\.01"),
        (lambda: SkewNormal(0.1, a=math.inf), "a must be a finite number, got inf"),
        (lambda: MixtureNoise(0.1, weights=(1.0,)), "got 1 weights and 3 means"),
        (lambda: MixtureNoise(0.1, weights=(), means=()), "got 0 weights and 0 means"),
        (lambda: MixtureNoise(0.1, weights=(0.5, 0.5, 0.5)), r"add up to 1, got .* = 1\.5"),
        (lambda: MixtureNoise(0.1, weights=(-0.5, 1.0, 0.5)), r"at least 0, got -0\.5"),
        (lambda: MixtureNoise(0.1, means=(0.0, math.nan, 1.0)), "means must be finite"),
        (lambda: MixtureNoise(0.1, std=-1.0), r"std must be .* at least 0, got -1\.0"),
        (lambda: MixtureNoise(0.1, means=(1.0, 1.0, 1.0), std=0.0), "needs std above 0"),
        (lambda: Gaussian(0.1, Fixed), "range must be a range rule"),
    ],
)
def test_impossible_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()
