"""Which images chips classify correctly: counted, kept in files, and used for new images."""

from __future__ import annotations

import base64
import json
import math
import zlib
from dataclasses import replace

import pytest
import reference_statistics as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_robustness import accuracies_over_chips
from scipy import stats
from test_robustness_chips import IMAGES, NAMES, Noise, a_loader, a_model, an_evaluator, run
from torch import nn

from spikewvat import Gaussian
from spikewvat.errors import DataError
from spikewvat.lab.recipes.results import RunResult, row_result
from spikewvat.robustness import ChipReport, Degradation, Evaluator, paired_differences
from spikewvat.serialisation import plain, restored


def a_report(right, **fields):
    """Return the report of chips whose answers are ``right[chip][image]``."""
    table = torch.tensor(right, dtype=torch.float64)
    fields.setdefault("hits", table.sum(0).long())
    seeds = tuple(range(len(table)))
    return ChipReport("Noise", 0.1, table.mean(1), seeds, table.shape[1], **fields)


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
@pytest.mark.parametrize("batch", [1, 10])
def test_hits_are_those_of_the_literal_loop(batch, cache_bytes):
    report = run(chips=4, loader=a_loader(batch), cache_bytes=cache_bytes)
    by_image = [
        sum(
            accuracies_over_chips(
                a_model(), [image], Noise(0.3), report.seeds, NAMES, reset=lambda m: m.reset()
            )
        )
        for image in a_loader(1)
    ]
    assert report.hits.tolist() == by_image
    assert float(report.hits.sum()) / IMAGES == pytest.approx(float(report.accuracies.sum()))


def test_stacked_chips_count_alike():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    batches = [(torch.rand(10, 6), torch.randint(3, (10,))) for _ in range(3)]
    stacked, single = (
        Evaluator(net, batches, stack=stack).chips(Gaussian(0.3), chips=5)
        for stack in (True, False)
    )
    assert stacked.hits.tolist() == single.hits.tolist()
    assert len(set(single.hits.tolist())) > 2


class Shuffled:
    """Yields the same images in another order in every pass."""

    def __iter__(self):
        x = torch.cat([x for x, _ in a_loader()], 1)
        y = torch.cat([y for _, y in a_loader()])
        order = torch.randperm(IMAGES)
        yield x[:, order], y[order]


def test_images_in_another_order_are_not_counted():
    torch.manual_seed(0)
    report = run(chips=3, loader=Shuffled(), cache_bytes=0)
    assert report.hits is None
    assert report.accuracies.tolist() == run(chips=3).accuracies.tolist()
    assert run(chips=3, loader=Shuffled()).hits is not None  # kept in the order of the first pass


def test_samples_of_images_are_not_counted():
    assert run(chips=3, images_per_chip=5).hits is None


def test_every_size_of_a_sweep_has_its_own():
    curve = an_evaluator().sweep(Noise, [0, 0.3], chips=3, seed=1)
    assert set(curve[0].hits.tolist()) == {0, 3}
    assert curve[1].hits.tolist() == run(chips=3).hits.tolist()
    pooled = Degradation.pooled([curve, curve])
    assert pooled[1].hits.tolist() == [2 * count for count in curve[1].hits.tolist()]
    without = curve.without_hits()
    assert [report.hits for report in without] == [None, None]
    assert Degradation.pooled([curve, without])[0].hits is None


answers = st.integers(2, 6).flatmap(
    lambda images: st.lists(
        st.lists(st.integers(0, 1), min_size=images, max_size=images), min_size=2, max_size=12
    )
)


@settings(max_examples=80, deadline=None)
@given(answers)
def test_the_interval_for_new_images_is_that_of_its_formula(right):
    report = a_report(right)
    low, high = reference.skewed_interval(report.accuracies.tolist(), low=0, high=1)
    low, high = max(low, 0), min(high, 1)
    assert report.ci95 == pytest.approx((low, high), abs=1e-9)
    assert report.ci95_new_images == pytest.approx(reference.new_images(low, high, right), abs=1e-8)


def test_images_that_chips_agree_on_tell_less_than_others():
    agree = [[1, 1, 1, 0] * 100] * 6
    differ = [[1 if (k + chip) % 4 else 0 for k in range(400)] for chip in range(6)]
    widths = [a_report(right).ci95_new_images.width for right in (agree, differ)]
    assert widths[1] < 0.8 * widths[0]
    unknown = replace(a_report(differ), hits=None).ci95_new_images.width
    assert unknown == pytest.approx(widths[0], rel=0.01)


def test_a_difference_for_new_images_is_that_of_its_formula():
    generator = torch.Generator().manual_seed(2)
    tables = {
        name: [(torch.rand(4, 30, generator=generator) < chance).int().tolist() for _ in range(2)]
        for name, chance in (("one", 0.6), ("other", 0.9))
    }
    reports = {name: [a_report(table) for table in tables[name]] for name in tables}
    found = paired_differences(reports).differences[0]
    by_image = [
        sum(
            tables["other"][seed][chip][k] - tables["one"][seed][chip][k]
            for seed in range(2)
            for chip in range(4)
        )
        / 8
        for k in range(30)
    ]
    # Half an image for each of: both right, both wrong, only one, only the other.
    mean = sum(by_image) / 30
    squares = sum((d - mean) ** 2 for d in by_image)
    squares += sum(0.5 * d**2 for d in (0, 0, 1, -1))
    half = stats.t.ppf(0.975, 32 - 1) * math.sqrt(squares / (32 - 1) / 32)
    low, high = found.found.interval()
    assert tuple(found.new_images) == pytest.approx(
        (mean - math.hypot(mean - low, half), mean + math.hypot(high - mean, half))
    )
    assert "; for new images as well " in str(found)


def test_equal_methods_may_differ_on_new_images(through_a_file):
    reports = [a_report([[1, 1, 0, 1], [1, 0, 1, 1]])]
    table = paired_differences({"one": reports, "other": reports})
    assert table.differences[0].found.interval() == (0, 0)
    assert table.differences[0].new_images.low < -0.1
    again = through_a_file(table)
    assert str(again) == str(table)
    assert again.differences[0].new_images == table.differences[0].new_images


@pytest.mark.parametrize("fewer", [False, True])
def test_no_difference_for_new_images_without_hits_of_the_same_chips(fewer):
    report = a_report([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]])
    other = a_report([[1, 1, 0, 1], [0, 0, 1, 1]]) if fewer else replace(report, hits=None)
    table = paired_differences({"one": [report], "other": [other]})
    assert table.differences[0].new_images is None
    assert "new images" not in str(table)


@pytest.mark.parametrize(
    ("hits", "message"),
    [
        ([2, 1], "hits are 3 on 2 images, expected 4 on 3"),
        ([2, 1, 0], "hits are 3 on 3 images, expected 4 on 3"),
        ([3, 1, 0], "between 0 and the number of chips, 2"),
        ([-1, 2, 3], "between 0 and the number of chips, 2"),
    ],
)
def test_impossible_hits(hits, message):
    with pytest.raises(ValueError, match=message):
        a_report([[1, 1, 0], [1, 0, 1]], hits=torch.tensor(hits))


def test_hits_survive_a_file_in_a_few_bytes(through_a_file):
    generator = torch.Generator().manual_seed(0)
    chance = torch.where(torch.rand(10_000, generator=generator) < 0.9, 1.0, 0.5)
    right = (torch.rand(25, 10_000, generator=generator) < chance).int().tolist()
    report = a_report(right)
    again = through_a_file(report)
    assert torch.equal(again.hits, report.hits)
    assert again.ci95_new_images == report.ci95_new_images
    assert len(plain(report)["hits"]) < 4000
    assert "hits" not in plain(run(chips=2, images_per_chip=5))


def packed(raw):
    return base64.b64encode(zlib.compress(raw)).decode()


@pytest.mark.parametrize(
    "text",
    ["", "no base64!", "AAAA", packed(b"12345"), packed(bytes(12))[:-8], [1, 1, 1], 3, None],
)
def test_malformed_hits_are_refused(text):
    content = {"kind": "ChipReport 1", **plain(a_report([[1, 1, 0], [1, 0, 1]])), "hits": text}
    if text is None:
        assert restored(content, ChipReport, source="it").hits is None
        return
    with pytest.raises(DataError, match="hits.*packed whole numbers"):
        restored(json.loads(json.dumps(content)), ChipReport, source="it")


def test_a_packed_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr("spikewvat.serialisation._MOST_BYTES", 1000)
    content = {**plain(a_report([[1, 0]])), "kind": "ChipReport 1", "hits": packed(bytes(10**6))}
    with pytest.raises(DataError, match="too many"):
        restored(content, ChipReport, source="it")


def test_rows_of_suites_leave_them_to_the_runs():
    curve = Degradation(1.0, (a_report([[1, 1, 0], [1, 0, 1]]),))
    one = RunResult({}, 0, "quick", "sgd", "test", "Noise", curve)
    assert row_result([one]).curves[0][0].hits is None
    assert one.curve[0].hits is not None
