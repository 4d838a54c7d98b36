"""The laboratory: what repeats the paper and measures methods against each other."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spikewvat.lab.loading import TrainedNetwork as TrainedNetwork
    from spikewvat.lab.loading import load as load
    from spikewvat.lab.loading import networks as networks

__all__ = ["TrainedNetwork", "load", "networks"]


def __getattr__(name: str) -> object:
    """Import the public names lazily: most of the laboratory needs packages beyond torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.loading"), name)
