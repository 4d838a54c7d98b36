"""Rows of the shared contract suites: a new adapter, network or perturbation adds one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import snntorch as snn
import torch
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from spikewvat.conversion import HYBRID, convert
from spikewvat.devices import Gaussian, Weibull
from spikewvat.lab.models.dense import FullyConnected
from spikewvat.lab.models.lif import CNN as LifCNN
from spikewvat.lab.models.lif import FullyConnected as LifFullyConnected
from spikewvat.lab.models.sew import SEWResNet
from spikewvat.lab.models.slayer import FullyConnected as SlayerFullyConnected
from spikewvat.lab.models.snntorch import SpikingCNN as SnnTorchCNN
from spikewvat.lab.models.spikingjelly import SpikingCNN as JellyCNN
from spikewvat.lab.models.tsslbp import ConvNet, Stage
from spikewvat.perturbations import ASAM, AWP, GAV, HSV, SAM, Mixture, Perturbation
from spikewvat.spiking.layers import Linear
from spikewvat.spiking.lif import LIF, Recurrent
from spikewvat.spiking.tsslbp import TSSL

PERTURBATIONS: list[Perturbation] = [
    HSV(Gaussian(0.1)),
    HSV(Weibull(0.1), gamma=0.5),
    GAV(Gaussian(0.1)),
    GAV(Gaussian(0.1), per_tensor=False),
    GAV(Gaussian(0.1), draw_length=True),
    SAM(),
    ASAM(),
    AWP(),
    Mixture(HSV(Gaussian(0.1)), GAV(Gaussian(0.1)), 0.5),
]


class Stepwise(nn.Module):
    """Run layers that hold their state over time, one step after the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for step in x:
            for module in self.layers:
                step = module(step)
                step = step[0] if isinstance(step, tuple) else step
                step = step.to(x.dtype)  # snnTorch's spikes are float32 whatever comes in
            outputs.append(step)
        return torch.stack(outputs)


@dataclass(frozen=True)
class AdapterCase:
    """A small network, the names of its synapses, and an input [T, B, ...]."""

    name: str
    build: Callable[[], nn.Module]
    synaptic: tuple[str, ...]
    shape: tuple[int, ...] = (5, 2, 3)
    carries_state: bool = True
    float32_only: bool = False  # snnTorch's own recurrence mixes dtypes

    def make(self) -> nn.Module:
        """Return a new network whose neurons spike: no parameter is negative."""
        model = self.build()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.abs_()
        return model

    def input(self) -> Tensor:
        """Return the same spikes every time."""
        generator = torch.Generator().manual_seed(7)
        return (torch.rand(self.shape, generator=generator) < 0.6).float()

    @staticmethod
    def run(model: nn.Module, x: Tensor) -> Tensor:
        """Return the output, graph included."""
        return model(x)


def _lif(**kwargs) -> nn.Module:
    return snn.Leaky(beta=0.9, threshold=0.3, init_hidden=True, **kwargs)


_CNN = {
    "input_shape": (2, 8, 8),
    "channels": (3, 4),
    "kernel_size": 3,
    "classes": 4,
    "threshold": 0.1,
}

ADAPTERS = [
    AdapterCase(
        "torch-fc",
        lambda: FullyConnected(sizes=(12, 6, 4)),
        ("1.weight", "3.weight"),
        shape=(2, 12),
        carries_state=False,
    ),
    AdapterCase(
        "torch-conv-bn",
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)
        ),
        ("0.weight", "4.weight"),
        shape=(3, 2, 4, 4),
        carries_state=False,
    ),
    AdapterCase(
        "torch-lstm",
        lambda: Stepwise(nn.LSTM(3, 4)),
        ("layers.0.weight_ih_l0", "layers.0.weight_hh_l0"),
        carries_state=False,
    ),
    AdapterCase(
        "lif-fc",
        lambda: LifFullyConnected(sizes=(3, 6, 4), constants=LIF(v_threshold=0.3), learn_beta=True),
        ("layers.0.weight", "layers.2.weight"),
        carries_state=False,
    ),
    AdapterCase(
        "lif-cnn",
        lambda: LifCNN(
            input_shape=(2, 8, 8),
            channels=(3, 4),
            kernel_size=3,
            classes=4,
            constants=LIF(v_threshold=0.1),
            chunk=3,
        ),
        ("convs.0.weight", "convs.1.weight", "readout.weight"),
        shape=(4, 2, 2, 8, 8),
        carries_state=False,
    ),
    AdapterCase(
        "slayer-fc",
        lambda: SlayerFullyConnected(sizes=(3, 6, 4)),
        ("layers.0.weight", "layers.2.weight"),
        shape=(20, 2, 3),
        carries_state=False,
    ),
    AdapterCase(
        "converted-cnn",
        lambda: convert(
            nn.Sequential(
                nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4)
            ),
            [torch.rand(4, 2, 8, 8)],
            time_steps=6,
        ),
        ("layers.0.weight", "layers.4.weight"),
        shape=(3, 2, 8, 8),
        carries_state=False,
    ),
    AdapterCase(
        "converted-hybrid",
        lambda: convert(
            FullyConnected(sizes=(12, 6, 5, 4)), [torch.rand(4, 12)], time_steps=9, dynamics=HYBRID
        ),
        ("layers.1.weight", "layers.3.weight", "layers.5.weight"),
        shape=(3, 12),
        carries_state=False,
    ),
    AdapterCase(
        "snntorch-nested",
        lambda: Stepwise(
            nn.Sequential(nn.Linear(3, 6, bias=False), _lif()),
            nn.Sequential(nn.Linear(6, 4), _lif(learn_beta=True, learn_threshold=True)),
        ),
        ("layers.0.0.weight", "layers.1.0.weight"),
    ),
    AdapterCase(
        "snntorch-recurrent",
        lambda: Stepwise(
            nn.Linear(3, 4),
            snn.RLeaky(beta=0.9, threshold=2.0, linear_features=4, init_hidden=True),
        ),
        ("layers.0.weight", "layers.1.recurrent.weight"),
        float32_only=True,
    ),
    AdapterCase(
        "snntorch-one-to-one",
        lambda: Stepwise(
            nn.Linear(3, 4),
            snn.RLeaky(beta=0.9, threshold=0.3, V=0.5, all_to_all=False, init_hidden=True),
        ),
        ("layers.0.weight", "layers.1.V"),
    ),
    AdapterCase(
        "snntorch-vector-v",
        lambda: Stepwise(
            nn.Linear(3, 4),
            snn.RSynaptic(
                alpha=0.5,
                beta=0.9,
                threshold=0.3,
                V=torch.full((4,), 0.5),
                all_to_all=False,
                init_hidden=True,
            ),
        ),
        ("layers.0.weight", "layers.1.V"),
    ),
    AdapterCase(
        "snntorch-cnn",
        lambda: SnnTorchCNN(**_CNN),
        ("convs.0.weight", "convs.1.weight", "readout.weight"),
        shape=(4, 2, 2, 8, 8),
        carries_state=False,
    ),
    AdapterCase(
        "spikingjelly-single-step",
        lambda: Stepwise(
            layer.Linear(3, 6),
            neuron.ParametricLIFNode(v_threshold=0.3),
            layer.Linear(6, 4),
            neuron.LIFNode(v_threshold=0.3),
        ),
        ("layers.0.weight", "layers.2.weight"),
    ),
    AdapterCase(
        "spikingjelly-multi-step",
        lambda: nn.Sequential(
            layer.Linear(3, 6, step_mode="m"),
            neuron.LIFNode(v_threshold=0.3, step_mode="m"),
            layer.Linear(6, 4, step_mode="m"),
            neuron.IFNode(v_threshold=0.5, step_mode="m"),
        ),
        ("0.weight", "2.weight"),
    ),
    AdapterCase(
        "spikingjelly-recurrent",
        lambda: Stepwise(
            layer.LinearRecurrentContainer(neuron.LIFNode(v_threshold=0.3), 3, 3),
            layer.Linear(3, 4),
        ),
        ("layers.0.rc.weight", "layers.1.weight"),
    ),
    AdapterCase(
        "spikingjelly-sliding-psn",
        lambda: nn.Sequential(
            layer.Linear(3, 4, step_mode="m"), neuron.SlidingPSN(k=2, step_mode="m")
        ),
        ("0.weight",),
        carries_state=False,
    ),
    AdapterCase(
        "spikingjelly-cnn-m",
        lambda: JellyCNN(**_CNN),
        ("layers.0.weight", "layers.3.weight", "layers.7.weight"),
        shape=(4, 2, 2, 8, 8),
    ),
    AdapterCase(
        "spikingjelly-cnn-s",
        lambda: JellyCNN(**_CNN, step_mode="s"),
        ("layers.0.weight", "layers.3.weight", "layers.7.weight"),
        shape=(4, 2, 2, 8, 8),
    ),
    *(
        AdapterCase(
            f"spikingjelly-sew-{step_mode}",
            lambda step_mode=step_mode: SEWResNet(
                input_shape=(2, 8, 8),
                channels=(3, 4),
                classes=4,
                threshold=0.5,
                step_mode=step_mode,
            ),
            (
                "layers.0.weight",
                *(f"layers.{n}.layers.{i}.weight" for n in (3, 4) for i in (0, 3)),
                "layers.4.shortcut.0.weight",
                "layers.7.weight",
            ),
            shape=(4, 2, 2, 8, 8),
        )
        for step_mode in "ms"
    ),
    AdapterCase(
        "lif-recurrent",
        lambda: nn.Sequential(Linear(3, 6), Recurrent(6, LIF(0.9, 0.5)), Linear(6, 4)),
        ("0.weight", "1.recurrent.weight", "2.weight"),
        carries_state=False,
    ),
    AdapterCase(
        "tsslbp-cnn",
        lambda: ConvNet(
            input_shape=(2, 8, 8),
            stages=(Stage(3, 3, padding=1, pool=2),),
            classes=4,
            constants=TSSL(v_threshold=0.5),
        ),
        ("layers.0.weight", "layers.4.weight"),
        shape=(4, 2, 2, 8, 8),
        carries_state=False,
    ),
]
