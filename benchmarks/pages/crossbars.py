"""Tables of the crossbar: beside aihwkit, what spikes buy, what simulating it costs."""

from __future__ import annotations

from typing import Any

from pages.shared import load, markdown_table
from spikewvat.formatting import MISSING, percent, within


def crossbar_peers() -> str:
    """Return the table of crossbars beside aihwkit's tiles."""
    lines = []
    for row in load("devices", "peers")["crossbars"]:
        settings: dict[str, Any] = row["settings"]
        dac = settings["dac_bits"]
        lines.append(
            [
                str(settings["rows"]),
                f"{settings['adc_bits']} bits to {settings['adc_range']:g}",
                "spikes" if dac is None else f"values, {dac} bits",
                f"{settings['input_noise']:g}",
                f"{settings['output_noise']:g}",
                percent(row["ours"], 2),
                percent(row["aihwkit"], 2),
                f"{row['apart']:.0e}" if row["apart"] else "0",
            ]
        )
    heads = ["rows", "converters", "inputs", "input noise", "output noise"]
    return markdown_table([*heads, "error %", "error %, aihwkit", "apart"], lines)


def crossbar_inputs() -> str:
    """Return the table of inputs, and what their converters cost."""
    lines = []
    for row in load("devices", "crossbar")["inputs"]:
        bits = row["dac_bits"]
        dac = "none" if bits is None else f"{bits} bits"
        exact = f"{row['exact_bits']} bits" if row["exact_bits"] else MISSING
        lines.append([row["inputs"], dac, *(percent(e, 2) for e in row["errors"]), exact])
    heads = ["inputs", "their converter (DAC)", "error %, 8-bit ADC", "error %, 12-bit ADC"]
    return markdown_table([*heads, "ADC that loses nothing"], lines, names=2)


def crossbar_times() -> str:
    """Return the table of times with a crossbar, as multiples of those without."""
    rows = load("devices", "crossbar")["times"]
    settings = list(rows[0]["ratios"])
    lines = []
    for row in rows:
        ratios = [
            within(middle, low, high)
            for low, middle, high in (row["ratios"].get(key, [None] * 3) for key in settings)
            if middle is not None
        ]
        ratios += [MISSING] * (len(settings) - len(ratios))
        name = f"{row['network']}, {row['what']}"
        lines.append([name, f"{row['plain_ms']:.0f} ms", *ratios])
    return markdown_table(["", "without", *settings], lines)
