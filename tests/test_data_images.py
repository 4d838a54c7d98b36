"""MNIST from idx files, and encodings."""

from __future__ import annotations

import gzip
import math

import numpy as np
import pytest
import torch

from spikewvat.data.images import MNIST, Direct, Latency, Rate, read_idx
from spikewvat.data.loaders import collate, make_loader
from spikewvat.errors import DataError


def idx(values):
    shape = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.dim()]) + shape + values.numpy().tobytes()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (12, 28, 28), dtype=torch.uint8, generator=generator)


@pytest.fixture
def root(tmp_path, images):
    labels = torch.arange(12, dtype=torch.uint8) % 10
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels), mtime=0))
    return tmp_path


def test_still_images(root, images):
    data = MNIST(root, "train")
    image, label = data[11]
    assert len(data) == 12
    assert label == 1
    assert torch.equal(image, images[11][None].float() / 255)
    assert len(MNIST(root, "train", limit=5)) == 5


@pytest.mark.parametrize(
    "options", [{}, {"standardize": True}, {"symmetric": True}, {"encoding": Rate(3)}]
)
def test_several_items_at_once(root, options):
    data = MNIST(root, "train", **options)
    for (image, label), index in zip(data.__getitems__([7, 0, 11]), [7, 0, 11], strict=True):
        assert torch.equal(image, data[index][0])
        assert label == data[index][1]
        assert isinstance(label, int)
    images, labels = collate(data.__getitems__([7, 0, 11]))
    expected = collate([data[index] for index in (7, 0, 11)])
    assert torch.equal(images, expected[0])
    assert torch.equal(labels, expected[1])


def test_standardized_images(root, images):
    plain, label = MNIST(root, "train", encoding=Direct(2))[3]
    image, same_label = MNIST(root, "train", encoding=Direct(2), standardize=True)[3]
    torch.testing.assert_close(image, (plain - 0.1307) / 0.3081)
    assert label == same_label
    with pytest.raises(ValueError, match="standardize=True gives intensities outside"):
        MNIST(root, "train", encoding=Rate(2), standardize=True)


def test_symmetric_images(root):
    data = MNIST(root, "train", symmetric=True)
    torch.testing.assert_close(data[3][0], 2 * MNIST(root, "train")[3][0] - 1)
    assert data.black == -1
    assert MNIST(root, "train").black == 0
    with pytest.raises(ValueError, match="symmetric=True gives intensities outside"):
        MNIST(root, "train", encoding=Rate(2), symmetric=True)
    with pytest.raises(ValueError, match="standardize=True and symmetric=True exclude each other"):
        MNIST(root, "train", standardize=True, symmetric=True)


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "MNIST"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_usual_folders_and_names(tmp_path, root, folder, dot):
    place = tmp_path / "data" / folder
    place.mkdir(parents=True)
    for name in ("images-idx3-ubyte", "labels-idx1-ubyte.gz"):
        new = place / f"t10k-{name.replace('-idx', dot + 'idx')}"
        new.write_bytes((root / f"train-{name}").read_bytes())
    assert len(MNIST(tmp_path / "data", "test")) == 12


def test_batches_of_spikes_have_time_first(root):
    data = MNIST(root, "train", encoding=Rate(5))
    for workers in (0, 2):
        batches = list(make_loader(data, 8, workers=workers))
        assert [tuple(s.shape) for s, _ in batches] == [(5, 8, 1, 28, 28), (5, 4, 1, 28, 28)]
        assert torch.equal(batches[1][0][:, 3], data[11][0])


def test_rate_is_as_frequent_as_the_pixel_is_bright():
    image = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).repeat(400, 1)
    spikes = Rate(100)(image, generator=torch.Generator().manual_seed(0))
    assert spikes.shape == (100, 400, 5)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(spikes.mean((0, 1)), image[0], rtol=0, atol=0.01)
    halved = Rate(100, gain=0.5)(image, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(halved.mean((0, 1)), image[0] / 2, rtol=0, atol=0.01)
    assert Rate(3, gain=5)(torch.tensor([0.2, 1.0])).all()


def test_rate_comes_from_the_seed(root):
    first, again = (MNIST(root, "train", encoding=Rate(5), seed=1) for _ in range(2))
    assert torch.equal(first[3][0], again[3][0])
    assert torch.equal(first[3][0], first[3][0])
    assert not torch.equal(first[3][0], MNIST(root, "train", encoding=Rate(5), seed=2)[3][0])
    anew = MNIST(root, "train", encoding=Rate(5), seed=None)
    assert not torch.equal(anew[3][0], anew[3][0])


def test_latency_is_linear():
    pytest.importorskip("snntorch")
    image = torch.tensor([0.0, 0.005, 0.25, 0.5, 1.0])
    spikes = Latency(9)(image)
    assert spikes.sum(0).tolist() == [0, 0, 1, 1, 1]
    assert spikes.argmax(0).tolist() == [0, 0, 6, 4, 0]


def test_latency_of_a_leaky_integrator():
    pytest.importorskip("snntorch")
    image = torch.tensor([0.0, 0.2, 0.3, 0.6, 1.0], dtype=torch.float64)
    spikes = Latency(6, tau=5, threshold=0.25)(image)
    exact = 5 * torch.log(image / (image - 0.25))  # 8.96 for 0.3: too late
    assert spikes.sum(0).tolist() == [0, 0, 0, 1, 1]
    assert spikes[:, 3:].argmax(0).tolist() == exact[3:].round().tolist()
    assert spikes.dtype == torch.float64


def test_latency_does_not_depend_on_the_batch():
    pytest.importorskip("snntorch")
    images = torch.rand(4, 1, 5, 5)
    for encoding in (Latency(7), Latency(7, tau=3.0), Latency(1)):
        alone = torch.stack([encoding(image) for image in images], dim=1)
        assert torch.equal(alone, encoding(images))


def test_direct_repeats_the_image():
    image = torch.rand(1, 3, 3)
    assert torch.equal(Direct(4)(image), torch.stack([image] * 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rate(0), r"time_steps must be at least 1, got 0"),
        (lambda: Rate(1, gain=0.0), r"gain must be above 0, got 0.0"),
        (lambda: Latency(-1), r"time_steps must be at least 1, got -1"),
        (lambda: Latency(1, tau=0), r"tau must be above 0, got 0"),
        (lambda: Latency(1, threshold=1), r"threshold must lie between 0 and 1, got 1"),
        (lambda: Direct(0), r"time_steps must be at least 1, got 0"),
        (lambda: MNIST(".", "valid"), r"split must be 'train' or 'test', got 'valid'"),
        (lambda: MNIST(".", "train", limit=0), r"limit must be at least 1, got 0"),
    ],
)
def test_impossible_options_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_missing_files_are_an_error(root):
    with pytest.raises(DataError, match=r"there is no t10k-images-idx3-ubyte, packed .*original"):
        MNIST(root, "test")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b"", r"'.*a' is no idx file of bytes: it begins with ''"),
        ("a", b"PNG...", r"begins with '504e472e'"),
        ("a", b"\0\0\x0d\1\0\0\0\0", r"begins with '00000d01'"),
        ("a", idx(torch.zeros(5, dtype=torch.uint8))[:-2], r"11 bytes, but .* announces 13"),
        ("a", b"\0\0\x08\3\0\0", r"6 bytes, but .* announces"),
        ("a.gz", b"not packed", r"cannot read '.*a\.gz'"),
        ("a.gz", gzip.compress(b"x" * 999, mtime=0)[:-9], r"cannot read '.*a\.gz'"),
        ("a.gz", gzip.compress(b"x" * 999, mtime=0)[:12] + b"\xff" * 30, r"cannot read '.*a\.gz'"),
    ],
)
def test_damaged_files_are_errors(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / name)


def test_files_that_do_not_belong_together_are_an_error(root, images):
    labels = root / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(torch.zeros(11, dtype=torch.uint8))))
    with pytest.raises(DataError, match=r"holds 12 images, but .* 11 labels"):
        MNIST(root, "train")
    labels.write_bytes(gzip.compress(idx(images), mtime=0))
    with pytest.raises(DataError, match=r"expected images \[N, H, W\] and labels \[N\]"):
        MNIST(root, "train")


def test_the_real_files(real_data):
    train, test = (MNIST(real_data, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.targets[:5].tolist() == [5, 0, 4, 1, 9]
    assert train.images.float().mean() / 255 == pytest.approx(0.1307, abs=1e-4)


@pytest.mark.parametrize("encoding", [Rate(2), Latency(2)])
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 2)), r"needs a tensor of intensities, got ndarray"),
        (torch.tensor([[0, 255]], dtype=torch.uint8), r"got torch.uint8. Divide bytes by 255"),
        (torch.tensor([[0.0, 255.0]]), r"got 0 .. 255"),
        (torch.tensor([[-0.42, 0.9]]), r"got -0.42 .. 0.9. Leave out the normalisation"),
        (torch.tensor([[math.nan, 0.5]]), r"got nan"),
    ],
)
def test_images_that_are_no_intensities_are_errors(encoding, images, message):
    with pytest.raises(ValueError, match=message):
        encoding(images)


def test_a_packed_file_that_explodes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("spikewvat.data.images._LARGEST", 5000)
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes(6000), mtime=0))
    with pytest.raises(DataError, match=r"cannot read '.*x.gz': it unpacks to more than"):
        read_idx(tmp_path / "x.gz")
