"""Convolution and average pooling in one: what pooling would average is never computed."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from spikewvat.spiking.events import event_conv2d
from spikewvat.spiking.layers import Conv2d, check_time_first


class PooledConv2d(Conv2d):
    r"""Convolution and average pooling of every time step: [T, B, C, H, W] to [T, B, C', H', W'].

    Both are linear, so the mean of P x P outputs is one output of a larger kernel, the mean of the
    kernel's P x P shifted copies, at P times the stride:

    .. math:: \frac1{P^2} \sum_{i,j < P} \sum_k w_k\, x_{s(Pn + i) + k} =
        \sum_m \bar w_m\, x_{sPn + m}, \qquad
        \bar w_m = \frac1{P^2} \sum_{i,j < P} w_{m - s\,(i,j)}

    For 5 x 5 kernels and P = 2 that is 36 products an output instead of 100, and no unpooled map
    in memory. The synapses are still the kernel's: they are stored, displaced and learned as such.
    Sparse spikes are computed from the events.

    Args:
        in_channels: Channels C.
        out_channels: Channels C'.
        kernel_size: Side of the kernels.
        pool: Side and stride P of the pooling; incomplete squares at the edge are left out.
        stride: Step s between places of the kernels.
        padding: Zeros added at every edge.
        bias: Whether to add a bias (never perturbed).
        scale: Factor of torch's initial weights, above 0; None takes ``initial_scale``.

    Attributes:
        apart: Convolve first and pool then, as an array of synapses does; slower.

    Raises:
        ValueError: If ``pool`` is below 1, ``scale`` is not above 0, or the input has no time axis.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        pool: int = 2,
        stride: int = 1,
        padding: int = 0,
        bias: bool = False,
        scale: float | None = None,
    ) -> None:
        if pool < 1:
            raise ValueError(f"pool must be at least 1, got {pool!r}.")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            bias=bias,
            scale=scale,
        )
        self.pool = pool
        self.apart = False

    def forward(self, input: Tensor) -> Tensor:
        """Return the pooled currents of all steps."""
        check_time_first(input, 5, f"[T, B, {self.in_channels}, H, W]")
        if self.apart:
            pooled = functional.avg_pool2d(super().forward(input).flatten(0, 1), self.pool)
            return pooled.view(*input.shape[:2], *pooled.shape[1:])
        kernels = pooled_kernels(self.weight, self.pool, self.stride[0])
        stride, padding = self.stride[0] * self.pool, int(self.padding[0])
        if input.is_sparse:
            sums: Tensor = event_conv2d(input, kernels, self.bias, stride=stride, padding=padding)
            return sums
        output = functional.conv2d(input.flatten(0, 1), kernels, self.bias, stride, padding)
        return output.view(*input.shape[:2], *output.shape[1:])

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{super().extra_repr()}, pool={self.pool}"  # type: ignore[no-untyped-call]


def pooled_kernels(kernels: Tensor, pool: int, stride: int = 1) -> Tensor:
    """Return kernels that convolve and average in one.

    Args:
        kernels: [C', C, k, k].
        pool: Side of the squares that are averaged.
        stride: Of the convolution that is pooled.

    Returns:
        Kernels [C', C, k + (pool - 1) stride, ...], to be used at ``pool`` times the stride.
    """
    if pool == 1:
        return kernels
    reach = (pool - 1) * stride
    side = kernels.shape[-1] + reach
    total = kernels.new_zeros(*kernels.shape[:2], side, side)
    for row in range(0, reach + 1, stride):
        for column in range(0, reach + 1, stride):
            padding = (column, reach - column, row, reach - row)
            total = total + functional.pad(kernels, padding)
    return total / pool**2
