"""Leaky integrate-and-fire neurons trained by surrogate gradients, over all time steps at once."""

from spikewvat.spiking.lif.dynamics import LIF, neurons
from spikewvat.spiking.lif.layers import Neurons, Recurrent
from spikewvat.spiking.lif.recurrent import State, recurrent
from spikewvat.spiking.lif.surrogates import ATan, FastSigmoid, Surrogate

__all__ = [
    "LIF",
    "ATan",
    "FastSigmoid",
    "Neurons",
    "Recurrent",
    "State",
    "Surrogate",
    "neurons",
    "recurrent",
]
