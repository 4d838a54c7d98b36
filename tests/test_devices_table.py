"""Training noise out of a table: where it comes from, and that chips are drawn."""

from __future__ import annotations

import pytest
import torch

from spikewvat import HSV, Gaussian
from spikewvat.devices import AbsMax, HalfWidth, SixSigma
from spikewvat.devices.normal import standard_normal
from spikewvat.devices.table import ENTRIES, STRETCH

TABLE = standard_normal(
    torch.Size([ENTRIES]), dtype=torch.float32, generator=torch.Generator().manual_seed(0)
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def stretches(count, generator):
    """Literally: a stretch for each million weights, from a place that is drawn."""
    found = []
    while count:
        length = min(count, STRETCH)
        start = int(torch.randint(ENTRIES - length + 1, (), generator=generator))
        found.append(TABLE[start : start + length])
        count -= length
    return torch.cat(found) if found else torch.empty(0)


@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (30, 40), (STRETCH,), (STRETCH + 5,), (2, STRETCH)]
)
@pytest.mark.parametrize("rule", [SixSigma(), AbsMax(), HalfWidth(per_channel=True)], ids=repr)
def test_training_noise_is_a_stretch_of_the_table(shape, rule):
    device = Gaussian(0.2, rule)
    weight = torch.randn(shape, generator=seeded(1))
    found = HSV(device, gamma=0.5)({"w": weight}, generator=seeded(2))["w"]
    noise = stretches(weight.numel(), seeded(2)).view(shape)
    torch.testing.assert_close(found, noise * (rule.size(weight) * 0.1), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_dtypes_look_up_the_same_numbers(dtype):
    weight = torch.randn(50, 40, generator=seeded(1)).to(dtype)
    found = HSV(Gaussian(0.1))({"w": weight}, generator=seeded(2))["w"]
    noise = stretches(weight.numel(), seeded(2)).view(50, 40)
    expected = (noise * (SixSigma().size(weight) * 0.1)).to(dtype)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_chips_are_drawn_and_training_noise_can_be():
    weights = {"w": torch.randn(200, 30, generator=seeded(1))}
    device, drawn = Gaussian(0.1), Gaussian(0.1, drawn=True)
    chip, other = (d.program(weights, generator=seeded(2))["w"] for d in (device, drawn))
    assert torch.equal(chip, other)
    noise = HSV(drawn)(weights, generator=seeded(2))["w"]
    torch.testing.assert_close(noise, chip - weights["w"], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(HSV(device)(weights, generator=seeded(2))["w"], noise)


class Coins(Gaussian):
    """A distribution of a user's own."""

    def standard_noise(self, shape, *, dtype, generator=None):
        return 2.0 * torch.randint(2, shape, generator=generator, dtype=dtype) - 1


def test_numbers_of_a_users_own_are_drawn():
    weights = {"w": torch.randn(60, generator=seeded(1))}
    noise = HSV(Coins(0.1))(weights, generator=seeded(2))["w"]
    expected = Coins(0.1).errors(weights, generator=seeded(2))["w"]
    torch.testing.assert_close(noise, expected, rtol=1e-5, atol=1e-8)


def test_tensors_and_seeds_look_up_other_places():
    weights = {"a": torch.randn(500), "b": torch.randn(500)}
    noisy = HSV(Gaussian(0.1))
    one, again, other = (noisy(weights, generator=seeded(s)) for s in (3, 3, 4))
    assert all(torch.equal(one[name], again[name]) for name in weights)
    together = torch.corrcoef(torch.stack([*one.values(), *other.values()])) - torch.eye(4)
    assert float(together.abs().max()) < 0.2


def test_weights_are_never_the_tables_own_memory():
    weights = {"w": torch.randn(2000)}
    one = HSV(Gaussian(0.1))(weights, generator=seeded(5))["w"]
    kept = one.clone()
    one.zero_()
    assert torch.equal(HSV(Gaussian(0.1))(weights, generator=seeded(5))["w"], kept)
