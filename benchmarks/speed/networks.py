"""The networks whose training steps are timed, each with a batch of its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat import Adapter, adapter_for
from spikewvat.lab.models.dense import FullyConnected
from spikewvat.lab.models.snntorch import SpikingCNN as SnnTorchCNN
from spikewvat.lab.models.spikingjelly import SpikingCNN as SpikingJellyCNN
from spikewvat.lab.models.vgg import VGG5


@dataclass
class Training:
    """A network in training.

    Args:
        model: The network.
        optimizer: As a user would train it.
        inputs: A batch.
        bf16: Under autocast.
        spiking: Whether inputs and outputs begin with time.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    inputs: Tensor
    bf16: bool = False
    spiking: bool = False

    def __post_init__(self) -> None:
        """Make labels, and find the adapter."""
        self.labels = torch.arange(self.inputs.shape[int(self.spiking)]) % 10
        self.adapter: Adapter = adapter_for(self.model)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The synaptic weights."""
        return self.adapter.synaptic_weights(self.model)

    def loss(self) -> Tensor:
        """Run the forward pass."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            output = self.model(self.inputs)
            output = output.sum(0) if self.spiking else output
            return nn.functional.cross_entropy(output, self.labels)

    def plain(self) -> None:
        """Make a plain step, without this package but for the neurons' state."""
        self.optimizer.zero_grad()
        if self.spiking:
            self.adapter.reset_state(self.model)
        self.loss().backward()
        self.optimizer.step()


SGD: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}


def vgg5(batch: int) -> Training:
    """Return VGG-5 at the paper's width: 50.6 million weights, bf16, channels last, fused SGD."""
    model = VGG5().to(memory_format=torch.channels_last)
    inputs = torch.rand(batch, 3, 32, 32).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), **SGD, fused=True)
    return Training(model, optimizer, inputs, bf16=True)


def relu() -> Training:
    """Return the ReLU network 784-400-200-10."""
    model = FullyConnected()
    return Training(model, torch.optim.SGD(model.parameters(), **SGD), torch.rand(128, 784))


def cnn(kind: type[nn.Module], slope: float) -> Training:
    """Return the spiking CNN of the demo."""
    model = kind(channels=(8, 16), stride=2, pool=1, slope=slope)
    inputs = (torch.rand(6, 32, 2, 34, 34) < 0.08).float()
    return Training(model, torch.optim.SGD(model.parameters(), **SGD), inputs, spiking=True)


SETUPS: dict[str, Callable[[], Training]] = {
    "VGG-5, batch 128": lambda: vgg5(128),
    "VGG-5, batch 256": lambda: vgg5(256),
    "ReLU network": relu,
    "CNN, snnTorch": lambda: cnn(SnnTorchCNN, 5.0),
    "CNN, SpikingJelly": lambda: cnn(SpikingJellyCNN, 2.0),
}
