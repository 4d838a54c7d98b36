"""How much memory a training step takes at its peak, in multiples of the parameters.

    python benchmarks/speed/step_memory.py

A process for each method trains VGG-5 at the paper's width (50.6 million weights) on one image, in
float32, so that nearly all of its memory is that of weights. What a step takes is the peak of three
steps, less what was there before them: weights and momentum. A plain step takes its gradient.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
from pathlib import Path

import torch
from measuring import status
from networks import Training, vgg5
from steps import SIGMA, step_of

from spikewvat import GAV, HSV, SAM, WVAT, Gaussian, Momentum, PerturbedGradient, Plain
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json
from spikewvat.training import GradientMethod

OUT = Path(__file__).parents[1] / "results" / "speed" / "step_memory.json"


def method_of(name: str, training: Training) -> GradientMethod:
    """Return a method."""
    model, device = training.model, Gaussian(SIGMA)
    if name == "plain":
        return Plain(model)
    if name == "WVAT":
        return WVAT(model, device)
    if name == "momentum + noise":
        return WVAT(model, device, worst=Momentum(training.optimizer), mix="both")
    return PerturbedGradient(model, {"HSV": HSV(device), "GAV": GAV(device), "SAM": SAM()}[name])


METHODS = ("plain", "HSV", "momentum + noise", "GAV", "SAM", "WVAT")


def peak(name: str) -> float:
    """Return the peak of three steps of a method, in multiples of the parameters."""
    torch.set_num_threads(1)
    training = vgg5(1)
    training.bf16 = False  # autocast holds half of the parameters again, whatever the method
    training.plain()  # momentum, and what torch sets up once
    training.optimizer.zero_grad()
    HSV(Gaussian(SIGMA))({"w": torch.zeros(3)})  # the table of normal numbers, 16 MiB
    step = step_of(training, method_of(name, training))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = status("VmRSS")
    for _ in range(3):
        step()
    parameters = sum(p.numel() * p.element_size() for p in training.model.parameters())
    return (status("VmHWM") - before) / parameters


def main() -> None:
    """Measure, print, write the result."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", choices=METHODS, help="measure this one in this process")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    if arguments.only:
        print(peak(arguments.only))
        return
    found = {}
    for name in METHODS:
        command = [sys.executable, __file__, "--only", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = round(float(done.stdout.splitlines()[-1]), 3)
        print(f"{name:20} {found[name]:.3f}")
    write_json(
        arguments.out, {"recipe": "benchmarks/speed/step_memory.py", **provenance(), "peaks": found}
    )


if __name__ == "__main__":
    main()
