"""Variation-aware training methods of others that are more than a direction."""

from spikewvat.training.methods.activations import quantized_activations
from spikewvat.training.methods.adversary import ParameterAdversary
from spikewvat.training.methods.censored import a_trice, trice
from spikewvat.training.methods.clipping import NoiseInjection
from spikewvat.training.methods.quantization import QAT, qat_wvat
from spikewvat.training.methods.random_perturbation import RandomPerturbation
from spikewvat.training.methods.statistical import Statistical
from spikewvat.training.methods.vortex import Vortex

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
