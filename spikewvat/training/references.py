"""Which parameters a model has: found out once, checked cheaply in front of every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer


class References:
    """The modules and parameters of a model as they were when it was read.

    A step costs a comparison of identities: no module is walked.

    Args:
        model: The model.
        weights: Live weights by name.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        self._entries: list[tuple[dict[str, Any], str, object]] = []
        self._sizes: list[tuple[dict[str, Any], int]] = []
        for module in model.modules():
            for entries in (module._parameters, module._modules):
                if not isinstance(entries, dict):
                    continue  # a scripted module, whose parameters cannot be replaced
                self._sizes.append((entries, len(entries)))
                self._entries += [(entries, name, value) for name, value in entries.items()]
        own = {id(weight) for weight in weights.values()}
        self._own = [entry for entry in self._entries if id(entry[2]) in own]

    @property
    def hold(self) -> bool:
        """Whether the model still has the same modules and parameters."""
        return all(entries.get(name) is value for entries, name, value in self._entries) and all(
            len(entries) == size for entries, size in self._sizes
        )

    @property
    def hold_weights(self) -> bool:
        """Whether its weights are still the same parameters."""
        return all(entries.get(name) is value for entries, name, value in self._own)

    def put_back(self) -> None:
        """Put parameters back that an interrupted step has left exchanged for something else."""
        for entries, name, value in self._entries:
            if isinstance(value, nn.Parameter) and name in entries:
                entries[name] = value


class Arrivals:
    """Whether a step brings gradients to the weights that it should train.

    Args:
        weights: Live weights by name.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._before = [
            (name, weight, weight.grad, None if weight.grad is None else weight.grad._version)
            for name, weight in weights.items()
            if weight.requires_grad
        ]

    def missing(self, *, surely: bool = False) -> list[str]:
        """Return the names of weights that got none; ``surely`` only if they never had one."""
        return [
            name
            for name, weight, grad, version in self._before
            if weight.grad is None
            or (not surely and weight.grad is grad and weight.grad._version == version)
        ]

    @property
    def expected(self) -> int:
        """How many weights should get one."""
        return len(self._before)


def restored_buffers(model: nn.Module) -> Callable[[], None]:
    """Remember all buffers of a model and return what puts them back.

    Those that batch norm, or a normalisation of the user's own, changes in a pass are among them,
    whether they are written to or replaced. State with a graph is that of neurons, which every
    pass forgets anyway.
    """
    kept = [
        (module._buffers, name, buffer, buffer.clone(), buffer._version)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and not isinstance(buffer, UninitializedBuffer)
        if buffer.grad_fn is None and not buffer.requires_grad
    ]

    def put_back() -> None:
        for owner, name, buffer, value, version in kept:
            owner[name] = buffer
            if buffer.shape != value.shape or buffer.dtype != value.dtype:
                buffer.data = value
            elif buffer._version != version or _written(buffer, value):
                with torch.no_grad():
                    buffer.copy_(value)

    return put_back


def _written(buffer: Tensor, value: Tensor) -> bool:
    """Return whether a buffer was written to behind autograd's back; a GPU is not waited for."""
    return buffer.device.type == "cpu" and not buffer.equal(value)
