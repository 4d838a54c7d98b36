"""Synaptic weights as data, and the only code that writes to a model's parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from spikewvat.errors import UnsupportedModelError
from spikewvat.holding import Buffers, Hold
from spikewvat.pieces import Changes

Weights: TypeAlias = dict[str, Tensor]
"""Synaptic weights by parameter name; gradients and perturbations have equal keys and shapes."""
Perturb: TypeAlias = Callable[[Mapping[str, Tensor]], object]
"""Adds one perturbation to the weights that it was made for, or to tensors like them, in place."""


class Seam(Protocol):
    """Where a layer takes a weight that it computes anew, and where another can be put in."""

    @property
    def layer(self) -> nn.Module:
        """The layer."""
        ...

    def parts(self) -> list[nn.Parameter]:
        """Return the parameters that the weight is computed from."""
        ...

    def read(self) -> tuple[Tensor, Tensor | None]:
        """Compute the weight and leave no trace.

        Returns:
            The weight, detached, and where no device is at all: a pruned synapse.
        """
        ...

    def exchanging(self, exchange: Callable[[Tensor], Tensor]) -> AbstractContextManager[object]:
        """Let every computed weight pass through a function within a block."""
        ...


class EffectiveWeight(nn.Parameter):
    """A weight that a layer computes from its parameters, as a tensor that can be perturbed.

    It stands for the product of a mask, a norm, a parametrization or a fake quantiser with the
    layer's parameters. Outside of :func:`perturbed` the layer never sees it. Inside, the layer
    computes its own weight as always and then takes this one instead. Gradients flow to both, so
    the layer's parameters get theirs straight through. It belongs to no model, optimizer or
    state dict.

    Args:
        seam: Where the layer takes it.
    """

    _seam: Seam
    _ideal: Tensor
    _absent: Tensor | None
    _holds: int
    _taking: int

    def __new__(cls, seam: Seam) -> EffectiveWeight:
        """Read the weight and wrap it."""
        value, absent = seam.read()
        made = super().__new__(cls, value.detach().clone(), requires_grad=True)
        made._seam, made._ideal, made._absent = seam, value, absent
        made._holds = made._taking = 0
        return made

    @property
    def layer(self) -> nn.Module:
        """The layer that computes it."""
        return self._seam.layer

    @property
    def parts(self) -> list[nn.Parameter]:
        """The parameters that the layer computes it from."""
        return self._seam.parts()

    def refresh(self) -> None:
        """Take the value that the layer computes now; while perturbed it stays."""
        if self._holds:
            return
        value, self._absent = self._seam.read()
        self._ideal, self.data, self.grad = value, value.clone(), None

    def leave_absent(self) -> None:
        """Set the synapses that are pruned away back to what they were: nothing is there."""
        if self._absent is not None:
            self.data.copy_(torch.where(self._absent, self._ideal, self.data))

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Let the layer take this weight within a block instead of its own."""
        holds, taking, ideal = self._holds, self._taking, self._ideal

        def exchange(own: Tensor) -> Tensor:
            return _straight(own, self, ideal) if self._taking == taking else own

        self._holds = holds + 1
        try:
            if holds:
                yield
                return
            with self._seam.exchanging(exchange):
                yield
        finally:
            if self._taking == taking:  # nobody has ended it from outside
                self.release(holds)

    def release(self, holds: int) -> None:
        """Let the layer take its own weight again, wherever an interrupt came.

        Args:
            holds: How many still hold it.
        """
        self._holds = holds
        if holds == 0:
            self._taking += 1  # a hook that an interrupt left behind does nothing any more


class _Straight(torch.autograd.Function):
    """Takes the held weight; the gradient flows to it and to what the layer computed."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, held: Tensor, ideal: Tensor) -> Tensor:
        held = held.detach().to(own)
        ideal = ideal.to(own)
        # What a layer computes may differ from pass to pass (a power iteration, dropped
        # synapses): the change is kept then. Where it is as it was read, the value is exact.
        return torch.where(own == ideal, held, own + (held - ideal))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return grad, grad, None


_straight: Callable[[Tensor, Tensor, Tensor], Tensor] = _Straight.apply


def refresh(weights: Mapping[str, Tensor]) -> None:
    """Let computed weights follow the parameters that they are computed from.

    Args:
        weights: Live weights by name; plain parameters are what they are.
    """
    for weight in weights.values():
        if isinstance(weight, EffectiveWeight):
            weight.refresh()


def holds_of(weights: Mapping[str, Tensor]) -> list[tuple[EffectiveWeight, int]]:
    """Return computed weights and how many hold each of them, for :meth:`release` later."""
    return [(w, w._holds) for w in weights.values() if isinstance(w, EffectiveWeight)]


@contextmanager
def taken(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let layers take computed weights within a block, so that gradients reach them."""
    computed = [weight for weight in weights.values() if isinstance(weight, EffectiveWeight)]
    if not computed:
        yield
        return
    with ExitStack() as stack:
        for weight in computed:
            stack.enter_context(weight.taken())
        yield


def check_matching(
    weights: Mapping[str, Tensor], other: Mapping[str, Tensor], *, what: str
) -> None:
    """Raise unless ``other`` has the same names and shapes as ``weights``.

    Args:
        weights: Synaptic weights by name.
        other: Tensors that should belong to them.
        what: What ``other`` is, for the message.

    Raises:
        ValueError: If a name is missing or unknown, or a shape differs.
    """
    for name, weight in weights.items():
        if name not in other:
            has = ", ".join(repr(key) for key in other) or "nothing"
            raise ValueError(
                f"{what} has no entry for weight {name!r} (has: {has}). "
                "Build it from adapter.synaptic_weights(model)."
            )
        if other[name].shape != weight.shape:
            raise ValueError(
                f"{what} for weight {name!r} has shape {tuple(other[name].shape)}, "
                f"expected {tuple(weight.shape)}."
            )
    for name in other:
        if name not in weights:
            known = ", ".join(repr(key) for key in weights)
            raise ValueError(f"{what} has an entry {name!r} that is no weight (weights: {known}).")


def replaced(
    weights: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    *,
    buffers: Buffers | None = None,
) -> AbstractContextManager[None]:
    """Hold other values in the weights within a block (see :func:`perturbed`).

    Args:
        weights: Live parameters by name; hold their old values again afterwards, whatever is
            raised inside.
        values: Values to hold, equal keys and shapes; a value may be of another dtype or device.
        buffers: As for :func:`perturbed`.

    Raises:
        ValueError: If names or shapes differ, or two names are one tensor.
    """
    check_matching(weights, values, what="values")

    def write(held: Mapping[str, Tensor]) -> None:
        torch._foreach_copy_(list(held.values()), [values[name] for name in held])

    return _held(weights, write, buffers, overwrites=True)


def perturbed(
    weights: Mapping[str, Tensor],
    perturbation: Mapping[str, Tensor] | Perturb,
    *,
    buffers: Buffers | None = None,
) -> AbstractContextManager[None]:
    """Perturb the weights within a block, then have them back bit for bit.

    The perturbed weights lie in memory of their own, which the parameters point to within a block:
    the weights themselves are never written to, so nothing can damage them. Where somebody else
    looks at a parameter's memory (views, numpy, a tied transpose), or it is no plain tensor
    (shards of a distributed one), the weights are saved, written in place and copied back, so
    that all see the same. Either way autograd notices when a graph is used after its weights
    changed.

    Args:
        weights: Live parameters by name.
        perturbation: Change of each weight, equal keys and shapes, or a function that adds it in
            place; it is called once, without autograd, with tensors that hold the weights.
        buffers: Where to keep the memory for later calls with the same weights: pass the same
            dictionary, empty at first.

    Raises:
        ValueError: If names or shapes differ, two names are one tensor, or a tensor cannot be
            perturbed (sparse, complex, expanded).
        RuntimeError: If another thread perturbs the same weights; afterwards, if something has
            written to the weights meanwhile, an optimizer for example: that is lost.

    Example:
        >>> w = {"fc": torch.tensor([1.0, 2.0])}
        >>> with perturbed(w, {"fc": torch.tensor([0.5, -0.5])}):
        ...     w["fc"].tolist()
        [1.5, 1.5]
        >>> w["fc"].tolist()
        [1.0, 2.0]
    """
    if isinstance(perturbation, Mapping):
        check_matching(weights, perturbation, what="perturbation")
        perturbation = adding(perturbation)
    return _held(weights, perturbation, buffers)


@contextmanager
def _held(
    weights: Mapping[str, Tensor],
    perturbation: Perturb,
    buffers: Buffers | None,
    *,
    overwrites: bool = False,
) -> Iterator[None]:
    refresh(weights)
    hold = Hold(weights, buffers)
    try:
        try:
            with torch.no_grad():
                hold.perturb(perturbation, overwrites=overwrites)
                _leave_absent(weights)
            hold.place()
            # Autocast keeps low-precision copies of the parameters until its outermost context
            # ends; without this a second pass in one autocast block would see the first's weights.
            torch.clear_autocast_cache()
            with taken(weights):
                yield
            disturbances = hold.disturbances()
        finally:
            hold.put_back()
    except BaseException:
        hold.put_back()  # an interrupt may have come in the midst of it
        raise
    if disturbances:
        raise RuntimeError(
            f"{'; '.join(disturbances)} while it was perturbed, and that is lost: the weights are "
            "as they were. Step the optimizer, clip and cast after backward, not in the closure "
            "or in hooks of the backward pass."
        )


def adding(perturbation: Mapping[str, Tensor], *, scale: float = 1.0) -> Perturb:
    """Return a function that adds a perturbation, times a factor, to tensors in place.

    Args:
        perturbation: Change of each weight; it may be of another dtype or device than the weight.
        scale: Factor of the change.
    """
    return Changes(perturbation, dict.fromkeys(perturbation, scale))


def refuse_computed(weights: Mapping[str, Tensor], what: str) -> None:
    """Raise where a weight is computed by its layer, for what has to write or read parameters.

    Args:
        weights: Weights by name.
        what: What is done to them, for the message.

    Raises:
        UnsupportedModelError: If there is such a weight.
    """
    for name, weight in weights.items():
        if isinstance(weight, EffectiveWeight):
            raise UnsupportedModelError(
                f"weight {name!r} is computed by its layer from other parameters and cannot be "
                f"{what}. Make it a plain parameter first (prune.remove, remove_weight_norm, "
                "parametrize.remove_parametrizations), or leave this method out."
            )


def clamp_(weights: Mapping[str, Tensor], limit: float) -> None:
    """Clamp weights in place, as methods do whose weights must stay in a device's range.

    Call it after the optimizer's step, while the weights are unperturbed.

    Args:
        weights: Live parameters by name.
        limit: Largest absolute value that stays, above 0.

    Raises:
        ValueError: If ``limit`` is not above 0.
        UnsupportedModelError: If a weight is computed from others, so that it cannot be written.

    Example:
        >>> w = {"fc": torch.tensor([-5.0, 1.0, 4.5])}
        >>> clamp_(w, 4.0)
        >>> w["fc"].tolist()
        [-4.0, 1.0, 4.0]
    """
    if not 0 < limit < float("inf"):
        raise ValueError(f"limit must be finite and above 0, got {limit!r}.")
    refuse_computed(weights, "clamped")
    live = list(weights.values())
    with torch.no_grad():
        torch._foreach_clamp_max_(live, limit)
        torch._foreach_clamp_min_(live, -limit)
    torch.clear_autocast_cache()


def clip_to_std_(weights: Mapping[str, Tensor], sigmas: float) -> None:
    """Clip each tensor in place to so many of its own population standard deviations about 0.

    Call it after the optimizer's step, while the weights are unperturbed.

    Args:
        weights: Live parameters by name.
        sigmas: Standard deviations that stay on each side, above 0.

    Raises:
        ValueError: If ``sigmas`` is not above 0.
        UnsupportedModelError: If a weight is computed from others, so that it cannot be written.

    Example:
        >>> w = {"fc": torch.tensor([-1.0, -1.0, 1.0, 1.0])}
        >>> clip_to_std_(w, 0.5)
        >>> w["fc"].tolist()
        [-0.5, -0.5, 0.5, 0.5]
    """
    if not 0 < sigmas < float("inf"):
        raise ValueError(f"sigmas must be finite and above 0, got {sigmas!r}.")
    refuse_computed(weights, "clipped")
    with torch.no_grad():
        for weight in weights.values():
            if weight.numel() > 1:  # a single number has no spread
                bound = sigmas * weight.std(correction=0)
                weight.clamp_(-bound, bound)
    torch.clear_autocast_cache()


class _Calls(nn.Module):
    """Calls a function of a module, so that other parameters can be put under it."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.module, self._function = module, function

    def forward(self, *args: Any, **kw: Any) -> Any:
        return self._function(*args, **kw)


def call_with(
    module: nn.Module,
    function: Callable[..., Any],
    parameters: Mapping[str, Tensor],
    *args: Any,
    **kw: Any,
) -> Any:
    """Call a module's function with other tensors in the place of some of its parameters.

    Nothing is written: gradients flow into what the tensors were made of.

    Args:
        module: Holds the parameters.
        function: What to call, a method of the module for example.
        parameters: Tensors by parameter name.
        *args: Arguments of the function.
        **kw: Its named arguments.

    Returns:
        What the function returns.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> call_with(layer, layer.forward, {"weight": torch.ones(1, 2)}, torch.ones(2)).item()
        2.0
    """
    values = {f"module.{name}": value for name, value in parameters.items()}
    return torch.func.functional_call(_Calls(module, function), values, args, kw)


def _leave_absent(weights: Mapping[str, Tensor]) -> None:
    for weight in weights.values():
        if isinstance(weight, EffectiveWeight):
            weight.leave_absent()
