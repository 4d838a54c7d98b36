"""What devices hold, and what they do not, put to the test in a pass over real data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.adapters import foreign
from spikewvat.adapters.products import LOOKUPS, OPERATIONS, Products, Slot, memory_of
from spikewvat.errors import UnsupportedModelError


@dataclass(frozen=True)
class Claims:
    """What is claimed of a model's matrices.

    Args:
        held: Parameters that devices hold and that linear and convolutional layers multiply with
            as they are, with their layers.
        unheld: Matrices that no device holds, so that they must not multiply data.
    """

    held: Mapping[str, tuple[Tensor, nn.Module]] = field(default_factory=dict)
    unheld: Mapping[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def tested(self) -> Iterator[list[str]]:
        """Watch a pass within a block.

        Yields:
            In the end, the names of weights that have met no data as they are. Either the pass does
            not use them, or something computes with them outside of their layers.

        Raises:
            UnsupportedModelError: In the end, if a matrix that no device holds multiplies data.
        """
        unmet: list[str] = []
        if not self.held and not self.unheld:
            yield unmet
            return
        held = {memory_of(weight): name for name, (weight, _) in self.held.items()}
        unheld = {
            memory_of(tensor): name
            for name, tensor in self.unheld.items()
            if not bool((tensor == tensor.flatten()[0]).all())  # neuron state at rest
        }
        met: set[str | None] = set()
        overlooked: dict[str, None] = {}
        called: set[int] = set()

        def see(slot: Slot, value: Tensor) -> None:
            place = memory_of(value)
            if place is None:
                return
            if slot[0] in OPERATIONS or slot[0] in LOOKUPS:
                met.add(held.get(place))
            if slot[0] in OPERATIONS and place in unheld:
                overlooked[unheld[place]] = None

        def call(module: nn.Module, args: Any) -> None:
            called.add(id(module))

        with ExitStack() as stack:
            for _, layer in self.held.values():
                stack.callback(layer.register_forward_pre_hook(call).remove)
            if hasattr(torch.compiler, "set_stance"):  # a compiler would compile what is noted
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(Products(see, also=LOOKUPS))
            yield unmet
        if overlooked:
            raise UnsupportedModelError(
                f"{', '.join(map(repr, overlooked))} of the model multiplies data, but no device "
                "holds it: it is looked up in a table, or is no parameter. Pass ignore=[name, ...] "
                "if that is meant, or weights={name: tensor} to name all parameters and buffers "
                "that devices hold."
            )
        # Layers of frameworks may multiply in ways that are not seen here.
        unmet += [
            name
            for place, name in held.items()
            if place is not None and name not in met
            if id(self.held[name][1]) not in called or foreign.home(self.held[name][1]) == "torch"
        ]


def refuse_computed_outside(name: str) -> None:
    """Raise for a weight that something computes with outside of its layer."""
    raise UnsupportedModelError(
        f"weight {name!r} moves the output but meets no data as it is: something computes another "
        "weight from it outside of its layer, and a device would hold that one. Let the layer "
        "compute it (torch.nn.utils.parametrize), or pass ignore=[name] if no device holds it."
    )
