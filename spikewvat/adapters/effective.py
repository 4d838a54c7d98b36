"""Seams: where layers compute the weights that they use, by the way in which they do it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from spikewvat.adapters.neurons import exchanged_entries, overridden
from spikewvat.adapters.products import exchanging_in, is_matrix, same, seen_in, untouched
from spikewvat.adapters.trial import Use
from spikewvat.errors import UnsupportedModelError
from spikewvat.weights import EffectiveWeight, perturbed

_Exchange = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Parametrized:
    """A weight under ``torch.nn.utils.parametrize``."""

    layer: nn.Module
    name: str

    @property
    def _list(self) -> ParametrizationList:
        every: Any = self.layer.parametrizations
        found: ParametrizationList = every[self.name]
        return found

    def parts(self) -> list[nn.Parameter]:
        """Return the parameters that it is computed from."""
        return list(self._list.parameters())

    def read(self) -> tuple[Tensor, Tensor | None]:
        """Compute the weight; a power iteration does not advance."""
        with untouched(self._list):
            value = self._list().detach().clone()
        return value, self._pruned(value)

    @contextmanager
    def exchanging(self, exchange: _Exchange) -> Iterator[None]:
        """Let every access go through a function."""
        handle = self._list.register_forward_hook(lambda module, args, value: exchange(value))
        try:
            yield
        finally:
            handle.remove()

    def _pruned(self, value: Tensor) -> Tensor | None:
        """Return where the weight is 0 whatever the parameter is: behind a mask."""
        originals = [p for name, p in self._list.named_parameters() if name.startswith("original")]
        zero = value == 0
        if len(originals) != 1 or not bool(zero.any()):
            return None
        try:
            twin = copy.deepcopy(self._list).eval()
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for _ in range(2):
                    draw = torch.randn(originals[0].shape, generator=generator)
                    twin.original.data.copy_(draw * 10 * (1 + originals[0].abs().max()))
                    zero &= twin() == 0
        except Exception:
            return None
        return zero if bool(zero.any()) else None

    def __str__(self) -> str:
        steps = ", ".join(
            _words(step) for name, step in self._list.named_children() if name.isdigit()
        )
        return f"computed by {steps}"


@dataclass(frozen=True, eq=False)
class Hooked:
    """A weight that a forward pre-hook computes: prune, weight_norm and spectral_norm."""

    layer: nn.Module
    name: str

    @property
    def _hooks(self) -> list[Callable[..., Any]]:
        hooks = self.layer._forward_pre_hooks.values()
        return [hook for hook in hooks if self.name in hooked_names(hook)]

    def parts(self) -> list[nn.Parameter]:
        """Return the parameters that it is computed from."""
        own = self.layer._parameters
        names = [f"{self.name}{end}" for end in ("_orig", "_g", "_v")]
        return [p for p in (own.get(name) for name in names) if p is not None]

    def read(self) -> tuple[Tensor, Tensor | None]:
        """Compute the weight; a power iteration does not advance."""
        layer = self.layer
        with untouched(layer):
            for hook in self._hooks:
                hook(layer, ())
            value: Tensor = getattr(layer, self.name).detach().clone()
        mask = layer._buffers.get(f"{self.name}_mask")
        return value, None if mask is None else mask == 0

    @contextmanager
    def exchanging(self, exchange: _Exchange) -> Iterator[None]:
        """Let the weight go through a function after the hooks, and now."""
        layer, name = self.layer, self.name
        before = getattr(layer, name)

        def change(module: nn.Module, args: Any) -> None:
            setattr(layer, name, exchange(getattr(layer, name)))

        # Who looks at the weight in front of a forward pass sees the same.
        setattr(layer, name, exchange(self.read()[0]))
        handle = layer.register_forward_pre_hook(change)
        try:
            yield
        finally:
            handle.remove()
            setattr(layer, name, before)

    def __str__(self) -> str:
        return f"computed by {', '.join(_words(hook) for hook in self._hooks)}"


@dataclass(frozen=True, eq=False)
class Quantised:
    """A weight that a submodule ``weight_quant`` quantises, as brevitas' layers have it."""

    layer: nn.Module
    name: str = "weight"

    def parts(self) -> list[nn.Parameter]:
        """Return the parameters that it is computed from."""
        own = self.layer._parameters[self.name]
        quantiser: Any = self.layer.weight_quant
        # Matrices in it are the weights of other layers, whose statistics it shares.
        scales = [p for p in quantiser.parameters() if not is_matrix(p)]
        return scales if own is None else [own, *scales]

    def read(self) -> tuple[Tensor, Tensor | None]:
        """Quantise the weight; statistics stay."""
        layer: Any = self.layer
        with untouched(layer):
            value = layer.quant_weight()
        value = value if isinstance(value, Tensor) else value.value
        return value.detach().clone(), None

    @contextmanager
    def exchanging(self, exchange: _Exchange) -> Iterator[None]:
        """Let the quantised weight go through a function."""

        def change(inner: Callable[..., Any], *args: Any, **kw: Any) -> Any:
            value = inner(*args, **kw)
            if isinstance(value, Tensor):
                return exchange(value)
            return value._replace(value=exchange(value.value))

        # Not at the quantiser, which layers may share.
        with overridden(self.layer, "quant_weight", change):
            yield

    def __str__(self) -> str:
        return "computed by fake quantisation"


@dataclass(frozen=True, eq=False)
class Tapped:
    """A weight that a layer's own forward computes; it is taken where it meets the data."""

    layer: nn.Module
    use: Use
    own: tuple[nn.Parameter, ...]

    def parts(self) -> list[nn.Parameter]:
        """Return the parameters that it is computed from."""
        return list(self.own)

    def read(self) -> tuple[Tensor, Tensor | None]:
        """Run the layer on a small input and look."""
        inputs = self.use.inputs
        assert inputs is not None
        parameter = self.own[0]
        x = inputs.to(device=parameter.device, dtype=parameter.dtype)
        with untouched(self.layer):
            found = seen_in(type(self.layer).forward.__get__(self.layer), x)
            value = found[self.use.index].value.detach().clone()
        return value, None

    @contextmanager
    def exchanging(self, exchange: _Exchange) -> Iterator[None]:
        """Let the weight go through a function where it meets the data."""
        known = None if self.use.unique else self.read()[0]

        def change(value: Tensor) -> Tensor | None:
            if known is not None and not torch.equal(value.detach(), known):
                return None
            return exchange(value)

        with exchanging_in(self.layer, self.use.slot, change):
            yield

    def __str__(self) -> str:
        return f"computed by {type(self.layer).__name__}"


@dataclass(frozen=True, eq=False)
class Masked:
    """A parameter with entries that are not synapses, such as connections of a neuron to itself.

    Args:
        layer: Holds it.
        name: Its name there.
        absent: Where nothing is.
    """

    layer: nn.Module
    name: str
    absent: Tensor

    def parts(self) -> list[nn.Parameter]:
        """Return the parameter."""
        own = self.layer._parameters[self.name]
        return [] if own is None else [own]

    def read(self) -> tuple[Tensor, Tensor | None]:
        """Return the parameter."""
        value = self.parts()[0].detach().clone()
        return value, self.absent.to(value.device)

    @contextmanager
    def exchanging(self, exchange: _Exchange) -> Iterator[None]:
        """Put what a function makes of the parameter in its place."""
        held: Any = self.layer._parameters
        with exchanged_entries((held, self.name, exchange(held[self.name]))):
            yield

    def __str__(self) -> str:
        return f"parameter, {int(self.absent.sum())} entries without a synapse"


def hooked_names(hook: Any) -> tuple[str, ...]:
    """Return which attribute a forward pre-hook of torch computes."""
    name = getattr(hook, "_tensor_name", None) or getattr(hook, "name", None)
    return (name,) if isinstance(name, str) else ()


def seam_of(layer: nn.Module, name: str) -> Parametrized | Hooked | Quantised | None:
    """Return how a layer of a known kind computes a weight, or None if it is a parameter."""
    if is_parametrized(layer, name):
        return Parametrized(layer, name)
    if name not in layer._parameters:
        hooks = layer._forward_pre_hooks.values()
        return Hooked(layer, name) if any(name in hooked_names(hook) for hook in hooks) else None
    if hasattr(layer, "quant_weight") and isinstance(
        getattr(layer, "weight_quant", None), nn.Module
    ):
        return Quantised(layer, name)
    return None


def check_apart(weights: Mapping[str, Tensor]) -> None:
    """Raise if a layer computes its weight from what devices hold already.

    All weights hold other values for a moment: what layers compute must stay as it is.

    Args:
        weights: Live weights by name.

    Raises:
        UnsupportedModelError: It names the weight and what it is computed from.
    """
    computed = {n: w for n, w in weights.items() if isinstance(w, EffectiveWeight)}
    if not computed or len(weights) == 1:
        return
    with perturbed(weights, disturb):
        read = {name: weight._seam.read()[0] for name, weight in computed.items()}
        # Some seams show what is held already.
        moved = [
            name
            for name, weight in computed.items()
            if not (same(read[name], weight._ideal) or same(read[name], weight))
        ]
    for name in moved:
        sources = []
        for other, weight in weights.items():
            if other != name:
                with perturbed({other: weight}, disturb):
                    if not same(computed[name]._seam.read()[0], computed[name]._ideal):
                        sources.append(repr(other))
        raise UnsupportedModelError(
            f"weight {name!r} is {computed[name]._seam}, among others from {', '.join(sources)}, "
            "which devices hold too, so that variation would enter twice. Pass ignore=[name] with "
            "the one that no device holds, or weights={name: parameter} to name all that one does."
        )


def disturb(held: Mapping[str, Tensor]) -> None:
    """Change tensors in place so that whatever is computed from them changes, signs too."""
    for weight in held.values():
        weight.mul_(-0.7).sub_(0.1)


def _words(step: Any) -> str:
    return type(step).__name__.strip("_")
