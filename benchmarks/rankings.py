"""Which weights to verify: rankings of a trained network's weights beside each other.

    python benchmarks/rankings.py RUN --sigma 0.15 --chips 10

RUN is a folder of ``spikewvat train`` with ``training.validation``: rankings are compared on the
data held out there. Accuracy on the same chips after the given shares of weights were verified,
each down to a tenth of its error; as they are, with offsets, and with gains and offsets.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pages.measured import ranking_table

from spikewvat import BiasTrim, Evaluator, Gaussian, Verified, programming_plan
from spikewvat.devices import DeviceModel
from spikewvat.lab.recipes.loaders import open_data
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.recipes.saved import load_model, read_run
from spikewvat.provenance import provenance
from spikewvat.robustness.calibration import GainTrim
from spikewvat.serialisation import read_json, write_json

RANKINGS = ("random", "size", "swim", "largest error")
MEASURES = {"nothing": [], "offsets": [BiasTrim()], "gains, offsets": [GainTrim(), BiasTrim()]}


def main() -> None:
    """Write the figures to a file, ranking by ranking, and print the table; resumes a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--sigma", type=float, default=0.15)
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--shares", type=json.loads, default=[0.05, 0.1, 0.2])
    parser.add_argument("--out", type=Path, default=Path("rankings.json"))
    given = parser.parse_args()
    resolved = resolve(read_run(given.run))
    data = open_data(resolved, None)
    tested = data.part("validation")
    model = load_model(given.run, resolved.with_input_shape(data.input_shape))
    device, test = Gaussian(given.sigma), Evaluator(model, tested, time="network")
    ways = {
        "Fisher x error^2, of what a trim cannot mend": {"trimmed": True},
        "Fisher x error^2": {},
        "Fisher x variance, of what a trim cannot mend": {
            "trimmed": True,
            "cells_readable": False,
        },
        "Fisher x variance": {"cells_readable": False},
        **{by: {"by": by} for by in RANKINGS},
    }

    def figures_of(device: DeviceModel) -> dict[str, list[float]]:
        return {
            name: test.chips(
                device,
                chips=given.chips,
                calibrate=measures,
                calibration=data.calibration if measures else None,
                before=False,
            ).accuracies.tolist()
            for name, measures in MEASURES.items()
        }

    settings = {"sigma": given.sigma, "chips": given.chips, "clean": test.accuracy}
    found = read_json(given.out)["accuracies"] if given.out.is_file() else {}
    for name, how in {"none verified": None, **ways}.items():
        if name in found:
            continue
        if how is None:
            found[name] = {"": figures_of(device)}
        else:
            plan = programming_plan(model, data.calibration, device, time="network", **how)
            found[name] = {
                f"{share:g}": figures_of(Verified(device, plan.at(share))) for share in given.shares
            }
        write_json(given.out, {**settings, "accuracies": found, **provenance()})
        print(ranking_table(found), flush=True)


if __name__ == "__main__":
    main()
