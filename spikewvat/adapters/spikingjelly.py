"""SpikingJelly 2.x, single-step and multi-step: the only file that imports it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.adapters.neurons import Entry, NeuronLayer, Part, Varied, longer
from spikewvat.adapters.torch import TorchAdapter
from spikewvat.errors import MissingExtraError, UnsupportedModelError, require

_OPTIONS = {"extra": "spikingjelly", "purpose": "A SpikingJelly network"}


def _check_version() -> None:
    """Raise MissingExtraError for a SpikingJelly before 2.0, whose neurons differ."""
    try:
        found = version("spikingjelly")
    except PackageNotFoundError:
        return  # a checkout, or none at all: the imports below tell
    if int(found.split(".")[0]) < 2:
        raise MissingExtraError(
            f"A SpikingJelly network needs SpikingJelly 2.0 or newer, found {found}. "
            'Run: pip install --upgrade "spikewvat[spikingjelly]".'
        )


_check_version()
base: Any = require("spikingjelly.activation_based.base", **_OPTIONS)
layer: Any = require("spikingjelly.activation_based.layer", **_OPTIONS)
neuron: Any = require("spikingjelly.activation_based.neuron", **_OPTIONS)
surrogate: Any = require("spikingjelly.activation_based.surrogate", **_OPTIONS)

_LEAKY = (neuron.LIFNode, neuron.ParametricLIFNode, neuron.SimpleLIFNode)
_NODES = (*_LEAKY, neuron.IFNode, neuron.SimpleIFNode)
_SPIKES_ONLY = (neuron.PSN, neuron.MaskedPSN, neuron.SlidingPSN, neuron.KLIFNode)
_SILENT = (neuron.NonSpikingBaseNode,)


class SpikingJellyNeurons(NeuronLayer):
    """SpikingJelly neurons of a known class, single-step or multi-step.

    Args:
        name: Name of the module.
        module: The neurons.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        parts: set[Part] = {"spikes"}
        if type(module) in _NODES:
            parts.add("v_threshold")
        if type(module) in _LEAKY:
            parts.add("tau_mem")
        timed = getattr(module, "step_mode", "m") == "m"  # PSN has none and is always multi-step
        super().__init__(name, module, parts=parts, timed=timed)

    def _varied(self, x: Tensor, threshold: Tensor | None, tau: Tensor | None) -> Varied:
        module = self.module
        own, surrogate = module.__dict__, module.surrogate_function
        # The fused kernels take numbers only; for a surrogate that they do not know the framework
        # falls back to plain torch operations, which broadcast.
        entries: list[Entry] = [(module._modules, "surrogate_function", lambda v: surrogate(v))]
        if threshold is not None:
            entries.append((own, "v_threshold", module.v_threshold * threshold))
        if tau is not None and "w" in module._parameters:  # 1 / tau is the sigmoid of w
            beta = longer(1 - module.w.sigmoid(), tau)
            varied = torch.where(tau == 1, module.w, torch.log((1 - beta) / beta))
            entries.append((module._parameters, "w", varied))
        elif tau is not None:
            beta = longer(1 - 1 / torch.as_tensor(module.tau).to(tau), tau)
            varied = torch.where(tau == 1, module.tau, 1 / (1 - beta))
            entries.append((own, "tau", varied))
        return x, entries


class SpikingJellyAdapter(TorchAdapter):
    """Resets SpikingJelly's stateful modules one by one.

    ``functional.reset_net`` caches the modules of a net at its first call and misses neurons
    that are added later; this walks the model instead. The parameters of neurons (PSN's
    ``weight``, PLIF's ``w``, KLIF's ``k``) are temporal kernels and time constants, not synapses.
    """

    def _claimed(self, module: nn.Module) -> Iterator[str]:
        yield from super()._claimed(module)
        if isinstance(module, layer.DropConnectLinear):
            yield "weight"

    def _reason(self, module: nn.Module, name: str) -> str | None:
        if type(module).__module__.split(".")[0] == "spikingjelly" and (
            not isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
        ):
            return "constants of neurons"
        return super()._reason(module, name)

    def _neurons(self, name: str, module: nn.Module) -> NeuronLayer | None:
        if isinstance(module, _SILENT):
            return None
        known = (*_NODES, *_SPIKES_ONLY)
        theirs = type(module).__module__.startswith(neuron.__name__)
        if type(module) in known or (isinstance(module, known) and not theirs):
            return SpikingJellyNeurons(name, module)
        if theirs and isinstance(module, base.MemoryModule):
            raise UnsupportedModelError(
                f"neurons {name!r} ({type(module).__name__}) are none whose spikes 0/1 an adapter "
                "can tap. Use LIFNode, ParametricLIFNode or IFNode."
            )
        return super()._neurons(name, module)

    def _reset_module(self, module: nn.Module) -> None:
        reset: Any = getattr(module, "reset", None)
        if _is_theirs(module) and callable(reset):
            reset()
        else:
            super()._reset_module(module)

    def _knows(self, module: nn.Module) -> bool:
        return _is_theirs(module) or super()._knows(module)


def _is_theirs(module: nn.Module) -> bool:
    return type(module).__module__.split(".")[0] == "spikingjelly"
