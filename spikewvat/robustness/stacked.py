"""Many chips in one forward pass: their weights are stacked, the images are shared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from spikewvat.adapters.copying import copied
from spikewvat.weights import Weights

Stacking: TypeAlias = Literal["auto"] | bool
"""Whether chips share a forward pass: always, never, or if it is faster."""

STACK_BYTES = 2**30
_functorch: Any = torch._C._functorch
_UNSEEN = 4  # what neurons and sums hold beside the outputs of modules, as a factor


class NotStackableError(Exception):
    """The network cannot hold several chips at once; the message gives the reason."""


def pays(weights: Mapping[str, Tensor]) -> bool:
    """Return whether stacking chips is faster than evaluating one after the other.

    The dense layers of a single chip do not keep a GPU busy; convolutions do, and a CPU is busy
    with one chip. This is a fixed rule, not a timing, so that equal runs take equal paths and give
    equal bits.
    """
    return all(weight.is_cuda and weight.dim() <= 2 for weight in weights.values())


class Stack:
    """A copy of a network that evaluates a group of chips at once.

    Everything before the first layer with a chip's weights is computed once for the group.

    Args:
        model: The network, in evaluation mode; it is copied, never modified.
        live: The weights that chips hold, by any name.
        reset: Resets all neuron state of a network.

    Raises:
        NotStackableError: If the network cannot be copied, or a weight is not one of its
            parameters.
    """

    def __init__(self, model: nn.Module, live: Weights, reset: Callable[[nn.Module], None]) -> None:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        foreign = [name for name, weight in live.items() if id(weight) not in names]
        if foreign:
            raise NotStackableError(f"weight {foreign[0]!r} is no parameter of the network")
        self._names = {name: names[id(weight)] for name, weight in live.items()}
        self._reset = reset
        reset(model)
        try:
            # State that a pass leaves behind in neurons cannot be read outside of it.
            self._model = copied(model)
        except Exception as error:
            raise NotStackableError(_in_words(error)) from error

    def outputs(
        self, inputs: Tensor, chips: list[Weights], reduce: Callable[[Any], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Run all chips on the same inputs.

        Args:
            inputs: One batch.
            chips: Weights of each chip, under the names of ``live``.
            reduce: Function from the output of one chip to the required result.

        Returns:
            The results, with a leading axis for the chips.

        Raises:
            NotStackableError: If a layer does not support stacked weights.
        """
        together = {
            own: torch.stack([chip[name] for chip in chips]) for name, own in self._names.items()
        }

        def one(weights: dict[str, Tensor]) -> tuple[Tensor, ...]:
            self._reset(self._model)
            try:
                return reduce(functional_call(self._model, weights, (inputs,)))
            finally:
                self._reset(self._model)

        try:
            with _without_fallback():
                return tuple(vmap(one)(together))
        except RuntimeError as error:
            raise NotStackableError(_in_words(error)) from error


@contextmanager
def _without_fallback() -> Iterator[None]:
    """Make operations without a rule for stacked tensors fail instead of looping slowly."""
    before = _functorch._is_vmap_fallback_enabled()
    _functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        _functorch._set_vmap_fallback_enabled(before)


@contextmanager
def measured(model: nn.Module) -> Iterator[Callable[[], int]]:
    """Measure the forward passes of a network within a block.

    Yields:
        A function that returns the bytes of all leaf modules' outputs in the largest pass so far.
    """
    seen = largest = 0

    def begin(module: nn.Module, args: Any) -> None:
        nonlocal seen
        seen = 0

    def count(module: nn.Module, args: Any, output: Any) -> None:
        nonlocal seen, largest
        parts = output if isinstance(output, tuple | list) else (output,)
        seen += sum(p.nbytes for p in parts if isinstance(p, Tensor) and not p.is_sparse)
        largest = max(largest, seen)

    hooks = [model.register_forward_pre_hook(begin)]
    for module in model.modules():
        if not any(True for _ in module.children()):
            hooks.append(module.register_forward_hook(count))
    try:
        yield lambda: largest
    finally:
        for hook in hooks:
            hook.remove()


def group_size(live: Weights, activations: int, memory: int) -> int:
    """Return how many chips fit into the given memory, at least 1.

    Args:
        live: Weights of one chip.
        activations: Bytes of module outputs in one pass, see :func:`measured`.
        memory: Memory for a group, in bytes.
    """
    one = sum(weight.nbytes for weight in live.values()) + _UNSEEN * activations
    return max(1, memory // max(one, 1))


def _in_words(error: Exception) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__
