"""Results in files: what goes in comes out, what cannot be is refused with its name."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikewvat.errors import CheckpointError, DataError
from spikewvat.results import RowResult, StepTime, StepTimes
from spikewvat.robustness import ChipReport, Degradation
from spikewvat.robustness.activity import Activity
from spikewvat.serialisation import plain, read, read_json, restored, write, write_json


def report(*accuracies, **fields):
    tensor = torch.tensor(accuracies, dtype=torch.float64)
    return ChipReport("Noise()", 0.1, tensor, tuple(range(len(accuracies))), 10, **fields)


def row():
    activity = Activity(10.0, 20.0, {"lif": 0.5})
    losses = torch.tensor([0.1, math.nan]).double()
    curve = Degradation(0.9, (report(0.5, 0.25, losses=losses, activity=activity),), activity)
    return RowResult((3, 5), (curve, curve), (1.0, 2.5), recipe={"name": "x", "list": [1, [2]]})


def changed(path, value):
    """Return the content of a row with another value at a path; ``del`` takes it away."""
    content = json.loads(json.dumps(plain(row())))
    at = content
    *way, last = path
    for key in way:
        at = at[key]
    if value is del_:
        del at[last]
    else:
        at[last] = value
    return {"kind": "RowResult 1", **content}


del_ = object()
REPORT = ("curves", 0, "reports", 0)


def test_a_row_a_line_and_back(tmp_path, through_a_file):
    write(tmp_path / "row.json", row())
    text = (tmp_path / "row.json").read_text()
    assert text.splitlines()[1] == '"kind": "RowResult 1",'
    assert sum('"accuracies"' in line for line in text.splitlines()) == 2
    assert len(text.splitlines()) == 13
    again = through_a_file(row())
    assert plain(again) == plain(row())
    assert again.curves[0][0].accuracies.dtype == torch.float64
    assert again.curves[0][0].losses.isnan().tolist() == [False, True]
    assert again.curves[0].activity == row().curves[0].activity
    assert again.recipe == row().recipe
    assert "versions" not in json.loads(text)  # what has its default is left out


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_accuracies_come_back_bit_for_bit(accuracies):
    content = json.loads(json.dumps(plain(report(*accuracies))))
    again = restored({"kind": "ChipReport 1", **content}, ChipReport, source="it")
    assert again.accuracies.tolist() == accuracies


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((*REPORT, "accuracies"), [0.5, 1.2], "expected numbers from 0 to 1"),
        ((*REPORT, "accuracies"), [0.5, -0.1], "expected numbers from 0 to 1"),
        ((*REPORT, "accuracies"), [0.5, None], "a number is missing"),
        ((*REPORT, "accuracies"), [0.5, "0.5"], "'0.5' is no number"),
        ((*REPORT, "accuracies"), [0.5, True], "True is no number"),
        ((*REPORT, "accuracies"), 0.5, "expected a list of numbers"),
        ((*REPORT, "accuracies"), [0.5], "expected one figure for each of 2 chips"),
        ((*REPORT, "accuracies"), [[0.5], [0.5]], "expected one figure for each of 2 chips"),
        ((*REPORT, "accuracies"), [[0.5], 0.5], "expected a list of numbers (not a sequence)"),
        ((*REPORT, "accuracies"), [10**400, 0.5], "expected a list of numbers (int too large"),
        ((*REPORT, "losses"), [0.5], "expected one figure for each of 2 chips"),
        ((*REPORT, "seeds"), [1.5, 2], "curves.0.reports.0.seeds.0: Input should be a valid int"),
        ((*REPORT, "images"), 0, "expected at least one each"),
        ((*REPORT, "images"), "10", "valid integer"),
        ((*REPORT, "accuracy"), [0.5], "Unexpected keyword"),
        ((*REPORT, "images"), del_, "images: Field required"),
        (REPORT, None, "curves.0.reports.0"),
        (("curves", 0, "clean"), 97.1, "expected numbers from 0 to 1, got 97.1"),
        (("curves", 0, "clean"), [0.5], "expected a number"),
        (("curves", 0, "reports"), [], "a row without results"),
        (("curves",), [], "curves are 0, expected one for each seed"),
        (("seeds",), [3], "curves are 2, expected one for each seed"),
        (("seeds",), [3, 3], "expected distinct numbers"),
        (("seconds",), [1.0], "seconds are 1, expected one for each seed"),
    ],
)
def test_what_cannot_be_is_refused(path, value, message, tmp_path):
    content = changed(path, value)
    (tmp_path / "row.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as found:
        read(tmp_path / "row.json", RowResult)
    assert "row.json' is no RowResult: " in str(found.value)
    assert message in str(found.value)
    assert str(found.value).endswith("Delete the file and create it again.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a result file"),
        ("", "is not a result file"),
        ("[1]", "it holds a list, expected an object"),
        ('{"kind": "RowResult 1", "seeds": [NaN]}', "NaN is not a JSON number"),
        ('{"kind": "RowResult 2"}', "holds 'RowResult 2', expected 'RowResult 1'"),
        ('{"kind": "Landscape 1"}', "holds 'Landscape 1', expected 'RowResult 1'"),
        ("{}", "holds 'no named kind of result'"),
        ("[" * 100_000, "is not a result file"),
        (b"\xff\xfe", "is not a result file"),
        (None, "is not a result file"),
    ],
)
def test_files_that_hold_no_such_result(text, message, tmp_path):
    path = tmp_path / "row.json"
    if isinstance(text, bytes):
        path.write_bytes(text)
    elif text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match="row.json") as found:
        read(path, RowResult)
    assert message in str(found.value)


def test_an_infinite_number_is_refused(tmp_path):
    write(tmp_path / "s.json", StepTimes((StepTime("net", "sam", 2.0, 1.5, (1.0, 2.0)),)))
    text = (tmp_path / "s.json").read_text()
    (tmp_path / "s.json").write_text(text.replace("1.5", "1e999"))
    with pytest.raises(DataError, match=r"rows\.0\.ratio: Input should be a finite number"):
        read(tmp_path / "s.json", StepTimes)


def test_plain_values(tmp_path):
    rows = {"a": math.nan, "b": [1.5, math.inf], "c": (1, "x", None, True), 3: 0.1, "d": [{}, []]}
    write_json(tmp_path / "r.json", rows)
    expected = {"a": None, "b": [1.5, None], "c": [1, "x", None, True], "3": 0.1, "d": [{}, []]}
    assert read_json(tmp_path / "r.json") == expected
    with pytest.raises(CheckpointError, match="cannot write"):
        write_json(tmp_path / "r.json" / "x", rows)
