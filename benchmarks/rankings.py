"""Which weights to verify: rankings of a trained network's weights beside each other.

    python benchmarks/rankings.py RUN --sigma 0.15 --chips 10

RUN is a folder of ``spikewvat train``. Accuracy on the same chips after the given shares of weights
were verified, each by a tenth of its error; without offsets, and with them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from spikewvat import BiasTrim, Evaluator, Gaussian, Verified, programming_plan
from spikewvat.formatting import markdown_table, percent
from spikewvat.lab.recipes.loaders import open_data
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.lab.recipes.saved import load_model, read_run
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json

RANKINGS = ("random", "size", "swim", "largest error")


def main() -> None:
    """Print the table, and write the figures to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--sigma", type=float, default=0.15)
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--shares", type=json.loads, default=[0.05, 0.1, 0.2])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    resolved = resolve(read_run(given.run))
    data = open_data(resolved, None)
    tested = data.test
    model = load_model(given.run, resolved.with_input_shape(data.input_shape))
    device, test = Gaussian(given.sigma), Evaluator(model, tested, time="network")
    calibration = data.calibration
    plans = {
        "Fisher x error^2": programming_plan(model, calibration, device, time="network"),
        "Fisher x variance": programming_plan(
            model, calibration, device, cells_readable=False, time="network"
        ),
    }
    for by in RANKINGS:
        plans[by] = programming_plan(model, calibration, device, by=by, time="network")
    rows, figures = [], {}
    for name, plan in plans.items():
        cells = []
        for share in given.shares:
            report = test.chips(
                Verified(device, plan.at(share)),
                chips=given.chips,
                calibrate=[BiasTrim()],
                calibration=calibration,
            )
            assert report.calibrated is not None
            before = report.calibrated.before
            figures[f"{name}, {share:g}"] = [before.tolist(), report.accuracies.tolist()]
            cells.append(f"{percent(float(before.mean()))} / {percent(report.mean)}")
        rows.append([name, *cells])
        print(markdown_table([name, *(f"{100 * s:g} %" for s in given.shares)], [rows[-1]]))
    plainly = test.chips(device, chips=given.chips, calibrate=[BiasTrim()], calibration=calibration)
    assert plainly.calibrated is not None
    before = plainly.calibrated.before
    figures["nothing"] = [before.tolist(), plainly.accuracies.tolist()]
    heads = ["verified, without / with offsets", *(f"{100 * s:g} %" for s in given.shares)]
    print(markdown_table(heads, rows))
    print(f"no variation {percent(test.accuracy)}, none verified ", end="")
    print(f"{percent(float(before.mean()))} / {percent(plainly.mean)}")
    if given.out is not None:
        settings = {"sigma": given.sigma, "chips": given.chips, "clean": test.accuracy}
        write_json(given.out, {**settings, "accuracies": figures, **provenance()})


if __name__ == "__main__":
    main()
