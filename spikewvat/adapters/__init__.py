"""Adapters: where a framework keeps its synaptic weights and how its neurons are reset."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn
from torch.optim import Optimizer

from spikewvat.adapters.accounts import Account, account_of
from spikewvat.adapters.claimed import Claims
from spikewvat.adapters.neurons import KnowsNeurons, NeuronLayer, Tap
from spikewvat.adapters.torch import ResetState, TorchAdapter
from spikewvat.errors import UnsupportedModelError
from spikewvat.weights import Weights

__all__ = [
    "Account",
    "Adapter",
    "Claims",
    "KnowsAccount",
    "KnowsNeurons",
    "NeuronLayer",
    "ResetState",
    "Tap",
    "account",
    "adapter_for",
    "check_model",
    "claims",
]


class Adapter(Protocol):
    """The interface of a framework to the rest of the package."""

    def synaptic_weights(self, model: nn.Module) -> Weights:
        """Return the live synaptic weights by name; tied weights appear once."""
        ...

    def reset_state(self, model: nn.Module) -> None:
        """Reset all neuron state; call before every forward pass and before any deepcopy."""
        ...


@runtime_checkable
class KnowsAccount(Protocol):
    """An adapter that accounts for every parameter."""

    def account(self, model: nn.Module) -> Account:
        """Return the account of all parameters with two or more dimensions."""
        ...

    def claims(self, model: nn.Module) -> Claims:
        """Return what is claimed of a model's matrices, for a pass over data to confirm."""
        ...


def account(
    model: nn.Module, adapter: Adapter, weights: Mapping[str, Tensor] | None = None
) -> Account:
    """Return the account of a network: weights on devices, and parameters left out and why.

    Args:
        model: The model.
        adapter: Its adapter.
        weights: Live weights selected by the user; by default the adapter's.
    """
    if weights is None and isinstance(adapter, KnowsAccount):
        return adapter.account(model)
    return account_of(model, adapter.synaptic_weights(model) if weights is None else weights)


def claims(
    model: nn.Module, adapter: Adapter, weights: Mapping[str, Tensor] | None = None
) -> Claims:
    """Return what is claimed of a network's matrices, for a pass over data to confirm.

    Args:
        model: The model.
        adapter: Its adapter.
        weights: Live weights selected by the user, who has thought of everything then.
    """
    if weights is None and isinstance(adapter, KnowsAccount):
        return adapter.claims(model)
    return Claims()


def adapter_for(
    model: nn.Module,
    *,
    reset_state: ResetState | None = None,
    ignore: Collection[str] = (),
) -> Adapter:
    """Find the adapter for a model from the frameworks of its layers.

    Args:
        model: A torch, snnTorch or SpikingJelly model; compiled and distributed wrappers too.
        reset_state: Resets layers that no adapter knows; called with the model after the
            adapter's own reset.
        ignore: Names of parameters, or of modules with all their contents, that are not on devices,
            such as a digital output layer.

    Returns:
        The adapter.

    Raises:
        UnsupportedModelError: If the model mixes frameworks, or a layer keeps state that no
            adapter can reset.
        ValueError: If ``ignore`` names something that does not exist.

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
            "Port the smaller part, or pass your own adapter=..."
        )
    # Imported only here: neither framework is loaded for a model that does not use it.
    if "snntorch" in frameworks:
        from spikewvat.adapters.snntorch import SnnTorchAdapter

        return SnnTorchAdapter(model, reset_state, ignore=ignore)
    if "spikingjelly" in frameworks:
        from spikewvat.adapters.spikingjelly import SpikingJellyAdapter

        return SpikingJellyAdapter(model, reset_state, ignore=ignore)
    return TorchAdapter(model, reset_state, ignore=ignore)


def check_model(model: object, who: str) -> None:
    """Raise TypeError unless a model was passed whose modules can be walked.

    Args:
        model: What was passed as a model.
        who: The class or function that it was passed to.
    """
    if isinstance(model, nn.Module):
        if not all(isinstance(module, nn.Module) for module in model.modules()):
            kind = type(model).__name__
            raise TypeError(
                f"{who} needs a model whose modules() are modules, but {kind} has its own way, as "
                "Rockpool's modules do. Wrap it: model = torch.nn.Sequential(model)."
            )
        return
    if isinstance(model, Optimizer):
        given = f"the optimizer {type(model).__name__}"
        move = "Pass the network that it trains; the optimizer stays in your loop."
    elif isinstance(model, type):
        given, move = f"the class {model.__name__}", f"Make a network of it: {model.__name__}(...)."
    else:
        given, move = f"{type(model).__name__}", "Pass the network itself, as the first argument."
    raise TypeError(f"{who} needs a model, a torch.nn.Module, got {given}. {move}")
