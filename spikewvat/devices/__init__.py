"""Device models: how a chip changes the weights programmed onto it; they compose with ``>>``."""

from spikewvat.devices.aging import AgingCells, AtRandomAge, Compensated, at_age
from spikewvat.devices.base import AdditiveErrors, DeviceModel, Ideal, Pipeline
from spikewvat.devices.cells import BinaryCells
from spikewvat.devices.censored import RightCensored
from spikewvat.devices.conductance import DifferentialPair, SingleCell
from spikewvat.devices.conventions import ErrorSize, error_size, error_sizes
from spikewvat.devices.drift import Drift
from spikewvat.devices.empirical import Empirical, LevelStatistics, load_device, save_device
from spikewvat.devices.faults import FaultMap, StuckAt, fault_map
from spikewvat.devices.gaussian import Gaussian
from spikewvat.devices.noise import (
    AdditiveNoise,
    Lognormal,
    MixtureNoise,
    SkewNormal,
    Uniform,
    Weibull,
)
from spikewvat.devices.pcm import PCM, HermesPCM, hermes, pcm
from spikewvat.devices.quantization import Quantized
from spikewvat.devices.ranges import AbsMax, Fixed, HalfWidth, MinMax, RangeRule, SixSigma
from spikewvat.devices.reading import ReadNoise
from spikewvat.devices.reram import (
    CMOReRAM,
    MiloReRAM,
    WanReRAM,
    cmo_reram,
    milo_reram,
    wan_reram,
)
from spikewvat.devices.sonos import SONOS, sonos
from spikewvat.devices.verified import ProgrammingPlan, Verified

__all__ = [
    "AbsMax",
    "AdditiveErrors",
    "AdditiveNoise",
    "AgingCells",
    "AtRandomAge",
    "BinaryCells",
    "CMOReRAM",
    "Compensated",
    "DeviceModel",
    "DifferentialPair",
    "Drift",
    "Empirical",
    "ErrorSize",
    "FaultMap",
    "Fixed",
    "Gaussian",
    "HalfWidth",
    "HermesPCM",
    "Ideal",
    "LevelStatistics",
    "Lognormal",
    "MiloReRAM",
    "MinMax",
    "MixtureNoise",
    "PCM",
    "Pipeline",
    "ProgrammingPlan",
    "Quantized",
    "RangeRule",
    "ReadNoise",
    "RightCensored",
    "SONOS",
    "SingleCell",
    "SixSigma",
    "SkewNormal",
    "StuckAt",
    "Uniform",
    "Verified",
    "WanReRAM",
    "Weibull",
    "at_age",
    "cmo_reram",
    "error_size",
    "error_sizes",
    "fault_map",
    "hermes",
    "load_device",
    "milo_reram",
    "pcm",
    "save_device",
    "sonos",
    "wan_reram",
]
