"""The fast normal numbers are normal, independent, and the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

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
