"""Where the weights are displaced to: pure functions of weights and gradients."""

from spikewvat.perturbations.base import EPSILON, Direction
from spikewvat.perturbations.mixture import Mixture, Sum
from spikewvat.perturbations.momentum import MomentumSAM, MomentumVariation
from spikewvat.perturbations.past import PastVariation
from spikewvat.perturbations.scale import Drawn, Ramped
from spikewvat.perturbations.sharpness import ASAM, AWP, SAM
from spikewvat.perturbations.variation import GAV, HSV, VariableNoise

__all__ = [
    "ASAM",
    "AWP",
    "EPSILON",
    "GAV",
    "HSV",
    "SAM",
    "Direction",
    "Drawn",
    "Mixture",
    "MomentumSAM",
    "MomentumVariation",
    "PastVariation",
    "Ramped",
    "Sum",
    "VariableNoise",
]
