"""Where the weights are displaced to: pure functions of weights and gradients."""

from spikewvat.directions.base import EPSILON, Direction
from spikewvat.directions.mixture import Mixture
from spikewvat.directions.momentum import MomentumSAM, MomentumVariation
from spikewvat.directions.sharpness import ASAM, AWP, SAM
from spikewvat.directions.variation import GAV, HSV, VariableNoise

__all__ = [
    "ASAM",
    "AWP",
    "EPSILON",
    "GAV",
    "HSV",
    "SAM",
    "Direction",
    "Mixture",
    "MomentumSAM",
    "MomentumVariation",
    "VariableNoise",
]
