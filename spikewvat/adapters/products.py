"""Products of weights and data inside of a layer's forward pass: seen, and with other weights."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spikewvat.adapters.neurons import overridden

Slot: TypeAlias = tuple[str, str, tuple[int, ...]]
"""Where a factor enters: the operation's name, the argument, the factor's shape."""

OPERATIONS = frozenset(
    [
        "linear",
        "bilinear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "convolution",
        "matmul",
        "__matmul__",
        "__rmatmul__",
        "mm",
        "bmm",
        "mv",
        "addmm",
        "addmv",
        "addbmm",
        "baddbmm",
        "einsum",
        "tensordot",
        "inner",
        "dot",
        "sparse_mm",
        "multi_head_attention_forward",
    ]
)
LOOKUPS = frozenset(("embedding", "embedding_bag", "index_select", "gather", "_sparse_mm"))
ELEMENTWISE = frozenset(("mul", "__mul__", "__rmul__", "multiply"))
_BIASES = {("linear", "2"), ("bilinear", "3"), *((f"conv{n}d", "2") for n in (1, 2, 3))}


class Products(TorchFunctionMode):
    """Hands every factor of every product to a function, which may return another.

    Args:
        see: Called with the slot and the factor; None leaves it.
        also: Names of further operations to look at.
    """

    def __init__(
        self, see: Callable[[Slot, Tensor], Tensor | None], *, also: Container[str] = ()
    ) -> None:
        super().__init__()
        self._see, self._also = see, also
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in OPERATIONS or name in ELEMENTWISE or name in self._also:
            self.calls += 1
            args = tuple(self._part(name, str(i), arg) for i, arg in enumerate(args))
            kwargs = {key: self._part(name, key, arg) for key, arg in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))

    def _part(self, name: str, where: str, value: Any) -> Any:
        if isinstance(value, tuple) and hasattr(value, "_fields"):  # a quantised tensor, say
            parts = {
                key: self._part(name, f"{where}.{key}", v)
                for key, v in zip(value._fields, value, strict=True)
            }
            quantised: Any = value
            return quantised._replace(**parts)
        if type(value) in (tuple, list) and any(isinstance(item, Tensor) for item in value):
            return type(value)(self._part(name, f"{where}.{i}", v) for i, v in enumerate(value))
        if not isinstance(value, Tensor) or where == "bias" or (name, where) in _BIASES:
            return value
        other = self._see((name, where, tuple(value.shape)), value)
        return value if other is None else other


@dataclass(frozen=True)
class Factor:
    """A factor of a product that was seen.

    Args:
        slot: Where it entered.
        value: The tensor itself.
        call: Number of the product.
    """

    slot: Slot
    value: Tensor
    call: int


def seen_in(forward: Callable[[Tensor], Any], x: Tensor) -> list[Factor]:
    """Return all factors of a forward pass."""
    found: list[Factor] = []
    mode = Products(lambda slot, value: found.append(Factor(slot, value, mode.calls)))
    with mode:
        forward(x)
    return found


def memory_of(tensor: Tensor) -> int | None:
    """Return where a tensor's memory begins; None where it has none of its own, such as shards."""
    if tensor.layout is not torch.strided:
        return None
    try:
        return tensor.untyped_storage().data_ptr() or None
    except RuntimeError:
        return None


@contextmanager
def exchanging_in(
    module: nn.Module, slot: Slot, change: Callable[[Tensor], Tensor | None]
) -> Iterator[None]:
    """Pass every factor of a slot of a module's forward pass through a function within a block."""

    def see(found: Slot, value: Tensor) -> Tensor | None:
        return change(value) if found == slot else None

    def call(inner: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        with Products(see):
            return inner(*args, **kw)

    with overridden(module, "forward", call):
        yield


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Let a module compute something in evaluation mode and without a trace."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        for part in module.modules():
            stack.callback(_restore, part, dict(vars(part)), *_held(part))
            part.training = False
        yield


def _held(part: nn.Module) -> tuple[list[tuple[Tensor, Tensor]], dict[str, Tensor | None]]:
    tensors = [t for t in (*part._buffers.values(), *part._parameters.values()) if t is not None]
    return [(t, t.detach().clone()) for t in tensors], dict(part._buffers)


def _restore(
    part: nn.Module,
    attributes: dict[str, Any],
    held: list[tuple[Tensor, Tensor]],
    buffers: dict[str, Tensor | None],
) -> None:
    for tensor, value in held:
        with torch.no_grad():
            if tensor.shape != value.shape:  # an observer's, empty at first
                tensor.resize_(value.shape).copy_(value)
            elif not torch.equal(tensor, value):
                tensor.data.copy_(value)
    for key in vars(part).keys() - attributes.keys():
        del vars(part)[key]
    vars(part).update(attributes)
    part._buffers.update(buffers)


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal in shape and every entry."""
    return one.shape == other.shape and torch.equal(one, other)


def is_matrix(value: Tensor) -> bool:
    """Return whether a tensor has entries along two axes or more."""
    return sum(size > 1 for size in value.shape) > 1
