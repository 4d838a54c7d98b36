"""Other authors' training methods that need more than a perturbation."""

from spikewvat.training.methods.activations import quantized_activations
from spikewvat.training.methods.adversary import ParameterAdversary
from spikewvat.training.methods.clipping import NoiseInjection
from spikewvat.training.methods.distillation import Distillation
from spikewvat.training.methods.feedback import NegativeFeedback
from spikewvat.training.methods.quantization import QAT
from spikewvat.training.methods.random_perturbation import RandomPerturbation
from spikewvat.training.methods.statistical import Statistical
from spikewvat.training.methods.straight_through import StraightThrough
from spikewvat.training.methods.thresholds import StochasticThresholds
from spikewvat.training.methods.vortex import Vortex

__all__ = [
    "QAT",
    "Distillation",
    "NegativeFeedback",
    "NoiseInjection",
    "ParameterAdversary",
    "RandomPerturbation",
    "Statistical",
    "StochasticThresholds",
    "StraightThrough",
    "Vortex",
    "quantized_activations",
]
