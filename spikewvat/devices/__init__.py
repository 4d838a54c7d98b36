"""Device models: how a chip changes the weights programmed onto it; they compose with ``>>``."""

from spikewvat.devices.base import AdditiveErrors, DeviceModel, Ideal, Pipeline
from spikewvat.devices.cells import BinaryCells
from spikewvat.devices.censored import RightCensored
from spikewvat.devices.conductance import DifferentialPair
from spikewvat.devices.drift import Drift
from spikewvat.devices.empirical import Empirical, LevelStatistics, load_device, save_device
from spikewvat.devices.faults import StuckAt
from spikewvat.devices.gaussian import Gaussian
from spikewvat.devices.noise import (
    AdditiveNoise,
    Lognormal,
    MixtureNoise,
    SkewNormal,
    Uniform,
    Weibull,
)
from spikewvat.devices.quantization import Quantized
from spikewvat.devices.ranges import AbsMax, Fixed, HalfWidth, MinMax, RangeRule, SixSigma
from spikewvat.devices.table import GaussianTable

__all__ = [
    "AbsMax",
    "AdditiveErrors",
    "AdditiveNoise",
    "BinaryCells",
    "DeviceModel",
    "DifferentialPair",
    "Drift",
    "Empirical",
    "Fixed",
    "Gaussian",
    "GaussianTable",
    "HalfWidth",
    "Ideal",
    "LevelStatistics",
    "Lognormal",
    "MinMax",
    "MixtureNoise",
    "Pipeline",
    "Quantized",
    "RangeRule",
    "RightCensored",
    "SixSigma",
    "SkewNormal",
    "StuckAt",
    "Uniform",
    "Weibull",
    "load_device",
    "save_device",
]
