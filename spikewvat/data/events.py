"""Events of a camera: the N-MNIST file format, checks of recordings, binning to frames."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spikewvat.errors import DataError

EVENT_DTYPE = np.dtype([("x", int), ("y", int), ("t", int), ("p", int)])
"""One event as tonic gives it: column, row, time in microseconds, polarity 0 or 1."""

Events: TypeAlias = NDArray[Any]
"""Structured array [N] of :data:`EVENT_DTYPE`, in order of time."""

Reduce: TypeAlias = Literal["or", "count"] | int
"""What several events in one bin become: one spike, their number, or that clipped at a number."""

NMNIST_SENSOR = (34, 34, 2)
"""Width, height and polarities of N-MNIST's sensor, in tonic's order."""

_BYTES = 5
_TIME_BITS = 23
_OVERFLOW_ROW, _OVERFLOW_US = 240, 2**13
_LARGEST_TIME = 2**62  # differences still fit into 64 bits
_LARGEST_FRAMES = 2**32  # bytes of one recording; more is a slip in the unit of time


def make_events(x: Any, y: Any, t: Any, p: Any) -> Events:
    """Return a structured array of columns of equal length.

    Args:
        x: Columns [N], whole numbers.
        y: Rows [N], whole numbers.
        t: Times [N] in whole microseconds.
        p: Polarities [N], whole numbers or booleans.

    Raises:
        DataError: If columns differ in length or hold anything but whole numbers.

    Example:
        >>> make_events([3], [4], [1500], [1])["t"].tolist()
        [1500]
    """
    columns = {
        field: np.asarray(column) for field, column in zip("xytp", (x, y, t, p), strict=True)
    }
    shapes = {field: column.shape for field, column in columns.items()}
    if len(set(shapes.values())) > 1 or columns["t"].ndim != 1:
        raise DataError(f"columns have shapes {shapes}, expected four rows of equal length.")
    events = np.empty(len(columns["t"]), EVENT_DTYPE)
    for field, column in columns.items():
        if column.size:  # an empty list has no type of its own
            events[field] = _whole(column, field, "the columns")
    return events


def encode_events(events: Events) -> bytes:
    """Encode events as N-MNIST files hold them.

    Five bytes an event, big endian: x, y, then one bit of polarity and 23 bits of time in
    microseconds.

    Args:
        events: Structured array [N].

    Returns:
        ``5 N`` bytes.

    Raises:
        DataError: If a field does not fit: x in 0..255, y in 0..239 (readers take y = 240 for an
            overflow of the clock), t in 0..8388607, p 0 or 1; or is no whole number.

    References:
        Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades (Orchard
        et al., 2015), https://doi.org/10.3389/fnins.2015.00437

    Example:
        >>> encode_events(make_events([1], [2], [259], [1])).hex()
        '0102800103'
    """
    events = as_events(events)
    limits = (("x", 255), ("y", 239), ("t", 2**_TIME_BITS - 1), ("p", 1))
    for name, largest in limits:
        bad = np.flatnonzero((events[name] < 0) | (events[name] > largest))
        if len(bad):
            raise DataError(
                f"event {bad[0]} has {name} = {events[name][bad[0]]}, but the N-MNIST format "
                f"holds {name} from 0 to {largest}. Crop or shift the recording first."
            )
    data = np.empty((len(events), _BYTES), np.uint8)
    time = events["t"]
    data[:, 0], data[:, 1] = events["x"], events["y"]
    data[:, 2] = (events["p"] << 7) | (time >> 16)
    data[:, 3], data[:, 4] = (time >> 8) & 255, time & 255
    return data.tobytes()


def decode_events(data: bytes) -> Events:
    """Decode what N-MNIST files hold, without a loop over events.

    An event in row 240 is none: the clock ran over, and all later times are 2^13 us later.

    Args:
        data: Five bytes an event (see :func:`encode_events`).

    Returns:
        Structured array [N].

    Raises:
        ValueError: If the bytes are not a whole number of events.

    Example:
        >>> decode_events(bytes.fromhex("0102800103")).tolist()
        [(1, 2, 259, 1)]
    """
    if len(data) % _BYTES:
        raise ValueError(f"got {len(data)} bytes, expected five an event. The file is cut off.")
    columns = np.frombuffer(data, np.uint8).reshape(-1, _BYTES).T.astype(np.int32)
    x, y, high, middle, low = columns
    t = ((high & 127) << 16) | (middle << 8) | low
    overflow = y == _OVERFLOW_ROW
    if overflow.any():
        t = t + overflow.cumsum() * _OVERFLOW_US
        x, y, t, high = (column[~overflow] for column in (x, y, t, high))
    return make_events(x, y, t, high >> 7)


def write_events(path: Path | str, events: Events) -> None:
    """Write a genuine N-MNIST ``.bin`` file (see :func:`encode_events`).

    Args:
        path: File to write; its folder exists.
        events: Structured array [N].

    Raises:
        DataError: If an event does not fit the format.
    """
    Path(path).write_bytes(encode_events(events))


def as_events(events: Any, *, name: str = "the recording") -> Events:
    """Return a recording with the fields and types of :data:`EVENT_DTYPE`.

    Args:
        events: Structured array [N] with the fields x, y, t and p, of any types of whole numbers.
        name: What messages call the recording.

    Raises:
        DataError: If a field is missing or holds anything but whole numbers.
    """
    if isinstance(events, np.ndarray) and events.dtype == EVENT_DTYPE and events.ndim == 1:
        return events
    fields = getattr(getattr(events, "dtype", None), "names", None) or ()
    missing = [field for field in "xytp" if field not in fields]
    if missing or events.ndim != 1:
        found = f"has the fields {fields}" if fields else f"is a {type(events).__name__}"
        raise DataError(
            f"{name} {found}, expected a structured array [N] with x, y, t and p. "
            "make_events(x, y, t, p) makes one of columns; a sensor of one line has y = 0."
        )
    whole = np.empty(len(events), EVENT_DTYPE)
    for field in "xytp":
        whole[field] = _whole(events[field], field, name)
    return whole


def _whole(column: NDArray[Any], field: str, name: str) -> NDArray[Any]:
    """Return a column of whole numbers, or raise DataError."""
    if column.dtype.kind not in "iub" or column.ndim != 1:
        unit = "microseconds" if field == "t" else "numbers"
        cure = "round(1e6 * t) where t is in seconds" if field == "t" else "round them"
        raise DataError(
            f"{name}: {field} is {column.dtype} of shape {column.shape}, expected whole {unit} "
            f"[N]. Convert them first: {cure}, then astype(int)."
        )
    if column.dtype.kind == "u" and len(column) and int(column.max()) >= _LARGEST_TIME:
        raise DataError(f"{name}: {field} = {column.max()} is no sensible value. Replace it.")
    return column


def check_events(
    events: Any, sensor_size: tuple[int, int, int] = NMNIST_SENSOR, *, name: str = "the recording"
) -> Events:
    """Return a recording after a check of all that binning relies on.

    Args:
        events: Structured array [N] with the fields x, y, t and p, of any types of whole numbers.
        sensor_size: Width, height and polarities of the sensor.
        name: What messages call the recording.

    Returns:
        The events with the types of :data:`EVENT_DTYPE`.

    Raises:
        DataError: If a field is missing or holds anything but whole numbers, a coordinate or
            polarity is out of range, or times do not ascend; names the first such event.
    """
    recording: Events = as_events(events, name=name)
    for field, size in zip("xyp", sensor_size, strict=True):
        values = recording[field]
        if len(values) and (values.min() < 0 or values.max() >= size):
            first = np.flatnonzero((values < 0) | (values >= size))[0]
            cure = " Number polarities from 0." if field == "p" else ""
            raise DataError(
                f"event {first} of {name} has {field} = {values[first]}, but the sensor has "
                f"{field} from 0 to {size - 1}. The recording is damaged or of another sensor: "
                f"replace or remove it, or give its sensor_size.{cure}"
            )
    times = recording["t"]
    back = times[1:] < times[:-1]
    if back.any():
        first = int(np.flatnonzero(back)[0]) + 1
        raise DataError(
            f"event {first} of {name} is at {times[first]} us, earlier than the one before it "
            f"({times[first - 1]} us). Where only the order was lost, sort the recording: "
            'events[np.argsort(events["t"], kind="stable")]. Where the clock jumped back, split '
            "it there."
        )
    if len(times) and not (times[0] > -_LARGEST_TIME and times[-1] < _LARGEST_TIME):
        raise DataError(
            f"{name} has times from {times[0]} to {times[-1]}, no sensible microseconds. "
            "Replace or remove it."
        )
    return recording


def bin_events(
    events: Events,
    *,
    time_steps: int | None = None,
    window_us: int | None = None,
    sensor_size: tuple[int, int, int] = NMNIST_SENSOR,
    reduce: Reduce = "or",
    name: str = "the recording",
) -> NDArray[np.uint8]:
    """Bin events to frames, with exactly the bins of ``tonic.transforms.ToFrame``.

    Three ways to cut time, left-closed and right-open; events in no bin are dropped:

    - ``time_steps`` alone, as ``ToFrame(n_time_bins=time_steps)``: the recording, first to last
      event, is cut into equal bins of ``(t_last - t_first) // time_steps``. The remainder, at
      least the last event, is dropped.
    - ``window_us`` alone, as ``ToFrame(time_window=window_us)``: windows from the first event on.
      Their number depends on the recording; an incomplete last one is dropped unless it is the
      only one.
    - both, as ``ToFrame(time_window=window_us, start_time=0, end_time=time_steps * window_us)``:
      windows from time 0, the same for all recordings, whose clocks have to start there.

    A recording that would become blank is an error.

    Args:
        events: Structured array [N] with the fields x, y, t and p, whole numbers of any type, in
            order of time.
        time_steps: Number of bins T.
        window_us: Length of a bin in microseconds.
        sensor_size: Width, height and polarities (C) of the sensor, in tonic's order.
        reduce: ``"or"`` gives 1 where there is any event, ``"count"`` their number, an integer
            their number but at most that.
        name: What messages call the recording.

    Returns:
        Frames [T, C, H, W].

    Raises:
        ValueError: If the options are impossible.
        DataError: If the recording is malformed (see :func:`check_events`) or would become blank,
            its frames do not fit into memory, or a count exceeds 255, the largest that a frame
            holds.

    Example:
        >>> events = make_events([0, 1, 1, 0], [0, 0, 0, 0], [0, 10, 11, 20], [0, 1, 1, 0])
        >>> bin_events(events, time_steps=2, sensor_size=(2, 1, 2), reduce="count").tolist()
        [[[[1, 0]], [[0, 0]]], [[[0, 0]], [[0, 2]]]]
    """
    frame_shape(time_steps, window_us, sensor_size, reduce)
    events = check_events(events, sensor_size, name=name)
    return bin_checked(events, time_steps, window_us, sensor_size, reduce, name=name)


def bin_checked(
    events: Events,
    time_steps: int | None,
    window_us: int | None,
    sensor_size: tuple[int, int, int],
    reduce: Reduce,
    *,
    name: str,
) -> NDArray[np.uint8]:
    """Bin as :func:`bin_events` does, with options and events that are checked."""
    width, height, polarities = sensor_size
    bins, window, start = _bins(events["t"], time_steps, window_us, name)
    shape = (bins, polarities, height, width)
    size = math.prod(shape)
    if size > _LARGEST_FRAMES:
        raise DataError(
            f"{name} would become frames of shape {shape}, {size / 2**30:.0f} GiB. Use longer "
            "windows, and check that its times are in microseconds."
        )
    index = (events["t"] - start) // window
    kept = (index >= 0) & (index < bins)
    flat = ((index * polarities + events["p"]) * height + events["y"]) * width + events["x"]
    if not kept.all():
        flat = flat[kept]
    if len(flat) == 0:
        raise DataError(
            f"{name} has all its {len(events)} events outside of the windows from 0 to "
            f"{bins * window} us: they lie from {events['t'][0]} to {events['t'][-1]} us. Subtract "
            'events["t"][0] where its clock does not start at 0, or give time_steps or window_us '
            "alone."
        )
    if reduce == "or":
        frames = np.zeros(size, np.uint8)
        frames[flat] = 1
        return frames.reshape(shape)
    counts = np.bincount(flat, minlength=size)
    if not isinstance(reduce, str):
        counts = np.minimum(counts, reduce)
    elif counts.max() > 255:
        raise DataError(
            f"a pixel of {name} has {counts.max()} events in one time step; a frame holds at most "
            "255. Use more time steps, or reduce=255 to clip."
        )
    return counts.astype(np.uint8).reshape(shape)


def frame_shape(
    time_steps: int | None, window_us: int | None, sensor_size: tuple[int, int, int], reduce: Reduce
) -> tuple[int, int, int, int]:
    """Return the shape of binned frames, a single step where their number is not fixed.

    Raises:
        ValueError: If an option is impossible.
    """
    if time_steps is None and window_us is None:
        raise ValueError("bin_events needs time_steps or window_us, got neither.")
    for name, value in (("time_steps", time_steps), ("window_us", window_us)):
        if value is not None and not (_is_whole(value) and value >= 1):
            raise ValueError(f"{name} must be at least 1, got {value!r}. Expected a whole number.")
    known = (
        reduce in ("or", "count")
        if isinstance(reduce, str)
        else (_is_whole(reduce) and 1 <= reduce <= 255)
    )
    if not known:
        raise ValueError(
            f"reduce must be 'or', 'count' or the largest count from 1 to 255, got {reduce!r}."
        )
    if len(sensor_size) != 3 or not all(_is_whole(size) and size >= 1 for size in sensor_size):
        raise ValueError(
            "sensor_size must be width, height and polarities, each at least 1, "
            f"got {sensor_size!r}."
        )
    width, height, polarities = (int(size) for size in sensor_size)
    shape = (time_steps or 1, polarities, height, width)
    if math.prod(shape) > _LARGEST_FRAMES:
        raise ValueError(
            f"time_steps = {time_steps} makes frames of shape {shape}, "
            f"{math.prod(shape) / 2**30:.0f} GiB for each recording. Use fewer."
        )
    return shape


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _bins(
    times: NDArray[Any], steps: int | None, window: int | None, name: str
) -> tuple[int, int, int]:
    """Return the number of bins, their length and where the first one starts."""
    if len(times) == 0:
        raise DataError(f"{name} holds no events and would become blank. Remove it.")
    if steps is not None and window is not None:
        return int(steps), int(window), 0
    first, duration = int(times[0]), int(times[-1]) - int(times[0])
    if window is not None:
        return max(1, duration // window), int(window), first
    assert steps is not None
    if duration < steps:
        raise DataError(
            f"{name} lasts {duration} us, too short for {steps} bins of at least 1 us: it would "
            "become blank. Use fewer time steps, and check that its times are in microseconds."
        )
    return int(steps), duration // int(steps), first
