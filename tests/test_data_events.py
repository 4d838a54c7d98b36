"""Events: the file format, bins exactly those of tonic, batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from event_cases import random_events
from hypothesis import given, settings
from hypothesis import strategies as st

from spikewvat.data.events import (
    bin_events,
    check_on_sensor,
    collate,
    decode_events,
    encode_events,
    make_events,
    make_loader,
    write_events,
)
from spikewvat.errors import DataError

tonic = pytest.importorskip("tonic")
SENSOR = (5, 3, 2)


@st.composite
def recordings(draw, smallest=1):
    """Events on a small sensor in order of time; short recordings share bins and times."""
    count = draw(st.integers(smallest, 40))
    column = {
        name: draw(st.lists(st.integers(0, top - 1), min_size=count, max_size=count))
        for name, top in zip("xyp", SENSOR)
    }
    start = draw(st.integers(0, 1000))
    longest = draw(st.sampled_from([0, 3, 50, 10_000]))
    times = draw(st.lists(st.integers(start, start + longest), min_size=count, max_size=count))
    return make_events(column["x"], column["y"], sorted(times), column["p"])


@settings(max_examples=150, deadline=None)
@given(events=recordings(), steps=st.integers(1, 12))
def test_time_steps_are_those_of_tonic(events, steps):
    theirs = tonic.transforms.ToFrame(SENSOR, n_time_bins=steps)(events.copy())
    ours = bin_events(events, time_steps=steps, sensor_size=SENSOR, reduce="count")
    np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=150, deadline=None)
@given(events=recordings(), window=st.integers(100, 3000))
def test_windows_are_those_of_tonic(events, window):
    theirs = tonic.transforms.ToFrame(SENSOR, time_window=window)(events.copy())
    ours = bin_events(events, window_us=window, sensor_size=SENSOR, reduce="count")
    np.testing.assert_array_equal(ours, theirs)


@settings(max_examples=150, deadline=None)
@given(events=recordings(), steps=st.integers(1, 12), window=st.integers(1, 3000))
def test_fixed_windows_are_those_of_tonic(events, steps, window):
    transform = tonic.transforms.ToFrame(
        SENSOR, time_window=window, start_time=0, end_time=steps * window
    )
    ours = bin_events(
        events, time_steps=steps, window_us=window, sensor_size=SENSOR, reduce="count"
    )
    np.testing.assert_array_equal(ours, transform(events.copy()))


@settings(max_examples=50, deadline=None)
@given(events=recordings(smallest=0), steps=st.integers(1, 5), largest=st.integers(1, 5))
def test_or_and_clipped_counts_follow_from_counts(events, steps, largest):
    def binned(reduce):
        return bin_events(events, time_steps=steps, sensor_size=SENSOR, reduce=reduce)

    counts = binned("count")
    np.testing.assert_array_equal(binned("or"), counts > 0)
    np.testing.assert_array_equal(binned(largest), np.minimum(counts, largest))


@pytest.mark.parametrize("overflows", [0, 3])
def test_files_are_decoded_as_by_tonic(tmp_path, overflows):
    events = random_events(5, 50, last=2**23 - 1)
    data = np.frombuffer(encode_events(events), np.uint8).reshape(-1, 5).copy()
    data[[9, 10, 30][:overflows], 1] = 240
    (tmp_path / "1.bin").write_bytes(data.tobytes())
    source = tonic.datasets.nmnist.NMNIST
    expected = tonic.io.read_mnist_file(str(tmp_path / "1.bin"), dtype=source.dtype)
    decoded = decode_events(data.tobytes())
    assert len(decoded) == 50 - overflows
    assert decoded.dtype == expected.dtype
    np.testing.assert_array_equal(decoded, expected)


def test_decoding_needs_whole_events():
    with pytest.raises(ValueError, match="got 7 bytes, expected five an event"):
        decode_events(b"1234567")


def test_real_recordings_are_binned_as_by_tonic(real_data):
    source = pytest.importorskip("spikewvat.data.nmnist").NMNIST(
        real_data, "test", time_steps=1, cache=False
    )
    for index in range(0, len(source), 10):
        events = source.events(index)
        for options, theirs in [
            ({"time_steps": 300}, {"n_time_bins": 300}),
            ({"window_us": 10_000}, {"time_window": 10_000}),
        ]:
            transform = tonic.transforms.ToFrame((34, 34, 2), **theirs)
            ours = bin_events(events, **options, reduce="count")
            np.testing.assert_array_equal(ours, transform(events.copy()))


@pytest.mark.parametrize(
    ("options", "steps"),
    [({"time_steps": 7}, 7), ({"window_us": 5}, 1), ({"time_steps": 4, "window_us": 5}, 4)],
)
def test_an_empty_recording_gives_zeros(options, steps):
    frames = bin_events(make_events([], [], [], []), **options, sensor_size=(6, 4, 2))
    assert frames.shape == (steps, 2, 4, 6)
    assert frames.dtype == np.uint8
    assert not frames.any()


def test_a_recording_shorter_than_its_bins_gives_zeros():
    events = make_events([0, 1], [0, 0], [10, 12], [0, 1])
    assert not bin_events(events, time_steps=3).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"needs time_steps or window_us"),
        ({"time_steps": 0}, r"time_steps must be at least 1, got 0"),
        ({"window_us": -1}, r"window_us must be at least 1, got -1"),
        ({"time_steps": 1, "reduce": "sum"}, r"reduce must be .*, got 'sum'"),
        ({"time_steps": 1, "reduce": 256}, r"reduce must be .*, got 256"),
    ],
)
def test_impossible_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        bin_events(random_events(0), **options)


def test_a_count_that_does_not_fit_is_an_error():
    zeros = [0] * 301
    events = make_events(zeros, zeros, range(301), zeros)
    with pytest.raises(DataError, match=r"300 events in one time step.*reduce=255"):
        bin_events(events, time_steps=1, reduce="count")
    assert bin_events(events, time_steps=1, reduce=255).max() == 255


@pytest.mark.parametrize(("field", "value"), [("x", 34), ("y", 77), ("y", -1), ("p", 2)])
def test_events_outside_the_sensor_are_errors(field, value):
    events = random_events(0)
    events[field][5] = value
    with pytest.raises(DataError, match=rf"event 5 of the recording has {field} = {value}"):
        bin_events(events, time_steps=2)
    with pytest.raises(DataError, match=r"event 5 of 'a.bin'"):
        check_on_sensor(events, name="'a.bin'")


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 50))
def test_tonic_reads_what_is_written(seed, count, tmp_path_factory):
    events = random_events(seed, count, last=2**23)
    path = tmp_path_factory.mktemp("events") / "1.bin"
    write_events(path, events)
    assert path.stat().st_size == 5 * count
    read = tonic.io.read_mnist_file(str(path), dtype=events.dtype)
    np.testing.assert_array_equal(read, events)


@pytest.mark.parametrize(
    ("field", "value"), [("x", 256), ("y", 240), ("t", 2**23), ("t", -1), ("p", 2)]
)
def test_what_the_format_cannot_hold_is_an_error(field, value):
    events = random_events(0)
    events[field][3] = value
    with pytest.raises(DataError, match=rf"event 3 has {field} = {value}, but the N-MNIST format"):
        encode_events(events)


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
