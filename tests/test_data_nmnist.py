"""N-MNIST: layouts, errors, download, cache, workers."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import shutil
import sys
import threading
import urllib.error
import zipfile

import numpy as np
import pytest
import torch
from event_cases import random_events, write_part

from spikewvat.data.cache import RowCache, cache_folder
from spikewvat.data.events import bin_events, make_events, write_events
from spikewvat.data.loaders import collate, make_loader
from spikewvat.errors import DataError, MissingExtraError

tonic = pytest.importorskip("tonic")
from spikewvat.data import NMNIST, nmnist  # noqa: E402


@pytest.fixture
def root(tmp_path):
    return write_part(tmp_path / "data" / "NMNIST" / "Train")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_items_are_binned_recordings(root):
    data = NMNIST(root, "train", time_steps=6, cache=False)
    assert len(data) == 20
    assert data.sample_shape == (6, 2, 34, 34)
    assert data.targets == sorted([*range(10)] * 2)
    for index in range(20):
        spikes, label = data[index]
        assert spikes.dtype == torch.uint8
        number = int(data.files[index].stem) - 1
        assert label == number % 10
        np.testing.assert_array_equal(spikes, bin_events(random_events(number), time_steps=6))
    assert torch.equal(data[-1][0], data[19][0])
    with pytest.raises(IndexError, match="index 20 is outside of 20 recordings"):
        data[20]


def test_the_root_may_hold_the_splits_directly(root, tmp_path):
    shutil.move(root / "NMNIST" / "Train", tmp_path / "flat" / "Train")
    assert len(NMNIST(tmp_path / "flat", "train", time_steps=1, cache=False)) == 20


@pytest.mark.parametrize("reduce", ["or", "count", 2])
def test_the_cache_gives_the_same_items(root, cache, reduce):
    options = {"time_steps": 3, "window_us": 100_000, "reduce": reduce}
    plain = NMNIST(root, "train", **options, cache=False)
    for _ in range(2):
        cached = NMNIST(root, "train", **options, cache=cache)
        assert all(torch.equal(cached[i][0], plain[i][0]) for i in range(20))
    assert len(list((cache / "binned").iterdir())) == 1


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("reduce", ["or", "count", 2])
def test_batches_made_at_once_are_those_of_the_items(root, cache, reduce, sparse, cached):
    options = {"time_steps": 5, "reduce": reduce, "sparse": sparse}
    data = NMNIST(root, "train", **options, cache=cache if cached else False)
    chosen = [7, 0, 19, 7, -1]
    together = data.__getitems__(chosen)
    assert len(together) == len(together[:]) == 5
    spikes, labels = collate(together)
    expected, targets = collate(list(together))
    assert torch.equal(labels, targets)
    if sparse:
        assert spikes.is_coalesced()
        assert torch.equal(spikes.indices(), expected.indices())
        assert torch.equal(spikes.values(), expected.values())
        spikes, expected = spikes.to_dense(), expected.to_dense()
    assert spikes.dtype == torch.float32
    assert spikes.is_contiguous()
    assert torch.equal(spikes, expected)
    literal = [bin_events(data.events(i), time_steps=5, reduce=reduce) for i in chosen]
    np.testing.assert_array_equal(spikes, np.stack(literal, 1))


def test_other_loaders_get_items(root):
    data = NMNIST(root, "train", time_steps=2, cache=False)
    (spikes, labels), *_ = torch.utils.data.DataLoader(data, 4)
    assert torch.equal(spikes, torch.stack([data[i][0] for i in range(4)]))
    assert labels.tolist() == data.targets[:4]


def test_the_cache_holds_spikes_and_no_frames(root, cache):
    data = NMNIST(root, "train", time_steps=300, cache=cache)
    (file,) = (cache / "binned").iterdir()
    spikes = sum(int(data[i][0].sum()) for i in range(20))
    table = 8 * 21 + 4
    assert file.stat().st_size == 20 * (2 * 300 + 4) + 2 * spikes + table


def test_the_second_time_nothing_is_read(root, cache, monkeypatch):
    first = NMNIST(root, "train", time_steps=3, cache=cache)
    monkeypatch.setattr(NMNIST, "events", None)
    second = NMNIST(root, "train", time_steps=3, cache=cache)
    assert all(torch.equal(first[i][0], second[i][0]) for i in range(20))


def test_another_option_or_changed_recording_has_another_cache(root, cache):
    before = NMNIST(root, "train", time_steps=3, cache=cache)
    NMNIST(root, "train", time_steps=3, cache=cache, first_saccade_only=True)
    NMNIST(root, "train", time_steps=3, window_us=100_000, cache=cache)
    NMNIST(root, "train", time_steps=3, cache=cache, indices=[0, 5])
    assert len(list((cache / "binned").iterdir())) == 4
    write_events(before.files[0], random_events(99, 150))
    after = NMNIST(root, "train", time_steps=3, cache=cache)
    expected = bin_events(random_events(99, 150), time_steps=3)
    np.testing.assert_array_equal(after[0][0], expected)


def test_a_copy_that_keeps_dates_has_another_cache(root, cache):
    before = NMNIST(root, "train", time_steps=3, cache=cache)
    dates = before.files[0].stat()
    write_events(before.files[0], random_events(99))
    os.utime(before.files[0], ns=(dates.st_atime_ns, dates.st_mtime_ns))
    assert before.files[0].stat().st_size == dates.st_size
    after = NMNIST(root, "train", time_steps=3, cache=cache)
    np.testing.assert_array_equal(after[0][0], bin_events(random_events(99), time_steps=3))


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "flip"])
def test_a_damaged_cache_is_rebuilt(root, cache, damage):
    good = NMNIST(root, "train", time_steps=3, cache=cache)
    expected = [good[i][0].clone() for i in range(20)]
    (file,) = (cache / "binned").iterdir()
    content = bytearray(file.read_bytes())
    intact = bytes(content)
    content[-1000] ^= 255
    damaged = {"cut": intact[:-7], "garbage": b"x" * 999, "empty": b"", "flip": bytes(content)}
    file.write_bytes(damaged[damage])
    again = NMNIST(root, "train", time_steps=3, cache=cache)
    assert all(torch.equal(again[i][0], expected[i]) for i in range(20))
    assert file.read_bytes() == intact


def test_two_writers_of_a_cache_do_not_disturb_each_other(tmp_path):
    rows = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = tmp_path / "rows.npy"

    def while_another_writes():
        yield rows[0]
        RowCache(path, 3).write(rows)
        yield from rows[1:]

    RowCache(path, 3).write(while_another_writes())
    reader = RowCache(path, 3)
    assert reader.open()
    assert all(np.array_equal(reader.read(i), rows[i]) for i in range(3))
    assert [file.name for file in tmp_path.iterdir()] == ["rows.npy"]


def test_a_cache_that_breaks_off_leaves_nothing(tmp_path):
    def breaks_off():
        yield np.zeros(4, np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RowCache(tmp_path / "rows.npy", 3).write(breaks_off())
    assert list(tmp_path.iterdir()) == []
    assert RowCache(tmp_path / "rows.npy", 3).read(0) is None


def test_a_cache_that_cannot_be_written_says_what_to_do(root, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"cannot write the cache .*SPIKEWVAT_CACHE"):
        NMNIST(root, "train", time_steps=3, cache=tmp_path / "file")


def test_the_cache_folder_can_be_set(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKEWVAT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert cache_folder("~/x") == cache_folder("~") / "x"
    monkeypatch.delenv("SPIKEWVAT_CACHE")
    assert cache_folder().parts[-2:] == (".cache", "spikewvat")


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_read_it(root, cache, workers):
    data = NMNIST(root, "train", time_steps=3, cache=cache)
    batches = list(make_loader(data, 8, workers=workers))
    assert [spikes.shape[1] for spikes, _ in batches] == [8, 8, 4]
    spikes = torch.cat([spikes for spikes, _ in batches], dim=1)
    assert spikes.shape == (3, 20, 2, 34, 34)
    assert all(torch.equal(spikes[:, i], data[i][0].float()) for i in range(20))


def test_a_part_of_the_recordings(root):
    def numbers(**options):
        data = NMNIST(root, "train", time_steps=1, cache=False, **options)
        return [int(file.stem) for file in data.files], data.targets

    assert numbers(per_class=1) == ([*range(1, 11)], [*range(10)])
    assert numbers(indices=[3, 0]) == ([12, 1], [1, 0])
    assert numbers(classes=(7, 2)) == ([3, 13, 8, 18], [2, 2, 7, 7])
    with pytest.raises(ValueError, match=r"indices must lie in 0\.\.19, got 20"):
        numbers(indices=[20])
    with pytest.raises(ValueError, match="per_class must be at least 1, got 0"):
        numbers(per_class=0)


def test_first_saccade(root):
    data = NMNIST(root, "train", time_steps=1, cache=False, first_saccade_only=True)
    for index in range(20):
        number = int(data.files[index].stem) - 1
        events = random_events(number)
        np.testing.assert_array_equal(data.events(index), events[events["t"] < 100_000])


def test_stabilised_as_by_tonic(root):
    data = NMNIST(root, "train", time_steps=1, cache=False, stabilize=True)
    source = tonic.datasets.nmnist
    for index in (0, 19):
        events = random_events(int(data.files[index].stem) - 1)
        np.testing.assert_array_equal(data.events(index), source.stabilize(events))


def test_denoised_as_by_tonic(root):
    data = NMNIST(root, "train", time_steps=1, cache=False, denoise_us=100_000)
    events = random_events(int(data.files[0].stem) - 1)
    kept = tonic.transforms.Denoise(100_000)(events)
    assert 0 < len(kept) < len(events)
    np.testing.assert_array_equal(data.events(0), kept)


def test_a_recording_that_transforms_empty_is_an_error(root):
    late = make_events([3, 4], [3, 4], [200_000, 290_000], [0, 1])
    write_events(root / "NMNIST" / "Train" / "0" / "00001.bin", late)
    data = NMNIST(
        root, "train", time_steps=4, cache=False, first_saccade_only=True, denoise_us=1000
    )
    with pytest.raises(DataError, match=r"0/00001\.bin' has no events left after first_saccade"):
        data[0]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"00014\.bin' is empty\. Replace or remove it"),
        (b"\1\2\3\4\5\6\7", r"00014\.bin' has 7 bytes, not a multiple of 5"),
        (b"\1\2\3\4\5\x22\2\3\4\6", r"event 1 of '.*00014\.bin' has x = 34"),
        (b"\1\x30\3\4\5", r"event 0 of '.*00014\.bin' has y = 48"),
        (b"\1\2\0\0\7\1\2\0\0\3", r"event 1 of '.*00014\.bin' is at 3 us, earlier"),
        (b"\1\2\0\0\7\1\2\0\0\7", r"00014\.bin' lasts 0 us, too short for 2 bins"),
    ],
)
def test_malformed_recordings_are_errors(root, cache, content, message, cached):
    (root / "NMNIST" / "Train" / "3" / "00014.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        NMNIST(root, "train", time_steps=2, cache=cache if cached else False)[7]


def test_a_recording_that_is_cut_off_later_is_an_error(root):
    data = NMNIST(root, "train", time_steps=2, cache=False)
    data.files[0].write_bytes(b"123")
    with pytest.raises(DataError, match="has 3 bytes"):
        data[0]


def test_missing_class_folders_are_an_error(tmp_path):
    root = write_part(tmp_path / "NMNIST" / "Train", classes=range(7))
    (root / "NMNIST" / "Train" / "7").mkdir()
    pattern = r"no recordings in .*Train/7, .*Train/8, .*Train/9\..*classes=\(0, 1, 2, 3, 4, 5, 6\)"
    with pytest.raises(DataError, match=pattern):
        NMNIST(root, "train", time_steps=1)
    assert len(NMNIST(root, "train", time_steps=1, cache=False, classes=range(7))) == 14


@pytest.mark.parametrize("place", ["ten/1.bin", "10/1.bin", "1.bin", "1/deep/1.bin"])
def test_folders_that_are_no_digit_are_an_error(root, place):
    stray = root / "NMNIST" / "Train" / place
    stray.parent.mkdir(parents=True, exist_ok=True)
    write_events(stray, random_events(0))
    with pytest.raises(DataError, match=r"1\.bin' does not lie in a folder named after a digit"):
        NMNIST(root, "train", time_steps=1)


def test_other_files_are_ignored(root):
    (root / "NMNIST" / "Train" / ".cache").mkdir()
    (root / "NMNIST" / "Train" / "0" / "README.txt").write_text("hello")
    assert len(NMNIST(root, "train", time_steps=1, cache=False)) == 20


def test_an_empty_root_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*Choose the root .*download=True"):
        NMNIST(tmp_path, "test", time_steps=1)
    (tmp_path / "Test").mkdir()
    with pytest.raises(DataError, match=r"Test' holds no recordings"):
        NMNIST(tmp_path, "test", time_steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid"}, r"split must be 'train' or 'test', got 'valid'"),
        ({"denoise_us": 0}, r"denoise_us must be at least 1, got 0"),
        ({"time_steps": 0}, r"time_steps must be at least 1, got 0"),
    ],
)
def test_impossible_options_are_errors(root, options, message):
    with pytest.raises(ValueError, match=message):
        NMNIST(root, **{"split": "train", "time_steps": 1, **options})


def test_without_a_network_a_download_is_one_clear_error(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(nmnist.urllib.request, "urlopen", unreachable)
    with pytest.raises(DataError, match=r"cannot download .*not known.*train\.zip.*embedded_root"):
        NMNIST(tmp_path, "train", time_steps=1, download=True)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serve an archive of recordings where tonic looks for the official one."""
    part = tmp_path / "served"
    write_part(part / "Train")
    with zipfile.ZipFile(part / "train.zip", "w") as archive:
        for file in sorted((part / "Train").rglob("*.bin")):
            archive.write(file, file.relative_to(part))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(part))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        source = tonic.datasets.nmnist.NMNIST
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(
            source, "train_url", f"http://127.0.0.1:{running.server_port}/train.zip"
        )
        content = (part / "train.zip").read_bytes()
        monkeypatch.setattr(source, "train_md5", hashlib.md5(content).hexdigest())
        yield
        running.shutdown()
        thread.join()


def test_downloads_through_tonic(server, tmp_path):
    root = tmp_path / "new"
    data = NMNIST(root, "train", time_steps=1, cache=False, download=True)
    assert len(data) == 20
    assert data.files[0] == root / "NMNIST" / "Train" / "0" / "00001.bin"


def test_a_download_that_broke_off_is_taken_up(server, tmp_path):
    root = write_part(tmp_path / "new" / "NMNIST" / "Train", per_class=1)
    (root / "NMNIST" / "train.zip").write_bytes(b"broken off")
    assert len(NMNIST(root, "train", time_steps=1, cache=False, download=True)) == 20


def test_what_is_there_is_not_downloaded(root, monkeypatch):
    monkeypatch.setattr(nmnist, "_download", None)
    assert len(NMNIST(root, "train", time_steps=1, cache=False, download=True)) == 20


def test_a_download_with_another_checksum_is_an_error(server, tmp_path, monkeypatch):
    monkeypatch.setattr(tonic.datasets.nmnist.NMNIST, "train_md5", "0" * 32)
    with pytest.raises(DataError, match=r"cannot download N-MNIST .*corrupted"):
        NMNIST(tmp_path / "new", "train", time_steps=1, download=True)


def test_the_real_recordings(real_data):
    train = NMNIST(real_data, "train", time_steps=10, cache=False)
    test = NMNIST(real_data, "test", time_steps=10, cache=False)
    assert (len(train), len(test)) == (700, 150)
    counts = [len(test.events(index)) for index in range(150)]
    assert 3500 < sum(counts) / 150 < 4700


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"stabilize": True}, "stabilize for N-MNIST needs tonic.datasets.nmnist"),
        ({"denoise_us": 5}, "denoise_us for N-MNIST needs tonic.transforms"),
        ({"split": "test", "download": True}, "download for N-MNIST needs tonic.datasets.nmnist"),
    ],
)
def test_without_tonic_recordings_are_read_but_not_changed(root, monkeypatch, options, missing):
    expected = NMNIST(root, "train", time_steps=3, cache=False)[7]
    for name in [name for name in sys.modules if name.split(".")[0] == "tonic"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tonic", None)
    spikes, label = NMNIST(root, "train", time_steps=3, cache=False)[7]
    assert label == expected[1]
    assert torch.equal(spikes, expected[0])
    with pytest.raises(MissingExtraError, match=rf'{missing}. Run: .*"spikewvat\[tonic\]"'):
        NMNIST(root, **{"split": "train", "time_steps": 3, **options})


def test_the_order_is_that_of_tonic(root):
    class Theirs(tonic.datasets.nmnist.NMNIST):
        def _check_exists(self):
            self.location_on_system = str(root / "NMNIST")
            return True

    theirs, ours = Theirs(str(root)), NMNIST(root, "train", time_steps=3, cache=False)
    assert [str(path) for path in ours.files] == theirs.data
    assert ours.targets == theirs.targets
    for index in (0, 7):
        np.testing.assert_array_equal(ours.events(index), theirs[index][0])


def test_recordings_that_go_on_behind_the_windows_are_told_of_once(root, cache):
    said = (
        r"1.*\.bin' lasts \d+ us, but the windows end at 150000 us: \d+ % of its events .*dropped"
    )
    with pytest.warns(UserWarning, match=said) as told:
        NMNIST(root, "train", time_steps=5, window_us=30_000, cache=cache)
    assert len(told) == 1
    # Windows over everything say nothing, nor do those that were asked for otherwise.
    NMNIST(root, "train", time_steps=11, window_us=30_000, cache=cache)
    NMNIST(root, "train", time_steps=5, cache=cache)
    NMNIST(root, "train", time_steps=5, window_us=20_000, first_saccade_only=True, cache=cache)
