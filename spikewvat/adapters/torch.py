"""Plain torch models, and the rules that every other adapter builds on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from spikewvat.adapters.neurons import HasNeurons, NeuronLayer
from spikewvat.adapters.ours import own_layer
from spikewvat.errors import UnsupportedModelError
from spikewvat.weights import Weights

ResetState = Callable[[nn.Module], object]

_MATRICES = (nn.Linear, nn.Bilinear, _ConvNd)
_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_NOT_STATE = {"reset_parameters", "reset_running_stats"}
_BOOKKEEPING = frozenset(vars(nn.Module()))


class TorchAdapter:
    """Finds the synaptic weights of a plain torch model and guards against unknown state.

    Synaptic weights are chosen by module type: linear, bilinear and convolutional weights, the
    matrices of recurrent layers, the projections of attention. Biases, normalisation, thresholds
    and time constants are digital periphery and stay as they are.

    Args:
        model: The model; looked at once here so that state that appears later is recognised.
        reset_state: Called with the model after the adapter's own reset; vouches for layers
            that no adapter knows.

    Raises:
        UnsupportedModelError: If a layer keeps state that nothing here can reset.
    """

    def __init__(self, model: nn.Module, reset_state: ResetState | None = None) -> None:
        self._reset_unknown = reset_state
        self._seen: WeakKeyDictionary[nn.Module, dict[str, tuple[int, int]]] = WeakKeyDictionary()
        if reset_state is None:
            self._refuse_unknown_state(model)

    def synaptic_weights(self, model: nn.Module) -> Weights:
        """Return the live synaptic parameters by name, tied ones once.

        Args:
            model: The model, or a wrapper of it (compiled, distributed).

        Returns:
            Parameters by their name in ``model``.

        Raises:
            UnsupportedModelError: If there are none, or one is parametrized or not yet made.
        """
        skipped = {id(parameter) for parameter in self._not_synaptic(model)}
        weights: Weights = {}
        for prefix, module in model.named_modules():
            for name, parameter in self._own_synapses(module):
                full_name = f"{prefix}.{name}" if prefix else name
                if isinstance(parameter, UninitializedParameter):
                    raise UnsupportedModelError(
                        f"weight {full_name!r} is not initialised yet. "
                        "Run one batch through the model first."
                    )
                if id(parameter) not in skipped:
                    skipped.add(id(parameter))
                    weights[full_name] = parameter
        if not weights:
            seen = ", ".join(sorted({type(module).__name__ for module in model.modules()}))
            raise UnsupportedModelError(
                f"model has no synaptic weights (modules seen: {seen}). "
                "Pass weights={name: parameter} to name them yourself."
            )
        return weights

    def reset_state(self, model: nn.Module) -> None:
        """Forget all neuron state; call before every forward pass and before any deepcopy.

        Raises:
            UnsupportedModelError: If a layer turns out to keep state that nothing can reset.
        """
        for module in model.modules():
            self._reset_module(module)
        if self._reset_unknown is not None:
            self._reset_unknown(model)
        else:
            self._refuse_unknown_state(model)

    def neuron_layers(self, model: nn.Module) -> dict[str, NeuronLayer]:
        """Return the layers of spiking neurons by name, in the model's order.

        Raises:
            UnsupportedModelError: If there are none, or some send no spikes 0/1 that are known.
        """
        found = {}
        for name, module in model.named_modules():
            layer = self._neurons(name, module)
            if layer is not None:
                found[name] = layer
        if not found:
            seen = ", ".join(sorted({type(module).__name__ for module in model.modules()}))
            raise UnsupportedModelError(
                f"model has no spiking neurons that an adapter knows (modules seen: {seen}). "
                "Give your own neurons a method neuron_layer(name)."
            )
        return found

    def _neurons(self, name: str, module: nn.Module) -> NeuronLayer | None:
        """Return how to see a module that is a layer of spiking neurons, None for any other."""
        if isinstance(module, HasNeurons):
            return module.neuron_layer(name)
        return own_layer(name, module)

    def _own_synapses(self, module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the synaptic parameters that a module holds itself."""
        if isinstance(module, _MATRICES):
            if is_parametrized(module, "weight"):
                raise UnsupportedModelError(
                    f"the weight of {type(module).__name__} is parametrized, so it is computed "
                    "anew at every access and cannot be displaced. Call torch.nn.utils."
                    "parametrize.remove_parametrizations(layer, 'weight') first."
                )
            names = ["weight"]
        elif isinstance(module, _RECURRENT):
            names = [name for name in module._parameters if name.startswith("weight_")]
        elif isinstance(module, nn.MultiheadAttention):
            names = [name for name in module._parameters if name.endswith("_proj_weight")]
        else:
            return
        for name in names:
            parameter = module._parameters.get(name)
            if parameter is not None:
                yield name, parameter

    def _not_synaptic(self, model: nn.Module) -> Iterator[nn.Parameter]:
        """Yield parameters that look synaptic by their module's type and are not."""
        yield from ()

    def _reset_module(self, module: nn.Module) -> None:
        """Reset one module's own state."""

    def _knows(self, module: nn.Module) -> bool:
        """Return whether this adapter resets the module, or it keeps no state by nature."""
        return type(module).__module__.split(".")[0] in ("torch", "spikewvat")

    def _refuse_unknown_state(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            if self._knows(module):
                continue
            state = _tensors_kept(module)
            seen = self._seen.setdefault(module, {key: _stamp(t) for key, t in state.items()})
            has_graph = any(tensor.grad_fn is not None for tensor in state.values())
            changed = any(seen.get(key) != _stamp(tensor) for key, tensor in state.items())
            if has_graph or changed or _is_resettable_leaf(module):
                kind = f"{type(module).__module__}.{type(module).__qualname__}"
                raise UnsupportedModelError(
                    f"layer {name!r} ({kind}) keeps state no adapter can reset. "
                    "Pass reset_state=..., a function of the model that resets it."
                )


def _tensors_kept(module: nn.Module) -> dict[str, Tensor]:
    """Return tensors a module holds beside its parameters and its persistent buffers."""
    kept: dict[str, Tensor] = {}
    for name, value in vars(module).items():
        if name in _BOOKKEEPING:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if isinstance(value, dict):
            values = list(value.values())
        for index, item in enumerate(values):
            if isinstance(item, Tensor) and not isinstance(item, nn.Parameter):
                kept[f"{name}.{index}"] = item
    for name, buffer in module._buffers.items():
        if buffer is not None and (
            buffer.grad_fn is not None or name in module._non_persistent_buffers_set
        ):
            kept[name] = buffer
    return kept


def _stamp(tensor: Tensor) -> tuple[int, int]:
    version = -1 if tensor.is_inference() else tensor._version
    return id(tensor), version


def _is_resettable_leaf(module: nn.Module) -> bool:
    """Return whether a layer offers a reset method: then it has something to reset."""
    return next(module.children(), None) is None and _has_reset_method(type(module).__mro__)


@functools.cache
def _has_reset_method(classes: tuple[type, ...]) -> bool:
    return any(
        name.startswith("reset") and name not in _NOT_STATE and callable(attribute)
        for kind in classes
        for name, attribute in vars(kind).items()
    )


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether any layer keeps running statistics of its batches."""
    return any(True for _ in batch_norms(model))


def batch_norms(model: nn.Module) -> Iterator[nn.modules.batchnorm._NormBase]:
    """Yield the layers that keep running statistics of their batches."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            yield module


def running_statistics(model: nn.Module) -> list[Tensor]:
    """Return all running statistics: means, variances and counts, live."""
    return [
        buffer
        for module in batch_norms(model)
        for buffer in module.buffers(recurse=False)
        if isinstance(buffer, torch.Tensor)
    ]
