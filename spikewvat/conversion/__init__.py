"""ANN-to-SNN conversion: threshold balancing, fine-tuning, and accuracy against time.

References:
    Enabling Deep Spiking Neural Networks with Hybrid Conversion and Spike Timing Dependent
    Backpropagation (Rathi et al., 2020), https://arxiv.org/abs/2005.01807
"""

from spikewvat.conversion.balance import Balancer, Balancing, balance
from spikewvat.conversion.calibration import (
    BiasTargets,
    bias_targets,
    calibrate_biases,
    calibrate_starts,
    calibrate_thresholds,
)
from spikewvat.conversion.coding import Coding, Direct, Poisson
from spikewvat.conversion.correction import Correction, OffsetSpikes, SilentResiduals
from spikewvat.conversion.finetune import finetune, potential_cross_entropy
from spikewvat.conversion.network import SpikingNetwork
from spikewvat.conversion.over_time import OverTime
from spikewvat.conversion.pipeline import HYBRID, convert, restore
from spikewvat.conversion.qcfs import QCFS
from spikewvat.conversion.start import STARTS, choose_start
from spikewvat.conversion.sweep import EarlyExit, TimeSweep, early_exit, sweep_time
from spikewvat.spiking.stdb import Dynamics, SpikeTime, Triangle

__all__ = [
    "HYBRID",
    "QCFS",
    "STARTS",
    "Balancer",
    "Balancing",
    "BiasTargets",
    "Coding",
    "Correction",
    "Direct",
    "Dynamics",
    "EarlyExit",
    "OffsetSpikes",
    "OverTime",
    "Poisson",
    "SilentResiduals",
    "SpikeTime",
    "SpikingNetwork",
    "TimeSweep",
    "Triangle",
    "balance",
    "bias_targets",
    "calibrate_biases",
    "calibrate_starts",
    "calibrate_thresholds",
    "choose_start",
    "convert",
    "early_exit",
    "finetune",
    "potential_cross_entropy",
    "restore",
    "sweep_time",
]
