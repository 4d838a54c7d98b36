"""Find out by trial how a module's parameters enter its products."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from spikewvat.adapters.outputs import tensors_in
from spikewvat.adapters.products import (
    ELEMENTWISE,
    OPERATIONS,
    Slot,
    is_matrix,
    same,
    seen_in,
    untouched,
)


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


_TRIES = 60  # shapes of inputs: most fail at once


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
        fixed = [same(a, b.value) for a, b in zip(values, other, strict=True)]
    # A product of two weights is none of a weight and data.
    live = {factor.call for factor, is_fixed in zip(first, fixed, strict=True) if not is_fixed}
    factors = [i for i, factor in enumerate(first) if fixed[i] and factor.call in live]
    weights = [i for i in factors if first[i].slot[0] in OPERATIONS]
    scales = [i for i in factors if first[i].slot[0] in ELEMENTWISE]
    uses = {}
    for name, parameter in own.items():
        drawn = torch.randn_like(parameter) * before[name].std().clamp_min(0.1)
        with untouched(twin):
            parameter.data.copy_(drawn)
            changed = seen_in(twin.forward, x)
            written = not same(parameter, drawn)
            aligned = [f.slot for f in changed] == [f.slot for f in first]
            moved = [i for i in factors if aligned and not same(values[i], changed[i].value)]
            found = [i for i in weights if i in moved]
        if written and not found:  # from something that is no parameter
            found = [i for i in weights if themselves[name][i]]
        raw = [] if written else [i for i in found if views[i] == storages[name]]
        if not aligned:
            uses[name] = Use("unclear")
        elif not found and is_matrix(parameter) and any(i in moved for i in scales):
            uses[name] = Use("unclear")  # a sum over what was multiplied may follow
        elif not found and is_matrix(parameter) and _meets_data(twin, parameter, drawn, x):
            uses[name] = Use("unclear")  # in an operation that is not known
        elif not found:
            uses[name] = Use("none")
        elif len(raw) == len(found):
            uses[name] = Use("raw")
        elif raw or not all(same(values[i], values[found[0]]) for i in found):
            uses[name] = Use("unclear")
        else:
            slot = first[found[0]].slot
            every = [i for i, factor in enumerate(first) if factor.slot == slot]
            uses[name] = Use("computed", slot, found[0], every == found, x)
    return uses


def _meets_data(twin: nn.Module, parameter: Tensor, drawn: Tensor, x: Tensor) -> bool:
    """Return whether what a parameter does to the output depends on the input."""

    def moved(inputs: Tensor) -> list[Tensor]:
        outputs = []
        for value in (parameter.clone(), drawn):
            with untouched(twin):
                torch.manual_seed(0)
                parameter.data.copy_(value)
                outputs.append(tensors_in(twin(inputs)))
        return [(b.double() - a.double()) for a, b in zip(*outputs, strict=True)]

    one, other = moved(x), moved(torch.rand_like(x))
    return len(one) != len(other) or not all(map(_alike, one, other))


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5)


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
    else:
        matrices = [p for p in module.parameters() if p.dim() > 1]
        asked = {id(parameter) for parameter in parameters}
        for own in sorted(matrices, key=lambda p: (id(p) not in asked, -p.dim(), -p.numel())):
            sides = tuple(2 * k + 1 for k in own.shape[2:])
            sizes = list(dict.fromkeys((own.shape[1], *reversed(own.shape))))
            for size in sizes if sides else ():
                shapes += [(2, size, *sides), (2, 2, size, *sides)]
            for size in sizes:
                shapes += [(2, size), (3, 2, size)]
    for shape in list(dict.fromkeys(shapes))[:_TRIES]:
        yield torch.rand(shape, dtype=weight.dtype, device=weight.device)
