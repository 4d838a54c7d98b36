"""Compare presets of memory technologies and the crossbar with aihwkit.

Presets: the same weights on a million cells each, time by time; the systematic change (the slope of
a weight on the one that was aimed at) and what is left around it, root mean square over the largest
weight. The crossbar: the same weights, inputs, bits and noise through aihwkit's tiles in torch.
Needs ``pip install aihwkit``, in an environment of its own.

    python benchmarks/device_peers.py --out benchmarks/results/devices/peers.json
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import torch
from aihwkit.inference.converter.conductance import SinglePairConductanceConverter
from aihwkit.inference.noise.hermes import HermesNoiseModel
from aihwkit.inference.noise.pcm import PCMLikeNoiseModel
from aihwkit.inference.noise.reram import ReRamCMONoiseModel, ReRamWan2022NoiseModel
from aihwkit.simulator.parameters.enums import BoundManagementType
from aihwkit.simulator.parameters.io import IOParameters
from aihwkit.simulator.tiles.analog_mvm import AnalogMVM
from torch import Tensor, nn

from spikewvat import Crossbar
from spikewvat.devices import CMOReRAM, DeviceModel, SingleCell, hermes, pcm, wan_reram
from spikewvat.formatting import duration
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json

_WEIGHTS = 1_000_000
_DAY = 86400.0
_INPUTS, _ROWS, _OUTPUTS = 1000, 512, 64
CROSSBARS = [
    Crossbar(rows=128, adc_bits=4, adc_range=6.0),
    Crossbar(rows=128, adc_bits=8),
    Crossbar(rows=128, adc_bits=8, output_noise=0.06),
    Crossbar(rows=128, adc_bits=4, adc_range=6.0, output_noise=0.3, input_noise=0.02),
    Crossbar(rows=512, adc_bits=9, output_noise=0.06, dac_bits=7),
]


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


def through_tiles(layer: nn.Linear, x: Tensor, crossbar: Crossbar) -> Tensor:
    """Return what aihwkit's tiles make of a product, one after the other."""

    def steps(bits: int | None) -> float:
        return -1.0 if bits is None else 2.0**bits - 2

    io = IOParameters(
        inp_res=steps(crossbar.dac_bits),
        inp_noise=crossbar.input_noise,
        out_bound=crossbar.adc_range,
        out_res=steps(crossbar.adc_bits),
        out_noise=crossbar.output_noise,
        bound_management=BoundManagementType.NONE,
    )
    weight = layer.weight.detach()
    unit = weight.abs().max()
    tiles = zip((weight / unit).split(crossbar.rows, 1), x.split(crossbar.rows, 1), strict=True)
    return sum(AnalogMVM.matmul(cells, part, io) for cells, part in tiles) * unit


def crossbars() -> list[dict[str, object]]:
    """Return root-mean-square differences, over the root mean square of the ideal product."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(_ROWS, _OUTPUTS, bias=False)
    nn.init.normal_(layer.weight, generator=generator)
    spikes = (torch.rand(_INPUTS, _ROWS, generator=generator) < 0.1).float()
    values = spikes * torch.rand(_INPUTS, _ROWS, generator=generator)
    rows = []
    for crossbar in CROSSBARS:
        x = spikes if crossbar.dac_bits is None else values
        torch.manual_seed(1)
        peer = through_tiles(layer, x, crossbar)
        torch.manual_seed(1)
        with torch.no_grad(), crossbar.around(layer):
            own = layer(x)
        ideal = (x @ layer.weight.detach().T).double()
        size = ideal.square().mean().sqrt()

        def apart(one: Tensor, other: Tensor, size: Tensor = size) -> float:
            return float((one.double() - other.double()).square().mean().sqrt() / size)

        settings = {f.name: getattr(crossbar, f.name) for f in fields(crossbar)}
        row = {"settings": settings, "apart": apart(own, peer)}
        row |= {"ours": apart(own, ideal), "aihwkit": apart(peer, ideal)}
        rows.append(row)
        print(row)
    return rows


def main() -> None:
    """Print the figures of presets and crossbars, and write them to a file."""
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
        found = {"weights": _WEIGHTS, "rows": rows, "crossbars": crossbars()}
        write_json(given.out, {**found, **provenance()})


def _cmo(time: float) -> SingleCell:
    return SingleCell(CMOReRAM(time), CMOReRAM.G_MIN, 88.199997)


if __name__ == "__main__":
    main()
