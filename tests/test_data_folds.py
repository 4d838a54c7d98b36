"""Folds of real recordings, and simulated ones of other digits."""

from __future__ import annotations

import pytest
import torch

from spikewvat.data import make_loader
from spikewvat.data.folds import NMNISTFolds
from spikewvat.data.images import read_idx
from spikewvat.data.saccades import write_recordings
from spikewvat.errors import DataError

OPTIONS = {"time_steps": 4, "folds": 3, "simulated": 10}


def idx(values):
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return b"\0\0\x08" + bytes([values.dim()]) + sizes + values.numpy().tobytes()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """MNIST of 40 images, and recordings of 20 of them in two parts."""
    root = tmp_path_factory.mktemp("folds")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (40, 28, 28), generator=generator, dtype=torch.uint8)
    labels = (torch.arange(40) % 10).to(torch.uint8)
    (root / "train-images-idx3-ubyte").write_bytes(idx(images))
    (root / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    for part, chosen in (("Train", range(14)), ("Test", range(20, 30))):
        chosen = list(chosen)
        write_recordings(
            root / "NMNIST" / part,
            images[chosen],
            labels[chosen].tolist(),
            [index + 1 for index in chosen],
            generator=generator,
        )
    return root


def shown(data):
    """Return the number of each recording, and whether it was simulated."""
    return [
        (int(part.files[index].stem), "simulated-" in str(part.files[index]))
        for part, index in data._places
    ]


def test_each_recording_is_tested_once_and_never_trained_on(root, tmp_path):
    tested = []
    for fold in range(3):
        options = {**OPTIONS, "fold": fold, "cache": tmp_path}
        train, test = (NMNISTFolds(root, split, **options) for split in ("train", "test"))
        numbers = [number for number, _ in shown(test)]
        assert len(numbers) == 8
        assert not any(simulated for _, simulated in shown(test))
        assert not set(numbers) & {number for number, _ in shown(train)}
        simulated = [number for number, drawn in shown(train) if drawn]
        assert sorted(simulated) == [*range(15, 21), *range(31, 35)]  # the first that are free
        assert len(train) == 16 + 10
        tested += numbers
    assert sorted(tested) == [*range(1, 15), *range(21, 31)]
    alone = NMNISTFolds(root, "train", **OPTIONS, cache=tmp_path)
    assert all(simulated for _, simulated in shown(alone))
    assert len(list(tmp_path.glob("simulated-*"))) == 1


@pytest.mark.parametrize("sparse", [False, True])
def test_batches_are_those_of_single_items(root, tmp_path, sparse):
    data = NMNISTFolds(root, "train", **OPTIONS, fold=0, sparse=sparse, cache=tmp_path)
    spikes, labels = next(iter(make_loader(data, 26)))
    labels_of_images = read_idx(root / "train-labels-idx1-ubyte")
    assert labels.tolist() == [int(labels_of_images[number - 1]) for number, _ in shown(data)]
    for place in (0, 15, 25):
        item, label = data[place]
        assert label == labels[place]
        assert torch.equal(item.to_dense().float(), spikes.to_dense()[:, place])


@pytest.mark.parametrize(
    ("options", "split", "message"),
    [
        ({"fold": 3}, "test", "a fold below, got 3 of 3"),
        ({"folds": 1}, "train", "expected 2 folds or more"),
        ({}, "test", "without a fold there is no test data"),
        ({"fold": 0}, "other", "split must be"),
    ],
)
def test_impossible_folds(root, options, split, message):
    with pytest.raises(ValueError, match=message):
        NMNISTFolds(root, split, **{**OPTIONS, **options})


def test_recordings_of_other_images_are_refused(root, tmp_path):
    for name in ("NMNIST", "train-images-idx3-ubyte"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(torch.zeros(40, dtype=torch.uint8)))
    with pytest.raises(DataError, match="is not a recording of training image 1 of MNIST"):
        NMNISTFolds(tmp_path, "train", **OPTIONS, fold=0, cache=tmp_path)
