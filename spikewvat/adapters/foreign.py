"""Frameworks that need no adapter: their synapses, identified by parameter name.

None of them is imported: the class of a module identifies its framework.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_SYNAPSES = {
    "norse": ("input_weights", "recurrent_weights"),
    "rockpool": ("weight", "w_rec"),
}
_RESETS = {"sinabs": "reset_states", "rockpool": "reset_state"}
_NEURONS = ("norse", "sinabs", "rockpool")


def home(module: nn.Module) -> str:
    """Return the package that a module's class comes from."""
    return type(module).__module__.split(".")[0]


def synapses(module: nn.Module) -> Iterator[str]:
    """Yield the names of a module's own parameters that are synapses, raw."""
    for name in _SYNAPSES.get(home(module), ()):
        if module._parameters.get(name) is not None:
            yield name


def reason(module: nn.Module) -> str | None:
    """Return why a module's other parameters are not synapses."""
    if type(module).__module__.startswith(("brevitas.core.", "brevitas.proxy.")):
        return "statistics of a quantiser"
    return "constants of neurons" if home(module) in _NEURONS else None


def absent(module: nn.Module, name: str) -> Tensor | None:
    """Return the mask of entries that are not synapses, or None if all are."""
    # Norse's neurons are not connected to themselves: a zero diagonal.
    if home(module) != "norse" or name != "recurrent_weights":
        return None
    weight = module._parameters[name]
    if weight is None or getattr(module, "autapses", True) or weight.dim() != 2:
        return None
    return torch.eye(*weight.shape, dtype=torch.bool)


def is_plain(module: nn.Module) -> bool:
    """Return whether a module's class is one that takes its weights as they are."""
    return home(module) in _NEURONS


def known(module: nn.Module) -> bool:
    """Return whether a module's class is one of theirs, whose state is known."""
    return home(module) in (*_NEURONS, "brevitas")


def resets(module: nn.Module) -> bool:
    """Reset a module's own state; return whether it is one of theirs."""
    if home(module) not in _NEURONS:
        return False
    reset: Any = getattr(module, _RESETS.get(home(module), ""), None)
    if callable(reset):
        reset()
    return True
