"""Compare the presets of memory technologies with aihwkit's noise models, time by time.

The same weights on a million cells each; the systematic change (the slope of a weight on the one
that was aimed at) and what is left around it, root mean square over the largest weight. Needs
``pip install aihwkit``, in an environment of its own.

    python benchmarks/device_peers.py --out benchmarks/results/devices/peers.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from aihwkit.inference.converter.conductance import SinglePairConductanceConverter
from aihwkit.inference.noise.hermes import HermesNoiseModel
from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
from aihwkit.inference.noise.reram import ReRamCMONoiseModel, ReRamWan2022NoiseModel
from torch import Tensor

from spikewvat.devices import CMOReRAM, DeviceModel, SingleCell, hermes, pcm, wan_reram
from spikewvat.formatting import duration
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json

_WEIGHTS = 1_000_000
_DAY = 86400.0


def theirs(model: object, weights: Tensor, time: float) -> Tensor:
    """Return weights under one of aihwkit's models; each of its cells by itself."""
    cells, scale = model.g_converter.convert_to_conductances(weights)
    single = not isinstance(cells, list)
    found = []
    for target in [cells] if single else cells:
        written = model.apply_programming_noise_to_conductance(target.clone())
        exponent = model.generate_drift_coefficients(target.clone())
        found.append(model.apply_drift_noise_to_conductance(written, exponent, time))
    return model.g_converter.convert_back_to_weights(found[0] if single else found, scale)


def figures(found: Tensor, weights: Tensor) -> tuple[float, float]:
    """Return the slope of what was found on what was aimed at, and the rest."""
    weights, found = weights.double(), found.double()
    slope = float((weights * found).sum() / weights.square().sum())
    rest = (found - slope * weights).square().mean().sqrt() / weights.abs().max()
    return slope, float(rest)


def main() -> None:
    """Print the figures of all presets at up to four times each, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.manual_seed(0)
    weights = torch.randn(_WEIGHTS).clamp(-4, 4)
    wan = ReRamWan2022NoiseModel(g_converter=SinglePairConductanceConverter(g_max=40.0))
    peers: list[tuple[str, object, object, tuple[float, ...]]] = [
        ("PCM", pcm, PCMLikeNoiseModel(), (1.0, 3600.0, _DAY, 365 * _DAY)),
        ("HERMES", hermes, HermesNoiseModel(), (1.0, 3600.0, _DAY, 365 * _DAY)),
        ("Wan 2022, 40 µS", wan_reram, wan, (1.0, _DAY, 2 * _DAY)),
        ("Wan 2022, 25 µS", wan_reram, ReRamWan2022NoiseModel(), (1.0, _DAY, 2 * _DAY)),
        ("CMO", _cmo, ReRamCMONoiseModel(), (10.0, 3600.0, _DAY, 365 * _DAY)),
    ]
    rows = []
    for name, make, peer, times in peers:
        for time in times:
            device: DeviceModel = make(time)
            own = device.program({"w": weights}, generator=torch.Generator().manual_seed(1))["w"]
            row = {"preset": name, "time": duration(time), "ours": figures(own, weights)}
            row["aihwkit"] = figures(theirs(peer, weights, time), weights)
            rows.append(row)
            print(row)
    if given.out is not None:
        write_json(given.out, {"weights": _WEIGHTS, "rows": rows, **provenance()})


def _cmo(time: float) -> SingleCell:
    return SingleCell(CMOReRAM(time), CMOReRAM.G_MIN, 88.199997)


if __name__ == "__main__":
    main()
