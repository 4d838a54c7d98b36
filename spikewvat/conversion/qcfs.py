"""The activation with which an ANN is trained for conversion at few time steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class QCFS(nn.Module):
    r"""Quantised, clipped rectification whose values are the rates that T = L steps can tell.

    .. math:: h(x) = \theta\,
        \mathrm{clip}\left(\frac1L \left\lfloor \frac{xL}\theta + \frac12 \right\rfloor, 0, 1\right)

    The threshold is learned. Rounding is passed straight through, with
    :math:`u = \theta / 2L`:

    .. math:: \frac{\partial h}{\partial x} = [-u < x < \theta - u], \qquad
        \frac{\partial h}{\partial\theta} = \begin{cases} 0 & x < -u \\
        (h(x) - x)/\theta & -u \le x < \theta - u \\ 1 & x \ge \theta - u \end{cases}

    :func:`spikewvat.conversion.convert` turns the layer into neurons with this threshold that start
    at half of it.

    Args:
        levels: Number of levels L above 0; the number of time steps to train for.
        threshold: Largest value :math:`\theta` at the start of training, above 0.

    Attributes:
        threshold: :math:`\theta`, a 0-dim parameter. Its size counts, so that a step of training
            that takes it below zero does no harm.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency Spiking Neural Networks
        (Bu et al., 2022), section 4, https://arxiv.org/abs/2303.04347

    Example:
        >>> QCFS(levels=4, threshold=2.0)(torch.tensor([-1.0, 0.2, 0.3, 1.1, 9.0])).tolist()
        [0.0, 0.0, 0.5, 1.0, 2.0]
    """

    def __init__(self, levels: int = 4, threshold: float = 8.0) -> None:
        super().__init__()
        if not isinstance(levels, int) or levels < 1:
            raise ValueError(f"levels must be a whole number of at least 1, got {levels!r}.")
        if not 0 < threshold < float("inf"):
            raise ValueError(f"threshold must be finite and above 0, got {threshold!r}.")
        self.levels = levels
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations of inputs of any shape."""
        threshold = self.threshold.abs()
        clipped = functional.hardtanh(x * (self.levels / threshold) + 0.5, 0, self.levels)
        # What is added has no gradient. Without masks, this takes a quarter of the time.
        told = clipped + (clipped.floor() - clipped).detach()
        return told * (threshold / self.levels)

    def extra_repr(self) -> str:
        """Return the constants."""
        return f"levels={self.levels}, threshold={float(self.threshold.detach().abs()):.4g}"


def quantised(x: Tensor, threshold: Tensor, levels: int) -> Tensor:
    """Return h(x); the threshold broadcasts against x."""
    told = (x * (levels / threshold) + 0.5).floor().clamp(0, levels)
    return told * (threshold / levels)
