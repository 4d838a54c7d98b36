"""Devices fitted to tables: what is drawn, what is saved, and what a bad table says."""

from __future__ import annotations

import dataclasses
import gzip
import math
import statistics

import pytest
import torch
from reference_devices import empirical_mean_square, mean_and_std

from spikewvat.devices import (
    AbsMax,
    Empirical,
    Fixed,
    HalfWidth,
    MinMax,
    SixSigma,
    load_device,
    save_device,
)
from spikewvat.devices.levels import MAX_ERRORS, MeasuredLevel
from spikewvat.devices.measured import measured
from spikewvat.errors import CheckpointError, DataError, MissingDataError
from spikewvat.lab.recipes.devices import build_device

UNIT = Fixed(0.0, 1.0)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def table(tmp_path):
    """Write rows as a CSV with a header and return its path."""

    def write(rows, header="level,g,t,cell,goal", name="table.csv"):
        text = "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"
        path = tmp_path / name
        path.write_bytes(
            gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode()
        )
        return path

    return write


def fit(path, **options):
    return Empirical.fit(
        path, **{"level_column": "level", "value_column": "g", "min_count": 1, **options}
    )


ROWS = [
    # level, g, t, cell, goal
    (0, 1.0, 0, "a", 1.5),
    (0, 3.0, 0, "b", 1.5),
    (1, 9.0, 0, "a", 10.0),
    (1, 11.0, 0, "b", 10.0),
    (0, 0.0, 100, "a", 1.5),
    (0, 4.0, 100, "b", 1.5),
    (1, 6.0, 90, "a", 10.0),
    (1, 10.0, 110, "b", 10.0),
]


def test_errors_are_relative_to_the_earliest_mean_and_the_span(table):
    device = fit(table(ROWS), time_column="t")  # targets 2 and 10, span 0..11
    assert [level.position for level in device.levels] == pytest.approx([2 / 11, 10 / 11])
    assert device.levels[0].errors == pytest.approx([-2 / 11, 2 / 11], rel=1e-5)
    assert device.levels[1].errors == pytest.approx([-4 / 11, 0], rel=1e-5)
    assert device.time == 100
    assert [level.count for level in device.levels] == [2, 2]


def test_at_programming(table):
    device = fit(table(ROWS), time_column="t", time=0.0, value_range=(0.0, 20.0))
    assert [level.position for level in device.levels] == pytest.approx([0.1, 0.5])
    assert device.levels[0].errors == pytest.approx([-0.05, 0.05])
    assert device.time == 0


def test_given_targets(table):
    device = fit(table(ROWS), time_column="t", target_column="goal", value_range=(0.0, 10.0))
    assert [level.position for level in device.levels] == pytest.approx([0.15, 1.0])
    assert device.levels[0].errors == pytest.approx([-0.15, 0.25])


@pytest.mark.parametrize(("time", "found"), [(85, 100), (99, 100), (120, 100), (1, 100), (0, 0)])
def test_the_nearest_measured_time_is_taken(table, time, found):
    assert fit(table(ROWS), time_column="t", time=time).time == found


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.txt"])
def test_separators_headers_and_column_numbers(tmp_path, table, name):
    by_name = fit(table(ROWS), time_column="t")
    mark = {"t.tsv": "\t", "t.txt": ";"}.get(name, ",")
    for header in ("", f"level{mark}g{mark}t{mark}cell{mark}goal\n"):
        text = "\ufeff" + header + "\n\n".join(mark.join(map(str, row)) for row in ROWS) + "\r\n"
        path = tmp_path / name
        path.write_bytes(
            gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode()
        )
        for level, value, time in ((0, 1, 2), ("0", "1", "2")):
            options = {"level_column": level, "value_column": value, "time_column": time}
            assert fit(path, **options) == by_name


def test_devices_are_told_apart(table):
    rows = [
        (level, 10 * level + offset + read, 0, cell, 0)
        for level in (0, 1)
        for cell, offset in (("a", -1), ("b", 1), ("c", 3))
        for read in (-0.5, 0.5)
    ]
    device = fit(table(rows), device_column="cell", value_range=(0.0, 10.0))
    for level in device.levels:  # the level's mean is 1 above 10 times its label
        assert level.inter == pytest.approx([-0.2, 0.0, 0.2])
        assert level.intra == pytest.approx([-0.05] * 3 + [0.05] * 3)
        total = mean_and_std(level.errors)[1] ** 2
        parts = mean_and_std(level.inter)[1] ** 2 + mean_and_std(level.intra)[1] ** 2
        assert total == pytest.approx(parts)
    w = {"w": torch.full((1000,), 0.3)}
    for options, values in (
        ({"intra": False}, [-0.2, 0.0, 0.2]),
        ({"inter": False}, [-0.05, 0.05]),
        ({}, [-0.25, -0.15, -0.05, 0.05, 0.15, 0.25]),
    ):
        part = dataclasses.replace(device, range=UNIT, **options)
        drawn = part.errors(w, generator=seeded(1))["w"].unique()
        torch.testing.assert_close(drawn, torch.tensor(values), atol=1e-6, rtol=0)


LEVELS = (
    MeasuredLevel(level=0, position=0.2, count=2, errors=(-0.1, 0.1)),
    MeasuredLevel(level=1, position=0.4, count=3, errors=(0.3, 0.5, 0.7)),
    MeasuredLevel(level=2, position=0.9, count=1, errors=(-0.4,)),
)


def test_a_level_draws_its_own_errors_equally_often():
    device = Empirical(LEVELS, UNIT)
    for level in LEVELS:
        w = torch.full((30_000,), level.position, dtype=torch.float64)
        drawn, counts = device.errors({"w": w}, generator=seeded(2))["w"].unique(return_counts=True)
        torch.testing.assert_close(drawn, f64(level.errors))
        share = counts / w.numel() * len(level.errors)
        assert float((share - 1).abs().max()) < 0.05


def test_crowded_levels_are_found():
    # far closer to each other than the cells of the look-up, and some outside of the range
    places = [-0.5, 0.0, 0.1, 0.1001, 0.10013, 0.10014, 0.1002, 0.5, 0.9999, 1.0, 1.3]
    device = Empirical([MeasuredLevel(i, x, 1, (i / 10,)) for i, x in enumerate(places)], UNIT)
    inside = torch.tensor(places[1:-1], dtype=torch.float64)
    drawn = device.errors({"w": inside})["w"]
    torch.testing.assert_close(drawn, torch.arange(1, 10, dtype=torch.float64) / 10)
    middles = (inside[1:] + inside[:-1]) / 2
    norms = [float(device.expected_norms({"w": w})["w"]) for w in middles]
    expected = [math.sqrt((i * i + (i + 1) ** 2) / 200) for i in range(1, 9)]
    assert norms == pytest.approx(expected)
    assert [row.model_mean for row in device.statistics(draws=10)] == pytest.approx(
        [i / 10 for i in range(11)]
    )


@pytest.mark.parametrize("place", [-0.5, 0.0, 0.2, 0.25, 0.35, 0.4, 0.6, 0.9, 1.0, 2.0])
@pytest.mark.parametrize("smooth", [False, True])
def test_between_levels_mean_and_mean_square_are_linear(place, smooth):
    device = Empirical(LEVELS, UNIT, smooth=smooth)
    w = {"w": torch.full((40_000,), place, dtype=torch.float64)}
    drawn = device.errors(w, generator=seeded(3))["w"]
    pairs = [(level.position, level.errors) for level in LEVELS]
    expected = empirical_mean_square(place, pairs)
    norm = float(device.expected_norms(w)["w"])
    assert norm == pytest.approx(math.sqrt(expected * 40_000))
    squares = drawn.square()
    error = 4 * float(squares.std()) / 200 + 1e-12
    assert float(squares.mean()) == pytest.approx(expected, abs=error)


def test_smooth_draws_are_new_values_of_the_same_spread():
    errors = tuple(sorted((0.1 * torch.randn(500, generator=seeded(4))).tolist()))
    level = MeasuredLevel(level=0, position=0.5, count=500, errors=errors)
    w = {"w": torch.full((50_000,), 0.5, dtype=torch.float64)}
    drawn = Empirical((level,), UNIT, smooth=True).errors(w, generator=seeded(5))["w"]
    mean, std = mean_and_std(errors)
    assert len(drawn.unique()) > 49_000
    assert abs(float(drawn.mean()) - mean) < 4 * std / math.sqrt(50_000)
    assert float(drawn.std()) == pytest.approx(std, rel=4 / math.sqrt(100_000))


def test_statistics_set_the_model_beside_the_measurements():
    rows = Empirical(LEVELS).statistics(draws=20_000, generator=seeded(6))
    assert [row.level for row in rows] == [0, 1, 2]
    for row, level in zip(rows, LEVELS):
        mean, std = mean_and_std(level.errors)
        assert (row.position, row.count) == (level.position, level.count)
        assert row.measured_mean == pytest.approx(mean)
        assert row.measured_std == pytest.approx(std)
        assert row.measured_quantiles[2] == pytest.approx(statistics.median(level.errors))
        assert row.model_mean == pytest.approx(mean, abs=0.005)
        assert row.model_std == pytest.approx(std, abs=0.005)
    assert rows[1].model_quantiles == pytest.approx((0.3, 0.3, 0.5, 0.7, 0.7))


def test_many_errors_are_thinned_to_quantiles(table):
    values = (5 + torch.randn(3 * MAX_ERRORS, generator=seeded(7))).tolist()
    path = table([(0, v, 0, "a", 5) for v in values] + [(1, 9.0, 0, "a", 9)])
    level = fit(path, value_range=(0.0, 10.0)).levels[0]
    assert len(level.errors) == MAX_ERRORS
    assert level.count == 3 * MAX_ERRORS
    exact = mean_and_std(values)[1] / 10
    assert mean_and_std(level.errors)[1] == pytest.approx(exact, rel=2e-3)


def test_sparse_levels_are_left_out(table):
    rows = [
        (level, level + i / 10, 0, "a", 0)
        for level, n in ((0, 5), (1, 2), (2, 5))
        for i in range(n)
    ]
    assert [level.level for level in fit(table(rows), min_count=3).levels] == [0, 2]


@pytest.mark.parametrize(
    "device",
    [
        Empirical(LEVELS),
        Empirical(LEVELS, AbsMax(per_channel=True), smooth=True, time=1e-3),
        Empirical(LEVELS, Fixed(-0.1, 1e-300)),
        Empirical(LEVELS, HalfWidth(), time=1e22),
        Empirical(
            (MeasuredLevel(1, 1 / 3, 2, (-0.1, 1e-17), inter=(0.1,), intra=(-0.2, 0.2)),),
            MinMax(),
            intra=False,
        ),
    ],
    ids=repr,
)
def test_saved_devices_come_back_equal(tmp_path, device):
    assert Empirical.from_toml(device.to_toml()) == device
    path = tmp_path / "folder" / "device.toml"
    save_device(device, path)
    assert load_device(path) == device
    w = {"w": torch.randn(50)}
    first = device.program(w, generator=seeded(8))["w"]
    assert torch.equal(first, load_device(path).program(w, generator=seeded(8))["w"])


def test_repr_is_short():
    expected = "Empirical(3 levels, 6 measurements, time=0.01 s, range=SixSigma(per_channel=False)"
    assert repr(Empirical(LEVELS, time=0.01)) == expected + ")"
    assert repr(Empirical(LEVELS, time=0.01, smooth=True)) == expected + ", smooth=True)"


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("", {}, "is empty"),
        ("\n \n", {}, "is empty"),
        ("level,g\n", {}, "holds a header but no measurements"),
        ("level,r\n0,1\n1,2\n", {}, r"no column named 'g' \(first line: level, r\)"),
        ("level,g,g\n0,1,1\n1,2,2\n", {}, "two columns named 'g'"),
        ("0,1\n1,2\n", {}, "no column named 'level'"),
        ("0,1\n1,2\n", {"level_column": 0, "value_column": 2}, "no column 2: its first line has 2"),
        ("0,1\n1,2\n", {"level_column": -1, "value_column": 1}, "no column -1"),
        ("level,g\n0,1\n1,abc\n", {}, r"line 3, column 'g': expected a finite number, got 'abc'"),
        ("0,1\n1,x\n", {"level_column": 0, "value_column": 1}, "line 2, column 1: .* got 'x'"),
        ("0,x\n1,2\n", {"level_column": 0, "value_column": 1}, "line 1, column 1: .* got 'x'"),
        ("level,g\n0,1\n1,nan\n", {}, "line 3, column 'g': expected a finite number, got 'nan'"),
        ("level,g\n0,inf\n1,2\n", {}, "line 2, column 'g': expected a finite number, got 'inf'"),
        ("level,g\n0,\n1,2\n", {}, "line 2, column 'g': expected a finite number, got ''"),
        ("level,g\n0,1\n1\n", {}, "line 3: 1 cells, but the value column is number 1"),
        (
            "level,g\n0,1\n0,2\n",
            {},
            r"1 level\(s\) of at least 1 measurements, expected two",
        ),
        ("level,g\n0,1\n1,2\n", {"min_count": 5}, r"0 level\(s\) of at least 5"),
        ("level,g\n0,1\n1,1\n", {}, r"value range is empty: every value is 1\.0"),
        ("level,g\n0,1\n0,2\n1,1\n1,2\n", {}, "levels 0 and 1 share one target"),
        ("level,g\n0,1\n1,2\n", {"time": 1.0}, "without a time column"),
        ("level,g\n0,1\n1,2\n", {"value_range": (2.0, 1.0)}, "value_range must be"),
        ("level,g\n0,1\n1,2\n", {"value_range": (0.0, math.nan)}, "value_range must be"),
        ("level,g,t\n0,1,-1\n1,2,0\n", {"time_column": "t"}, r"time is negative: -1\.0 s"),
        (
            "level,g,t\n0,1,1\n1,2,9\n",
            {"time_column": "t", "time": 99.0},
            r"from 1\.0 to 9\.0",
        ),
        ("level,g,t\n0,1,1\n1,2,9\n", {"time_column": "t", "time": 0.1}, r"from 1\.0 to 9\.0"),
        (
            "level,g,c\n0,1,a\n0,2,b\n1,3,a\n1,5,b\n",
            {"device_column": "c"},
            "was measured once",
        ),
    ],
)
def test_bad_tables(tmp_path, content, options, message):
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as raised:
        fit(path, **options)
    assert "bad.csv" in str(raised.value)


def test_one_level_is_enough_where_the_range_is_given(table):
    device = fit(table([(7, 4.0, 0, "a", 4), (7, 6.0, 0, "a", 4)]), value_range=(0.0, 10.0))
    assert device.levels[0].errors == pytest.approx([-0.1, 0.1])


def test_unreadable_files(tmp_path):
    with pytest.raises(DataError, match="there is no file .*absent.csv"):
        fit(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="cannot be read"):
        fit(tmp_path)
    whole = gzip.compress(b"level,g\n0,1\n1,2\n", mtime=0)
    for content in (b"level,g\n0,1\n", whole[:-9], whole[:12] + b"\xff\xff" + whole[14:]):
        (tmp_path / "broken.csv.gz").write_bytes(content)
        with pytest.raises(DataError, match="broken.csv.gz' cannot be read"):
            fit(tmp_path / "broken.csv.gz")


def test_a_packed_table_that_explodes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("spikewvat.devices.measurements._LARGEST", 5000)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"0,1\n" * 2000, mtime=0))
    with pytest.raises(DataError, match=r"bomb.csv.gz' cannot be read \(it unpacks to more than"):
        fit(tmp_path / "bomb.csv.gz")

    (tmp_path / "long.csv").write_text("level,g\n0," + "1" * 200_000)
    with pytest.raises(DataError, match="long.csv', line .*: field larger than"):
        fit(tmp_path / "long.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DataError, match="binary.csv' cannot be read"):
        fit(tmp_path / "binary.csv")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: "format =",
        lambda text: text.replace("device 1", "device 99"),
        lambda text: text.replace("SixSigma", "SevenSigma"),
        lambda text: text.replace("per_channel", "per_chanel"),
        lambda text: text.replace("position", "place"),
        lambda text: text.replace("0.3, 0.5", "0.3, 'x'"),
        lambda text: text.replace("0.3, 0.5", "0.3, nan"),
        lambda text: text.replace("errors = [0.3, 0.5, 0.7]", "errors = []"),
        lambda text: text.replace("0.9", "0.1"),
        lambda text: text.split("[[levels]]")[0],
        lambda text: "unknown = 1\n" + text,
    ],
)
def test_malformed_device_files(tmp_path, change):
    path = tmp_path / "device.toml"
    path.write_text(change(Empirical(LEVELS).to_toml()))
    with pytest.raises(DataError, match=r"device.toml' is no empirical device \(.+\)"):
        load_device(path)


def test_missing_device_files(tmp_path):
    with pytest.raises(DataError, match="there is no file .*absent.toml"):
        load_device(tmp_path / "absent.toml")
    with pytest.raises(DataError, match="cannot be read"):
        load_device(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        save_device(Empirical(LEVELS), tmp_path / "file" / "device.toml")


class OwnRange(SixSigma):
    """A range rule that no file can name."""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Empirical(()), "at least one measured level, got none"),
        (lambda: Empirical(LEVELS[::-1]), "ascending finite positions, got .*0.9"),
        (lambda: Empirical(LEVELS, inter=False, intra=False), "one of inter and intra"),
        (lambda: Empirical(LEVELS, inter=False), "level 0 does not tell devices apart"),
        (lambda: Empirical((MeasuredLevel(3, 0.5, 0, ()),)), "level 3 must have errors"),
        (lambda: Empirical((MeasuredLevel(3, 0.5, 1, (math.inf,)),)), "level 3 must have errors"),
        (lambda: Empirical((MeasuredLevel(3, math.nan, 1, (0.0,)),)), "ascending finite"),
        (lambda: Empirical(LEVELS, "6sigma"), "range must be a range rule"),
        (lambda: Empirical(LEVELS, OwnRange()).to_toml(), "cannot write range rule OwnRange"),
    ],
)
def test_impossible_devices(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_table_named_where_the_device_is(table, tmp_path, monkeypatch):
    path = table([(0, 1.0, 0, "a", 1), (0, 1.2, 0, "a", 1), (1, 2.0, 0, "a", 2)])
    columns = {"level_column": "level", "value_column": "g", "min_count": 1}
    device = measured(str(path), **columns)
    assert device == fit(path)
    half = measured(str(path), **columns, range=HalfWidth(), smooth=True)
    assert (half.range, half.smooth, half.levels) == (HalfWidth(), True, device.levels)
    monkeypatch.setenv("SPIKEWVAT_DATA", str(tmp_path))
    assert measured(path.name, **columns) == device
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPIKEWVAT_DATA")
    assert measured(path.name, **columns) == device
    spec = f"measured:table={path.name},level_column=level,value_column=g,min_count=1"
    assert build_device(f"{spec},range=absmax", "device").range == AbsMax()
    with pytest.raises(MissingDataError, match="no table of measurements 'gone.tsv'"):
        measured("gone.tsv", **columns)


def test_measured_reram(real_data):
    path = real_data / "rram" / "techB.tsv.gz"
    if not path.is_file():
        pytest.skip("no ReRAM table")
    # The table's README states the median over the 32 target levels, relative to Gmax = 128 uS.
    columns = {"level_column": 5, "value_column": 3, "time_column": 6}
    spreads = {0.0: 0.008, 0.01: 0.015, 1.0: 0.024, 1e4: 0.05}
    for time, expected in spreads.items():
        device = Empirical.fit(path, **columns, time=time, value_range=(0.0, 128e-6))
        assert device.time == time
        rows = [row for row in device.statistics(generator=seeded(9)) if row.level < 32]
        assert len(rows) == 32
        measured = statistics.median(row.measured_std for row in rows)
        modelled = statistics.median(row.model_std for row in rows)
        assert measured == pytest.approx(expected, abs=0.001)
        assert modelled == pytest.approx(measured, rel=0.05)
    weights = {"w": torch.randn(200, 200)}
    delta = device.errors(weights, generator=seeded(10))["w"]
    expected = float(device.expected_norms(weights)["w"])
    assert float(delta.norm()) == pytest.approx(expected, rel=0.03)
    assert Empirical.from_toml(device.to_toml()) == device
