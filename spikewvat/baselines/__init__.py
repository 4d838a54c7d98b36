"""Variation-aware training methods of others that are more than a direction."""

from spikewvat.baselines.activations import quantized_activations
from spikewvat.baselines.adversary import ParameterAdversary
from spikewvat.baselines.censored import a_trice, trice
from spikewvat.baselines.clipping import NoiseInjection
from spikewvat.baselines.quantization import QAT, qat_wvat
from spikewvat.baselines.random_perturbation import RandomPerturbation
from spikewvat.baselines.statistical import Statistical
from spikewvat.baselines.vortex import Vortex

__all__ = [
    "QAT",
    "NoiseInjection",
    "ParameterAdversary",
    "RandomPerturbation",
    "Statistical",
    "Vortex",
    "a_trice",
    "qat_wvat",
    "quantized_activations",
    "trice",
]
