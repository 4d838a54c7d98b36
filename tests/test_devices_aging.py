"""Presets of memory technologies: literal laws, one chip at several ages, limits of knowledge."""

from __future__ import annotations

import math

import pytest
import torch
from cases import MEASURED
from reference_devices import PRESETS, mean_and_std

from spikewvat.devices import (
    PCM,
    SONOS,
    AtRandomAge,
    CMOReRAM,
    Compensated,
    DifferentialPair,
    Drift,
    Empirical,
    Gaussian,
    HermesPCM,
    MiloReRAM,
    SingleCell,
    WanReRAM,
    at_age,
    cmo_reram,
    error_sizes,
    hermes,
    milo_reram,
    pcm,
    sonos,
    wan_reram,
)
from spikewvat.devices.aging import changes_with_age
from spikewvat.robustness.chip import Chip
from spikewvat.robustness.corruptions import DeadNeurons

DAY = 86400.0
CELLS = {
    "pcm": PCM,
    "hermes": HermesPCM,
    "wan": WanReRAM,
    "cmo": CMOReRAM,
    "milo": MiloReRAM,
    "sonos": SONOS,
}
TIMES = {
    "pcm": (0.0, 1.0, DAY, 365 * DAY),
    "hermes": (0.0, 1.0, DAY, 365 * DAY),
    "wan": (0.0, 1.0, 600.0, 1.5 * DAY),
    "cmo": (0.0, 10.0, DAY, 365 * DAY),
    "milo": (0.0,),
    "sonos": (0.0, DAY, 2.5 * DAY, 5 * DAY),
}
ROWS = [(name, time) for name, times in TIMES.items() for time in times]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def levels(name):
    low, high = PRESETS[name].window
    return torch.linspace(low, high, 9, dtype=torch.float64)


@pytest.mark.parametrize(("name", "time"), ROWS)
def test_cells_follow_the_literal_laws(name, time):
    """Each cell by itself, from its three numbers, in plain arithmetic."""
    g = levels(name)[:, None].repeat(1, 40)
    found = CELLS[name](time).program({"g": g}, generator=seeded(1))["g"]
    generator = seeded(1)
    z = [torch.randn(g.shape, dtype=torch.float64, generator=generator) for _ in range(3)]
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            numbers = (float(part[i, j]) for part in z)
            expected = PRESETS[name].cell(float(g[i, j]), time, *numbers)
            assert float(found[i, j]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("make", "early", "age"),
    [(pcm, 0.0, 365 * DAY), (hermes, 0.0, DAY), (wan_reram, 0.0, DAY), (cmo_reram, 60.0, DAY)],
)
def test_the_same_seed_is_the_same_chip_older(make, early, age):
    w = {"fc": torch.randn(40, 50, dtype=torch.float64, generator=seeded(2))}
    young = make(early).program(w, generator=seeded(3))["fc"] - w["fc"]
    old = make(age).program(w, generator=seeded(3))["fc"]
    other = make(age).program(w, generator=seeded(4))["fc"]
    scale = float((old * w["fc"]).sum() / (w["fc"] * w["fc"]).sum())
    same = torch.corrcoef(torch.stack([young.flatten(), (old - scale * w["fc"]).flatten()]))[0, 1]
    fresh = torch.corrcoef(torch.stack([young.flatten(), (other - scale * w["fc"]).flatten()]))
    assert same > 0.2
    assert abs(fresh[0, 1]) < 0.1


def test_phase_change_cells_drift_by_their_own_exponent():
    """The conductance ratio of two ages is the power that the cell's exponent says."""
    g = {"g": torch.full((2000,), 12.5, dtype=torch.float64)}
    early, late = (
        PCM(t).aged(g["g"], g["g"], torch.randn(2000, dtype=torch.float64, generator=seeded(5)))
        for t in (180.0, 1980.0)
    )
    exponents = -(late / early).log() / math.log(10)
    mean, std = mean_and_std(exponents.tolist())
    assert mean == pytest.approx(0.049, rel=0.02)
    assert std == pytest.approx(0.008, rel=0.1)


@pytest.mark.parametrize(
    ("make", "time", "message"),
    [
        (pcm, -1.0, r"time must be a finite number of at least 0, got -1\.0"),
        (wan_reram, 3 * DAY, "WanReRAM was measured for 172800 s .* got time=259200"),
        (sonos, 6 * DAY, "SONOS was measured for 432000 s"),
        (milo_reram, 1.0, "MiloReRAM was measured for 0 s"),
    ],
)
def test_nothing_is_said_of_times_that_nobody_measured(make, time, message):
    with pytest.raises(ValueError, match=message):
        make(time)


def test_acceptance_was_measured_at_two_values():
    with pytest.raises(ValueError, match=r"acceptance must be 0\.2 or 2 .* got 0\.5"):
        cmo_reram(acceptance=0.5)


def test_age_reaches_every_part_that_ages():
    device = Gaussian(0.1) >> DifferentialPair(PCM() >> Drift(0.1, 1.0), 0.0, 25.0)
    older = at_age(device, DAY)
    assert older == Gaussian(0.1) >> DifferentialPair(PCM(DAY) >> Drift(0.1, DAY), 0.0, 25.0)
    assert at_age(device, 0.0).stages[1].inner.stages[1].time == 1.0  # not before its t0
    assert at_age(Gaussian(0.1), DAY) == Gaussian(0.1)
    table = Empirical(MEASURED, time=1.0)  # measured at one time, of which it cannot know others
    chip = Chip(table, faults=[DeadNeurons(0.1), Drift(0.1, 1.0)])
    assert not changes_with_age(table)
    assert changes_with_age(chip)
    assert at_age(chip, DAY) == Chip(table, faults=[DeadNeurons(0.1), Drift(0.1, DAY)])


def test_chips_of_all_ages_are_as_old_as_their_first_number_says():
    w = {"fc": torch.randn(4, 5, dtype=torch.float64, generator=seeded(2))}
    device = AtRandomAge(pcm(), 10.0, 365 * DAY)
    logs = []
    for seed in range(300):
        generator = seeded(seed)
        share = float(torch.rand((), dtype=torch.float64, generator=generator))
        age = 10.0 * (365 * DAY / 10.0) ** share
        expected = pcm(age).program(w, generator=generator)["fc"]
        torch.testing.assert_close(device.program(w, generator=seeded(seed))["fc"], expected)
        logs.append(math.log10(age))
    low, high = 1.0, math.log10(365 * DAY)
    mean, std = mean_and_std(logs)
    assert mean == pytest.approx((low + high) / 2, abs=0.3)
    assert std == pytest.approx((high - low) / math.sqrt(12), rel=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AtRandomAge(pcm(), 10.0, 1.0), r"earliest must be at most latest, got 10\.0 and"),
        (lambda: AtRandomAge(pcm(), 0.0, 1.0), r"earliest must be a finite number above 0, got 0"),
        (lambda: AtRandomAge(Gaussian(0.1), 1.0, 2.0), r"changes with time, such as pcm\(\), got"),
        (lambda: AtRandomAge(sonos(), 1.0, 9 * DAY), "SONOS was measured for 432000 s"),
    ],
)
def test_ages_that_a_device_cannot_have(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_compensated_chip_is_one_that_was_scaled_back():
    w = {"a": torch.randn(30, 20, generator=seeded(2)), "zero": torch.zeros(3)}
    chip = pcm(DAY).program(w, generator=seeded(3))
    found = Compensated(pcm(DAY)).program(w, generator=seeded(3))
    square = math.fsum(x * x for x in w["a"].flatten().tolist())
    pairs = zip(w["a"].flatten().tolist(), chip["a"].flatten().tolist(), strict=True)
    factor = square / math.fsum(x * y for x, y in pairs)
    torch.testing.assert_close(found["a"], chip["a"] * factor)
    assert torch.equal(found["zero"], chip["zero"])
    assert at_age(Compensated(pcm()), DAY) == Compensated(pcm(DAY))


def test_one_size_in_every_convention():
    w = {"fc": torch.randn(300, 300, dtype=torch.float64, generator=seeded(6))}
    w |= {"none": torch.zeros(0, 3), "zero": torch.zeros(5)}
    largest, width = float(w["fc"].abs().max()), float(6 * w["fc"].std(correction=0))
    size = error_sizes(Gaussian(0.05), w)["fc"]
    assert size.six_sigma == pytest.approx(0.05, rel=0.01)
    assert size.largest == pytest.approx(0.05 * width / largest, rel=0.01)
    assert size.conductance is None
    pair = error_sizes(DifferentialPair(Gaussian(0.04), 5.0, 30.0), w)
    assert list(pair) == ["fc"]
    assert pair["fc"].conductance == pytest.approx(0.04 * 25 * math.sqrt(2), rel=0.01)
    assert pair["fc"].largest == pytest.approx(0.04 * math.sqrt(2), rel=0.01)
    assert "of the largest weight = 1.41 in units of conductance" in str(pair["fc"])
    cell = error_sizes(Gaussian(0.0) >> SingleCell(Gaussian(0.04), 5.0, 30.0), w)["fc"]
    assert cell.conductance == pytest.approx(0.04 * 25, rel=0.01)
