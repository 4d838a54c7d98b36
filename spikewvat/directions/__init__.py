"""Where the weights are displaced to: pure functions of weights and gradients."""

from spikewvat.directions.base import EPSILON, Direction
from spikewvat.directions.mixture import Mixture, Sum
from spikewvat.directions.momentum import MomentumSAM, MomentumVariation
from spikewvat.directions.past import PastVariation
from spikewvat.directions.scale import Drawn, Ramped
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
    "Drawn",
    "Mixture",
    "MomentumSAM",
    "MomentumVariation",
    "PastVariation",
    "Ramped",
    "Sum",
    "VariableNoise",
]
