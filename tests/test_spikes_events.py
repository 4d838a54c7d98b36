"""Corruptions as functions of spikes against literal loops over events."""

from __future__ import annotations

import pytest
import torch
from spike_cases import CORRUPTIONS, EVENTS, SENT, some_events
from spread import spread

from spikewvat.robustness.corruptions import (
    Composed,
    DeadNeurons,
    DeadPixels,
    Deletion,
    DroppedBins,
    HotPixels,
    Insertion,
    Jitter,
    PolarityFlip,
    StuckNeurons,
)


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("case", [*EVENTS, *SENT], ids=str)
@pytest.mark.parametrize("share", [0.1, 1.0])
def test_is_the_literal_loop(case, share):
    spikes = some_events()
    severity = share * case.strong
    found = case.kind(severity)(spikes, generator=seeded())
    assert torch.equal(found, case.literal(spikes, severity, seeded()))
    if share == 1.0:
        assert not torch.equal(found, spikes)


@pytest.mark.parametrize("case", EVENTS, ids=str)
def test_inputs_that_are_no_image(case):
    spikes = some_events((6, 3, 8))
    if case.kind is PolarityFlip:
        with pytest.raises(ValueError, match="expected two polarities"):
            case.kind(0.1)(spikes)
        return
    found = case.kind(case.strong)(spikes, generator=seeded())
    assert torch.equal(found, case.literal(spikes, case.strong, seeded()))


@spread(
    "case, dtype",
    [*EVENTS, *SENT],
    [torch.float32, torch.float64, torch.uint8, torch.bool],
    each=2,
)
def test_stays_spikes_and_leaves_its_input(case, dtype):
    spikes = some_events().to(dtype)
    before = spikes.clone()
    found = case.kind(case.strong)(spikes, generator=seeded())
    assert (found.shape, found.dtype) == (spikes.shape, dtype)
    assert ((found == 0) | (found == 1)).all()
    assert torch.equal(spikes, before)
    # The same numbers are drawn whatever the dtype.
    assert torch.equal(found.float(), case.kind(case.strong)(some_events(), generator=seeded()))


@pytest.mark.parametrize("case", [*EVENTS, *SENT], ids=str)
def test_nothing_happens_at_severity_0(case):
    spikes = some_events()
    assert torch.equal(case.kind(0.0)(spikes, generator=seeded()), spikes)


@pytest.mark.parametrize("case", [c for c in (*EVENTS, *SENT) if c.kind(0).STATIC], ids=str)
def test_static_defects_know_neither_time_nor_batch(case):
    corruption = case.kind(case.strong)
    spikes = some_events()
    whole = corruption(spikes, generator=seeded())
    parts = [corruption(spikes[:, b : b + 1], generator=seeded()) for b in range(3)]
    assert torch.equal(whole, torch.cat(parts, 1))
    assert torch.equal(whole[:2], corruption(spikes[:2], generator=seeded()))


@pytest.mark.parametrize("case", CORRUPTIONS, ids=str)
def test_levels_and_names(case):
    kind = type(case.kind(case.strong))
    levels = kind.LEVELS
    assert len(levels) == 5
    assert list(levels) == sorted(set(levels))
    assert levels[0] > 0
    assert [kind.at_level(n).severity for n in range(1, 6)] == list(levels)
    for level in (0, 6):
        with pytest.raises(ValueError, match=f"has no level {level}, expected one of 1 to 5"):
            kind.at_level(level)
    assert kind.at_level(1).unit
    with pytest.raises(ValueError, match=r"severity.*-0\.1"):
        kind(-0.1)


def test_names():
    assert Deletion(0.1).name == "deletion"
    assert DeadNeurons(0.1).name == "dead neurons"
    both = Deletion(0.1) >> DeadNeurons(0.2) >> StuckNeurons(0.0)
    assert both.name == "deletion >> dead neurons >> stuck neurons"
    assert both.severity == 0.2
    assert both.active
    assert both.unit == "severity"
    assert len(both.stages) == 3
    assert repr(both).startswith("Deletion(severity=0.1) >> DeadNeurons(severity=0.2) >> ")
    assert (Deletion(0.1) >> Deletion(0.2)).unit == Deletion.UNIT
    with pytest.raises(ValueError, match="nothing to compose"):
        Composed(())
    with pytest.raises(TypeError):
        Deletion(0.1) >> 3


LARGE = (20, 40, 2, 12, 12)  # 230 400 places


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_rates_are_those_asked_for(rate):
    spikes = some_events(LARGE)
    events, places = spikes.sum(), spikes.numel()

    def share(value, expected, count, tolerance=5):
        spread = (expected * (1 - expected) / float(count)) ** 0.5
        assert float(value) == pytest.approx(expected, abs=tolerance * spread)

    share(1 - Deletion(rate)(spikes, generator=seeded()).sum() / events, rate, events)
    added = Insertion(rate)(spikes, generator=seeded()) - spikes
    share(added.sum() / (places - events), rate, places - events)
    dropped = DroppedBins(rate)(torch.ones(LARGE), generator=seeded())[:, :, 0, 0, 0]
    share(1 - dropped.mean(), rate, dropped.numel())
    # Only one polarity fires, so that no two events fall together.
    one = spikes.clone()
    one[:, :, 1] = 0
    flipped = PolarityFlip(rate)(one, generator=seeded())
    assert flipped.sum() == one.sum()
    share(flipped[:, :, 1].sum() / one.sum(), rate, one.sum())
    sensor = torch.zeros(1, 1, 2, 100, 100)
    share(1 - DeadPixels(rate)(sensor + 1, generator=seeded())[0, 0, 0].mean(), rate, 1e4)
    hot = HotPixels(rate)(sensor, generator=seeded())
    share(hot.sum() / 1e4, rate, 1e4)
    share(hot[:, :, 0].sum() / hot.sum(), 0.5, hot.sum())
    layer = torch.ones(1, 1, 10000)
    share(1 - DeadNeurons(rate)(layer, generator=seeded()).mean(), rate, 1e4)
    share(StuckNeurons(rate)(0 * layer, generator=seeded()).mean(), rate, 1e4)


def test_jitter_moves_by_a_normal_number_of_steps():
    spikes = torch.zeros(101, 1, 4000)
    spikes[50] = 1
    moved = Jitter(4.0)(spikes, generator=seeded()).nonzero()[:, 0].double() - 50
    assert len(moved) == 4000
    assert float(moved.mean()) == pytest.approx(0, abs=0.3)
    # Rounding adds the variance of a uniform step.
    assert float(moved.std()) == pytest.approx((16 + 1 / 12) ** 0.5, rel=0.05)


def test_a_stronger_corruption_takes_more_of_the_same():
    spikes = some_events()
    for kind in (Deletion, DroppedBins, DeadPixels, DeadNeurons):
        weak, strong = (kind(p)(spikes, generator=seeded()) for p in (0.2, 0.5))
        assert (strong <= weak).all()
    for kind in (Insertion, HotPixels, StuckNeurons):
        weak, strong = (kind(p)(spikes, generator=seeded()) for p in (0.2, 0.5))
        assert (strong >= weak).all()


def test_empty_and_impossible_inputs():
    for case in EVENTS:
        silent = torch.zeros(4, 2, 2, 3, 3)
        assert case.kind(0.0)(silent).sum() == 0
        with pytest.raises(ValueError, match=r"shape \(2, 3\), expected spikes"):
            case.kind(0.1)(torch.zeros(2, 3))
        with pytest.raises(ValueError, match=r"values from 0 to 3, expected spikes 0 or 1"):
            case.kind(0.1)(3 * some_events())
    with pytest.raises(ValueError, match=r"got 1\.5"):
        Deletion(1.5)
    with pytest.raises(ValueError, match="period must be at least 1"):
        HotPixels(0.1, period=0)
