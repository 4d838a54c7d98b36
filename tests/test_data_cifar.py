"""CIFAR: the official files, what is refused, and that nothing else of an archive is read."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import tarfile
import urllib.error

import numpy as np
import pytest
import torch

from spikewvat.data import cifar_files
from spikewvat.data.cifar import CIFAR10, CIFAR100
from spikewvat.data.images import Direct, Rate
from spikewvat.data.loaders import collate, make_loader
from spikewvat.errors import DataError, RecipeError
from spikewvat.lab.recipes import loaders
from spikewvat.lab.recipes.reading import recipe_from
from spikewvat.lab.recipes.resolve import resolve

TRAIN = [f"data_batch_{number}.bin" for number in range(1, 6)]


def records(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count, dtype=torch.uint8) % 10
    content = torch.cat([labels[:, None], images.flatten(1)], 1).numpy().tobytes()
    return images, labels, content


@pytest.fixture
def binary(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for seed, name in enumerate([*TRAIN, "test_batch.bin"]):
        (folder / name).write_bytes(records(4, seed)[2])
    return tmp_path


def test_the_binary_version(binary):
    images, labels, _ = records(4, seed=2)
    data = CIFAR10(binary, "train")
    assert len(data) == 20
    image, label = data[9]
    assert label == labels[1]
    torch.testing.assert_close(image, 2 * images[1].float() / 255 - 1)
    assert data.black == -1
    assert torch.equal(data.images[8:12], images)
    assert len(CIFAR10(binary, "test")) == 4
    plain = CIFAR10(binary / "cifar-10-batches-bin", "train", symmetric=False)
    assert torch.equal(plain[9][0], images[1].float() / 255)
    assert plain.black == 0


def test_channels_are_standardised(binary):
    images, _, _ = records(4, seed=2)
    for name, mean, std in (
        ("cifar", (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ):
        data = CIFAR10(binary, "train", standardize=name)
        for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
            expected = (images[1, channel].double() / 255 - m) / s
            torch.testing.assert_close(data[9][0][channel].double(), expected, atol=1e-6, rtol=0)
        assert data.black == tuple(-m / s for m, s in zip(mean, std, strict=True))
        assert torch.equal(data.__getitems__([9])[0][0], data[9][0])


def test_a_limit_reads_no_more_than_it_needs(binary):
    (binary / "cifar-10-batches-bin" / TRAIN[2]).unlink()
    data = CIFAR10(binary, "train", limit=7)
    assert (len(data), len(data.targets)) == (7, 7)
    with pytest.raises(DataError, match=r"cannot read '.*data_batch_3.bin': No such file"):
        CIFAR10(binary, "train")


@pytest.mark.parametrize("options", [{}, {"symmetric": False}, {"encoding": Direct(3)}])
def test_several_items_at_once(binary, options):
    data = CIFAR10(binary, "train", **options)
    for (image, label), index in zip(data.__getitems__([7, 0, 11]), [7, 0, 11], strict=True):
        assert torch.equal(image, data[index][0])
        assert label == data[index][1]
        assert isinstance(label, int)
    images, labels = collate(data.__getitems__([7, 0, 11]))
    expected = collate([data[index] for index in (7, 0, 11)])
    assert torch.equal(images, expected[0])
    assert torch.equal(labels, expected[1])


def test_batches(binary):
    images, labels = next(iter(make_loader(CIFAR10(binary, "train"), 6)))
    assert (images.shape, images.dtype) == ((6, 3, 32, 32), torch.float32)
    assert labels.tolist() == [0, 1, 2, 3, 0, 1]
    assert images.abs().max() <= 1
    spikes = CIFAR10(binary, "train", encoding=Rate(5), symmetric=False)[0][0]
    assert spikes.shape == (5, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_1.bin", records(4)[2][:-1], r"12291 bytes, expected a multiple of 3073 .*cut"),
        ("data_batch_1.bin", b"", r"has 0 bytes, expected a multiple of 3073"),
        ("data_batch_2.bin", b"\x0b" + records(4)[2][1:], r"batch_2.bin' holds the label 11, exp"),
    ],
)
def test_damaged_batches_are_errors(binary, name, content, message):
    (binary / "cifar-10-batches-bin" / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        CIFAR10(binary, "train")


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no test_batch.bin in .*cifar-10-binary"):
        CIFAR10(tmp_path, "test")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, r"split must be 'train' or 'test', got 'valid'"),
        ({"limit": 0}, r"limit must be at least 1, got 0"),
        ({"encoding": Rate(2)}, r"symmetric=True gives intensities .* or symmetric=False"),
        (
            {"encoding": Rate(2), "standardize": "cifar"},
            r"standardize=True gives intensities outside 0..1",
        ),
        ({"standardize": "mnist"}, r"standardize must be 'cifar' or 'imagenet', got 'mnist'"),
        (
            {"standardize": "cifar", "symmetric": True},
            r"symmetric=True and standardize='cifar' exclude each other",
        ),
    ],
)
def test_impossible_options_are_errors(tmp_path, options, message):
    for kind in (CIFAR10, CIFAR100):
        with pytest.raises(ValueError, match=message):
            kind(tmp_path, **{"split": "train", **options})


def archive(names, extra=(), folder="cifar-10-batches-bin", content=None):
    content = records(4)[2] if content is None else content
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, data in [*((f"{folder}/{n}", content) for n in names), *extra]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def serve(monkeypatch, content):
    asked = []

    def answer(url, timeout):
        asked.append((url, timeout))
        if isinstance(content, Exception):
            raise content
        return io.BytesIO(content)

    monkeypatch.setattr(cifar_files.urllib.request, "urlopen", answer)
    return asked


def trust(monkeypatch, kind, content):
    """Take the checksum of a made archive for the official one."""
    checksum = hashlib.md5(content).hexdigest()
    official = dataclasses.replace(kind.official, md5=checksum)
    monkeypatch.setattr(kind, "official", official)


def test_a_download_takes_only_the_data_out_of_the_archive(tmp_path, monkeypatch):
    content = archive([*TRAIN, "test_batch.bin"], extra=[("../evil.txt", b"evil")])
    asked = serve(monkeypatch, content)
    trust(monkeypatch, CIFAR10, content)
    root = tmp_path / "new"
    assert len(CIFAR10(root, "train", download=True)) == 20
    assert sorted(p.name for p in root.rglob("*.*")) == [*TRAIN, "test_batch.bin"]
    assert not (tmp_path / "evil.txt").exists()
    assert asked == [("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 10)]
    CIFAR10(root, "test", download=True)
    assert len(asked) == 1  # what is there is not downloaded again


@pytest.mark.parametrize(
    ("content", "known", "message"),
    [
        (urllib.error.URLError("no network"), False, r"cannot download .*no network.*unpack https"),
        (b"half", False, r"has the checksum .*, expected c32a1d4ab5d03f1284b67883e8d87530.*again"),
        (archive(TRAIN), True, r"cannot unpack CIFAR-10 .*test_batch.bin"),
        (b"no archive", True, r"cannot unpack CIFAR-10"),
        (gzip.compress(b"x" * 20, mtime=0)[:15], True, r"cannot unpack CIFAR-10"),
    ],
)
def test_downloads_that_fail(tmp_path, monkeypatch, content, known, message):
    serve(monkeypatch, content)
    if known:
        trust(monkeypatch, CIFAR10, content)
    with pytest.raises(DataError, match=message):
        CIFAR10(tmp_path, "train", download=True)


def test_a_recipe_augments_images_with_black_borders(binary):
    recipe = recipe_from(
        {
            "name": "x",
            "data": "cifar10",
            "model": {"name": "vgg5", "width": 0.1, "hidden": 4},
            "training": {"shift": 4, "flip": True, "batch_size": 20},
        }
    )
    resolved = resolve(recipe)
    data = loaders.open_data(resolved, binary)
    assert (data.input_shape, data.black) == ((3, 32, 32), -1)
    augment = loaders.augmentation(recipe, data.black)
    images, _ = next(iter(data.train))
    changed = augment(images, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(changed, images)
    assert (changed[:, :, 0] == -1).all(-1).any()
    model = resolved.with_input_shape(data.input_shape).build_model()
    assert model(changed).shape == (20, 10)
    nothing = recipe_from({"name": "x", "data": "cifar10", "model": "vgg5"})
    assert loaders.augmentation(nothing) is None


def test_sheets_become_the_official_files(tmp_path, benchmark_script):
    """Image number n has 3 values made of n, and a mark at row 1, column 2."""
    image = pytest.importorskip("PIL.Image")
    numbers = np.arange(1000)
    tiles = np.stack([numbers % 256, numbers // 256, numbers * 0 + 7], 1).astype(np.uint8)
    tiles = np.broadcast_to(tiles[:, None, None], (1000, 32, 32, 3)).copy()
    tiles[:, 1, 2] = 200
    sheet = tiles.reshape(25, 40, 32, 32, 3).transpose(0, 2, 1, 3, 4).reshape(800, 1280, 3)
    for split in ("train", "test"):
        image.fromarray(sheet).save(tmp_path / f"{split}_00.webp", lossless=True, method=0)
        np.save(tmp_path / f"{split}_labels.npy", numbers % 10)
    np.save(tmp_path / "test_inexact_indices.npy", np.array([1, 998]))
    script = benchmark_script("cifar_sheets")
    assert script.convert(tmp_path, tmp_path / "out") == {"train": 1000, "test": 998}
    data = CIFAR10(tmp_path / "out", "train")
    for number in (0, 41, 999):
        picture = data.images[number]
        assert picture[:, 5, 5].tolist() == [number % 256, number // 256, 7]
        assert picture[:, 1, 2].tolist() == [200, 200, 200]
        assert data[number][1] == number % 10
    test = CIFAR10(tmp_path / "out", "test")
    assert test.images[:3, 0, 0, 0].tolist() == test.targets[:3].tolist() == [0, 2, 3]
    (tmp_path / "test_00.webp").unlink()
    with pytest.raises(SystemExit, match="holds 0 test sheets of 1000 images, but 1000 labels"):
        script.convert(tmp_path, tmp_path / "out")


# CIFAR-100.


def hundred(count, seed=0):
    """Return images, fine labels and records with a coarse and a fine label."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    fine = 99 - torch.arange(count, dtype=torch.uint8)
    coarse = torch.arange(count, dtype=torch.uint8) % 20
    content = torch.cat([coarse[:, None], fine[:, None], images.flatten(1)], 1).numpy().tobytes()
    return images, fine, content


@pytest.mark.parametrize("place", ["", "cifar100", "cifar-100-binary", "cifar100/cifar-100-binary"])
def test_the_binary_version_of_cifar100(tmp_path, place):
    images, fine, content = hundred(5)
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "train.bin").write_bytes(content)
    (tmp_path / place / "test.bin").write_bytes(hundred(3, seed=1)[2])
    data = CIFAR100(tmp_path, "train")
    assert (len(data), data.classes, data.black) == (5, 100, -1)
    assert torch.equal(data.images, images)
    assert data.targets.tolist() == fine.tolist() == [99, 98, 97, 96, 95]
    torch.testing.assert_close(data[1][0], 2 * images[1].float() / 255 - 1)
    assert len(CIFAR100(tmp_path, "test", limit=2)) == 2
    assert CIFAR100(tmp_path, "test", standardize="cifar").black[0] == pytest.approx(-2.4291, 1e-4)


def test_damaged_files_of_cifar100_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"no train.bin in .*cifar100' or 'cifar-100-binary' in it"):
        CIFAR100(tmp_path, "train")
    path = tmp_path / "train.bin"
    path.write_bytes(hundred(2)[2][:-1])
    with pytest.raises(DataError, match=r"6147 bytes, expected a multiple of 3074 \(2 of labels"):
        CIFAR100(tmp_path, "train")
    path.write_bytes(b"\x00\x64" + hundred(1)[2][2:])
    with pytest.raises(DataError, match=r"train.bin' holds the label 100, expected 0..99"):
        CIFAR100(tmp_path, "train")


def test_a_download_of_cifar100(tmp_path, monkeypatch):
    names = ["train.bin", "test.bin"]
    content = archive(names, folder="cifar-100-binary", content=hundred(3)[2])
    asked = serve(monkeypatch, content)
    with pytest.raises(DataError, match=r"checksum .*, expected 03b5dce01913d631647c71ecec9e9cb8"):
        CIFAR100(tmp_path, "train", download=True)
    trust(monkeypatch, CIFAR100, content)
    assert len(CIFAR100(tmp_path, "train", download=True)) == 3
    assert len(CIFAR100(tmp_path, "test", download=True)) == 3
    assert asked == [("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", 10)] * 2


def test_a_recipe_of_cifar100_needs_a_hundred_scores(tmp_path):
    for name in ("train.bin", "test.bin"):
        (tmp_path / name).write_bytes(hundred(4)[2])
    content = {"name": "x", "data": {"name": "cifar100", "standardize": "cifar"}}
    recipe = recipe_from({**content, "model": "resnet20", "training": {"shift": 2}})
    resolved = resolve(recipe)
    data = loaders.open_data(resolved, tmp_path)
    with pytest.raises(RecipeError, match=r"model.classes = 10: the data has 100 classes"):
        resolved.check_classes(data.classes)
    images, _ = next(iter(data.train))
    shifted = loaders.augmentation(recipe, data.black)(images)
    assert shifted.shape == images.shape


def test_the_real_images(real_data, tmp_path, benchmark_script):
    if not (real_data / "cifar10").is_dir():
        pytest.skip("no CIFAR-10 in the folder with real data")
    counts = benchmark_script("cifar_sheets").convert(real_data / "cifar10", tmp_path)
    assert counts == {"train": 50_000, "test": 9980}
    test = CIFAR10(tmp_path, "test")
    assert len(test) == 9980
    assert test.targets[:5].tolist() == [3, 8, 8, 0, 6]
    train = CIFAR10(tmp_path, "train")
    # The channel means of CIFAR-10 as everyone rounds them.
    means = train.images.double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(
        means, torch.tensor([0.4914, 0.4822, 0.4465]).double(), rtol=0, atol=1e-4
    )
