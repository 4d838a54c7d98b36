"""Gradients at displaced weights, for any training loop."""

from spikewvat.training.base import Backward, Closure, GradientMethod
from spikewvat.training.perturbed import PerturbedGradient
from spikewvat.training.wvat import WVAT, mixed_direction

__all__ = [
    "WVAT",
    "Backward",
    "Closure",
    "GradientMethod",
    "PerturbedGradient",
    "mixed_direction",
]
