"""Recognise the activations that spiking neurons can stand for."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, fx, nn

from spikewvat.conversion.qcfs import QCFS, quantised

_LEARNED = (("thresh", "L"), ("up", "t"))  # names of threshold and levels in published modules
_PROBES = 257


@dataclass(frozen=True)
class Rectifier:
    """A rectification: values below ``low`` become ``low``, those above ``high`` become ``high``.

    Args:
        low: Smallest value.
        high: Largest value; ``None`` is unbounded.
        levels: Number of levels above 0 that values are rounded to; ``None`` rounds nothing.
    """

    low: float = 0.0
    high: float | Tensor | None = None
    levels: int | None = None


def rectifier_of_module(module: nn.Module) -> Rectifier | None:
    """Return what a layer rectifies, or None if it is no rectification."""
    own: Any = type(module).forward  # a subclass may compute something else
    if own is nn.ReLU.forward:
        return Rectifier()
    if own is nn.Hardtanh.forward and isinstance(module, nn.Hardtanh):  # ReLU6 is one
        return Rectifier(float(module.min_val), float(module.max_val))
    return _quantiser(module)


def rectifier_of_call(node: fx.Node) -> Rectifier | None:
    """Return what a call of a function or of a tensor's method rectifies, or None."""
    name = str(node.target) if isinstance(node.target, str) else node.target.__name__
    name = name.removesuffix("_")
    if name == "relu":
        return Rectifier()
    if name == "relu6":
        return Rectifier(0.0, 6.0)
    bounds: dict[str, tuple[float | None, float | None, str, str]] = {
        "hardtanh": (-1.0, 1.0, "min_val", "max_val"),
        "clamp": (None, None, "min", "max"),
    }
    if name not in bounds:
        return None
    lowest, highest, *keys = bounds[name]
    given: dict[str, Any] = {**dict(zip(keys, node.args[1:], strict=False)), **node.kwargs}
    low, high = given.get(keys[0], lowest), given.get(keys[1], highest)
    if not isinstance(low, Real) or not isinstance(high, Real | None):
        return None
    return Rectifier(float(low), None if high is None else float(high))


def _quantiser(module: nn.Module) -> Rectifier | None:
    """Return the constants of a QCFS layer, one's own or one that computes the same."""
    if isinstance(module, QCFS):
        return Rectifier(0.0, module.threshold.detach().abs(), module.levels)
    for threshold, levels in _LEARNED:
        level, count = module._parameters.get(threshold), getattr(module, levels, None)
        if level is None or level.numel() != 1 or not isinstance(count, int) or count < 1:
            continue
        constant = level.detach().reshape(())
        if constant > 0 and _computes(module, constant, count):
            return Rectifier(0.0, constant.clone(), count)
    return None


@torch.no_grad()
def _computes(module: Any, threshold: Tensor, levels: int) -> bool:
    """Return whether a module computes QCFS with these constants."""
    x = torch.linspace(-1.0, 2.0, _PROBES).to(threshold) * threshold
    expected = quantised(x, threshold, levels)
    try:
        found = module(x.clone()[:, None])[:, 0]
    except Exception:  # whatever a module of another kind raises on a tensor
        return False
    # Rounding may put a value that lies between two levels on either.
    step = threshold / levels
    close = (found - expected).abs() <= 1e-4 * step
    between = (x / step - 0.5 - (x / step - 0.5).round()).abs() < 1e-4
    return found.shape == expected.shape and bool((close | between).all())
