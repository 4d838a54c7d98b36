"""Layers over spike trains [T, B, ...]: time is folded into the batch, weights serve all steps."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


class Linear(nn.Linear):
    """Dense synapses of every time step: [T, B, N] to [T, B, N'].

    Args:
        in_features: Inputs N.
        out_features: Outputs N'.
        bias: Whether to add a bias (never perturbed); spiking layers mostly have none.
        scale: Factor of torch's initial weights, above 0; None takes ``initial_scale``.

    Raises:
        ValueError: If ``scale`` is not above 0, or the input has another shape.
    """

    initial_scale: ClassVar[float] = 1.0

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        scale: float | None = None,
    ) -> None:
        self._scale = _checked_scale(self.initial_scale if scale is None else scale)
        super().__init__(in_features, out_features, bias=bias)

    def reset_parameters(self) -> None:
        """Draw the initial weights from torch's global generator."""
        super().reset_parameters()
        with torch.no_grad():
            self.weight.mul_(self._scale)

    def forward(self, input: Tensor) -> Tensor:
        """Return the currents of all steps."""
        check_time_first(input, 3, f"[T, B, {self.in_features}]")
        check_features(input, self.in_features)
        return super().forward(input)


class Conv2d(nn.Conv2d):
    """Convolution of every time step: [T, B, C, H, W] to [T, B, C', H', W'].

    Args:
        in_channels: Channels C.
        out_channels: Channels C'.
        kernel_size: Side of the kernels.
        stride: Step between places of the kernels.
        padding: Zeros added at every edge.
        bias: Whether to add a bias (never perturbed); spiking layers mostly have none.
        scale: Factor of torch's initial weights, above 0; None takes ``initial_scale``.

    Raises:
        ValueError: If ``scale`` is not above 0, or the input has no time axis.
    """

    initial_scale: ClassVar[float] = 1.0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = False,
        scale: float | None = None,
    ) -> None:
        self._scale = _checked_scale(self.initial_scale if scale is None else scale)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, bias=bias)

    def reset_parameters(self) -> None:
        """Draw the initial weights from torch's global generator."""
        super().reset_parameters()
        with torch.no_grad():
            self.weight.mul_(self._scale)

    def forward(self, input: Tensor) -> Tensor:
        """Return the currents of all steps."""
        check_time_first(input, 5, f"[T, B, {self.in_channels}, H, W]")
        output = super().forward(input.flatten(0, 1))
        return output.view(*input.shape[:2], *output.shape[1:])


class SumPool2d(nn.Module):
    """Sum over squares with one fixed weight, which is no synapse of the chip: never perturbed.

    Args:
        kernel_size: Side and stride of the squares.
        gain: The weight; SLAYER takes 1.1 thresholds, TSSL-BP 1.1.
        pad: Fill incomplete squares at the lower and right edge with zeros instead of leaving
            them out.

    Raises:
        ValueError: If ``kernel_size`` is below 1, or the input has no time axis.

    References:
        SLAYER (Shrestha & Orchard, 2018) and TSSL-BP (Zhang & Li, 2020), official code of both.
    """

    def __init__(self, kernel_size: int, *, gain: float = 1.1, pad: bool = False) -> None:
        super().__init__()
        if kernel_size < 1:
            raise ValueError(f"kernel_size must be at least 1, got {kernel_size!r}.")
        self.kernel_size, self.gain, self.pad = kernel_size, gain, pad

    def forward(self, spikes: Tensor) -> Tensor:
        """Return sums [T, B, C, H / kernel, W / kernel] of spikes [T, B, C, H, W]."""
        check_time_first(spikes, 5, "[T, B, C, H, W]")
        folded = spikes.flatten(0, 1)
        size, sides = self.kernel_size, folded.shape[-2:]
        if self.pad:
            missing = [-side % size for side in sides]
            if any(missing):  # padding by nothing would copy
                folded = functional.pad(folded, (0, missing[1], 0, missing[0]))
        elif min(sides) < size:
            raise ValueError(
                f"input has shape {tuple(spikes.shape)}, which holds no square of {size} x {size}. "
                "Pool less, or pass pad=True."
            )
        # Rows, then columns: plain sums that run several times as fast as pooling on a CPU.
        sums = _sum_of(_sum_of(folded, -2, size), -1, size) * self.gain
        return sums.view(*spikes.shape[:2], *sums.shape[1:])

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.kernel_size}, gain={self.gain}, pad={self.pad}"


class Dropout(nn.Dropout):
    """Dropout with one mask per neuron and sample, the same in every time step."""

    def forward(self, input: Tensor) -> Tensor:
        """Return spikes [T, B, ...] with neurons silenced; unchanged in evaluation."""
        if not self.training or self.p == 0:
            return input
        return input * functional.dropout(torch.ones_like(input[0]), self.p)


def _sum_of(x: Tensor, axis: int, count: int) -> Tensor:
    """Return sums of so many entries in a row along an axis; an incomplete rest is left out."""
    if rest := x.shape[axis] % count:
        x = x.narrow(axis, 0, x.shape[axis] - rest)
    total, *others = torch.unflatten(x, axis, (-1, count)).unbind(axis)
    for other in others:
        total = total + other
    return total


def state_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that potentials are held in: that of the input, float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


def check_time_first(input: Tensor, dimensions: int, expected: str) -> None:
    """Raise a ValueError that names the shape unless the input has so many dimensions."""
    if input.dim() != dimensions:
        raise ValueError(
            f"input has shape {tuple(input.shape)}, expected {expected}, time first. "
            "Add the time axis in front, or move it there with movedim(-1, 0)."
        )


def check_features(input: Tensor, features: int) -> None:
    """Raise a ValueError unless a step of one sample, all axes after [T, B], has so many values."""
    shape = tuple(input.shape)
    if math.prod(shape[2:]) == features:
        return
    last = " Time seems to come last: move it in front with movedim(-1, 0)."
    hint = last if math.prod(shape[1:-1]) == features else " Check the size of the layer in front."
    raise ValueError(f"input has shape {shape}, expected [T, B, {features}].{hint}")


def _checked_scale(scale: float) -> float:
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be finite and above 0, got {scale!r}.")
    return scale
