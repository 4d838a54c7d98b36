"""SpikingJelly 2.x, single-step and multi-step: the only file that imports it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from spikewvat.adapters.torch import TorchAdapter
from spikewvat.errors import require

_PURPOSE = "A SpikingJelly network"
base: Any = require("spikingjelly.activation_based.base", extra="spikingjelly", purpose=_PURPOSE)
layer: Any = require("spikingjelly.activation_based.layer", extra="spikingjelly", purpose=_PURPOSE)
neuron: Any = require(
    "spikingjelly.activation_based.neuron", extra="spikingjelly", purpose=_PURPOSE
)
surrogate: Any = require(
    "spikingjelly.activation_based.surrogate", extra="spikingjelly", purpose=_PURPOSE
)


class SpikingJellyAdapter(TorchAdapter):
    """Resets SpikingJelly's stateful modules one by one.

    ``functional.reset_net`` caches the modules of a net at its first call and misses neurons
    that are added later; this walks the model instead. The parameters of neurons (PSN's
    ``weight``, PLIF's ``w``, KLIF's ``k``) are temporal kernels and time constants, not synapses.
    """

    def _own_synapses(self, module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        yield from super()._own_synapses(module)
        if isinstance(module, layer.DropConnectLinear):
            yield "weight", module._parameters["weight"]

    def _reset_module(self, module: nn.Module) -> None:
        reset: Any = getattr(module, "reset", None)
        if self._is_jelly(module) and callable(reset):
            reset()

    def _knows(self, module: nn.Module) -> bool:
        return self._is_jelly(module) or super()._knows(module)

    @staticmethod
    def _is_jelly(module: nn.Module) -> bool:
        own = type(module).__module__.split(".")[0] == "spikingjelly"
        return own or isinstance(module, base.MemoryModule)
