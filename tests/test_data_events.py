"""Events: the file format, bins exactly those of tonic, batches."""

from __future__ import annotations

import numpy as np
import pytest
from event_cases import random_events
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spikewvat.data.events import (
    bin_events,
    check_events,
    decode_events,
    encode_events,
    make_events,
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
    if not theirs.any():
        with pytest.raises(DataError, match="too short for .* bins"):
            bin_events(events, time_steps=steps, sensor_size=SENSOR)
        return
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
    if not transform(events.copy()).any():
        with pytest.raises(DataError, match="outside of the windows from 0 to"):
            bin_events(events, time_steps=steps, window_us=window, sensor_size=SENSOR)
        return
    ours = bin_events(
        events, time_steps=steps, window_us=window, sensor_size=SENSOR, reduce="count"
    )
    np.testing.assert_array_equal(ours, transform(events.copy()))


@settings(max_examples=50, deadline=None)
@given(events=recordings(), steps=st.integers(1, 5), largest=st.integers(1, 5))
def test_or_and_clipped_counts_follow_from_counts(events, steps, largest):
    assume(int(np.ptp(events["t"])) >= steps)

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


@pytest.mark.parametrize("options", [{"time_steps": 7}, {"window_us": 5}])
def test_an_empty_recording_is_an_error(options):
    with pytest.raises(DataError, match=r"'1\.bin' holds no events and would become blank"):
        bin_events(make_events([], [], [], []), **options, name="'1.bin'")


def test_a_recording_shorter_than_its_bins_is_an_error():
    events = make_events([0, 1], [0, 0], [10, 12], [0, 1])
    with pytest.raises(DataError, match=r"lasts 2 us, too short for 3 bins.*in microseconds"):
        bin_events(events, time_steps=3)


@pytest.mark.parametrize("start", [300_000, 7_000_000_000, -400_000])
def test_a_clock_that_misses_all_windows_is_an_error(start):
    events = random_events(0)
    events["t"] += start
    with pytest.raises(DataError, match=r"all its 200 events outside .* 0 to 300000 us.*Subtract"):
        bin_events(events, time_steps=10, window_us=30_000)
    np.testing.assert_array_equal(
        bin_events(events, time_steps=10), bin_events(random_events(0), time_steps=10)
    )


def test_events_out_of_order_are_an_error():
    events = random_events(0)
    events["t"][[7, 8]] = events["t"][[8, 7]]
    with pytest.raises(DataError, match=r"event 8 of the recording is at .* us, earlier .*argsort"):
        bin_events(events, time_steps=2)
    ordered = events[np.argsort(events["t"], kind="stable")]
    np.testing.assert_array_equal(
        bin_events(ordered, time_steps=2), bin_events(random_events(0), time_steps=2)
    )


@pytest.mark.parametrize("t", ["i4", "u4", "i8", "u8", ">i8"])
@pytest.mark.parametrize("xy", ["u1", "i2", "u2", "i8"])
@pytest.mark.parametrize("p", ["?", "u1", "i1", "u8"])
def test_the_types_of_fields_do_not_matter(t, xy, p):
    events = random_events(0)
    other = np.empty(len(events), [("t", t), ("x", xy), ("y", xy), ("p", p)])
    for field in "xytp":
        other[field] = events[field]
    for options in ({"time_steps": 9}, {"window_us": 7000}, {"time_steps": 5, "window_us": 50_000}):
        np.testing.assert_array_equal(
            bin_events(other, **options, reduce="count"),
            bin_events(events, **options, reduce="count"),
        )
    assert encode_events(other) == encode_events(events)


@pytest.mark.parametrize(
    ("field", "word"), [("t", "round\\(1e6"), ("x", "round them"), ("p", "round")]
)
def test_fields_of_fractions_are_an_error(field, word):
    events = random_events(0)
    types = [(name, "f8" if name == field else "i8") for name in "xytp"]
    with pytest.raises(DataError, match=rf"'a': {field} is float64 .*expected whole.*{word}"):
        bin_events(events.astype(types), time_steps=2, name="'a'")
    columns = {name: events[name] / (2 if name == field else 1) for name in "xytp"}
    columns = {name: c if name == field else events[name] for name, c in columns.items()}
    with pytest.raises(DataError, match=rf"{field} is float64"):
        make_events(**columns)


def test_columns_of_unequal_length_are_an_error():
    with pytest.raises(DataError, match=r"columns have shapes .*expected four rows of equal"):
        make_events([1], [1, 2], [1, 2], [0, 1])
    with pytest.raises(DataError, match="columns have shapes"):
        make_events(1, 2, 3, 0)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (np.zeros((5, 4), int), r"is a ndarray, expected a structured array"),
        ([(0, 0, 0, 0)], r"is a list, expected a structured array"),
        (np.zeros(3, [("t", int), ("x", int), ("p", int)]), r"fields \('t', 'x', 'p'\).*y = 0"),
    ],
)
def test_what_is_no_recording_is_an_error(events, message):
    with pytest.raises(DataError, match=message):
        bin_events(events, time_steps=1)


@pytest.mark.parametrize("t", ["i4", "u4", "u8"])
def test_large_sensors_and_long_recordings_do_not_overflow(t):
    events = np.zeros(3, [("x", "i4"), ("y", "i4"), ("t", t), ("p", "i4")])
    events["t"], events["x"], events["y"], events["p"] = [0, 70_000_000, 129_000_000], 1279, 719, 1
    frames = bin_events(events, time_steps=1300, window_us=100_000, sensor_size=(1280, 720, 2))
    assert np.argwhere(frames).tolist() == [[n, 1, 719, 1279] for n in (0, 700, 1290)]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (np.array([0, 2**64 - 1], "u8"), r"t = 18446744073709551615 is no sensible value"),
        (np.array([-(2**63), 2**63 - 1]), r"no sensible microseconds"),
        (np.array([0, 2**61]), r"would become frames of shape .* GiB.*Use longer windows"),
    ],
)
def test_times_beyond_all_measure_are_errors(times, message):
    events = np.zeros(2, [("x", "i4"), ("y", "i4"), ("t", times.dtype), ("p", "i4")])
    events["t"] = times
    with pytest.raises(DataError, match=message):
        bin_events(events, window_us=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"needs time_steps or window_us"),
        ({"time_steps": 0}, r"time_steps must be at least 1, got 0"),
        ({"window_us": -1}, r"window_us must be at least 1, got -1"),
        ({"time_steps": 1, "reduce": "sum"}, r"reduce must be .*, got 'sum'"),
        ({"time_steps": 1, "reduce": 256}, r"reduce must be .*, got 256"),
        ({"time_steps": 1, "reduce": 2.5}, r"reduce must be .*, got 2.5"),
        ({"time_steps": 1.5}, r"time_steps must be at least 1, got 1.5. Expected a whole"),
        ({"time_steps": 10**9}, r"time_steps = 1000000000 makes frames .* GiB.*Use fewer"),
        ({"time_steps": 1, "sensor_size": (34, 0, 2)}, r"sensor_size must be .*, got \(34, 0, 2"),
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
        check_events(events, name="'a.bin'")


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
