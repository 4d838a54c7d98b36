"""Weight-variation-aware training and chip simulation for spiking neural networks."""

from spikewvat.adapters import Adapter, adapter_for
from spikewvat.devices import (
    AbsMax,
    DeviceModel,
    Gaussian,
    HalfWidth,
    MinMax,
    SixSigma,
)
from spikewvat.perturbations import (
    ASAM,
    AWP,
    GAV,
    HSV,
    SAM,
    Gradient,
    Mixture,
    Momentum,
    Past,
    Perturbation,
)
from spikewvat.robustness import Evaluator
from spikewvat.training import WVAT, PerturbedGradient, Plain
from spikewvat.training.averaging import SWA, refresh_batch_norm
from spikewvat.weights import Weights, perturbed

__all__ = [
    "ASAM",
    "AWP",
    "GAV",
    "HSV",
    "SAM",
    "SWA",
    "WVAT",
    "AbsMax",
    "Adapter",
    "DeviceModel",
    "Evaluator",
    "Gaussian",
    "Gradient",
    "HalfWidth",
    "MinMax",
    "Mixture",
    "Momentum",
    "Past",
    "Perturbation",
    "PerturbedGradient",
    "Plain",
    "SixSigma",
    "Weights",
    "adapter_for",
    "perturbed",
    "refresh_batch_norm",
]
