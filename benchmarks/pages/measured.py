"""Tables of measurements: what a step costs, speed beside peers, simulated beside real data."""

from __future__ import annotations

from typing import Any

from pages.shared import load, row_of


def overhead(folder: str, name: str) -> str:
    """Return a table of step times; the first row of a set-up is the unit of the others."""
    by_setup: dict[str, list[dict[str, Any]]] = {}
    for row in load(folder, name)["rows"]:
        by_setup.setdefault(row["setup"], []).append(row)
    lines = [row_of(["", *by_setup]), row_of(["---", *["--:"] * len(by_setup)])]
    units = [f"{rows[0]['ms']:.1f} ms" for rows in by_setup.values()]
    lines.append(row_of(["plain training", *units]))
    others = [{row["method"]: row for row in rows[1:]} for rows in by_setup.values()]
    for method in dict.fromkeys(method for rows in others for method in rows):
        lines.append(row_of([method, *(_ratio(rows.get(method)) for rows in others)]))
    return "\n".join(lines)


def _ratio(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return _spread(row["ratio"], *row["quartiles"])


def _spread(middle: float, low: float, high: float) -> str:
    """Return a figure with its quartiles."""
    return f"{middle:.2f} ({low:.2f} .. {high:.2f})"


def simulator() -> str:
    """Return the table of simulated beside real recordings of the same images."""
    rows = load("data", "simulator")["rows"][:2]  # calibrated on, and not

    def bursts(recordings: dict[str, Any]) -> str:
        return ", ".join(f"{burst['centre_ms']:.0f}" for burst in recordings["bursts"])

    lines = [
        row_of(["", *(f"{row['digits']} digits" for row in rows)]),
        row_of(["---", *["--:"] * len(rows)]),
    ]
    for what, value in (
        ("events a recording", lambda part: f"{part['events_mean']:.0f}"),
        ("ON fraction", lambda part: f"{part['on_fraction']:.3f}"),
        ("centres of the three bursts, ms", bursts),
    ):
        for label, key in (("real", "real"), ("re-enacted", "re_enacted")):
            lines.append(row_of([f"{what}, {label}", *(value(row[key]) for row in rows)]))
    correlations = [
        f"{row['map_correlation']['mean']:.3f} ± {row['map_correlation']['std']:.3f}"
        for row in rows
    ]
    lines.append(row_of(["correlation of event maps", *correlations]))
    return "\n".join(lines)


def binning() -> str:
    """Return the table of binning times beside tonic's."""
    lines = [
        row_of(["tonic.transforms.ToFrame", "same frames", "tonic", "ours", "speed-up"]),
        row_of(["---", "--:", "--:", "--:", "--:"]),
    ]
    for row in load("data", "event_binning")["rows"]:
        settings = ", ".join(f"{key}={value}" for key, value in row["tonic"].items())
        low, high = row["quartiles_or"]
        lines.append(
            row_of(
                [
                    f"`{settings}`",
                    f"{row['equal']} of {row['recordings']}",
                    f"{row['ms']['tonic']:.2f} ms",
                    f"{row['ms']['or']:.2f} ms",
                    f"{row['speed_up_or']:.1f} ({low:.1f} .. {high:.1f})",
                ]
            )
        )
    return "\n".join(lines)


def tsslbp() -> str:
    """Return the table of differences from the official TSSL-BP code."""
    lines = [
        row_of(["configuration", "float64: output", "gradient", "float32: output", "gradient"]),
        row_of(["---", "--:", "--:", "--:", "--:"]),
    ]
    found = {(row["case"], row["dtype"]): row for row in load("speed", "tsslbp")["comparison"]}
    for case in dict.fromkeys(case for case, _ in found):
        cells = [case]
        for dtype in ("float64", "float32"):
            row = found[case, dtype]
            cells += [f"{row['output_max_abs']:.0e}", f"{row['gradient_max_rel']:.0e}"]
        lines.append(row_of(cells))
    return "\n".join(lines)


def tsslbp_speed() -> str:
    """Return the table of step times beside the official TSSL-BP code."""
    lines = [row_of(["", "step", "share of the official time"]), row_of(["---", "--:", "--:"])]
    for row in load("speed", "tsslbp")["rows"]:
        low, high = row["quartiles"]
        share = f"{row['ratio']:.2f} ({low:.2f} .. {high:.2f})"
        lines.append(row_of([row["side"], f"{row['ms']:.0f} ms", share]))
    return "\n".join(lines)


def event_input() -> str:
    """Return the table of event-driven beside dense first layers."""
    result = load("speed", "event_input")
    lines = [
        row_of(["", "dense", "event-driven", "speed-up"]),
        row_of(["---", "--:", "--:", "--:"]),
    ]
    for row in result["rows"]:
        low, high = row["quartiles"]
        times = [f"{row[key]:.0f} ms" for key in ("dense_ms", "event_ms")]
        speed_up = f"{row['speed_up']:.2f} ({low:.2f} .. {high:.2f})"
        lines.append(row_of([row["what"], *times, speed_up]))
    memory = [f"{value:.0f} MiB" for value in result["peak_memory_mib"].values()]
    lines.append(row_of(["peak memory that training adds", *memory, ""]))
    return "\n".join(lines)


def _percent(quartiles: list[float]) -> str:
    low, middle, high = (100 * value for value in quartiles)
    return f"{middle:.1f} % ({low:.1f} .. {high:.1f})"


def step_parts() -> str:
    """Return the table of what variation adds to a step, without any forward pass."""
    rows = load("speed", "step_parts")["rows"]
    parts = list(rows[0]["shares"])
    lines = [
        row_of(["", "weights", "plain step", *parts]),
        row_of(["---", *["--:"] * (len(parts) + 2)]),
    ]
    for row in rows:
        shares = [_percent(row["shares"][part]) for part in parts]
        name = f"{row['setup']}, batch {row['batch']}"
        lines.append(row_of([name, str(row["weights"]), f"{row['plain_ms']:.1f} ms", *shares]))
    return "\n".join(lines)


def monte_carlo() -> str:
    """Return the table of what a chip costs beside a clean evaluation."""
    ways = ("chips", "stacked", "plain loop")
    lines = [row_of(["", "clean", *ways]), row_of(["---", *["--:"] * 4])]
    for row in load("speed", "monte_carlo")["rows"]:
        cells = []
        for way in ways:
            if way in row:
                low, middle, high = row[way]
                cells.append(_spread(middle, low, high))
            else:
                cells.append("cannot")
        name = f"{row['setup']}, {row['images']} images"
        lines.append(row_of([name, f"{row['clean_ms']:.0f} ms", *cells]))
    return "\n".join(lines)


def designs() -> str:
    """Return the table of chip-images that an interval of a given width takes."""
    found = load("speed", "monte_carlo")["designs"]
    labels = {
        "fixed": "as many chips as planned, all images",
        "stopped": "until narrow, all images",
        "split": "until narrow, the best split",
    }
    lines = [
        row_of(["design", "chips", "images each", "chip-images", "intervals that cover"]),
        row_of(["---", *["--:"] * 4]),
    ]
    for name, label in labels.items():
        part = found["designs"][name]
        low, middle, high = (round(count) for count in part["chip_images"])
        cells = [f"{part['chips']:.0f}", f"{part['images']:.0f}", f"{middle} ({low} .. {high})"]
        lines.append(row_of([label, *cells, f"{100 * part['covers']:.0f} %"]))
    return "\n".join(lines)


def spiking_layers() -> str:
    """Return the table of LIF networks beside snnTorch and SpikingJelly."""
    heads = ["", "training step", "speed-up", "forward pass", "speed-up", "peak memory"]
    lines = [row_of(heads), row_of(["---", *["--:"] * (len(heads) - 1)])]
    for setup in load("speed", "spiking_layers")["setups"]:
        lines.append(row_of([f"**{setup['setup']}**", *[""] * (len(heads) - 1)]))
        for row in setup["rows"]:
            cells = [row["side"]]
            for part in (row["training"], row["forward"]):
                cells += [f"{part['ms']:.0f} ms", _speed_up(part)]
            lines.append(row_of([*cells, f"{row['peak_memory_mib']:.0f} MiB"]))
    return "\n".join(lines)


def event_pipeline() -> str:
    """Return the table of epochs of loading beside tonic's."""
    setups = load("speed", "event_pipeline")["setups"]
    lines = [
        row_of(["", *(f"T = {setup['time_steps']}" for setup in setups)]),
        row_of(["---", *["--:"] * len(setups)]),
    ]
    for number, row in enumerate(setups[0]["rows"]):
        parts = [setup["rows"][number] for setup in setups]
        peer = row["way"] == row["over"]
        cells = [f"{p['ms']:.2f} ms" + ("" if peer else f", {_speed_up(p)}") for p in parts]
        lines.append(row_of([row["way"], *cells]))
    sizes = [setup["bytes_a_recording"] for setup in setups]
    for name, what in (("cache", "in the cache"), ("frames", "frames of one byte a place")):
        lines.append(row_of([what, *(f"{size[name] / 1000:.1f} kB" for size in sizes)]))
    return "\n".join(lines)


def loading_share() -> str:
    """Return the share of training that waits for batches."""
    training = load("speed", "event_pipeline")["training"]
    return f"Share of an epoch that waits for batches: {100 * training['share']:.0f} %."


def _speed_up(part: dict[str, Any]) -> str:
    """Return a speed-up with its quartiles, nothing where there is none."""
    if "speed_up" not in part:
        return ""
    return _spread(part["speed_up"], *part["quartiles"])
