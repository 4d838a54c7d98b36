"""SLAYER: spike-response neurons with an alpha kernel, their layers and losses, time first.

Pooling and dropout are :class:`spikewvat.spiking.layers.SumPool2d` with ``gain`` of 1.1
thresholds and ``pad=True``, followed by neurons of its own, and
:class:`spikewvat.spiking.layers.Dropout`.

References:
    SLAYER: Spike Layer Error Reassignment in Time (Shrestha & Orchard, 2018),
    https://arxiv.org/abs/1810.08646
"""

from spikewvat.spiking.slayer.dynamics import neurons, spike
from spikewvat.spiking.slayer.kernels import SRM, psp
from spikewvat.spiking.slayer.layers import Conv2d, Delay, Linear, Neurons, Psp, Spike
from spikewvat.spiking.slayer.losses import count_loss, spike_time_loss

__all__ = [
    "SRM",
    "Conv2d",
    "Delay",
    "Linear",
    "Neurons",
    "Psp",
    "Spike",
    "count_loss",
    "neurons",
    "psp",
    "spike",
    "spike_time_loss",
]
