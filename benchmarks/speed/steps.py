"""What a training step costs beside a plain one, method by method, and peers in the same rounds.

    python benchmarks/speed/steps.py [--setups "ReLU network,CNN, snnTorch"] [--rounds 20]

Each round takes a few steps of every method, in random order; a method's ratio is its time in a
round over that of plain steps in the same round, so that whatever else the machine does hits all
alike. All methods train the same network, and a plain step knows nothing of this package. Peers are
SAM of the package pytorch_optimizer, and noise written by hand: copy the weights, add normal
numbers, copy back. Set-ups that were measured before stay in the result file.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from networks import SETUPS, SGD, Training

from spikewvat import GAV, HSV, SAM, WVAT, Gaussian, Momentum, PerturbedGradient
from spikewvat.errors import TrainingStalledWarning
from spikewvat.memory import keep_freed_memory
from spikewvat.provenance import provenance
from spikewvat.serialisation import read_json, write_json
from spikewvat.training import GradientMethod

try:
    from pytorch_optimizer import SAM as PeerSAM
except ImportError as error:
    raise SystemExit("This script compares with a peer: pip install pytorch-optimizer") from error

OUT = Path(__file__).parents[1] / "results" / "speed" / "steps.json"
SIGMA = 0.10
SECONDS = 1.0
"""Steps of one method in a round take about so long, ten at most and two at least."""

Step = Callable[[], object]


def step_of(training: Training, method: GradientMethod) -> Step:
    """Return a step of one of our methods."""

    def step() -> None:
        training.optimizer.zero_grad()
        method.backward(training.loss)
        training.optimizer.step()
        method.after_step()

    return step


def peer_sam(training: Training) -> Step:
    """Return a step of pytorch_optimizer's SAM."""
    fused = {"fused": True} if training.bf16 else {}
    peer = PeerSAM(training.model.parameters(), torch.optim.SGD, rho=0.05, **SGD, **fused)

    def step() -> None:
        for move in (peer.first_step, peer.second_step):
            training.adapter.reset_state(training.model)
            training.loss().backward()
            move(zero_grad=True)

    return step


def by_hand(training: Training) -> Step:
    """Return a step with noise as one writes it: copy, add, pass, copy back."""
    weights = list(training.weights.values())

    def step() -> None:
        training.optimizer.zero_grad()
        training.adapter.reset_state(training.model)
        saved = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for weight in weights:
                weight.add_(torch.randn_like(weight), alpha=SIGMA * 6 * float(weight.std()))
        training.loss().backward()
        with torch.no_grad():
            torch._foreach_copy_(weights, saved)
        training.optimizer.step()

    return step


def steps_of(training: Training) -> dict[str, Step]:
    """Return a step of every method."""
    model, device, momentum = training.model, Gaussian(SIGMA), Momentum(training.optimizer)
    perturbed = {
        "HSV": HSV(device),
        "HSV, noise drawn": HSV(Gaussian(SIGMA, drawn=True)),
        "GAV": GAV(device),
        "SAM": SAM(),
    }
    methods: dict[str, GradientMethod] = {
        "momentum + noise": WVAT(model, device, worst=momentum, mix="both"),
        "WVAT": WVAT(model, device),
        **{name: PerturbedGradient(model, p) for name, p in perturbed.items()},
    }
    return {
        "plain": training.plain,
        **{name: step_of(training, method) for name, method in methods.items()},
        "SAM (pytorch_optimizer)": peer_sam(training),
        "noise by hand": by_hand(training),
    }


def measure(training: Training, rounds: int, seconds: float, seed: int) -> dict[str, Any]:
    """Return milliseconds of a step for each method and round."""
    steps, order = steps_of(training), random.Random(seed)
    for step in steps.values():
        step()
        step()
    start = time.perf_counter()
    training.plain()
    count = min(10, max(2, round(SECONDS / (time.perf_counter() - start))))
    taken: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    for _ in range(rounds):
        if time.perf_counter() - start > seconds:
            break
        for name in order.sample(list(steps), len(steps)):
            began = time.perf_counter()
            for _ in range(count):
                steps[name]()
            taken[name].append(round(1e3 * (time.perf_counter() - began) / count, 4))
    return {"steps_per_round": count, "ms": taken}


def main() -> None:
    """Measure set-up by set-up, print, and write each at once."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--setups", default=";".join(SETUPS), help="names, separated by ;")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=200, help="start no round of one later")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    # The same batch again and again: whether it learns is of no matter.
    warnings.simplefilter("ignore", TrainingStalledWarning)
    for name in arguments.setups.split(";"):
        torch.manual_seed(arguments.seed)
        training = SETUPS[name]()
        row: dict[str, Any] = {"batch": len(training.labels)}
        row["weights"] = sum(weight.numel() for weight in training.weights.values())
        row |= measure(training, arguments.rounds, arguments.seconds, arguments.seed)
        plain = torch.tensor(row["ms"]["plain"], dtype=torch.float64)
        for method, taken in row["ms"].items():
            ratio = float((torch.tensor(taken, dtype=torch.float64) / plain).median())
            print(f"{name:20} {method:26} {ratio:.3f}  {float(plain.median()):.1f} ms plain")
        rows = read_json(arguments.out)["rows"] if arguments.out.exists() else {}
        content = {"recipe": "benchmarks/speed/steps.py", "sigma": SIGMA, **provenance()}
        write_json(arguments.out, {**content, "rows": {**rows, name: row}})


if __name__ == "__main__":
    main()
