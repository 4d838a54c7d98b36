"""What converting torchvision's networks takes, and how close they come to their ANN.

    nice python benchmarks/torchvision_networks.py

Random weights, batch norm's statistics from random images, images of 64 x 64; each network in a
process of its own, whose peak memory is that above what it held before converting. The correlation
is that of the scores, less their mean over images, with the ANN's, on images not calibrated with;
thresholds are fitted to each number of steps. The amplification says how much larger a small change
of the images is in the scores, both relative to what differs between images. The time of an
image-step is taken in turn with that of the network which SpikingJelly makes, if it does.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from spikingjelly.activation_based import ann2snn
from spikingjelly.activation_based.ann2snn.recipes import RateCodingRecipe
from torch import Tensor, nn

from spikewvat import adapter_for
from spikewvat.conversion import OverTime, SpikingNetwork, convert
from spikewvat.lab.models import vision  # makes torchvision work beside a torch of another build
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json
from spikewvat.training.averaging import refresh_batch_norm

NETWORKS = ("resnet18", "mobilenet_v2", "densenet121")
STEPS = (8, 32, 128)
CALIBRATION, TESTED = 32, 8
_SMALL = 1e-3
TIMED, ROUNDS = 8, 3  # steps and repetitions of what is timed


def network(name: str, draw: torch.Generator) -> nn.Module:
    """Return a network with the statistics of images in its batch norm."""
    torch.manual_seed(0)
    made: nn.Module = vision.torchvision_models.get_model(name, weights=None, num_classes=100)
    refresh_batch_norm(made, [images(CALIBRATION, draw)])
    return made.eval()


def images(count: int, draw: torch.Generator) -> Tensor:
    """Return images whose neighbouring pixels are alike."""
    coarse = torch.randn(count, 3, 16, 16, generator=draw)
    return nn.functional.interpolate(coarse, size=64, mode="bilinear")


@torch.no_grad()
def measured(name: str) -> dict[str, Any]:
    """Return the row of a network."""
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(1)
    ann, tested = network(name, draw), images(TESTED, draw)
    wanted = ann(tested)
    calibration, before = images(CALIBRATION, draw), _peak()
    row: dict[str, Any] = {"network": name, "correlation": [], "seconds": []}
    for steps in STEPS:
        began = time.perf_counter()
        snn = convert(ann, [calibration], time_steps=steps, analog=True)
        row["seconds"].append(round(time.perf_counter() - began, 2))
        row.setdefault("memory_mb", round(_peak() - before))
        row["correlation"].append(round(_correlation(snn(tested), wanted), 5))
    row["amplification"] = round(_amplification(ann, tested, draw), 1)
    row["parameters"] = sum(p.numel() for p in ann.parameters())
    row["handed_over"] = len(snn.handed_over)
    return row | _times(ann, snn, calibration, tested)


def _times(
    ann: nn.Module, snn: SpikingNetwork, calibration: Tensor, tested: Tensor
) -> dict[str, Any]:
    """Return the time of an image-step, and that of SpikingJelly's network in turn with ours."""
    snn.time_steps = TIMED
    runs: dict[str, nn.Module] = {"ours": snn}
    found: dict[str, Any] = {}
    try:
        net = ann2snn.Converter(RateCodingRecipe([(calibration,)])).convert(copy.deepcopy(ann))
        runs["ann2snn"] = OverTime(net.eval(), TIMED)
    except Exception as error:  # whatever the peer raises
        found["ann2snn_refused"] = f"{type(error).__name__}: {error}"[:200]
    taken: dict[str, list[float]] = {side: [] for side in runs}
    for _ in range(1 + ROUNDS):
        for side, run in runs.items():
            adapter_for(run).reset_state(run)
            began = time.perf_counter()
            run(tested)
            taken[side].append(1e3 * (time.perf_counter() - began) / (TESTED * TIMED))
    return found | {f"{side}_ms": round(median(of[1:]), 3) for side, of in taken.items()}


def _correlation(scores: Tensor, wanted: Tensor) -> float:
    pair = torch.stack([x.sub(x.mean(0)).flatten() for x in (scores, wanted)])
    return float(torch.corrcoef(pair)[0, 1])


def _amplification(ann: nn.Module, tested: Tensor, draw: torch.Generator) -> float:
    """Return the relative change of the scores for a small relative change of the images."""
    noise = _SMALL * tested.std() * torch.randn(tested.shape, generator=draw)
    wanted = ann(tested)
    change = (ann(tested + noise) - wanted).norm() / (wanted - wanted.mean(0)).norm()
    return float(change) / _SMALL


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure each network in a process of its own, print, write the result."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--single", action="store_true", help="print the row of one network")
    out = Path(__file__).parent / "results" / "conversion" / "torchvision.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    if arguments.single:
        print(json.dumps(measured(arguments.networks[0])))
        return
    rows = []
    for name in arguments.networks:
        command = [sys.executable, __file__, "--single", "--networks", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1], flush=True)
    settings = {"steps": list(STEPS), "calibration": CALIBRATION}
    content = {"recipe": "benchmarks/torchvision_networks.py", "seeds": [0], **settings}
    write_json(arguments.out, {**content, "images": TESTED, **provenance(), "rows": rows})


if __name__ == "__main__":
    main()
