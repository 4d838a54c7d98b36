"""Our converted networks beside the official hybrid-conversion code, on the same spikes.

    git clone https://github.com/nitin-rathi/hybrid-snn-conversion official
    python benchmarks/hybrid_official.py --official official

The official code is not part of this repository. Its network is loaded from DIR, its calls of
``.cuda()`` dropped in memory; both sides get the same weights, thresholds and Poisson spikes.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikewvat.conversion import Balancing, Dynamics, Poisson, SpikeTime, Triangle, convert
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json

FILE = "self_models/vgg_spiking.py"
SURROGATES = {
    "linear": ("Linear", Triangle()),
    "STDB": ("STDB", SpikeTime()),
    "STDB, silent neurons do not learn": ("STDB", SpikeTime(silent=False)),
}
CONVOLUTIONS = [8, "A", 12, 12, "A"]


def load_official(folder: Path) -> types.SimpleNamespace:
    """Import the official network for the CPU.

    Raises:
        SystemExit: If the file is missing.
    """
    path = folder / FILE
    if not path.is_file():
        raise SystemExit(
            f"there is no {str(path)!r}. --official must name a copy of the official code: "
            "git clone https://github.com/nitin-rathi/hybrid-snn-conversion DIR"
        )
    text = path.read_text()
    module = types.ModuleType("vgg_spiking")
    # Plots that are never drawn, and a debugger.
    code = re.sub(r"^(from matplotlib|import pdb).*$", "", text, flags=re.MULTILINE)
    # Its head has 4096 neurons a layer, whatever is asked for: the comparison takes 40.
    for old, new in ((".cuda()", ""), ("4096", "40"), ("512*1*1", "588")):
        code = code.replace(old, new)
    exec(compile(code, str(path), "exec"), module.__dict__)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return types.SimpleNamespace(module=module, sha256=digest)


def small_ann(dtype: torch.dtype) -> nn.Sequential:
    """Return a VGG of our own with the layers of the official small network."""
    layers: list[nn.Module] = []
    channels = 1
    for item in CONVOLUTIONS:
        if item == "A":
            layers += [nn.AvgPool2d(2)]
            continue
        layers += [nn.Conv2d(channels, int(item), 3, padding=1, bias=False), nn.ReLU()]
        channels = int(item)
    layers += [nn.Flatten()]
    for width, following in ((49 * channels, 40), (40, 40)):
        layers += [nn.Linear(width, following, bias=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(40, 10, bias=False)).to(dtype)


def official_network(module: types.ModuleType, activation: str, steps: int, leak: float) -> Any:
    """Return the official network at our widths."""
    module.cfg["SMALL"] = CONVOLUTIONS
    return module.VGG_SNN_STDB(
        "SMALL", activation, timesteps=steps, leak=leak, dropout=0.0, dataset="MNIST"
    )


def compare(
    official: types.SimpleNamespace, name: str, dtype: torch.dtype, leak: float, arguments: Any
) -> dict[str, Any]:
    """Return how far outputs and gradients of both sides lie apart."""
    torch.set_default_dtype(dtype)
    torch.manual_seed(arguments.seed)
    activation, surrogate = SURROGATES[name]
    ann = small_ann(dtype)
    images, labels = torch.rand(8, 1, 28, 28) * 2 - 1, torch.arange(8) % 10
    snn = convert(
        ann,
        [images],
        time_steps=200,
        dynamics=Dynamics(delayed=True, initial=0.0, surrogate=surrogate),
        balancing=Balancing("steps", 100.0, scaling=0.7, per_channel=False),
        coding=Poisson(arguments.seed),
        leak=leak,
        unit_spikes=True,
    )
    # At the balanced thresholds hardly a deep neuron fires within few steps. The official reset is
    # in float32 whatever the dtype, so thresholds are numbers that float32 can hold.
    snn.set_thresholds({key: (level * 0.3).float() for key, level in snn.thresholds().items()})
    snn.time_steps = arguments.steps
    theirs = official_network(official.module, activation, arguments.steps, leak).eval()
    weights = [m.weight for m in theirs.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    synapses = [m for m in snn.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for weight, own in zip(weights, synapses, strict=True):
        weight.data.copy_(own.weight.data)
    levels = [float(level) for level in snn.thresholds().values()]
    theirs.threshold_update(1.0, levels)
    theirs.classifier[2].p = theirs.classifier[5].p = 0.0
    spikes = snn.encode(images)
    theirs.input_layer = _Given(spikes)
    expected: Tensor = theirs(images)
    functional.cross_entropy(expected, labels).backward()
    fired: list[float] = []
    output = snn.run(spikes) * arguments.steps
    functional.cross_entropy(output, labels).backward()
    with torch.no_grad():
        list(snn.outputs(images, observe=lambda n, i, o: fired.append(_spikes(snn, n.path, o))))
    pairs = [(own.weight.grad, w.grad) for own, w in zip(synapses, weights, strict=True)]
    return {
        "surrogate": name,
        "dtype": str(dtype).removeprefix("torch."),
        "leak": leak,
        "steps": arguments.steps,
        "spikes_per_image": sum(fired) / len(images),
        "output_max_abs": float((output - expected).detach().abs().max()),
        "output_size": float(expected.detach().abs().max()),
        "gradient_max_rel": max(
            float((a - b).norm() / b.norm().clamp(min=1e-30)) for a, b in pairs
        ),
    }


class _Given(nn.Module):
    """Hands out the spikes of one step after the other."""

    def __init__(self, spikes: Tensor) -> None:
        super().__init__()
        self._steps = iter(spikes)

    def forward(self, images: Tensor) -> Tensor:
        return next(self._steps)


def _spikes(snn: nn.Module, path: str, output: Tensor | None) -> float:
    module = snn.get_submodule("layers").get_submodule(path)
    fires = type(module).__name__ == "Neurons" and output is not None
    return float(output.count_nonzero()) if fires and output is not None else 0.0


def main() -> None:
    """Compare, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, required=True, metavar="DIR")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    out = Path(__file__).parent / "results" / "speed" / "hybrid_official.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    official = load_official(arguments.official)
    rows = []
    for name in SURROGATES:
        for leak in (1.0, 0.99):
            for dtype in (torch.float64, torch.float32):
                row = compare(official, name, dtype, leak, arguments)
                rows.append(row)
                print(
                    f"{row['surrogate']:<34} leak {leak:<5} {row['dtype']}  output differs by "
                    f"{row['output_max_abs']:.1e} of {row['output_size']:.2f}, gradients by "
                    f"{row['gradient_max_rel']:.1e} (relative, by norm); "
                    f"{row['spikes_per_image']:.0f} spikes an image"
                )
    write_json(
        arguments.out,
        {
            "recipe": "benchmarks/hybrid_official.py",
            "seeds": [arguments.seed],
            "scale": "full",
            "official_sha256": official.sha256,
            **provenance(),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
