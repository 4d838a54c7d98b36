"""Shifts lose what leaves the frame and invent nothing."""

from __future__ import annotations

import pytest
import torch

from spikewvat.data.augmentation import RandomShift


def test_every_sample_is_a_shifted_copy_with_empty_border():
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(3, 40, 2, 6, 7, generator=generator) < 0.5).float()
    shifted = RandomShift(2)(spikes, generator=generator)
    seen = set()
    for index in range(40):
        padded = torch.nn.functional.pad(spikes[:, index], (2, 2, 2, 2))
        matches = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(shifted[:, index], padded[..., 2 - dy : 8 - dy, 2 - dx : 9 - dx])
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 15


def test_a_shift_beyond_the_frame_is_empty_and_a_seed_repeats():
    spikes = torch.ones(1, 64, 1, 2, 2)
    one = RandomShift(5)(spikes, generator=torch.Generator().manual_seed(1))
    two = RandomShift(5)(spikes, generator=torch.Generator().manual_seed(1))
    assert torch.equal(one, two)
    assert (one.sum((0, 2, 3, 4)) == 0).any()
    assert one.dtype == spikes.dtype


def test_wrong_input():
    with pytest.raises(ValueError, match="pixels must be at least 1, got 0"):
        RandomShift(0)
    with pytest.raises(ValueError, match=r"needs spikes \[T, B, C, H, W\], got shape \(2, 3\)"):
        RandomShift(1)(torch.zeros(2, 3))
