"""TSSL-BP: neurons trained by when their spikes come, layers and losses for them.

References:
    Temporal Spike Sequence Learning via Backpropagation for Deep Spiking Neural Networks
    (Zhang & Li, 2020),
    https://proceedings.neurips.cc/paper/2020/hash/8bdb5058376143fa358981954e7626b8-Abstract.html
"""

from spikewvat.spiking.tsslbp.dynamics import TSSL, neurons, psp, spikes_of
from spikewvat.spiking.tsslbp.layers import Conv2d, Linear, Neurons, Psp
from spikewvat.spiking.tsslbp.losses import count_loss, desired_psc, kernel_loss

__all__ = [
    "TSSL",
    "Conv2d",
    "Linear",
    "Neurons",
    "Psp",
    "count_loss",
    "desired_psc",
    "kernel_loss",
    "neurons",
    "psp",
    "spikes_of",
]
