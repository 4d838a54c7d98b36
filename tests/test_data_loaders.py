"""Batches: time first, of tensors and of numpy arrays, of recordings and of still images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spikewvat.data.loaders import collate, make_loader
from spikewvat.errors import DataError


class Samples(torch.utils.data.Dataset):
    def __init__(self, shape, dtype=torch.uint8):
        self.shape, self.dtype = shape, dtype

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.full(self.shape, index, dtype=self.dtype), index


def test_batches_have_time_first():
    batches = list(make_loader(Samples((5, 2, 4, 3)), 4))
    assert [tuple(spikes.shape) for spikes, _ in batches] == [(5, b, 2, 4, 3) for b in (4, 4, 2)]
    for spikes, labels in batches:
        assert (spikes.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert torch.equal(spikes[0, :, 0, 0, 0].long(), labels)
    assert len(make_loader(Samples((5, 2, 4, 3)), 4, drop_last=True)) == 2


def test_still_images_have_no_time():
    images, labels = collate([(torch.ones(1, 28, 28), 3), (torch.zeros(1, 28, 28), 4)])
    assert images.shape == (2, 1, 28, 28)
    assert labels.tolist() == [3, 4]


def test_the_order_comes_from_the_generator():
    def order(seed):
        generator = torch.Generator().manual_seed(seed)
        loader = make_loader(Samples((1, 1, 1, 1)), 3, shuffle=True, generator=generator)
        return torch.cat([labels for _, labels in loader]).tolist()

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == list(range(10))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"batch_size must be at least 1, got 0"),
        ({"batch_size": 1, "workers": -1}, r"workers must be at least 0, got -1"),
    ],
)
def test_impossible_loaders_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        make_loader(Samples((1, 1, 1, 1)), **options)


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "u2", "i4", ">i4", "i8", "f2", "f4", "f8"])
def test_arrays_are_as_good_as_tensors(dtype):
    frames = [np.arange(12).reshape(2, 1, 2, 3).astype(dtype)[:, :, ::-1] for _ in range(3)]
    spikes, labels = collate([(frame, np.int8(n)) for n, frame in enumerate(frames)])
    assert (spikes.dtype, labels.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(spikes, np.stack(frames, 1).astype(np.float32))
    assert labels.tolist() == [0, 1, 2]


def test_frames_of_tonic_are_taken():
    tonic = pytest.importorskip("tonic")
    events = np.zeros(50, tonic.datasets.nmnist.NMNIST.dtype)
    events["t"] = np.arange(50)
    frames = tonic.transforms.ToFrame((34, 34, 2), n_time_bins=5)(events)
    assert collate([(frames, 1)] * 2)[0].shape == (5, 2, 2, 34, 34)
    sound = np.zeros(50, [("t", int), ("x", int), ("p", int)])
    sound["t"], sound["x"] = np.arange(50), np.arange(50)
    frames = tonic.transforms.ToFrame((700, 1, 1), n_time_bins=5)(sound)
    assert collate([(frames, 1)] * 2)[0].shape == (5, 2, 1, 700)


@pytest.mark.parametrize(
    ("shape", "batch"),
    [
        ((7,), (4, 7)),
        ((1, 9, 9), (4, 1, 9, 9)),
        ((3, 9, 9), (4, 3, 9, 9)),
        ((10, 1, 700), (10, 4, 1, 700)),
        ((10, 2, 9, 9), (10, 4, 2, 9, 9)),
    ],
)
def test_shapes_that_tell_where_time_is(shape, batch):
    assert next(iter(make_loader(Samples(shape), 4)))[0].shape == batch


@pytest.mark.parametrize("shape", [(9, 70), (9, 2, 70), (3, 1, 70), (1, 1, 9), (2, 3, 1, 4, 4)])
def test_shapes_that_do_not_are_asked_for(shape):
    with pytest.raises(DataError, match=r"do not tell whether .* time_first=True.*=False"):
        next(iter(make_loader(Samples(shape), 4)))
    spikes, labels = next(iter(make_loader(Samples(shape), 4, time_first=True)))
    assert spikes.shape == (shape[0], 4, *shape[1:])
    assert torch.equal(spikes[0].flatten(1)[:, 0].long(), labels)
    assert next(iter(make_loader(Samples(shape), 4, time_first=False)))[0].shape == (4, *shape)


FRAMES = torch.ones(3, 2, 4, 4)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [(FRAMES, 0), (torch.ones(5, 2, 4, 4), 1)],
            r"\(3, 2.*same number of time",
        ),
        (
            [(FRAMES, 0), (torch.ones(3, 2, 4, 5), 1)],
            r"Bring all items to one size",
        ),
        (
            [(FRAMES, 0), (FRAMES.to_sparse(), 1)],
            r"sparse and dense",
        ),
        ([(torch.ones(1, 4, 4).to_sparse(), 0)], r"must have time first"),
        ([FRAMES], r"an item of the data set is a Tensor .*expected a pair"),
        ([(FRAMES, 0, 1)], r"a tuple of 3, expected a pair"),
        ([(np.zeros(3, [("t", int)]), 0)], r"Bin recordings of events to frames first"),
        ([(torch.ones(()), 0)], r"'tensor\(1\.\)' \(Tensor\), expected a tensor or a numpy"),
        ([("text", 0)], r"'text' \(str\), expected a tensor"),
        ([(torch.ones(1, 4, 4), 2.5)], r"a label is '2\.5' \(float\), expected one whole number"),
        ([(torch.ones(1, 4, 4), torch.ones(3))], r"a label is a Tensor .*shape \(3,\)"),
        ([(torch.ones(1, 4, 4), "seven")], r"a label is 'seven'"),
        ([(torch.ones(1, 4, 4), float("nan"))], r"a label is 'nan'"),
    ],
)
def test_items_that_make_no_batch_are_errors(items, message):
    with pytest.raises(DataError, match=message):
        collate(items)
