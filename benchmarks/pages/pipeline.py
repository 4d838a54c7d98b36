"""What each stage of converting a network for chips buys, and what was tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pages.shared import NotRunError, load, markdown_table, results_of
from spikewvat.formatting import MISSING, percent, within
from spikewvat.lab.suites import Setup, read_suite
from spikewvat.results import RowResult
from spikewvat.robustness import paired_differences
from spikewvat.robustness.results import Degradation

_SIGMA = 0.10
_NAMES = {"stdb": "STDB", "stdb_wvat": "STDB under WVAT"}
_Variant = tuple[str, bool]
"""A conversion, none for the ANN, and whether the biases of each chip are calibrated."""
_STAGES: dict[str, tuple[_Variant, _Variant]] = {
    "conversion, T = 4": (("t4", False), ("", False)),
    "T = 8 instead of 4": (("t8", False), ("t4", False)),
    "biases, T = 4": (("t4", True), ("t4", False)),
    "STDB": (("stdb", False), ("t4", False)),
    "STDB under WVAT": (("stdb_wvat", False), ("t4", False)),
    "biases after it": (("stdb_wvat", True), ("stdb_wvat", False)),
}
"""What is compared on the same chips: with a stage, without it."""
_COLUMNS = ("", "t4", "t8", "stdb", "stdb_wvat")
_HEADS = ("ANN", "T = 4", "T = 8", "T = 4, STDB", "T = 4, STDB under WVAT")


def pipeline(network: str) -> str:
    """Return accuracy at the largest variation, with the biases of each chip in brackets."""
    found = _results(network)
    lines = []
    for training, rows in found.items():
        cells = [_accuracies(rows[c]) if c in rows else MISSING for c in _COLUMNS]
        ideal = f"{percent(_clean(rows, ''))}, {percent(_clean(rows, 't4'))}"
        lines.append([_label(network, training), ideal, *cells])
    return markdown_table(["ANN trained by", "no variation: ANN, T = 4", *_HEADS], lines)


def pipeline_stages(network: str) -> str:
    """Return the paired difference that each stage makes, training by training."""
    found = _results(network)
    lines = []
    for training, rows in found.items():
        cells = [
            _difference(_curves(rows, after), _curves(rows, before))
            for after, before in _STAGES.values()
        ]
        base = _curves(found.get("sgd", {}), ("t4", False))
        own = _curves(rows, ("t4", False))
        trained = MISSING if training == "sgd" else _difference(own, base)
        lines.append([_label(network, training), trained, *cells])
    return markdown_table(["ANN trained by", "training, T = 4", *_STAGES], lines)


def pipeline_tuned(network: str) -> str:
    """Return what each setting reaches on held-out data, the best of each stage in bold."""
    stages = load("pipeline", "tuned").get(network)
    if stages is None:
        raise NotRunError(network)
    lines = []
    for stage, tried in stages["stages"].items():
        best = max(one["score"] for one in tried)
        cells = []
        for one in tried:
            values = ", ".join(setting.partition("=")[2] for setting in one["settings"])
            text = f"{values}: {'diverged' if 'failed' in one else percent(one['score'])}"
            cells.append(f"**{text}**" if one["score"] == best else text)
        lines.append([_NAMES.get(stage) or _label(network, stage), *cells])
    return markdown_table(["", "first", "second", "third", "fourth"], lines)


def _results(network: str) -> dict[str, dict[str, RowResult]]:
    """Return the rows of a network, by training and conversion."""
    found: dict[str, dict[str, RowResult]] = {}
    for name, result in results_of(read_suite("pipeline")).items():
        of, training, *conversion = name.split("-")
        if of == network:
            found.setdefault(training, {})["".join(conversion)] = result
    if not found:
        raise NotRunError(network)
    return found


def _label(network: str, training: str) -> str:
    rows = (row for setup in _setups(network) for row in setup.rows)
    return next(row.method for row in rows if row.name.split("-")[1] == training)


def _setups(network: str) -> Sequence[Setup]:
    return read_suite("pipeline").chosen([f"{network}-*"]).setups


def _clean(rows: dict[str, RowResult], conversion: str) -> float:
    return rows[conversion].clean if conversion in rows else float("nan")


def _accuracies(result: RowResult) -> str:
    """Return accuracy on chips as programmed, and with calibrated biases in brackets."""
    after = [curve.at(_SIGMA).mean for curve in result.curves]
    before = [curve.at(_SIGMA).mean for curve in _as_programmed(result)]
    trained, planned = len(result.curves), len(read_suite("pipeline").seeds["quick"])
    fewer = f"; {trained} of {planned} trainings" if trained < planned else ""
    return f"{percent(_mean(before))} ({percent(_mean(after))}{fewer})"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _as_programmed(result: RowResult) -> list[Degradation]:
    """Return the curves of chips as they were before calibration."""
    curves = []
    for curve in result.curves:
        reports = (
            replace(r, accuracies=r.calibrated.before, calibrated=None, hits=None, losses=None)
            for r in curve
            if r.calibrated is not None
        )
        curves.append(replace(curve, reports=tuple(reports)))
    return curves


def _curves(rows: dict[str, RowResult], variant: _Variant) -> Sequence[Degradation]:
    conversion, calibrated = variant
    if conversion not in rows:
        return ()
    result = rows[conversion]
    return result.curves if calibrated else _as_programmed(result)


def _difference(after: Sequence[Degradation], before: Sequence[Degradation]) -> str:
    """Return the paired difference in points; of trainings that both have, the first ones."""
    if not after or not before:
        return MISSING
    both = min(len(after), len(before))
    found = paired_differences({"before": before[:both], "after": after[:both]}, sigma=_SIGMA)
    stage = found.between("after", "before").found
    return within(*(100 * value for value in (stage.mean, *stage.interval())), "+.1f")
