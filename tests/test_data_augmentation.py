"""Shifts lose what leaves the frame and invent nothing; flips mirror whole samples."""

from __future__ import annotations

import pytest
import torch

from spikewvat.data.augmentation import Chain, RandomFlip, RandomShift


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


def test_every_image_is_a_crop_of_itself_padded():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(60, 3, 6, 7, generator=generator)
    shifted = RandomShift(2, fill=-1.0)(images, generator=generator)
    seen = set()
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2), value=-1.0)
    for index in range(60):
        matches = [
            (dy, dx)
            for dy in range(5)
            for dx in range(5)
            if torch.equal(shifted[index], padded[index, :, dy : dy + 6, dx : dx + 7])
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) > 18


def test_each_channel_has_its_own_border():
    images = torch.rand(20, 3, 5, 4)
    fill = (-1.0, 2.0, 0.25)
    one, two, three = (torch.Generator().manual_seed(4) for _ in range(3))
    shifted = RandomShift(2, fill=fill)(images, generator=one)
    for channel, value in enumerate(fill):
        alone = images[:, channel, None].repeat(1, 3, 1, 1)
        generator = torch.Generator().manual_seed(4)
        expected = RandomShift(2, fill=value)(alone, generator=generator)[:, channel]
        assert torch.equal(shifted[:, channel], expected)
    timed = RandomShift(2, fill=fill)(images[None], generator=two)
    assert torch.equal(timed[0], shifted)
    with pytest.raises(ValueError, match=r"fill has 3 values, but the batch 2 channels"):
        RandomShift(2, fill=fill)(images[:, :2], generator=three)


def test_images_and_spikes_of_one_step_are_shifted_alike():
    images = torch.rand(9, 2, 5, 4)
    shift = RandomShift(3, fill=0.5)
    one, two = (torch.Generator().manual_seed(4) for _ in range(2))
    assert torch.equal(shift(images, generator=one), shift(images[None], generator=two)[0])


def test_about_half_of_the_samples_are_mirrored():
    images = torch.rand(400, 1, 2, 5)
    flipped = RandomFlip()(images, generator=torch.Generator().manual_seed(0))
    same = (flipped == images).flatten(1).all(1)
    mirrored = (flipped == images.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 160 < mirrored.sum() < 240
    assert torch.equal(RandomFlip(0.0)(images), images)
    assert torch.equal(RandomFlip(1.0)(images), images.flip(-1))


def test_all_steps_of_a_sample_are_mirrored_alike_dense_or_sparse():
    spikes = (torch.rand(4, 30, 2, 3, 5) < 0.3).float()
    one, two, three = (torch.Generator().manual_seed(4) for _ in range(3))
    flipped = RandomFlip()(spikes, generator=one)
    assert torch.equal(flipped[2], RandomFlip()(spikes[2], generator=two))
    sparse = RandomFlip()(spikes.to_sparse(), generator=three)
    assert torch.equal(sparse.to_dense(), flipped)
    assert sparse.is_coalesced()


def test_a_chain_draws_step_after_step_from_one_generator():
    images = torch.rand(8, 3, 6, 6)
    one, two = (torch.Generator().manual_seed(4) for _ in range(2))
    chained = Chain([RandomShift(1), RandomFlip()])(images, generator=one)
    expected = RandomFlip()(RandomShift(1)(images, generator=two), generator=two)
    assert torch.equal(chained, expected)


def test_wrong_input():
    shape = r"needs spikes \[T, B, C, H, W\] or images \[B, C, H, W\], got shape \(2, 3\)"
    with pytest.raises(ValueError, match="pixels must be at least 1, got 0"):
        RandomShift(0)
    with pytest.raises(ValueError, match="probability must lie between 0 and 1, got 2"):
        RandomFlip(2)
    for augmentation in (RandomShift(1), RandomFlip()):
        with pytest.raises(ValueError, match=shape):
            augmentation(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"fill must be 0 for sparse spikes, got 1.0"):
        RandomShift(1, fill=1.0)(torch.zeros(1, 1, 1, 2, 2).to_sparse())
