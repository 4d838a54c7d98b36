"""Plain torch models, and the rules that every other adapter builds on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from spikewvat.adapters import foreign, state
from spikewvat.adapters.accounts import Account
from spikewvat.adapters.claimed import Claims
from spikewvat.adapters.effective import hooked_names
from spikewvat.adapters.ledger import (
    MATRICES,
    NO_PRODUCT,
    RECURRENT,
    TABLE,
    Ledger,
    is_among,
    kind_of,
)
from spikewvat.adapters.neurons import HasNeurons, NeuronLayer
from spikewvat.adapters.ours import own_layer
from spikewvat.adapters.products import is_matrix, memory_of
from spikewvat.errors import UnsupportedModelError
from spikewvat.weights import Weights

ResetState = Callable[[nn.Module], object]
"""Resets the neurons of a network."""

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)
_TABLES = (nn.Embedding, nn.EmbeddingBag)
_STATELESS = ("torch", "spikewvat")


class TorchAdapter:
    """Finds the synaptic weights of a plain torch model and guards against unknown state.

    Synaptic weights are chosen by module type: linear, bilinear and convolutional weights, the
    matrices of recurrent layers, the projections of attention. Biases, normalisation, thresholds
    and time constants are digital periphery and stay as they are.

    Args:
        model: The model; looked at once here so that state that appears later is recognised.
        reset_state: Called with the model after the adapter's own reset; vouches for layers
            that no adapter knows.
        ignore: Names of parameters, or of modules with all that is in them, that no device
            holds.

    Raises:
        UnsupportedModelError: If a layer keeps state that nothing here can reset.
        ValueError: If ``ignore`` names something that does not exist.
    """

    def __init__(
        self,
        model: nn.Module,
        reset_state: ResetState | None = None,
        *,
        ignore: Collection[str] = (),
    ) -> None:
        self._reset_unknown = reset_state
        self._ignore = _checked_names(model, ignore)
        self._seen: WeakKeyDictionary[nn.Module, state.Noted] = WeakKeyDictionary()
        self._note_state(model)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: weak references cannot be sent."""
        return {**vars(self), "_seen": list(self._seen.items())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take it on."""
        vars(self).update(state, _seen=WeakKeyDictionary(state["_seen"]))

    def synaptic_weights(self, model: nn.Module) -> Weights:
        """Return the live synaptic weights by name; tied weights appear once.

        A weight that its layer computes from parameters (behind a pruning mask, a norm, a
        parametrization, a fake quantiser) is an :class:`~spikewvat.weights.EffectiveWeight`
        with its present value; all others are the parameters themselves.

        Args:
            model: The model, or a wrapper of it (compiled, distributed).

        Returns:
            Weights by their name in ``model``.

        Raises:
            UnsupportedModelError: If there are none, one is not yet made, or a parameter of two
                or more dimensions may be a synapse and nothing says so.
        """
        return self._ledger(model)[0]

    def account(self, model: nn.Module) -> Account:
        """Return the account of all parameters with two or more dimensions.

        Raises:
            UnsupportedModelError: As for :meth:`synaptic_weights`.
        """
        return self._ledger(model)[1]

    def _ledger(self, model: nn.Module) -> tuple[Weights, Account]:
        if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
            raise UnsupportedModelError(
                "model is spread over processes (FullyShardedDataParallel), and the variation of a "
                "chip needs whole weights. Train with DistributedDataParallel."
            )
        ledger = Ledger(self._ignore, {id(p): why for p, why in self._not_synaptic(model)})
        for prefix, module in model.named_modules():
            ledger.enter(prefix, module, tuple(self._claimed(module)), self._reason)
        return ledger.closed(model)

    def claims(self, model: nn.Module) -> Claims:
        """Return what is claimed of a model's matrices, for a pass over data to confirm.

        No device holds tables that layers look up, parameters without a product, and tensors that
        modules of the user's own keep beside their parameters.
        """
        weights = self.synaptic_weights(model)
        held = {}
        for prefix, module in model.named_modules():
            name = f"{prefix}.weight".lstrip(".")
            own = module._parameters.get("weight") if isinstance(module, MATRICES) else None
            if own is not None and weights.get(name) is own:
                held[name] = own, module
        return Claims(held, self._unheld(model))

    def _unheld(self, model: nn.Module) -> dict[str, Tensor]:
        parameters = dict(model.named_parameters())
        loose = (TABLE, NO_PRODUCT)
        found: dict[str, Tensor] = {
            e.name: parameters[e.name] for e in self.account(model).left_out if e.note in loose
        }
        for prefix, module in model.named_modules():
            if self._knows(module):
                continue
            kept = [(n, v) for n, v in vars(module).items() if not isinstance(v, nn.Parameter)]
            for name, value in (*kept, *module.named_buffers(recurse=False)):
                full = f"{prefix}.{name}".lstrip(".")
                matrix = isinstance(value, Tensor) and is_matrix(value)
                if matrix and not is_among(full, self._ignore):
                    found[full] = value
        held = {memory_of(p) for name, p in parameters.items() if name not in found}
        return {name: tensor for name, tensor in found.items() if memory_of(tensor) not in held}

    def reset_state(self, model: nn.Module) -> None:
        """Reset all neuron state; call before every forward pass and before any deepcopy.

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
        """Return the interface of a layer of spiking neurons, None for any other module."""
        if isinstance(module, HasNeurons):
            return module.neuron_layer(name)
        return own_layer(name, module)

    def _claimed(self, module: nn.Module) -> Iterator[str]:
        """Yield the names of what are synapses for sure in a module: parameters, or computed."""
        if isinstance(module, MATRICES):
            yield "weight"
        elif isinstance(module, RECURRENT):
            yield from _recurrent_names(module)
        elif isinstance(module, nn.MultiheadAttention):
            yield from (name for name in module._parameters if name.endswith("_proj_weight"))
        else:
            yield from foreign.synapses(module)

    def _reason(self, module: nn.Module, name: str) -> str | None:
        """Return why a module's own parameter is no synapse, None where that is not known."""
        if isinstance(module, _NORMS):
            return "normalisation"
        if isinstance(module, _TABLES):
            return TABLE
        if type(module).__module__.startswith(("spikewvat.spiking", "spikewvat.conversion")):
            return "constants of neurons"
        return foreign.reason(module)

    def _not_synaptic(self, model: nn.Module) -> Iterator[tuple[nn.Parameter, str]]:
        """Yield parameters that look synaptic by their module's type and are not, and why."""
        yield from ()

    def _reset_module(self, module: nn.Module) -> None:
        """Reset one module's own state."""
        if self._reset_unknown is None and not foreign.resets(module) and not self._knows(module):
            state.call_reset(module)

    def _knows(self, module: nn.Module) -> bool:
        """Return whether this adapter resets the module, or it keeps no state by nature."""
        return foreign.home(module) in _STATELESS or foreign.known(module)

    def _note_state(self, model: nn.Module) -> None:
        """Look at what modules keep when they are reset, so that it is known later."""
        for name, module in model.named_modules():
            if self._knows(module):
                continue
            if self._reset_unknown is None:
                state.check_reset(module, name)
                self._reset_module(module)
            self._seen[module] = state.Noted.of(state.kept(module))

    def _refuse_unknown_state(self, model: nn.Module) -> None:
        for name, module in model.named_modules():
            if self._knows(module):
                continue
            kept = state.kept(module)
            if module not in self._seen:
                self._seen[module] = state.Noted.of(kept)
            where = self._seen[module].differing(kept)
            if where:
                raise UnsupportedModelError(
                    f"layer {name!r} ({kind_of(module)}) keeps state no adapter can reset "
                    f"({', '.join(where[:3])}). "
                    "Pass reset_state=..., a function of the model that resets it."
                )


def _recurrent_names(module: nn.Module) -> Iterator[str]:
    names = [name.removesuffix("_orig") for name in module._parameters]
    parametrized = getattr(module, "parametrizations", None)
    if isinstance(parametrized, nn.ModuleDict):
        names += list(parametrized)
    for hook in module._forward_pre_hooks.values():
        names += hooked_names(hook)
    yield from dict.fromkeys(
        name for name in names if name.startswith("weight_") and not name.endswith(("_g", "_v"))
    )


def _checked_names(model: nn.Module, names: Collection[str]) -> frozenset[str]:
    if isinstance(names, str):
        raise TypeError(f"ignore must be a collection of names, got {names!r}. Write [{names!r}].")
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    known |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    for prefix, module in model.named_modules(remove_duplicate=False):
        held = [name for name, value in vars(module).items() if isinstance(value, Tensor)]
        computed = getattr(module, "parametrizations", ())
        known |= {prefix, *(f"{prefix}.{name}".lstrip(".") for name in (*held, *computed))}
    known.discard("")
    for name in names:
        if name not in known:
            raise ValueError(
                f"ignore names {name!r}, which is not a parameter or module of the model. "
                "See model.named_parameters()."
            )
    return frozenset(names)


def batch_norms(model: nn.Module) -> Iterator[nn.modules.batchnorm._NormBase]:
    """Yield the layers that keep running statistics of their batches."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            yield module
