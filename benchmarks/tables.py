"""Put the tables and pictures of benchmarks/results into the README and the documentation.

    python benchmarks/tables.py [--check]

A page holds a table between ``<!-- table: NAME -->`` and ``<!-- end -->``. ``--check`` changes
nothing and fails if a page differs from the results.
"""

from __future__ import annotations

import argparse
import functools
import re
import sys
from collections.abc import Callable
from contextlib import suppress

from pages.advice import choices, gains, lengths, lengths_picture, strengths
from pages.at_size import chips_at_size, training_at_size
from pages.claims import claims, write_claims
from pages.compared import (
    balancing,
    comparison,
    conversion_peer,
    conversion_steps,
    convertible,
    corruptions,
    few_steps,
    few_steps_on_chips,
    screening,
    simulated,
    torchvision,
)
from pages.coverage import coverage, failures
from pages.crossbars import crossbar_inputs, crossbar_peers, crossbar_times
from pages.directions import direction_verdicts, directions
from pages.figures import figures
from pages.landscapes import landscape_pictures, landscapes
from pages.life import chip_life, costs, losses, statements
from pages.measured import (
    binning,
    checks,
    designs,
    device_peers,
    event_input,
    event_pipeline,
    loading_share,
    monte_carlo,
    overhead,
    rankings,
    recurrent_layers,
    simulator,
    spiking_layers,
    spiking_rates,
    spiking_rules,
    tsslbp,
    tsslbp_speed,
)
from pages.pipeline import pipeline, pipeline_stages, pipeline_tuned
from pages.shared import ROOT, SNNTORCH, NotRunError, results_of
from pages.steps import looked_up, step_memory, step_parts, step_times
from pages.tuned import league, margins, networks, settings, tuned

from spikewvat.lab.suites import read_suite
from spikewvat.robustness import plots

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
DRAWN = ROOT / "docs" / "pictures"
NOT_RUN = "Not run yet."
TABLES: dict[str, Callable[[], str]] = {
    "demo": lambda: comparison("demo", *SNNTORCH, "hsv", "momentum"),
    "mnist": lambda: comparison("mnist", "fc_*", "slayer_*", "cnn2_*"),
    "demo-spikingjelly": lambda: comparison("demo", "*_spikingjelly"),
    "league": league,
    "screening": screening,
    "twolayer": lambda: comparison("twolayer"),
    "lengths": lengths,
    "choices": choices,
    "gains": gains,
    "strengths": lambda: strengths("both"),
    "strengths-wvat": lambda: strengths("wvat"),
    "directions": directions,
    "directions-verdicts": direction_verdicts,
    "ablation": lambda: comparison("ablation", "adam", "w_th-*", "gamma-*"),
    "ablation-vgg5": lambda: comparison("ablation", "vgg5-*"),
    "distributions": lambda: comparison("distributions"),
    "quantization": lambda: comparison("quantization"),
    "ftj": lambda: comparison("ftj"),
    "spikes": corruptions,
    "chip-life-demo": lambda: chip_life("chip_life", "demo CNN"),
    "chip-life-nmnist": lambda: chip_life("chip_life", "N-MNIST CNN"),
    "chip-life-lenet": lambda: chip_life("chip_life", "LeNet, converted"),
    "chip-life-recurrent": lambda: chip_life("chip_life", "recurrent"),
    "chip-life-slayer": lambda: chip_life("chip_life", "SLAYER"),
    "chip-life-statements": lambda: statements("chip_life"),
    "chip-life-losses": lambda: losses(
        "chip_life", {"gaussian": "σ = 15 %", "pcm": "PCM after a year"}
    ),
    "chip-life-offsets": lambda: comparison("chip_life", "offsets-*"),
    "chip-life-costs": lambda: costs("chip_life"),
    "chip-training": lambda: chip_life("chip_training", "demo CNN"),
    "chip-training-statements": lambda: statements("chip_training"),
    "retention": lambda: comparison("retention"),
    "device-peers": device_peers,
    "rankings": rankings,
    "crossbar": lambda: comparison("crossbar"),
    "crossbar-peers": crossbar_peers,
    "crossbar-inputs": crossbar_inputs,
    "crossbar-times": crossbar_times,
    "conversion": lambda: comparison("conversion", "lenet_*"),
    "conversion-steps": conversion_steps,
    "pipeline-lenet": lambda: pipeline("lenet"),
    "pipeline-lenet-stages": lambda: pipeline_stages("lenet"),
    "pipeline-lenet-tuned": lambda: pipeline_tuned("lenet"),
    "pipeline-vgg6": lambda: pipeline("vgg6"),
    "pipeline-vgg6-stages": lambda: pipeline_stages("vgg6"),
    "pipeline-vgg6-tuned": lambda: pipeline_tuned("vgg6"),
    "conversion-peer": conversion_peer,
    "convertible": convertible,
    "few-steps": few_steps,
    "few-steps-5": lambda: few_steps_on_chips("0.05"),
    "few-steps-10": lambda: few_steps_on_chips("0.1"),
    "torchvision": torchvision,
    "balancing": balancing,
    "figures": figures,
    "claims": claims,
    "overhead-methods": lambda: overhead("overhead", "methods"),
    "directions-steps": lambda: overhead("directions_steps", "methods"),
    "steps": step_times,
    "step-memory": step_memory,
    "step-parts": step_parts,
    "looked-up": looked_up,
    "checks": checks,
    "coverage": coverage,
    "coverage-failures": failures,
    "monte-carlo": monte_carlo,
    "training-at-size": training_at_size,
    "chips-at-size": chips_at_size,
    "designs": designs,
    "simulated": simulated,
    "simulator": simulator,
    "binning": binning,
    "event-input": event_input,
    "event-pipeline": event_pipeline,
    "loading-share": loading_share,
    "spiking-layers": spiking_layers,
    "spiking-rates": spiking_rates,
    "spiking-rules": spiking_rules,
    "recurrent-layers": recurrent_layers,
    "vgg5-landscapes": lambda: landscapes("vgg5"),
    "tuned-networks": lambda: networks("tuned"),
    "tsslbp": tsslbp,
    "tsslbp-speed": tsslbp_speed,
}
for suite, network, other in (
    *(("tuned", network, "awp") for network in ("cnn", "fc", "nmnist", "slayer")),
    *(("vgg5", network, "sgd") for network in ("full", "half", "quarter")),
):
    TABLES |= {
        f"{suite}-{network}": functools.partial(tuned, suite, network),
        f"{suite}-{network}-margins": functools.partial(margins, suite, network, "hsv"),
        f"{suite}-{network}-{other}": functools.partial(margins, suite, network, other),
        f"{suite}-{network}-settings": functools.partial(settings, suite, network),
    }
PICTURES = {
    "league": ("tuned", ("cnn-plain", "cnn-hsv", "cnn-awp", "cnn-momentum")),
    "demo": ("demo", ("swa", "hsv", "wvat")),
    "vgg5": ("vgg5", ("full-*",)),
    "nmnist": ("tuned", tuple(f"nmnist-{each}" for each in ("plain", "hsv", "sam", "momentum"))),
}


def filled(text: str) -> str:
    """Return a page with its tables made anew."""

    def fill(match: re.Match[str]) -> str:
        try:
            table = TABLES[match[1]]()
        except NotRunError:
            table = NOT_RUN
        return f"<!-- table: {match[1]} -->\n{table}\n<!-- end -->"

    return re.sub(r"<!-- table: (\S+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def draw() -> None:
    """Draw the pictures of the documentation."""
    for name, (folder, patterns) in PICTURES.items():
        suite = read_suite(folder).chosen(patterns)
        (setup,), found = suite.setups, results_of(suite)
        by_method = {r.method: found[r.name].pooled for r in setup.rows if r.name in found}
        if by_method:
            title = f"{suite.title}: {setup.name}"
            figure = plots.accuracy_against_sigma(by_method, title=title)
            plots.save(figure, DRAWN / f"{name}.png")
    with suppress(NotRunError):
        plots.save(lengths_picture(), DRAWN / "epochs.png")
    with suppress(NotRunError):
        for kind, figure in landscape_pictures("vgg5").items():
            plots.save(figure, DRAWN / f"vgg5-{kind}.png")


def main() -> None:
    """Fill or check the pages."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = [page for page in PAGES if filled(page.read_text()) != page.read_text()]
    if check:
        if stale:
            names = ", ".join(str(page.relative_to(ROOT)) for page in stale)
            sys.exit(f"not what the results say: {names}. Run: python benchmarks/tables.py")
        return
    for page in stale:
        page.write_text(filled(page.read_text()))
    draw()
    write_claims()


if __name__ == "__main__":
    main()
