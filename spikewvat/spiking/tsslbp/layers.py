"""Layers of a TSSL-BP network: synapses, neurons, and the synapse in front of the first layer.

Convolutions (:class:`spikewvat.spiking.layers.Conv2d`) start as torch's own do, times their scale;
the official CIFAR-10 network takes 5. Pooling and dropout are
:class:`spikewvat.spiking.layers.SumPool2d` (no neurons after it) and
:class:`spikewvat.spiking.layers.Dropout`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikewvat.spiking import layers
from spikewvat.spiking.layers import Conv2d
from spikewvat.spiking.tsslbp.dynamics import TSSL, check_tau, neurons, psp

__all__ = ["Conv2d", "Linear", "Neurons", "Psp"]


class Psp(nn.Module):
    """The synapse between the input and the first layer: spikes or currents to their PSC.

    Args:
        tau_syn: Time constant in time steps, above 1.

    Raises:
        ValueError: If ``tau_syn`` is out of range.
    """

    def __init__(self, tau_syn: float = TSSL.tau_syn) -> None:
        super().__init__()
        check_tau("tau_syn", tau_syn)
        self.tau_syn = tau_syn

    def forward(self, input: Tensor) -> Tensor:
        """Return post-synaptic currents of an input [T, B, ...], same shape."""
        return psp(input, self.tau_syn)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"tau_syn={self.tau_syn}"


class Neurons(nn.Module):
    """TSSL-BP neurons: weighted currents [T, B, ...] to post-synaptic currents of their spikes.

    Keeps no state between passes.

    Args:
        constants: Time constants and threshold.

    Attributes:
        leak: 1 / tau_mem of each neuron where they differ, as on a chip; else None.
    """

    def __init__(self, constants: TSSL = TSSL()) -> None:  # noqa: B008 -- frozen
        super().__init__()
        self.constants = constants
        self.leak: Tensor | None = None

    def forward(self, currents: Tensor) -> Tensor:
        """Return post-synaptic currents, same shape."""
        return neurons(currents, self.constants, leak=self.leak)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return repr(self.constants)


class Linear(layers.Linear):
    """Dense synapses: [T, B, N] to [T, B, N'].

    Weights start as normal noise of variance 2 / N (Kaiming), times ``scale``. Takes the arguments
    of :class:`spikewvat.spiking.layers.Linear`.

    Raises:
        ValueError: If ``scale`` is not above 0, or the input has another shape.

    References:
        TSSL-BP (Zhang & Li, 2020), official code.
    """

    def reset_parameters(self) -> None:
        """Draw the initial weights from torch's global generator."""
        nn.init.kaiming_normal_(self.weight)
        with torch.no_grad():
            self.weight.mul_(self._scale)
