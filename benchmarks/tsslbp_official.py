"""Our TSSL-BP beside the official code: outputs, gradients, time of a training step.

The official code (github.com/stonezwr/TSSL-BP, MIT) is not part of this repository. Put a copy
somewhere and name its folder; its calls of ``.cuda()`` are dropped in memory. Both sides get the
same weights and inputs, in float64 and in float32, where single spikes may differ: a potential
that rounding lifts over the threshold. The time is that of a whole step (loss, gradients,
clipping, AdamW, clamp) of Spiking-CNN2, batch 50, both sides in turn on one thread; the targets
are made beforehand on the official side.

    git clone https://github.com/stonezwr/TSSL-BP DIR
    python benchmarks/tsslbp_official.py --official DIR [--rounds 30]
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import random
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat import adapter_for
from spikewvat.lab.models.tsslbp import ConvNet, SpikingCNN2, Stage
from spikewvat.provenance import provenance
from spikewvat.serialisation import write_json
from spikewvat.spiking.tsslbp import TSSL, Conv2d, Linear, count_loss, desired_psc, kernel_loss
from spikewvat.weights import clamp_

FILES = (
    *("global_v", "functions.tsslbp", "functions.loss_f"),
    *("layers.conv", "layers.pooling", "layers.dropout", "layers.linear", "cnns"),
)
CLAMP, CLIP, LR = 4.0, 1.0, 5e-4
GAIN = 3.0  # on initial weights, so that random input makes the deepest network's output fire


@dataclass(frozen=True)
class Case:
    """A configuration of the official code; the batch is ours."""

    name: str
    input_shape: tuple[int, int, int]
    stages: tuple[Stage, ...] = ()
    hidden: tuple[int, ...] = ()
    constants: TSSL = TSSL()  # noqa: RUF009 -- frozen
    time_steps: int = 5
    batch: int = 10
    spikes: bool = False
    double_filter: bool = False

    def network(self) -> ConvNet:
        """Return our network."""
        return ConvNet(
            input_shape=self.input_shape,
            stages=self.stages,
            hidden=self.hidden,
            constants=self.constants,
            time_steps=self.time_steps,
        )

    def input(self, generator: torch.Generator) -> Tensor:
        """Return spikes [T, B, ...], or still images [B, ...]."""
        if self.spikes:
            shape = (self.time_steps, self.batch, *self.input_shape)
            return (torch.rand(shape, generator=generator) < 0.1).to(torch.get_default_dtype())
        return torch.randn((self.batch, *self.input_shape), generator=generator)

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """Return our loss."""
        if self.spikes:
            return count_loss(output, labels)
        tau_syn = self.constants.tau_syn
        return kernel_loss(output, labels, tau_syn=tau_syn, double_filter=self.double_filter)


def _wide(channels: int, pool: int = 1) -> Stage:
    return Stage(channels, 3, padding=1, pool=pool, scale=5.0)


MNIST = Case(
    "MNIST CNN (Spiking-CNN2)", (1, 28, 28), (Stage(15, 5, pool=2), Stage(40, 5, pool=2)), (300,)
)
CASES = (
    MNIST,
    replace(MNIST, name="MNIST CNN, target filtered twice", double_filter=True),
    Case("F-MNIST MLP", (1, 28, 28), hidden=(400, 400), batch=100),
    Case(
        "F-MNIST CNN",
        (1, 28, 28),
        (Stage(32, 5, padding=2, pool=2), Stage(64, 5, padding=2, pool=2)),
        (1024,),
        batch=5,
    ),
    Case(
        "N-MNIST CNN, T = 30",
        (2, 34, 34),
        (Stage(12, 5, padding=1, pool=2), Stage(64, 5, pool=2)),
        constants=TSSL(8.0, 4.0),
        time_steps=30,
        batch=5,
        spikes=True,
    ),
    Case(
        "CIFAR-10 CNN, an eighth of the width",
        (3, 32, 32),
        (_wide(12), _wide(32, 2), _wide(48, 2), _wide(48), _wide(32)),
        (128, 128),
        batch=5,
    ),
)


def load_official(folder: Path) -> types.SimpleNamespace:
    """Import the official modules for the CPU.

    Raises:
        SystemExit: If a file is missing.
    """
    modules, digest = {}, hashlib.sha256()
    for name in FILES:
        path = folder / f"{name.replace('.', '/')}.py"
        if not path.is_file():
            raise SystemExit(
                f"there is no {str(path)!r}. --official must name a copy of the official code: "
                "git clone https://github.com/stonezwr/TSSL-BP DIR"
            )
        text = path.read_text()
        digest.update(text.encode())
        module = types.ModuleType(name)
        package, _, leaf = name.rpartition(".")
        if package:
            parent = sys.modules.setdefault(package, types.ModuleType(package))
            setattr(parent, leaf, module)
        sys.modules[name] = module
        exec(compile(text.replace(".cuda()", ""), str(path), "exec"), module.__dict__)
        modules[leaf] = module
    return types.SimpleNamespace(**modules, sha256=digest.hexdigest())


class Official:
    """The official network of a case with the weights of ours, and its loss."""

    def __init__(self, code: types.SimpleNamespace, case: Case, ours: nn.Module) -> None:
        self.code, self.case = code, case
        constants = case.constants
        self.config: dict[str, Any] = {
            "n_steps": case.time_steps,
            "tau_m": constants.tau_mem,
            "tau_s": constants.tau_syn,
            "model": "LIF",
            "rule": "TSSLBP",
            "desired_count": 15,
            "undesired_count": 3,
        }
        code.global_v.init(case.time_steps, constants.tau_syn)
        with contextlib.redirect_stdout(io.StringIO()):
            layers = _layers(ours)
            self.network = code.cnns.Network(self.config, layers, list(case.input_shape))
        self.weights = list(self.network.get_parameters())
        for theirs, own in zip(self.weights, ours.parameters(), strict=True):
            theirs.data.copy_(own.data.view_as(theirs))
        self.error = code.loss_f.SpikeLoss(self.config)

    def targets(self, labels: Tensor) -> Tensor:
        """Return what the official loss compares with: counts, or the train filtered once."""
        case, index = self.case, torch.arange(len(labels))
        if case.spikes:
            counts = torch.full((len(labels), 10, 1, 1), 3.0)
            counts[index, labels] = 15.0
            return counts
        targets = torch.zeros(len(labels), 10, 1, 1, case.time_steps)
        if case.double_filter:  # as released: filtered here, and once more in the loss
            train = desired_psc(case.time_steps, case.constants.tau_syn)
        else:
            train = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0])
        targets[index, labels] = train.to(targets)
        return targets

    def output(self, time_last: Tensor) -> Tensor:
        """Return output currents [B, classes, 1, 1, T]; dropout is off."""
        return self.network.forward(time_last, 0, False)

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the official loss."""
        if self.case.spikes:
            return self.error.spike_count(output, targets, self.config, {})
        return self.error.spike_kernel(output, targets, self.config)


def _layers(ours: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the official description of our network."""
    layers: dict[str, dict[str, Any]] = {}
    for name, module in ours.named_modules():
        if isinstance(module, Conv2d):
            layers[name] = {
                "type": "conv",
                "in_channels": module.in_channels,
                "out_channels": module.out_channels,
                "kernel_size": module.kernel_size[0],
                "padding": module.padding[0],
                "threshold": 1,
            }
        elif isinstance(module, Linear):
            layers[name] = {
                "type": "linear",
                "n_inputs": module.in_features,
                "n_outputs": module.out_features,
                "threshold": 1,
            }
        elif type(module).__name__ == "SumPool2d":
            layers[name] = {"type": "pooling", "kernel_size": module.kernel_size}
    return layers


@torch.no_grad()
def _active(network: nn.Module) -> nn.Module:
    for weight in network.parameters():
        weight.mul_(GAIN)
    return network


def _time_last(case: Case, x: Tensor) -> Tensor:
    if case.spikes:
        return x.movedim(0, -1).contiguous()
    return x.unsqueeze(-1).repeat(1, 1, 1, 1, case.time_steps)


def compare(
    code: types.SimpleNamespace, case: Case, dtype: torch.dtype, seed: int
) -> dict[str, Any]:
    """Return how far outputs and gradients of a case lie apart."""
    torch.set_default_dtype(dtype)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    ours = _active(case.network())
    theirs = Official(code, case, ours)
    x, labels = case.input(generator), torch.arange(case.batch) % 10
    output = ours(x)
    loss = case.loss(output, labels)
    loss.backward()
    expected = theirs.output(_time_last(case, x))
    official_loss = theirs.loss(expected, theirs.targets(labels))
    official_loss.backward()
    expected = expected[:, :, 0, 0].movedim(-1, 0)
    pairs = [
        (own.grad, official.grad.view_as(own))
        for own, official in zip(ours.parameters(), theirs.weights, strict=True)
    ]
    return {
        "case": case.name,
        "dtype": str(dtype).removeprefix("torch."),
        "batch": case.batch,
        "output_max_abs": float((output - expected).detach().abs().max()),
        "loss_rel": abs(loss.item() / official_loss.item() - 1),
        "gradient_max_abs": max(float((a - b).abs().max()) for a, b in pairs),
        "gradient_max_rel": max(float((a - b).norm() / b.norm()) for a, b in pairs),
        "output_mean": float(expected.detach().mean()),
        "gradient_norm": float(torch.stack([b.norm() for _, b in pairs]).norm()),
    }


def steppers(code: types.SimpleNamespace, seed: int) -> dict[str, Callable[[], None]]:
    """Return a training step of Spiking-CNN2 on each side, batch 50."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(seed)
    case = replace(MNIST, batch=50)
    images = case.input(torch.Generator().manual_seed(seed))
    labels = torch.arange(case.batch) % 10

    def ours(x: Tensor) -> Callable[[], None]:
        network = _active(SpikingCNN2())
        optimizer = torch.optim.AdamW(network.parameters(), lr=LR)
        weights = adapter_for(network).synaptic_weights(network)

        def step() -> None:
            optimizer.zero_grad()
            case.loss(network(x), labels).backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            clamp_(weights, CLAMP)

        return step

    theirs = Official(code, case, _active(SpikingCNN2()))
    optimizer = torch.optim.AdamW(theirs.weights, lr=LR)
    targets = theirs.targets(labels)

    def official() -> None:
        optimizer.zero_grad()
        theirs.loss(theirs.output(_time_last(case, images)), targets).backward()
        nn.utils.clip_grad_norm_(theirs.weights, CLIP)
        optimizer.step()
        theirs.network.weight_clipper()

    repeated = images.expand(case.time_steps, *images.shape).contiguous()
    return {"official": official, "ours, [T, B, ...]": ours(repeated), "ours, still": ours(images)}


def measure(code: types.SimpleNamespace, rounds: int, seed: int) -> list[dict[str, Any]]:
    """Return the time of a step of each side and its share of the official one."""
    order, steps = random.Random(seed), steppers(code, seed)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name in order.sample(list(steps), len(steps)):
            start = time.perf_counter()
            steps[name]()
            times[name].append(time.perf_counter() - start)
    official = torch.tensor(times["official"])
    rows = []
    for name, taken in times.items():
        share = (torch.tensor(taken) / official).quantile(torch.tensor([0.25, 0.5, 0.75]))
        low, median, high = (round(value, 4) for value in share.tolist())
        rows.append(
            {
                "case": "Spiking-CNN2, batch 50, T = 5, one thread",
                "side": name,
                "ratio": median,
                "quartiles": [low, high],
                "ms": round(1e3 * float(torch.tensor(taken).median()), 2),
                "rounds": rounds,
            }
        )
    return rows


def main() -> None:
    """Compare, measure, print, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", type=Path, required=True, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    out = Path(__file__).parent / "results" / "speed" / "tsslbp.json"
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    code = load_official(arguments.official)
    comparison = []
    for case in CASES:
        for dtype in (torch.float64, torch.float32):
            row = compare(code, case, dtype, arguments.seed)
            comparison.append(row)
            print(
                f"{row['case']:<38} {row['dtype']}  largest difference: output "
                f"{row['output_max_abs']:.1e} of mean {row['output_mean']:.2f}, gradient "
                f"{row['gradient_max_abs']:.1e} of norm {row['gradient_norm']:.1e} "
                f"(relative, by norm: {row['gradient_max_rel']:.1e})"
            )
    rows = measure(code, arguments.rounds, arguments.seed)
    for row in rows:
        low, high = row["quartiles"]
        print(
            f"{row['side']:<18} {row['ratio']:.3f}  ({low:.3f} .. {high:.3f})  {row['ms']:.1f} ms"
        )
    write_json(
        arguments.out,
        {
            "recipe": "benchmarks/tsslbp_official.py",
            "seeds": [arguments.seed],
            "scale": "full",
            "official_sha256": code.sha256,
            **provenance(),
            "comparison": comparison,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
