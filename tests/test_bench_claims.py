"""Published statements held against results."""

from __future__ import annotations

import json

import pytest
import torch

from spikewvat.lab.suites import Claim, verdicts
from spikewvat.lab.suites.claims import write_verdicts
from spikewvat.results import RowResult
from spikewvat.robustness import ChipReport, Degradation


def rising(*losses):
    """Return a row of one seed for each pair of losses, without variation and on chips."""

    def report(sigma, loss):
        tensor = torch.tensor([loss, loss], dtype=torch.float64)
        return ChipReport("d", sigma, tensor, (0, 1), 9, losses=tensor)

    curves = [Degradation(0.9, (report(0.0, a), report(0.1, b))) for a, b in losses]
    return RowResult(tuple(range(len(curves))), tuple(curves))


def row(clean, *chips, sigmas=(0.1,)):
    """Return a row of one seed for each clean accuracy, its chips alike."""
    curves = [
        Degradation(
            accuracy,
            tuple(
                ChipReport("d", sigma, torch.tensor([chip, chip], dtype=torch.float64), (0, 1), 9)
                for sigma, chip in zip(sigmas, chips)
            ),
        )
        for accuracy in clean
    ]
    return RowResult(tuple(range(len(curves))), tuple(curves))


def rise(better, worse):
    return Claim(text="", better=better, worse=worse, sigma=0.1, of="rise")


ROWS = {  # two trainings that differ alike, so that the intervals of leads are narrow
    "hsv": row([0.92, 0.94], 0.90),
    "wvat": row([0.95, 0.97], 0.88),
    "gav": row([0.97, 0.99], 0.70),
    "wild": row([0.80, 0.99], 0.95),
    "measured": row([0.9], 0.8, sigmas=(None,)),
    "steep": rising((0.1, 0.7), (0.3, 0.9)),
    "flat": rising((0.5, 0.75), (0.7, 0.95)),
}


@pytest.mark.parametrize(
    ("claim", "word", "numbers"),
    [
        (Claim(text="t", better="gav", worse="hsv", sigma=0), "supported", [98, 93]),
        (Claim(text="t", better="gav", worse="hsv", sigma=0.1), "contradicted", [70, 90]),
        (Claim(text="t", better="hsv", worse=["wvat", "gav"], sigma=0.1), "supported", None),
        # Every row that should be ahead leads all others; one clear exception is enough.
        (Claim(text="t", better="wvat", worse=["hsv", "gav"], sigma=0.1), "contradicted", None),
        (Claim(text="t", better=["hsv", "wvat"], worse="gav", sigma=0.1), "supported", None),
        (Claim(text="t", better=["hsv", "gav"], worse="wvat", sigma=0.1), "contradicted", None),
        (Claim(text="t", better="gav", worse=["hsv", "wild"], sigma=0), "undecided", None),
        (Claim(text="t", better="hsv", worse=["gav", "wild"], sigma=0), "contradicted", None),
        (Claim(text="t", better="hsv", worse="wvat", sigma=0.1, of="drop"), "supported", [3, 8]),
        (Claim(text="t", better="gav", worse="wvat", sigma=0.1, of="drop"), "contradicted", None),
        # A lead that chance may have made decides nothing, whoever is ahead on average.
        (Claim(text="t", better="hsv", worse="wild", sigma=0), "undecided", [93, 89.5]),
        (Claim(text="t", better="wild", worse="hsv", sigma=0), "undecided", None),
        # By more than a margin; below zero, not worse by more.
        (Claim(text="t", better="hsv", worse="gav", sigma=0.1, margin=19), "supported", None),
        (Claim(text="t", better="hsv", worse="gav", sigma=0.1, margin=21), "contradicted", None),
        (Claim(text="t", better="hsv", worse="wvat", sigma=0, margin=-3.5), "supported", None),
        (Claim(text="t", better="hsv", worse="wvat", sigma=0, margin=-2.5), "contradicted", None),
        # Of the rise of the loss the least is ahead.
        (rise("flat", "steep"), "supported", [0.25, 0.6]),
        (rise("steep", "flat"), "contradicted", None),
        (rise("flat", "hsv"), "undecided", None),
        # Equal figures put nobody ahead; what is missing neither.
        (Claim(text="t", better="hsv", worse="hsv", sigma=0.1), "undecided", None),
        (Claim(text="t", better="hsv", worse="gone", sigma=0.1), "undecided", [90, None]),
        (Claim(text="t", better="hsv", worse="gav", sigma=0.05), None, None),
        (Claim(text="t", better="measured", worse="measured"), "undecided", None),
        (Claim(text="t", better="gone", worse="away"), None, None),
    ],
)
def test_verdicts(claim, word, numbers):
    found = verdicts([claim], ROWS)
    if word is None:
        assert found == ()
        return
    (verdict,) = found
    assert verdict.word == word
    if numbers is not None:
        values = [*verdict.better.values(), *verdict.worse.values()]
        assert [v if v is None else round(v, 9) for v in values] == numbers


def test_words_and_file(tmp_path):
    claims = [
        Claim(text="ascent is more accurate", better="gav", worse="wild", sigma=0),
        Claim(text="noise loses less", better="hsv", worse="gav", sigma=0.1, of="drop"),
        Claim(text="nobody knows", better="measured", worse="gone"),
    ]
    found = verdicts(claims, ROWS)
    assert [str(verdict) for verdict in found] == [
        "undecided: ascent is more accurate (accuracy without variation: gav 98.0, wild 89.5; "
        "lead +8.50, 95 % CI -99.50 .. +116.50; p = 0.5 after Holm)",
        "supported: noise loses less (points lost at σ = 10 %: hsv 3.0, gav 28.0; "
        "lead +25.00, 95 % CI +25.00 .. +25.00; p < 0.001 after Holm)",
        "undecided: nobody knows (accuracy on chips: measured 80.0, gone no result)",
    ]
    write_verdicts(found, tmp_path / "claims.json")
    written = json.loads((tmp_path / "claims.json").read_text())["claims"]
    assert [claim["verdict"] for claim in written] == ["undecided", "supported", "undecided"]
    assert written[1]["lead"]["mean"] == pytest.approx(25)
    assert written[2]["better"] == {"measured": pytest.approx(80)}
    assert written[2]["worse"] == {"gone": None}


def test_leads_are_paired_by_chip_and_training():
    """Chips that all rows find hard drop out; so do trainings, of the seeds that rows share."""

    def trained(*trainings, seeds=(0, 1)):
        curves = []
        for accuracies in trainings:
            tensor = torch.tensor(accuracies, dtype=torch.float64)
            curves.append(Degradation(0.9, (ChipReport("d", 0.1, tensor, (7, 8), 9),)))
        return RowResult(tuple(seeds), tuple(curves))

    rows = {
        "one": trained([0.5, 0.9], [0.3, 0.7]),
        "other": trained([0.48, 0.88], [0.28, 0.68]),
        "near": trained([0.49, 0.90], [0.31, 0.67]),
        "alone": trained([0.4, 0.4], [0.4, 0.4], seeds=(0, 2)),
        "more": trained([0.1, 0.1], [0.47, 0.87], [0.27, 0.67], seeds=(5, 0, 1)),
    }

    def verdict(**fields):
        (found,) = verdicts([Claim(text="t", sigma=0.1, **fields)], rows)
        return found

    clear = verdict(better="one", worse="other")
    assert clear.lead.mean == pytest.approx(2)
    assert clear.word == "supported"
    assert verdict(better="other", worse="one").word == "contradicted"
    assert verdict(better="one", worse="other", margin=2).word == "undecided"
    closest = verdict(better="one", worse=["other", "near"])
    assert closest.lead.mean == pytest.approx(100 * (0.01 + 0.0 - 0.01 + 0.03) / 4)
    assert closest.word == "undecided"
    assert verdict(better="one", worse="alone").lead is None
    shared = verdict(better="one", worse="more")
    assert shared.lead.mean == pytest.approx(3)
    assert shared.worse["more"] == pytest.approx(57)  # without the training of seed 5


def test_p_values_are_corrected_for_the_number_of_statements():
    """Two tests of p and 1: the smaller one doubles; a margin is the value that is tested."""
    claims = [
        Claim(text="a", better="gav", worse="hsv", sigma=0, margin=1),
        Claim(text="b", better="hsv", worse="hsv", sigma=0),
        Claim(text="c", better="hsv", worse="missing", sigma=0),
    ]
    rows = {"gav": row([0.97, 0.99, 0.98], 0.7), "hsv": row([0.92, 0.93, 0.95], 0.9)}
    alone = verdicts(claims[:1], rows)[0]
    lead, others = alone.lead.minus(1), verdicts(claims, rows)
    assert alone.p_adjusted == pytest.approx(lead.p_value)
    assert others[0].p_adjusted == pytest.approx(2 * lead.p_value)
    assert others[1].p_adjusted == 1
    assert others[2].p_text == ""
    low, high = alone.lead.interval()
    assert lead.interval() == pytest.approx((low - 1, high - 1))
