"""The tensors in what a network returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def tensors_in(output: Any) -> list[Tensor]:
    """Return all tensors of an output, detached and dense.

    Args:
        output: A tensor, or mappings, lists, tuples and dataclasses of them.
    """
    if isinstance(output, Tensor):
        return [output.detach().to_dense() if output.is_sparse else output.detach()]
    if isinstance(output, Mapping):
        return [tensor for value in output.values() for tensor in tensors_in(value)]
    if isinstance(output, list | tuple):
        return [tensor for value in output for tensor in tensors_in(value)]
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        fields = dataclasses.fields(output)
        return [tensor for field in fields for tensor in tensors_in(getattr(output, field.name))]
    return []
