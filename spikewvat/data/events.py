"""Events of a camera: the N-MNIST file format, binning to frames, batches with time first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from spikewvat.data.packed import Together
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


def make_events(x: Any, y: Any, t: Any, p: Any) -> Events:
    """Return a structured array from columns [N] of x, y, time in microseconds and polarity.

    Example:
        >>> make_events([3], [4], [1500], [1])["t"].tolist()
        [1500]
    """
    events = np.empty(len(t), EVENT_DTYPE)
    events["x"], events["y"], events["t"], events["p"] = x, y, t, p
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
            overflow of the clock), t in 0..8388607, p 0 or 1.

    References:
        Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades (Orchard
        et al., 2015), https://doi.org/10.3389/fnins.2015.00437

    Example:
        >>> encode_events(make_events([1], [2], [259], [1])).hex()
        '0102800103'
    """
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


def check_on_sensor(
    events: Events,
    sensor_size: tuple[int, int, int] = NMNIST_SENSOR,
    *,
    name: str = "the recording",
) -> None:
    """Raise unless every event lies on the sensor.

    Args:
        events: Structured array [N].
        sensor_size: Width, height and polarities of the sensor.
        name: What the message calls the recording.

    Raises:
        DataError: If a coordinate or polarity is out of range; names the first such event.
    """
    for field, size in zip("xyp", sensor_size, strict=True):
        values = events[field]
        if len(values) and (values.min() < 0 or values.max() >= size):
            first = np.flatnonzero((values < 0) | (values >= size))[0]
            raise DataError(
                f"event {first} of {name} has {field} = {values[first]}, but the sensor has "
                f"{field} from 0 to {size - 1}. The recording is damaged or of another sensor: "
                "replace or remove it."
            )


def bin_events(
    events: Events,
    *,
    time_steps: int | None = None,
    window_us: int | None = None,
    sensor_size: tuple[int, int, int] = NMNIST_SENSOR,
    reduce: Reduce = "or",
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
      windows from time 0, the same for all recordings.

    An empty recording gives zeros (a single frame where ``window_us`` is given alone).

    Args:
        events: Structured array [N], in order of time.
        time_steps: Number of bins T.
        window_us: Length of a bin in microseconds.
        sensor_size: Width, height and polarities (C) of the sensor, in tonic's order.
        reduce: ``"or"`` gives 1 where there is any event, ``"count"`` their number, an integer
            their number but at most that.

    Returns:
        Frames [T, C, H, W].

    Raises:
        ValueError: If the options are impossible.
        DataError: If an event lies outside the sensor, or a count exceeds 255, the largest that a
            frame holds.

    Example:
        >>> events = make_events([0, 1, 1, 0], [0, 0, 0, 0], [0, 10, 11, 20], [0, 1, 1, 0])
        >>> bin_events(events, time_steps=2, sensor_size=(2, 1, 2), reduce="count").tolist()
        [[[[1, 0]], [[0, 0]]], [[[0, 0]], [[0, 2]]]]
    """
    _check_options(time_steps, window_us, reduce)
    check_on_sensor(events, sensor_size)
    return bin_checked(events, time_steps, window_us, sensor_size, reduce)


def bin_checked(
    events: Events,
    time_steps: int | None,
    window_us: int | None,
    sensor_size: tuple[int, int, int],
    reduce: Reduce,
) -> NDArray[np.uint8]:
    """Bin as :func:`bin_events` does, with possible options, events that lie on the sensor."""
    width, height, polarities = sensor_size
    bins, window, start = _bins(events["t"], time_steps, window_us)
    shape = (bins, polarities, height, width)
    if window == 0 or len(events) == 0:
        return np.zeros(shape, np.uint8)
    index = (events["t"] - start) // window
    kept = (index >= 0) & (index < bins)
    flat = ((index * polarities + events["p"]) * height + events["y"]) * width + events["x"]
    if not kept.all():
        flat = flat[kept]
    size = bins * polarities * height * width
    if reduce == "or":
        frames = np.zeros(size, np.uint8)
        frames[flat] = 1
        return frames.reshape(shape)
    counts = np.bincount(flat, minlength=size)
    if isinstance(reduce, int):
        counts = np.minimum(counts, reduce)
    elif counts.max() > 255:
        raise DataError(
            f"a pixel has {counts.max()} events in one time step; a frame holds at most 255. "
            "Use more time steps, or reduce=255 to clip."
        )
    return counts.astype(np.uint8).reshape(shape)


def _check_options(time_steps: int | None, window_us: int | None, reduce: Reduce) -> None:
    if time_steps is None and window_us is None:
        raise ValueError("bin_events needs time_steps or window_us, got neither.")
    for name, value in (("time_steps", time_steps), ("window_us", window_us)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value!r}.")
    known = reduce in ("or", "count") if isinstance(reduce, str) else 1 <= reduce <= 255
    if not known:
        raise ValueError(
            f"reduce must be 'or', 'count' or the largest count from 1 to 255, got {reduce!r}."
        )


def _bins(times: NDArray[Any], steps: int | None, window: int | None) -> tuple[int, int, int]:
    """Return the number of bins, their length and where the first one starts."""
    if steps is not None and window is not None:
        return steps, window, 0
    first, duration = (times[0], times[-1] - times[0]) if len(times) else (0, 0)
    if steps is not None:
        return steps, int(duration // steps), int(first)
    assert window is not None
    return max(1, int(duration // window)), window, int(first)


def collate(items: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    """Make a batch of items.

    Args:
        items: Pairs of a tensor, spikes [T, C, H, W] or a still image [C, H, W], and a label;
            recordings of one data set may come :class:`~spikewvat.data.packed.Together`.

    Returns:
        Spikes float32 [T, B, C, H, W], sparse where the items are (still images: [B, C, H, W]),
        and labels int64 [B].

    Example:
        >>> spikes, labels = collate([(torch.ones(5, 2, 4, 4, dtype=torch.uint8), 7)] * 3)
        >>> spikes.shape, spikes.dtype, labels.tolist()
        (torch.Size([5, 3, 2, 4, 4]), torch.float32, [7, 7, 7])
    """
    if isinstance(items, Together):
        return items.batch()
    labels = torch.tensor([int(item[1]) for item in items], dtype=torch.int64)
    if items[0][0].is_sparse:
        return _sparse_batch([item[0] for item in items]), labels
    timed = items[0][0].dim() == 4
    data = torch.stack([item[0] for item in items], dim=1 if timed else 0)
    return data.float(), labels


def _sparse_batch(items: Sequence[Tensor]) -> Tensor:
    """Return coalesced sparse spikes [T, B, C, H, W] of sparse [T, C, H, W], one by one."""
    items = [item.coalesce() for item in items]
    counts = torch.tensor([item.values().numel() for item in items])
    index = torch.cat([item.indices() for item in items], dim=1)
    sample = torch.arange(len(items)).repeat_interleave(counts)
    # Each item is in order of time already; a stable sort merges them without a full key.
    order = torch.argsort(index[0] * len(items) + sample, stable=True)
    index = torch.cat([index[:1], sample[None], index[1:]])[:, order]
    values = torch.cat([item.values() for item in items])[order].float()
    steps, *rest = items[0].shape
    return torch.sparse_coo_tensor(
        index, values, (steps, len(items), *rest), is_coalesced=True, check_invariants=False
    )


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    *,
    shuffle: bool = False,
    generator: Generator | None = None,
    workers: int = 0,
    drop_last: bool = False,
) -> DataLoader[Any]:
    """Make a loader of batches with time first.

    Args:
        dataset: Yields ``(spikes [T, C, H, W], label)``, or still images ``([C, H, W], label)``.
        batch_size: Samples in a batch B, at least 1.
        shuffle: Another order in every epoch.
        generator: Source of the order; ``None`` uses torch's global one.
        workers: Number of processes that load; 0 loads in this one.
        drop_last: Leave out the last batch where it is incomplete.

    Returns:
        Yields spikes float32 [T, B, C, H, W] (still images: [B, C, H, W]) and labels int64 [B].

    Raises:
        ValueError: If ``batch_size`` is below 1 or ``workers`` below 0.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size!r}.")
    if workers < 0:
        raise ValueError(f"workers must be at least 0, got {workers!r}.")
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        generator=generator,
        num_workers=workers,
        drop_last=drop_last,
        collate_fn=collate,
        persistent_workers=workers > 0,
    )
