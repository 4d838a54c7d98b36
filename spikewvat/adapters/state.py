"""State that modules keep from pass to pass: found, and named where it survives a reset."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from spikewvat.adapters.claimed import Claims, refuse_computed_outside
from spikewvat.adapters.effective import disturb
from spikewvat.adapters.modes import evaluating
from spikewvat.adapters.outputs import tensors_in
from spikewvat.errors import UnsupportedModelError
from spikewvat.weights import perturbed

Kept: TypeAlias = dict[str, Any]
"""What a module keeps, by where it is: tensors, arrays, numbers, generators."""
_BOOKKEEPING = frozenset(vars(nn.Module()))
_RESETS = ("reset", "reset_state", "reset_states", "reset_mem")
_NO_NEURONS = ("torchmetrics", "torch_geometric")
_DEPTH = 5  # how deep containers are looked into


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a model, or of a part of it.

    Args:
        module: What was called.
        args: With what.
        kwargs: With what by name.
        autocast: The lower precisions that it ran in, with their kinds of devices.
    """

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = dataclasses.field(default_factory=dict)
    autocast: tuple[tuple[str, torch.dtype], ...] = ()


class Resets(Protocol):
    """What forgets the state of a model."""

    def reset_state(self, model: nn.Module) -> None:
        """Forget all neuron state."""
        ...


def kept(module: nn.Module, *, buffers: bool = False) -> Kept:
    """Return what a module itself keeps beside its parameters.

    Args:
        module: Its children are not looked at.
        buffers: With persistent buffers, and numbers that may be mere counters.
    """
    found: Kept = {}
    for name, value in vars(module).items():
        if name not in _BOOKKEEPING:
            _collect(name, value, found, _DEPTH)
    for name, buffer in module._buffers.items():
        if buffer is not None and (
            buffers or buffer.grad_fn is not None or name in module._non_persistent_buffers_set
        ):
            found[name] = buffer
    return found


@dataclasses.dataclass(frozen=True)
class Noted:
    """What a module kept at some time.

    Args:
        state: A copy of it.
        stamps: The tensors themselves and their versions: one that is still there and unwritten
            need not be compared.
    """

    state: Kept
    stamps: dict[str, tuple[Tensor, int]]

    @classmethod
    def of(cls, state: Kept) -> Noted:
        """Note a state."""
        stamps = {w: (t, _version(t)) for w, t in state.items() if isinstance(t, Tensor)}
        return cls(frozen(state), stamps)

    def differing(self, now: Kept) -> list[str]:
        """Return where tensors are that differ from what was noted, or carry a graph."""
        return [
            where
            for where, value in now.items()
            if isinstance(value, Tensor)
            and (value.grad_fn is not None or self._changed(where, value))
        ]

    def _changed(self, where: str, value: Tensor) -> bool:
        tensor, version = self.stamps.get(where, (None, -2))
        if tensor is value and version == _version(value):
            return False
        return not _equal(self.state.get(where), value)


def frozen(state: Kept) -> Kept:
    """Return a copy that later passes do not change."""
    return {where: _copied(value) for where, value in state.items()}


def call_reset(module: nn.Module) -> bool:
    """Call what a module of the user's own offers to forget its state; return whether it does."""
    name = _reset_name(module)
    if name is None:
        return False
    getattr(module, name)()
    return True


def check_reset(module: nn.Module, name: str) -> None:
    """Raise if a module's own reset touches its parameters: then it resets more than state."""
    before = [(p, _version(p), p.data_ptr()) for p in module.parameters()]
    try:
        if not call_reset(module):
            return
    except Exception as error:
        raise UnsupportedModelError(
            f"{_reset_name(module)}() of layer {name!r} ({_kind(module)}) cannot be called "
            f"in front of a pass: {type(error).__name__}: {error}. Pass reset_state=..., a "
            "function of the model that resets neuron state."
        ) from error
    if any((_version(p), p.data_ptr()) != (version, where) for p, version, where in before):
        raise UnsupportedModelError(
            f"{_reset_name(module)}() of layer {name!r} ({_kind(module)}) writes parameters, "
            "so it cannot be called between passes. Pass reset_state=..., a function of the model "
            "that resets neuron state alone."
        )


@contextmanager
def recorded(*modules: nn.Module) -> Iterator[list[Call]]:
    """Note all calls of some modules within a block, but not those within another's.

    Yields:
        The calls so far.
    """
    calls: list[Call] = []
    inside = 0

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal inside
        if not inside:
            kinds = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
            autocast = tuple((kind, torch.get_autocast_dtype(kind)) for kind in kinds)
            calls.append(Call(module, args, kwargs, autocast))
        inside += 1

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal inside
        inside -= 1

    with ExitStack() as stack:
        for module in modules:
            hook = module.register_forward_pre_hook(enter, with_kwargs=True)
            stack.callback(hook.remove)
            stack.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield calls


def check_state(
    model: nn.Module,
    adapter: Resets,
    calls: Sequence[Call],
    *,
    to_evaluate: bool = False,
    claims: Claims | None = None,
) -> None:
    """Run a model twice with equal inputs and random state; outputs must be equal.

    Modes, buffers and random generators are as before afterwards, neuron state is forgotten.

    Args:
        model: The model; it runs in evaluation mode, without gradients.
        adapter: Resets it.
        calls: What to call, one after the other from a reset to the next.
        to_evaluate: Whether chips are tested next: then observers must not learn either.
        claims: What is claimed of its matrices, to be put to the test.

    Raises:
        UnsupportedModelError: If outputs differ; it names the layers whose state survived. If an
            observer of quantisation-aware training still learns from what it is tested with. If
            the claims do not hold.
    """
    if to_evaluate:
        _refuse_observers(model)
    with ExitStack() as stack:
        stack.enter_context(_as_before(model))
        adapter.reset_state(model)
        before = _all(model)
        claims = claims or Claims()
        with claims.tested() as unmet:
            one = _outputs(calls)
        for name in unmet:
            adapter.reset_state(model)
            with perturbed({name: claims.held[name][0]}, disturb):
                moved = _outputs(calls)
            if len(one) != len(moved) or not all(map(_close, one, moved)):
                refuse_computed_outside(name)
        adapter.reset_state(model)
        after = _all(model)
        other = _outputs(calls)
        stack.callback(adapter.reset_state, model)
        if len(one) == len(other) and all(map(_close, one, other)):
            return
    _raise_survivors(model, before, after, on_cpu=all(not t.is_cuda for t in one))


def _refuse_observers(model: nn.Module) -> None:
    for name, module in model.named_modules():
        enabled = module._buffers.get("observer_enabled")
        if enabled is not None and bool(enabled.any()):
            raise UnsupportedModelError(
                f"layer {name!r} ({_kind(module)}) observes what passes in evaluation too, so "
                "that one chip would change the next. Call "
                "model.apply(torch.ao.quantization.disable_observer) before the evaluation."
            )


def _raise_survivors(
    model: nn.Module, before: dict[str, Kept], after: dict[str, Kept], *, on_cpu: bool
) -> None:
    modules = dict(model.named_modules())
    named = []
    for name, state in after.items():
        changed = [
            where
            for where in {**before[name], **state}
            if not _equal(before[name].get(where), state.get(where))
        ]
        if changed:
            named.append(f"layer {name!r} ({_kind(modules[name])}: {', '.join(changed[:3])})")
    if named:
        raise UnsupportedModelError(
            "two passes with equal inputs and random state give different outputs, because "
            f"{'; '.join(named)} keeps state over a reset. Pass reset_state=..., a function of "
            "the model that resets it."
        )
    if on_cpu:  # on a GPU sums may be taken in another order
        raise UnsupportedModelError(
            "two passes with equal inputs and random state give different outputs, though no "
            "module keeps state that is seen. Keep state in attributes of modules and draw from "
            "torch's, numpy's or Python's global generators, or pass reset_state=..., a function "
            "of the model that resets what it keeps elsewhere."
        )


@contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and name not in module._non_persistent_buffers_set
    ]
    # The global generators: what a network may draw from in its forward pass.
    numpys, pythons = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = {p.device.index for p in model.parameters() if p.is_cuda}
    try:
        forked = torch.random.fork_rng(devices=[d for d in devices if d is not None])
        with forked, torch.no_grad(), evaluating(model):
            yield
    finally:
        for module, name, buffer, value in buffers:
            module._buffers[name] = buffer
            if not _equal(buffer, value):
                with torch.no_grad():
                    buffer.data = value
        np.random.set_state(numpys)  # noqa: NPY002
        random.setstate(pythons)


def _outputs(calls: Sequence[Call]) -> list[Tensor]:
    return [tensor for call in calls for tensor in tensors_in(_run(call))]


def _run(call: Call) -> Any:
    # Copies: a first layer that works in place changes its input.
    args = tuple(_copied(value) for value in call.args)
    kwargs = {key: _copied(value) for key, value in call.kwargs.items()}
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)
    with ExitStack() as stack:
        for kind, dtype in call.autocast:
            stack.enter_context(torch.autocast(kind, dtype))
        return call.module(*args, **kwargs)


def _all(model: nn.Module) -> dict[str, Kept]:
    return {name: frozen(kept(module, buffers=True)) for name, module in model.named_modules()}


def _collect(where: str, value: Any, found: Kept, depth: int) -> None:
    """Note what can be state in a value, in containers too."""
    if isinstance(value, nn.Module | nn.Parameter | type) or depth == 0:
        return
    number = isinstance(value, float | int) and not isinstance(value, bool)
    if number or isinstance(value, Tensor | np.ndarray | torch.Generator):
        found[where] = value
    elif isinstance(value, Mapping):
        for key, item in list(value.items()):
            _collect(f"{where}[{key!r}]", item, found, depth - 1)
    elif isinstance(value, list | tuple | set | frozenset) or type(value).__name__ == "deque":
        for index, item in enumerate(list(value)):
            _collect(f"{where}[{index}]", item, found, depth - 1)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _collect(f"{where}.{field.name}", getattr(value, field.name, None), found, depth - 1)
    elif type(value).__module__ == "types" and hasattr(value, "__dict__"):
        for key, item in list(vars(value).items()):
            _collect(f"{where}.{key}", item, found, depth - 1)


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, torch.Generator):
        return value.get_state()
    return value.copy() if isinstance(value, np.ndarray) else value


def _equal(one: Any, other: Any) -> bool:
    one = one.get_state() if isinstance(one, torch.Generator) else one
    other = other.get_state() if isinstance(other, torch.Generator) else other
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.shape == other.shape and one.dtype == other.dtype
        return same and one.device == other.device and torch.equal(one, other)
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        tensor, number = (one, other) if isinstance(one, Tensor) else (other, one)
        # Zero as a number and an empty or zero tensor are the same state.
        return isinstance(number, float | int) and bool((tensor == number).all())
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return np.array_equal(np.asarray(one), np.asarray(other))
    return bool(one == other)


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    return torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)


def _reset_name(module: nn.Module) -> str | None:
    """Return the method by which a module of somebody's own forgets its state."""
    kind: Any = type(module)
    name: str | None = _reset_of(kind)
    return name


@functools.cache
def _reset_of(kind: type) -> str | None:
    if kind.__module__.split(".")[0] in _NO_NEURONS:
        return None
    for name in _RESETS:
        method = inspect.getattr_static(kind, name, None)
        if callable(method) and all(
            p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
            for p in list(inspect.signature(method).parameters.values())[1:]
        ):
            return name
    return None


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
