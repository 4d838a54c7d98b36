"""Adapters: where a framework keeps its synaptic weights and how its neurons are reset."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from spikewvat.adapters.neurons import KnowsNeurons, NeuronLayer, Tap
from spikewvat.adapters.torch import ResetState, TorchAdapter
from spikewvat.errors import UnsupportedModelError
from spikewvat.weights import Weights

__all__ = ["Adapter", "KnowsNeurons", "NeuronLayer", "ResetState", "Tap", "adapter_for"]


class Adapter(Protocol):
    """What the rest of the package asks of a framework."""

    def synaptic_weights(self, model: nn.Module) -> Weights:
        """Return the live synaptic parameters by name, tied ones once."""
        ...

    def reset_state(self, model: nn.Module) -> None:
        """Forget all neuron state; call before every forward pass and before any deepcopy."""
        ...


def adapter_for(model: nn.Module, *, reset_state: ResetState | None = None) -> Adapter:
    """Find the adapter for a model by the frameworks that its layers come from.

    Args:
        model: A torch, snnTorch or SpikingJelly model; compiled and distributed wrappers too.
        reset_state: Resets layers that no adapter knows; called with the model after the
            adapter's own reset.

    Returns:
        The adapter.

    Raises:
        UnsupportedModelError: If the model mixes frameworks, or a layer keeps state that no
            adapter can reset.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
        >>> list(adapter_for(net).synaptic_weights(net))
        ['0.weight']
    """
    frameworks = {
        base.__module__.split(".")[0] for module in model.modules() for base in type(module).__mro__
    } & {"snntorch", "spikingjelly"}
    if len(frameworks) > 1:
        raise UnsupportedModelError(
            "model mixes snnTorch and SpikingJelly layers, expected one framework. "
            "Port the smaller part, or pass adapter=... of your own."
        )
    # Imported only here: neither framework is loaded for a model that does not use it.
    if "snntorch" in frameworks:
        from spikewvat.adapters.snntorch import SnnTorchAdapter

        return SnnTorchAdapter(model, reset_state)
    if "spikingjelly" in frameworks:
        from spikewvat.adapters.spikingjelly import SpikingJellyAdapter

        return SpikingJellyAdapter(model, reset_state)
    return TorchAdapter(model, reset_state)
