"""The fast normal numbers are normal, independent, and the same for the same seed."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from spikewvat.devices import Gaussian, SixSigma
from spikewvat.devices.base import draw_dtype
from spikewvat.devices.normal import _table, standard_normal


def test_the_table_has_the_moments_of_the_normal_distribution():
    table = _table(torch.device("cpu")).double()
    assert float(table.mean()) == pytest.approx(0, abs=1e-9)
    assert float(table.square().mean()) == pytest.approx(1, abs=1e-7)
    assert float((table**3).mean()) == pytest.approx(0, abs=1e-7)
    assert float((table**4).mean()) == pytest.approx(3, abs=1e-2)
    assert float(table.max()) == pytest.approx(4.1698, abs=1e-3)
    assert torch.equal(table, -table.flip(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kolmogorov_smirnov(dtype):
    draw = standard_normal(
        torch.Size([400_003]), dtype=dtype, generator=torch.Generator().manual_seed(1)
    )
    assert draw.dtype == dtype
    assert stats.kstest(draw.double().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 8, 624])
def test_neighbours_are_independent(lag):
    """Four numbers share a random word: neither they nor their squares may be correlated."""
    draw = standard_normal(
        torch.Size([1_000_000]), dtype=torch.float32, generator=torch.Generator().manual_seed(2)
    )
    for values in (draw, draw.square()):
        pair = torch.stack([values[:-lag], values[lag:]])
        assert abs(float(torch.corrcoef(pair)[0, 1])) < 4e-3


@pytest.mark.parametrize("position", range(4))
def test_every_quarter_of_a_word_is_normal(position):
    """A word with an unused sign bit would make one quarter one-sided."""
    draw = standard_normal(
        torch.Size([400_000]), dtype=torch.float32, generator=torch.Generator().manual_seed(3)
    )[position::4]
    assert stats.kstest(draw.double().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (2, 0, 3)])
def test_shapes_and_seeds(shape):
    one, two = (
        standard_normal(
            torch.Size(shape), dtype=torch.float32, generator=torch.Generator().manual_seed(4)
        )
        for _ in range(2)
    )
    assert one.shape == shape
    assert torch.equal(one, two)


def literal_draw(count, generator):
    """Words in pieces, four 16-bit numbers each, lowest first; 15 bits of each say which number."""
    table, found = _table(torch.device("cpu")), []
    while len(found) < count:
        size = min(2**16, count - len(found))
        words = torch.empty(math.ceil(size / 4), dtype=torch.int64).random_(generator=generator)
        levels = [(word >> shift) & 0x7FFF for word in words.tolist() for shift in (0, 16, 32, 48)]
        found += levels[:size]
    return table[torch.tensor(found, dtype=torch.long)]


@pytest.mark.parametrize("count", [0, 1, 6, 32_768, 65_537, 140_001])
@pytest.mark.parametrize("scale", [None, 0.37])
def test_a_draw_is_that_of_the_literal_loop(count, scale):
    factor = None if scale is None else torch.full((1, 1), scale)
    found = standard_normal(
        torch.Size([count]),
        dtype=torch.float32,
        generator=torch.Generator().manual_seed(7),
        scale=factor,
    )
    expected = literal_draw(count, torch.Generator().manual_seed(7))
    assert torch.equal(found, expected if factor is None else expected * factor.view(()))


def test_a_seed_is_the_same_numbers_in_every_release():
    draw = standard_normal(
        torch.Size([6]), dtype=torch.float32, generator=torch.Generator().manual_seed(0)
    )
    levels = torch.searchsorted(_table(torch.device("cpu")), draw)
    assert levels.tolist() == [10799, 6084, 2732, 3199, 19648, 22561]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rule", [SixSigma(), SixSigma(per_channel=True)])
def test_gaussian_noise_is_range_times_draw_to_the_last_bit(dtype, rule):
    weight = torch.linspace(-1, 2, 200 * 250).view(200, 250).to(dtype)
    found = Gaussian(0.1, rule).errors({"fc": weight}, generator=torch.Generator().manual_seed(1))
    noise = standard_normal(
        weight.shape, dtype=draw_dtype(weight), generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(found["fc"], (noise * (rule.size(weight) * 0.1)).to(dtype))
