"""Perturbations that training adds to the weights: pure functions of weights and gradients."""

from spikewvat.perturbations.base import EPSILON, Perturbation
from spikewvat.perturbations.length import LayerFactors, RandomLayers, RandomLength, Warmup
from spikewvat.perturbations.mixture import STRENGTHS, Mixture, Sum, variation
from spikewvat.perturbations.noise import HSV, VariableNoise
from spikewvat.perturbations.sources import Gradient, Momentum, Past, Source
from spikewvat.perturbations.worst import ASAM, AWP, GAV, SAM, SAMSON, Worst

__all__ = [
    "ASAM",
    "AWP",
    "EPSILON",
    "GAV",
    "HSV",
    "SAM",
    "SAMSON",
    "STRENGTHS",
    "Gradient",
    "LayerFactors",
    "Mixture",
    "Momentum",
    "Past",
    "Perturbation",
    "RandomLayers",
    "RandomLength",
    "Source",
    "Sum",
    "VariableNoise",
    "Warmup",
    "Worst",
    "variation",
]
