"""Training methods: compute the gradients, in any training loop."""

from spikewvat.training.base import Backward, Closure, GradientMethod
from spikewvat.training.perturbed import PerturbedGradient
from spikewvat.training.plain import Plain
from spikewvat.training.wvat import WVAT

__all__ = [
    "WVAT",
    "Backward",
    "Closure",
    "GradientMethod",
    "PerturbedGradient",
    "Plain",
]
