"""Layers of a TSSL-BP network: synapses, neurons, and the synapse in front of the first layer.

Pooling and dropout are :class:`spikewvat.spiking.layers.SumPool2d` (no neurons after it) and
:class:`spikewvat.spiking.layers.Dropout`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikewvat.spiking import layers
from spikewvat.spiking.layers import check_time_first
from spikewvat.spiking.tsslbp.dynamics import TSSL, check_tau, neurons, psp


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
    """

    def __init__(self, constants: TSSL = TSSL()) -> None:  # noqa: B008 -- frozen
        super().__init__()
        self.constants = constants

    def forward(self, currents: Tensor) -> Tensor:
        """Return post-synaptic currents, same shape."""
        return neurons(currents, self.constants)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return repr(self.constants)


class Linear(nn.Linear):
    """Dense synapses of every time step: [T, B, N] to [T, B, N']; no bias.

    Weights start as normal noise of variance 2 / N (Kaiming), times ``scale``.

    Args:
        in_features: Inputs N.
        out_features: Outputs N'.
        scale: Factor of the initial weights, above 0.

    Raises:
        ValueError: If ``scale`` is not above 0, or the input has another shape.

    References:
        TSSL-BP (Zhang & Li, 2020), official code.
    """

    def __init__(self, in_features: int, out_features: int, *, scale: float = 1.0) -> None:
        _check_scale(scale)
        self._scale = scale
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        """Draw the initial weights from torch's global generator."""
        nn.init.kaiming_normal_(self.weight)
        with torch.no_grad():
            self.weight.mul_(self._scale)

    def forward(self, input: Tensor) -> Tensor:
        """Return the currents of all steps."""
        check_time_first(input, 3, "[T, B, N]")
        if input.shape[2] != self.in_features:
            raise ValueError(
                f"input has shape {tuple(input.shape)}, expected [T, B, {self.in_features}], time "
                "first. Move the time axis there with movedim(-1, 0)."
            )
        return super().forward(input)


class Conv2d(layers.Conv2d):
    """Convolution of every time step: [T, B, C, H, W] to [T, B, C', H', W']; no bias.

    Weights start as torch's own (uniform), times ``scale``.

    Args:
        in_channels: Channels C.
        out_channels: Channels C'.
        kernel_size: Side of the kernels.
        stride: Step between places of the kernels.
        padding: Zeros added at every edge.
        scale: Factor of the initial weights, above 0; the CIFAR-10 network takes 5.

    Raises:
        ValueError: If ``scale`` is not above 0, or the input has no time axis.

    References:
        TSSL-BP (Zhang & Li, 2020), official code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        scale: float = 1.0,
    ) -> None:
        _check_scale(scale)
        self._scale = scale
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, padding=padding)

    def reset_parameters(self) -> None:
        """Draw the initial weights from torch's global generator."""
        super().reset_parameters()
        with torch.no_grad():
            self.weight.mul_(self._scale)


def _check_scale(scale: float) -> None:
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be finite and above 0, got {scale!r}.")
