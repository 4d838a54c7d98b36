"""Noise out of a table: where it comes from, and that a training can use it like any other."""

from __future__ import annotations

import pytest
import torch

from spikewvat import HSV, Gaussian
from spikewvat.devices import AbsMax, GaussianTable, HalfWidth, SixSigma
from spikewvat.devices.table import _ENTRIES, _PIECE, _table

TABLE = _table(torch.device("cpu"))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (30, 40), (_PIECE,), (_PIECE + 5,), (2, _PIECE)])
@pytest.mark.parametrize("rule", [SixSigma(), AbsMax(), HalfWidth(per_channel=True)], ids=repr)
def test_a_displacement_is_a_stretch_of_the_table_for_each_piece(shape, rule):
    weight = torch.randn(shape, generator=seeded(1))
    device = GaussianTable(0.2, rule)
    found = device.errors({"w": weight}, generator=seeded(2))["w"]
    generator, flat = seeded(2), []
    left = weight.numel()
    while left:
        length = min(left, _PIECE)
        start = int(torch.randint(_ENTRIES - length + 1, (), generator=generator))
        flat.append(TABLE[start : start + length])
        left -= length
    noise = torch.cat(flat).view(shape) if flat else torch.empty(shape)
    assert torch.equal(found, noise * (rule.size(weight) * 0.2))


def test_tensors_and_seeds_look_up_other_places():
    weights = {"a": torch.randn(500), "b": torch.randn(500)}
    device = GaussianTable(0.1)
    one, again, other = (device.program(weights, generator=seeded(s)) for s in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in weights)
    noise = [chip[name] - weights[name] for chip in (one, other) for name in weights]
    together = torch.corrcoef(torch.stack(noise)) - torch.eye(4)
    assert float(together.abs().max()) < 0.2


def test_the_table_is_fixed_and_normal():
    assert TABLE.shape == (_ENTRIES,)
    assert abs(float(TABLE.double().mean())) < 3e-3
    assert float(TABLE.double().std()) == pytest.approx(1, abs=2e-3)
    before = TABLE.clone()
    HSV(GaussianTable(0.1), gamma=0.5)({"w": torch.randn(2000)}, generator=seeded(5))
    assert torch.equal(TABLE, before)  # what is looked up is copied


def test_its_length_is_that_of_gaussian_variation():
    weights = {"a": torch.randn(40, 30), "b": torch.randn(7)}
    for rule in (SixSigma(), HalfWidth(per_channel=True)):
        norms = GaussianTable(0.1, rule).expected_norms(weights)
        for name, norm in Gaussian(0.1, rule).expected_norms(weights).items():
            assert torch.equal(norms[name], norm)
