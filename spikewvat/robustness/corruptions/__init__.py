"""Corruptions of spikes: of input events, neurons, transmission and synapses."""

from spikewvat.robustness.corruptions.base import (
    Composed,
    Corruption,
    EventCorruption,
    NeuronCorruption,
    SynapseCorruption,
)
from spikewvat.robustness.corruptions.context import corrupt
from spikewvat.robustness.corruptions.events import (
    DeadPixels,
    Deletion,
    DroppedBins,
    HotPixels,
    Insertion,
    Jitter,
    PolarityFlip,
)
from spikewvat.robustness.corruptions.network import (
    DeadNeurons,
    LeakMismatch,
    ReadNoise,
    StuckNeurons,
    ThresholdMismatch,
    TransmissionLoss,
)

__all__ = [
    "Composed",
    "Corruption",
    "DeadNeurons",
    "DeadPixels",
    "Deletion",
    "DroppedBins",
    "EventCorruption",
    "HotPixels",
    "Insertion",
    "Jitter",
    "LeakMismatch",
    "NeuronCorruption",
    "PolarityFlip",
    "ReadNoise",
    "StuckNeurons",
    "SynapseCorruption",
    "ThresholdMismatch",
    "TransmissionLoss",
    "corrupt",
]
