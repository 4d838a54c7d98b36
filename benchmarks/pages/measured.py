"""Tables of measurements: what a step costs, speed beside peers, simulated beside real data."""

from __future__ import annotations

from typing import Any

from pages.shared import load, markdown_table, path_of
from spikewvat.formatting import MISSING, percent, within
from spikewvat.results import StepTime, StepTimes
from spikewvat.serialisation import read


def overhead(folder: str, name: str) -> str:
    """Return a table of step times; the first row of a set-up is the unit of the others."""
    by_setup = read(path_of(folder, name), StepTimes).by_setup
    units, others = [], []
    for methods in by_setup.values():
        (_, unit), *rest = methods.items()
        units.append(f"{unit.ms:.1f} ms")
        others.append(dict(rest))
    lines = [["plain training", *units]]
    for method in dict.fromkeys(method for rows in others for method in rows):
        lines.append([method, *(_ratio(rows.get(method)) for rows in others)])
    return markdown_table(["", *by_setup], lines)


def _ratio(row: StepTime | None) -> str:
    return MISSING if row is None else within(row.ratio, *row.quartiles)


def simulator() -> str:
    """Return the table of simulated beside real recordings of the same images."""
    rows = load("data", "simulator")["rows"][:2]  # calibrated on, and not

    def bursts(recordings: dict[str, Any]) -> str:
        return ", ".join(f"{burst['centre_ms']:.0f}" for burst in recordings["bursts"])

    lines = []
    for what, value in (
        ("events per recording", lambda part: f"{part['events_mean']:.0f}"),
        ("ON fraction", lambda part: f"{part['on_fraction']:.3f}"),
        ("centres of the three bursts, ms", bursts),
    ):
        for label, key in (("real", "real"), ("simulated", "re_enacted")):
            lines.append([f"{what}, {label}", *(value(row[key]) for row in rows)])
    correlations = [
        f"{row['map_correlation']['mean']:.3f} ± {row['map_correlation']['std']:.3f}"
        for row in rows
    ]
    lines.append(["correlation of event maps", *correlations])
    return markdown_table(["", *(f"{row['digits']} digits" for row in rows)], lines)


def binning() -> str:
    """Return the table of binning times beside tonic's."""
    lines = []
    for row in load("data", "event_binning")["rows"]:
        settings = ", ".join(f"{key}={value}" for key, value in row["tonic"].items())
        lines.append(
            [
                f"`{settings}`",
                f"{row['equal']} of {row['recordings']}",
                f"{row['ms']['tonic']:.2f} ms",
                f"{row['ms']['or']:.2f} ms",
                within(row["speed_up_or"], *row["quartiles_or"], ".1f"),
            ]
        )
    heads = ["tonic.transforms.ToFrame", "same frames", "tonic", "ours", "speed-up"]
    return markdown_table(heads, lines)


def tsslbp() -> str:
    """Return the table of differences from the official TSSL-BP code."""
    lines = []
    found = {(row["case"], row["dtype"]): row for row in load("speed", "tsslbp")["comparison"]}
    for case in dict.fromkeys(case for case, _ in found):
        cells = [case]
        for dtype in ("float64", "float32"):
            row = found[case, dtype]
            cells += [f"{row['output_max_abs']:.0e}", f"{row['gradient_max_rel']:.0e}"]
        lines.append(cells)
    heads = ["configuration", "float64: output", "gradient", "float32: output", "gradient"]
    return markdown_table(heads, lines)


def tsslbp_speed() -> str:
    """Return the table of step times beside the official TSSL-BP code."""
    lines = [
        [row["side"], f"{row['ms']:.0f} ms", within(row["ratio"], *row["quartiles"])]
        for row in load("speed", "tsslbp")["rows"]
    ]
    return markdown_table(["", "step", "share of the official time"], lines)


def event_input() -> str:
    """Return the table of event-driven beside dense first layers."""
    result = load("speed", "event_input")
    kinds = list(result["peak_memory_mib"])
    lines = []
    for row in result["rows"]:
        cells = [row["what"]]
        for kind in kinds:
            side = row["sides"].get(kind)
            cells += [""] if side is None else [f"{side['ms']:.0f} ms"]
            if kind != kinds[0]:
                cells.append("" if side is None else _speed_up(side))
        lines.append(cells)
    first, *others = (f"{value:.0f} MiB" for value in result["peak_memory_mib"].values())
    rest = [cell for value in others for cell in (value, "")]
    lines.append(["peak memory that training adds", first, *rest])
    heads = [cell for kind in kinds[1:] for cell in (kind, "speed-up")]
    return markdown_table(["", kinds[0], *heads], lines)


def checks() -> str:
    """Return the table of what checks cost: per step, and once."""
    lines = []
    for row in load("speed", "checks")["rows"]:
        low, middle, high = (percent(share, 2) for share in row["share"])
        both = row["wvat_ms"], row["evaluator_ms"]
        once = [f"{made:.1f} + {first:.0f} ms" for made, first in both]
        name = f"{row['setup']}, batch {row['batch']}"
        step = f"{row['step_ms']:.0f} ms"
        lines.append([name, str(row["weights"]), step, f"{middle} % ({low} .. {high})", *once])
    heads = ["", "weights", "step", "checks in a step", "WVAT, once", "Evaluator, once"]
    return markdown_table(heads, lines)


def monte_carlo() -> str:
    """Return the table of what a chip costs relative to an evaluation without variation."""
    ways = ("chips", "stacked", "plain loop")
    lines = []
    for row in load("speed", "monte_carlo")["rows"]:
        cells = []
        for way in ways:
            if way in row:
                low, middle, high = row[way]
                cells.append(within(middle, low, high))
            else:
                cells.append("cannot")
        name = f"{row['setup']}, {row['images']} images"
        lines.append([name, f"{row['clean_ms']:.0f} ms", *cells])
    return markdown_table(["", "no variation", *ways], lines)


def designs() -> str:
    """Return the table of chip-images that an interval of a given width takes."""
    found = load("speed", "monte_carlo")["designs"]
    labels = {
        "fixed": "the planned number of chips, all images",
        "stopped": "until the interval is narrow, all images",
        "split": "until the interval is narrow, best split",
    }
    lines = []
    for name, label in labels.items():
        part = found["designs"][name]
        low, middle, high = (round(count) for count in part["chip_images"])
        cells = [f"{part['chips']:.0f}", f"{part['images']:.0f}", f"{middle} ({low} .. {high})"]
        lines.append([label, *cells, f"{percent(part['covers'], 0)} %"])
    heads = ["design", "chips", "images per chip", "chip-images", "intervals that cover"]
    return markdown_table(heads, lines)


def spiking_layers() -> str:
    """Return the table of LIF networks beside snnTorch and SpikingJelly."""
    heads = ["", "training step", "speed-up", "forward pass", "speed-up", "peak memory"]
    return _beside_peers("spiking_layers", heads)


def recurrent_layers() -> str:
    """Return the table of recurrent LIF layers beside snnTorch and SpikingJelly."""
    heads = ["", "training step", "speed-up", "forward pass", "speed-up"]
    return _beside_peers("recurrent_layers", heads)


def _beside_peers(name: str, heads: list[str]) -> str:
    lines = []
    for setup in load("speed", name)["setups"]:
        lines.append([f"**{setup['setup']}**", *[""] * (len(heads) - 1)])
        for row in setup["rows"]:
            cells = [row["side"]]
            for part in (row["training"], row["forward"]):
                cells += [f"{part['ms']:.0f} ms", _speed_up(part)]
            if "peak_memory_mib" in row:
                cells.append(f"{row['peak_memory_mib']:.0f} MiB")
            lines.append(cells)
    return markdown_table(heads, lines)


def spiking_rules() -> str:
    """Return the table of training steps before and now, and of their limits."""
    result = load("speed", "spiking_rules")
    lines = []
    for row in result["rows"]:
        products, memory = (row[key] / result["rates"][rate] / 1e6 for key, rate in _LIMITS)
        now = row["now"]
        cells = [f"{ms:.0f} ms" for ms in (row["before"]["ms"], now["ms"])]
        limits = [f"{products:.0f} + {memory:.0f} ms", f"{row['limit_ms'] / now['ms']:.2f}"]
        half = f"{row['bf16']['ms']:.0f} ms, {_speed_up(row['bf16'])}"
        lines.append([row["setup"], *cells, _speed_up(now), half, *limits])
    heads = ["", "before", "now", "speed-up", "bf16", "products + memory", "limit / now"]
    return markdown_table(heads, lines)


_LIMITS = (("operations", "products"), ("bytes", "memory"))


def spiking_rates() -> str:
    """Return in words what the core does at best."""
    rates = load("speed", "spiking_rules")["rates"]
    return (
        f"This core multiplies at {rates['products']:.0f} GFLOP/s in float32 and at "
        f"{rates['products_bf16']:.0f} in bf16, and copies {rates['memory']:.0f} GB/s."
    )


def event_pipeline() -> str:
    """Return the table of epochs of loading beside tonic's."""
    setups = load("speed", "event_pipeline")["setups"]
    lines = []
    for number, row in enumerate(setups[0]["rows"]):
        parts = [setup["rows"][number] for setup in setups]
        peer = row["way"] == row["over"]
        cells = [f"{p['ms']:.2f} ms" + ("" if peer else f", {_speed_up(p)}") for p in parts]
        lines.append([row["way"], *cells])
    sizes = [setup["bytes_a_recording"] for setup in setups]
    for name, what in (
        ("cache", "size in the cache"),
        ("frames", "size as frames of one byte per entry"),
    ):
        lines.append([what, *(f"{size[name] / 1000:.1f} kB" for size in sizes)])
    return markdown_table(["", *(f"T = {setup['time_steps']}" for setup in setups)], lines)


def loading_share() -> str:
    """Return the share of training that waits for batches."""
    training = load("speed", "event_pipeline")["training"]
    return f"Waiting for batches takes {percent(training['share'], 0)} % of an epoch."


def _speed_up(part: dict[str, Any]) -> str:
    """Return a speed-up with its quartiles, nothing where there is none."""
    if "speed_up" not in part:
        return ""
    return within(part["speed_up"], *part["quartiles"])


def device_peers() -> str:
    """Return the table of presets of memory technologies beside aihwkit's."""
    lines = []
    for row in load("devices", "peers")["rows"]:
        (slope, rest), (other, left) = row["ours"], row["aihwkit"]
        figures = f"{slope:.4f}", f"{other:.4f}", percent(rest, 2), percent(left, 2)
        lines.append([row["preset"], row["time"], *figures])
    heads = ["", "time", "slope", "slope, aihwkit", "error %", "error %, aihwkit"]
    return markdown_table(heads, lines, names=2)


def rankings() -> str:
    """Return the table of rankings of weights to verify."""
    return ranking_table(load("devices", "rankings")["accuracies"])


def ranking_table(found: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """Return the table of mean accuracies: as they are / with each measure."""
    shares = list(dict.fromkeys(share for by in found.values() for share in by if share))

    def cell(figures: dict[str, list[float]]) -> str:
        return " / ".join(percent(sum(part) / len(part)) for part in figures.values())

    lines = [
        [name, *(cell(by.get(share, by.get("", {}))) for share in shares)]
        for name, by in found.items()
    ]
    return markdown_table(["", *(f"{100 * float(share):g} %" for share in shares)], lines)
