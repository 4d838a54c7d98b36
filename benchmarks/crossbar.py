"""What spikes buy in a crossbar, and what simulating one costs.

    python benchmarks/crossbar.py [--rounds 15] [--out benchmarks/results/devices/crossbar.json]

Inputs: one matrix of weights, with spikes and with values of the same inputs, through converters of
inputs of several bits; the error is that of the product, root mean square over that of the ideal
one. Times: forward passes and training steps with the crossbar over those without, in turn, as
medians and quartiles, on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikewvat import Crossbar, adapter_for
from spikewvat.lab.models.lif import FullyConnected
from spikewvat.lab.models.snntorch import SpikingCNN
from spikewvat.memory import keep_freed_memory
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json

_VECTORS, _ROWS, _OUTPUTS = 2000, 512, 64
_ISAAC = Crossbar(rows=128, columns=128, offset=True, slices=4, cell_bits=2)
SETTINGS = {
    "8-bit converters": Crossbar(rows=128),
    "noise of sums": Crossbar(rows=128, output_noise=0.06),
    "wires": Crossbar(rows=128, ir_drop=1.75e-6),
    "offset columns": Crossbar(rows=128, offset=True, adc_range=64.0),
    "4 slices of 2 bits": Crossbar(rows=128, slices=4, cell_bits=2),
}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "demo CNN": (lambda: SpikingCNN(channels=(8, 16), stride=2, pool=1), (6, 32, 2, 34, 34)),
    "N-MNIST CNN": (SpikingCNN, (10, 16, 2, 34, 34)),
    "2312-400-200-10": (FullyConnected, (20, 32, 2, 34, 34)),
}


def inputs() -> list[dict[str, object]]:
    """Return errors, and the bits of converters that lose nothing, for kinds of inputs."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(_ROWS, _OUTPUTS, bias=False)
    nn.init.normal_(layer.weight, generator=generator)
    spikes = (torch.rand(_VECTORS, _ROWS, generator=generator) < 0.1).float()
    values = spikes * torch.rand(_VECTORS, _ROWS, generator=generator)
    rows = []
    for x, bits in ((spikes, None), (spikes, 4), (values, 4), (values, 6), (values, 8)):
        errors = []
        for adc_bits in (8, 12):
            crossbar = Crossbar(rows=128, adc_bits=adc_bits, dac_bits=bits)
            with torch.no_grad(), crossbar.around(layer):
                found = layer(x)
            ideal = functional.linear(x, layer.weight.detach())
            errors.append(float((found - ideal).norm() / ideal.norm()))
        exact = _ISAAC.exact_bits(1 if x is spikes else bits or 1)
        kind = "spikes" if x is spikes else "values"
        rows.append({"inputs": kind, "dac_bits": bits, "errors": errors, "exact_bits": exact})
        print(rows[-1])
    return rows


def times(rounds: int) -> list[dict[str, object]]:
    """Return the times of networks, alone and as ratios with a crossbar around them."""
    rows = []
    for name, (make, shape) in NETWORKS.items():
        torch.manual_seed(0)
        model = make()
        reset = adapter_for(model).reset_state
        x = (torch.rand(shape) < 0.08).float()
        labels = torch.randint(10, shape[1:2])

        def forward(model: nn.Module = model, x: Tensor = x, reset: object = reset) -> None:
            reset(model)
            with torch.no_grad():
                model(x)

        def step(
            model: nn.Module = model, x: Tensor = x, reset: object = reset, y: Tensor = labels
        ) -> None:
            reset(model)
            model.zero_grad()
            functional.cross_entropy(model(x).sum(0), y).backward()

        for what, run in (("forward pass", forward), ("training step", step)):
            chosen = SETTINGS if run is forward else dict([next(iter(SETTINGS.items()))])
            spent: dict[str, list[float]] = {key: [] for key in ("plain", *chosen)}
            for _ in range(rounds + 1):  # the first round warms up
                spent["plain"].append(_taken(run))
                for key, crossbar in chosen.items():
                    with crossbar.around(model):
                        spent[key].append(_taken(run))
            plain = torch.tensor(spent.pop("plain")[1:])
            ratios = {
                key: (torch.tensor(found[1:]) / plain).quantile(torch.tensor([0.25, 0.5, 0.75]))
                for key, found in spent.items()
            }
            row = {"network": name, "what": what, "plain_ms": 1e3 * float(plain.median())}
            rows.append(row | {"ratios": {key: found.tolist() for key, found in ratios.items()}})
            print(rows[-1])
    return rows


def _taken(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Print the figures, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    found = {"inputs": inputs(), "times": times(given.rounds)}
    if given.out is not None:
        write_json(given.out, {**found, **provenance()})


if __name__ == "__main__":
    main()
