"""Device models: what a chip does to the weights it is given; they compose with ``>>``."""

from spikewvat.devices.base import (
    AbsMax,
    DeviceModel,
    Fixed,
    HalfWidth,
    MinMax,
    Pipeline,
    RangeRule,
    SixSigma,
)
from spikewvat.devices.noise import (
    AdditiveNoise,
    Gaussian,
    Lognormal,
    MixtureNoise,
    SkewNormal,
    Uniform,
    Weibull,
)

__all__ = [
    "AbsMax",
    "AdditiveNoise",
    "DeviceModel",
    "Fixed",
    "Gaussian",
    "HalfWidth",
    "Lognormal",
    "MinMax",
    "MixtureNoise",
    "Pipeline",
    "RangeRule",
    "SixSigma",
    "SkewNormal",
    "Uniform",
    "Weibull",
]
