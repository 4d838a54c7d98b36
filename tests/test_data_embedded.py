"""The embedded event digits: split, files, two processes at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

pytest.importorskip("sklearn")
from spikewvat.data import NMNIST, embedded
from spikewvat.errors import DataError, MissingExtraError


def few_digits(monkeypatch):
    images, labels = embedded.digit_images()
    monkeypatch.setattr(embedded, "digit_images", lambda: (images[:100], labels[:100]))


def test_digits_fill_an_image():
    images, labels = embedded.digit_images()
    assert images.shape == (1797, 28, 28)
    assert (images.min(), images.max()) == (0, 1)
    assert images[:, [0, -1]].amax() < 0.02  # strokes end smoothly before the border
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_split_is_fixed_stratified_and_by_image():
    _, labels = embedded.digit_images()
    split = embedded.split_indices(labels)
    assert (len(split["Train"]), len(split["Test"])) == (1402, 395)
    assert sorted(split["Train"] + split["Test"]) == list(range(1797))
    share = labels[split["Test"]].bincount() / labels.bincount()
    assert ((share > 0.21) & (share < 0.23)).all()
    assert split["Test"][:8] == embedded.split_indices(labels)["Test"][:8]


def test_they_are_read_as_nmnist(embedded_data):
    _, labels = embedded.digit_images()
    seen = []
    for split, count in (("train", 1402), ("test", 395)):
        data = NMNIST(embedded_data, split, time_steps=5)
        assert len(data) == count
        assert data[0][0].shape == (5, 2, 34, 34)
        numbers = [int(file.stem) - 1 for file in data.files]
        assert data.targets == labels[numbers].tolist()
        seen += numbers
    assert len(set(seen)) == 1797
    events = [len(data.events(index)) for index in range(50)]
    assert 3000 < sum(events) / 50 < 5500


def test_they_are_generated_once(tmp_path, monkeypatch):
    few_digits(monkeypatch)
    root = embedded.embedded_root(tmp_path)
    assert root.parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [root.name]
    content = {path: path.read_bytes() for path in root.rglob("*.bin")}
    assert len(content) == 100
    monkeypatch.setattr(embedded, "_write", None)
    assert embedded.embedded_root(tmp_path) == root


def test_they_are_the_same_everywhere(tmp_path, monkeypatch):
    few_digits(monkeypatch)
    monkeypatch.setenv("SPIKEWVAT_CACHE", str(tmp_path / "other"))
    torch.manual_seed(1)
    one = embedded.embedded_root(tmp_path / "one")
    torch.manual_seed(2)
    other = embedded.embedded_root()
    assert other.parent == tmp_path / "other"
    for path in one.rglob("*.bin"):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()


def test_a_generation_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    few_digits(monkeypatch)

    def breaks_off(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedded, "write_recordings", breaks_off)
        with pytest.raises(KeyboardInterrupt):
            embedded.embedded_root(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert embedded.embedded_root(tmp_path).is_dir()


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"cannot write the cache .*SPIKEWVAT_CACHE"):
        embedded.embedded_root(tmp_path / "file")


# Each process waits in the middle of generating until the other one has got there, too.
WORKER = """
import sys, time
from pathlib import Path
from spikewvat.data import embedded

images, labels = embedded.digit_images()
embedded.digit_images = lambda: (images[:100], labels[:100])
folder, own, other = map(Path, sys.argv[1:])
write = embedded.write_recordings

def together(*arguments, **options):
    own.touch()
    deadline = time.monotonic() + 120
    while not other.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert other.exists()
    write(*arguments, **options)

embedded.write_recordings = together
print(embedded.embedded_root(folder))
"""


def test_two_processes_may_generate_at_once(tmp_path):
    cache, marks = tmp_path / "cache", [tmp_path / "first", tmp_path / "second"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(cache), str(own), str(other)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own, other in (marks, marks[::-1])
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    (root,) = {output.strip() for output, _ in outputs}
    assert [str(path) for path in cache.iterdir()] == [root]
    data = [NMNIST(root, split, time_steps=2, cache=False) for split in ("train", "test")]
    assert sum(len(part) for part in data) == 100


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r'digits needs sklearn.*"spikewvat\[digits\]"'):
        embedded.embedded_root(tmp_path)
    assert list(tmp_path.iterdir()) == []
