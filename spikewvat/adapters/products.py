"""Products of weights and data inside of a layer's forward pass: seen, and with other weights."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.overrides import TorchFunctionMode

from spikewvat.adapters.neurons import overridden

Slot: TypeAlias = tuple[str, str, tuple[int, ...]]
"""Where a factor enters: the operation's name, the argument, the factor's shape."""

_OPERATIONS = frozenset(
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
_ELEMENTWISE = frozenset(("mul", "__mul__", "__rmul__", "multiply"))
_BIASES = {("linear", "2"), ("bilinear", "3"), *((f"conv{n}d", "2") for n in (1, 2, 3))}


class Products(TorchFunctionMode):
    """Hands every factor of every product to a function, which may return another.

    Args:
        see: Called with the slot and the factor; None leaves it.
    """

    def __init__(self, see: Callable[[Slot, Tensor], Tensor | None]) -> None:
        super().__init__()
        self._see = see
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _OPERATIONS or name in _ELEMENTWISE:
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


@dataclass(frozen=True)
class Use:
    """What becomes of a module's own parameter in its forward pass.

    Args:
        kind: ``"raw"`` enters products as it is, ``"computed"`` after some computation,
            ``"none"`` enters none; ``"unclear"`` could not be found out, or it is several.
        slot: Where a computed one enters.
        index: Which of the pass's factors that is.
        unique: Whether nothing else enters through that slot.
        inputs: What the module was called with.
    """

    kind: str
    slot: Slot = ("", "", ())
    index: int = -1
    unique: bool = True
    inputs: Tensor | None = None


def uses_of(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> dict[str, Use]:
    """Find out by trial how a module's own parameters enter its products.

    A copy of the module is called with small inputs. A factor that changes with a parameter and
    not with the input is a weight.

    Args:
        module: The module; only a copy of it runs.
        parameters: Its own parameters by name.
    """
    unclear = dict.fromkeys(parameters, Use("unclear"))
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            twin = copy.deepcopy(module).eval()
            own = {name: twin._parameters[name] for name in parameters}
            for inputs in _inputs(module, list(parameters.values())):
                try:
                    return _trial(twin, {n: p for n, p in own.items() if p is not None}, inputs)
                except Exception:
                    continue
    except Exception:
        return unclear
    return unclear


def seen_in(forward: Callable[[Tensor], Any], x: Tensor) -> list[Factor]:
    """Return all factors of a forward pass."""
    found: list[Factor] = []
    mode = Products(lambda slot, value: found.append(Factor(slot, value, mode.calls)))
    with mode:
        forward(x)
    return found


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


def _trial(twin: nn.Module, own: dict[str, nn.Parameter], x: Tensor) -> dict[str, Use]:
    before = {name: parameter.clone() for name, parameter in own.items()}
    with untouched(twin):
        storages = {name: parameter.untyped_storage().data_ptr() for name, parameter in own.items()}
        first = seen_in(twin.forward, x)
        views = [factor.value.untyped_storage().data_ptr() for factor in first]
        values = [factor.value.clone() for factor in first]
        themselves = {name: [f.value is p for f in first] for name, p in own.items()}
    with untouched(twin):
        other = seen_in(twin.forward, torch.rand_like(x))
        if [factor.slot for factor in first] != [factor.slot for factor in other]:
            return dict.fromkeys(own, Use("unclear"))
        fixed = [_same(a, b.value) for a, b in zip(values, other, strict=True)]
    # A product of two weights is none of a weight and data.
    live = {factor.call for factor, is_fixed in zip(first, fixed, strict=True) if not is_fixed}
    factors = [i for i, factor in enumerate(first) if fixed[i] and factor.call in live]
    weights = [i for i in factors if first[i].slot[0] in _OPERATIONS]
    scales = [i for i in factors if first[i].slot[0] in _ELEMENTWISE]
    uses = {}
    for name, parameter in own.items():
        drawn = torch.randn_like(parameter) * before[name].std().clamp_min(0.1)
        with untouched(twin):
            parameter.data.copy_(drawn)
            changed = seen_in(twin.forward, x)
            written = not _same(parameter, drawn)
            aligned = [f.slot for f in changed] == [f.slot for f in first]
            moved = [i for i in factors if aligned and not _same(values[i], changed[i].value)]
            found = [i for i in weights if i in moved]
        if written and not found:  # from something that is no parameter
            found = [i for i in weights if themselves[name][i]]
        raw = [] if written else [i for i in found if views[i] == storages[name]]
        if not aligned:
            uses[name] = Use("unclear")
        elif not found and any(i in moved and _is_matrix(values[i]) for i in scales):
            uses[name] = Use("unclear")  # a sum over what was multiplied may follow
        elif not found:
            uses[name] = Use("none")
        elif len(raw) == len(found):
            uses[name] = Use("raw")
        elif raw or not all(_same(values[i], values[found[0]]) for i in found):
            uses[name] = Use("unclear")
        else:
            slot = first[found[0]].slot
            every = [i for i, factor in enumerate(first) if factor.slot == slot]
            uses[name] = Use("computed", slot, found[0], every == found, x)
    return uses


def _is_matrix(value: Tensor) -> bool:
    return sum(size > 1 for size in value.shape) > 1


def _inputs(module: nn.Module, parameters: list[nn.Parameter]) -> Iterator[Tensor]:
    """Yield small inputs that the module may take, the likeliest first."""
    weight = max(parameters, key=lambda p: (p.dim(), p.numel()))
    shapes: list[tuple[int, ...]] = []
    if isinstance(module, nn.Linear):
        shapes = [(2, module.in_features), (2, 2, module.in_features)]
    elif isinstance(module, _ConvNd):
        kernel = module.kernel_size
        sides = tuple(2 * k * d + 1 for k, d in zip(kernel, module.dilation, strict=True))
        if isinstance(module, _ConvTransposeNd):
            sides = (3,) * len(kernel)
        shapes = [(2, module.in_channels, *sides), (2, 2, module.in_channels, *sides)]
    elif weight.dim() == 2:
        for size in dict.fromkeys(reversed(weight.shape)):
            shapes += [(2, size), (3, 2, size)]
    elif weight.dim() > 2:
        sides = tuple(2 * k + 1 for k in weight.shape[2:])
        for size in dict.fromkeys((weight.shape[1], weight.shape[0])):
            shapes += [(2, size, *sides), (2, 2, size, *sides), (2, size)]
    for shape in shapes:
        yield torch.rand(shape, dtype=weight.dtype, device=weight.device)


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


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
