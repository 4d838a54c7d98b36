"""Observe in one pass which layers keep state for the next call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.adapters.state import Noted, kept


@dataclass
class Seen:
    """Observations of a pass.

    Args:
        output: Output of the network.
        calls: Number of calls of each module.
        inputs: Shape of the first input of each module.
        written: Shapes of the tensors that each module has written and keeps.
        weighted: Modules that hold parameters directly.
    """

    output: Any = None
    calls: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, torch.Size] = field(default_factory=dict)
    written: dict[str, list[torch.Size]] = field(default_factory=dict)
    weighted: set[str] = field(default_factory=set)

    def one_step(self) -> list[str]:
        """Return the layers that computed a single step and keep state for the next one."""
        return [
            name
            for name, shapes in self.written.items()
            if self.calls.get(name) == 1
            and not self._repeats_inside(name)
            and any(_alike(shape, self.inputs[name]) for shape in shapes)
            # Neurons that run over time keep the state behind the last step.
            and not any(_alike(shape, self.inputs[name][1:]) for shape in shapes)
        ]

    def _repeats_inside(self, name: str) -> bool:
        # One module without parameters may serve several layers.
        prefix = f"{name}." if name else ""
        return any(
            n > 1
            for other, n in self.calls.items()
            if other.startswith(prefix) and other in self.weighted
        )


@contextmanager
def watched(model: nn.Module, seen: Seen) -> Iterator[None]:
    """Observe the next pass."""
    modules = dict(model.named_modules())
    before = {name: Noted.of(kept(module, buffers=True)) for name, module in modules.items()}
    seen.weighted = {name for name, module in modules.items() if module._parameters}
    handles: list[Any] = []
    ended = False

    def called(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if not ended:
                seen.calls[name] = seen.calls.get(name, 0) + 1
                if args and isinstance(args[0], Tensor):
                    seen.inputs.setdefault(name, args[0].shape)

        return note

    def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal ended
        if ended:
            return
        ended, seen.output = True, output
        for name, module in modules.items():
            state = kept(module, buffers=True)
            shapes = [state[where].shape for where in before[name].differing(state)]
            if shapes and name in seen.inputs:
                seen.written[name] = shapes

    for name, module in modules.items():
        handles.append(module.register_forward_hook(called(name)))
    handles.append(model.register_forward_hook(end))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _alike(state: torch.Size, x: torch.Size) -> bool:
    """Return whether a state has as many samples and axes as an input."""
    return len(state) == len(x) >= 2 and state[0] == x[0]
