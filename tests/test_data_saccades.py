"""The saccade camera: what it emits, seeds, and how close it is to the real recordings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spikewvat.data.events import check_events
from spikewvat.data.images import MNIST
from spikewvat.data.saccades import SaccadeCamera, _seen, write_recordings
from spikewvat.errors import DataError

QUIET = SaccadeCamera(noise=0, jitter_us=0, spread=0)


def square(brightness=1.0):
    image = torch.zeros(1, 28, 28)
    image[:, 8:20, 8:20] = brightness
    return image


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_events_lie_on_the_sensor_in_order_of_time():
    for events in SaccadeCamera().record(torch.rand(3, 28, 28), generator=seeded()):
        check_events(events)
        assert len(events) > 1000
        assert (np.diff(events["t"]) >= 0).all()
        assert events["t"].min() >= 0
        assert events["t"].max() < SaccadeCamera().duration_us


def test_an_empty_image_gives_noise_only():
    (events,) = SaccadeCamera(noise=200).record(torch.zeros(1, 28, 28), generator=seeded())
    assert 140 < len(events) < 260  # Poisson, four standard deviations
    (events,) = QUIET.record(torch.zeros(1, 28, 28), generator=seeded())
    assert len(events) == 0


def test_events_follow_the_change_of_intensity():
    # Summed with their signs, the events of a pixel are the change that it has seen, to within
    # what it may keep to itself at the start and at the end: a threshold each.
    (events,) = QUIET.record(square(), generator=seeded())
    signs = np.zeros((34, 34))
    np.add.at(signs, (events["y"], events["x"]), 1 - 2 * events["p"])
    scene = QUIET._scene(square())
    start, end = (
        _seen(scene, *QUIET._position(time))[0].numpy() for time in (0, QUIET.duration_us)
    )
    assert np.abs(signs * QUIET.threshold - (end - start)).max() <= 2 * QUIET.threshold
    assert len(events) > 10 * np.abs(signs).sum()


def test_a_bright_stroke_leaves_ones_behind_it():
    # The image moves down in the first saccade: its upper edge darkens, its lower edge brightens.
    (events,) = QUIET.record(square(), generator=seeded())
    first = events[events["t"] < 80_000]
    ones, zeros = (first["y"][first["p"] == polarity].mean() for polarity in (1, 0))
    assert ones < zeros - 3


def test_events_come_in_three_bursts():
    (events,) = QUIET.record(square(), generator=seeded())
    counts = np.histogram(events["t"], [20e3, 80e3, 90e3, 115e3, 180e3, 215e3, 225e3, 290e3])[0]
    rates = counts / [60, 10, 25, 65, 35, 10, 65]
    assert min(rates[[0, 3, 6]]) > 2 * max(rates[[1, 2, 5]])


def test_a_finer_threshold_gives_more_events():
    counts = [
        len(SaccadeCamera(threshold=threshold).record(square(), generator=seeded())[0])
        for threshold in (0.1, 0.2, 0.4)
    ]
    assert counts[0] > 1.5 * counts[1] > 2 * counts[2]


def test_pixels_rest_between_events():
    camera = SaccadeCamera(noise=0, jitter_us=0, threshold=0.02, refractory_us=5000)
    (events,) = camera.record(square(), generator=seeded())
    pixels = events["y"] * 34 + events["x"]
    gaps = [np.diff(events["t"][pixels == pixel]) for pixel in np.unique(pixels)]
    assert np.concatenate(gaps).min() >= 4999  # times are whole microseconds


def test_a_recording_depends_on_its_image_and_seed_alone():
    images = torch.rand(300, 28, 28)  # more than one chunk
    images[270] = images[2]
    many = SaccadeCamera().record(images, generator=seeded(1))
    few = SaccadeCamera().record(images[:3], generator=seeded(1))
    assert len(many) == 300
    for index in range(3):
        np.testing.assert_array_equal(many[index], few[index])
    assert len(many[270]) != len(many[2]) or (many[270] != many[2]).any()
    other = SaccadeCamera().record(images[:1], generator=seeded(2))[0]
    assert len(other) != len(few[0]) or (other != few[0]).any()


def test_bytes_and_fractions_are_the_same_image():
    image = torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8, generator=seeded())
    a, b = (QUIET.record(given, generator=seeded())[0] for given in (image, image.float() / 255))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 32, 32), r"images must be \[N, 28, 28\], got \(2, 32, 32\)"),
        (torch.full((1, 28, 28), 2.0), r"images must lie in 0\.\.1, got 2\.\.2"),
        (torch.full((1, 28, 28), torch.nan), r"images must lie in 0\.\.1, got nan"),
    ],
)
def test_other_images_are_errors(images, message):
    with pytest.raises(ValueError, match=message):
        SaccadeCamera().record(images)


def test_no_images_give_no_recordings():
    assert SaccadeCamera().record(torch.zeros(0, 28, 28)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, r"threshold must be above 0, got 0"),
        ({"step_us": -1}, r"step_us must be above 0, got -1"),
        ({"noise": -2.0}, r"noise must be at least 0, got -2.0"),
        ({"spread": float("nan")}, r"spread must be at least 0, got nan"),
        ({"blur": float("inf")}, r"blur must be finite, got inf"),
    ],
)
def test_impossible_cameras_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        SaccadeCamera(**options)


def test_recordings_are_written_in_the_official_layout(tmp_path):
    write_recordings(tmp_path, square().expand(3, 28, 28), [3, 0, 3], [1, 2, 30])
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.bin"))
    assert files == ["0/00002.bin", "3/00001.bin", "3/00030.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(digit) for digit in range(10)]


def test_labels_that_are_no_digits_are_an_error(tmp_path):
    with pytest.raises(DataError, match="label 10 of image 1 is no digit"):
        write_recordings(tmp_path, square().expand(2, 28, 28), [3, 10], [1, 2])


def test_re_enacted_digits_are_close_to_the_real_recordings(real_data):
    nmnist = pytest.importorskip("spikewvat.data.nmnist")
    real = nmnist.NMNIST(real_data, "test", time_steps=1, cache=False)
    numbers = [int(file.stem) - 1 for file in real.files]
    images = MNIST(real_data, "train").images[numbers]
    ours = SaccadeCamera().record(images, generator=seeded())
    theirs = [real.events(index) for index in range(len(real))]

    def maps(recordings):
        return np.stack([np.bincount(e["y"] * 34 + e["x"], minlength=34 * 34) for e in recordings])

    counts = [np.mean([len(e) for e in recordings]) for recordings in (ours, theirs)]
    assert abs(counts[0] / counts[1] - 1) < 0.25
    on = [np.concatenate([e["p"] for e in recordings]).mean() for recordings in (ours, theirs)]
    assert abs(on[0] - on[1]) < 0.05
    pairs = zip(maps(ours), maps(theirs), strict=True)
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]) > 0.9
