"""A training step with freed memory kept, beside one with the C library's default.

    python benchmarks/speed/allocator.py [--rounds 20]

Two processes train the demo network; they take turns, so that whatever else the machine does hits
both alike. Ratios are those of a round.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from multiprocessing.connection import Connection

import torch
from measuring import ROOT, quartiles, script
from torch import nn

from spikewvat import adapter_for
from spikewvat.lab.recipes import read_recipe
from spikewvat.lab.recipes.resolve import resolve
from spikewvat.memory import keep_freed_memory

SETUPS = {"demo CNN, snnTorch": "adam.toml", "demo CNN, SpikingJelly": "adam_spikingjelly.toml"}
STEPS = 5


def serve(pipe: Connection, recipe_file: str, keep: bool) -> None:
    """Make training steps when asked to, and answer with the seconds of a step."""
    if keep and not keep_freed_memory():
        raise SystemExit("this C library has no mallopt: nothing to compare.")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    recipe = read_recipe(ROOT / "recipes" / "demo" / recipe_file, preset="quick")
    steps, batch = recipe.data.parameters["time_steps"], recipe.training.batch_size
    spikes = (torch.rand(steps, batch, 2, 34, 34) < 0.08).float()
    labels = torch.arange(batch) % 10
    model = resolve(recipe).build_model()
    adapter, optimizer = adapter_for(model), torch.optim.Adam(model.parameters(), 1e-3)
    while pipe.recv():
        start = time.perf_counter()
        for _ in range(STEPS):
            adapter.reset_state(model)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(spikes).sum(0), labels).backward()
            optimizer.step()
        pipe.send((time.perf_counter() - start) / STEPS)


def measure(recipe_file: str, rounds: int) -> dict[str, object]:
    """Return median ratio and quartiles of kept over default, and the times of a step."""
    context = multiprocessing.get_context("spawn")
    taken: dict[bool, list[float]] = {False: [], True: []}
    pipes = {}
    for keep in taken:
        pipes[keep], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, recipe_file, keep), daemon=True).start()
    for number in range(rounds + 1):  # the first one warms up
        for keep in (False, True) if number % 2 else (True, False):
            pipes[keep].send(True)
            taken[keep].append(pipes[keep].recv())
    for pipe in pipes.values():
        pipe.send(False)
    default, kept = (torch.tensor(taken[keep][1:]) for keep in (False, True))
    low, ratio, high = quartiles(kept / default)
    return {
        "ratio": round(ratio, 3),
        "quartiles": [round(low, 3), round(high, 3)],
        "kept_ms": round(1e3 * float(kept.median()), 2),
        "default_ms": round(1e3 * float(default.median()), 2),
        "rounds": rounds,
    }


def rows(arguments: argparse.Namespace) -> dict[str, object]:
    """Measure both networks and print them."""
    found = []
    for name, recipe_file in SETUPS.items():
        found.append({"setup": name, **measure(recipe_file, arguments.rounds)})
        print(found[-1])
    return {"scale": "quick", "rows": found}


if __name__ == "__main__":
    script(__file__, __doc__, rows, rounds=20)
