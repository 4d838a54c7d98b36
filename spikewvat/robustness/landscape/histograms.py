"""Distributions of the weights of each layer: Figures 8, 14 and 15 of the WVAT paper."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from spikewvat.adapters import Adapter, ResetState, adapter_for
from spikewvat.serialisation import Real
from spikewvat.weights import Weights

_MOST_BINS = 200


@dataclass(frozen=True)
class LayerHistogram:
    """The distribution of one weight tensor.

    Args:
        name: Name of the parameter.
        size: Number of weights.
        mean: Their mean.
        std: Their population standard deviation; the paper's range is six times as wide.
        kurtosis: Fourth standardised moment minus that of a normal distribution; large if a few
            weights are outliers. NaN if all weights are equal.
        edges: Bounds of the bins, from the smallest weight to the largest.
        counts: Number of weights in each bin; one entry fewer than ``edges``.
    """

    name: str
    size: int
    mean: float
    std: float
    kurtosis: Real
    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def density(self) -> tuple[float, ...]:
        """Share of the weights in each bin, per unit of weight."""
        widths = np.diff(self.edges)
        return tuple((np.asarray(self.counts) / (self.size * widths)).tolist())

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.size} weights, mean {self.mean:.3g}, std {self.std:.3g}, "
            f"{self.edges[0]:.3g} .. {self.edges[-1]:.3g}"
        )


def weight_histograms(
    model: nn.Module,
    *,
    bins: int | None = None,
    adapter: Adapter | None = None,
    reset_state: ResetState | None = None,
    weights: Weights | None = None,
) -> tuple[LayerHistogram, ...]:
    """Count the synaptic weights of each layer by value.

    Args:
        model: The network.
        bins: Number of bins from the smallest to the largest weight of a layer, at least 1; by
            default twice the cube root of the number of weights, at most 200.
        adapter: Defaults to the adapter for the model's framework.
        reset_state: Resets layers that no adapter knows.
        weights: Weights by name; by default all synaptic ones.

    Returns:
        One histogram per non-empty weight tensor, in the order of the network.

    Raises:
        ValueError: If ``bins`` is below 1, or a weight is not finite.
        UnsupportedModelError: If the model has no synaptic weights, or a layer keeps state that
            nothing can reset.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> _ = nn.init.constant_(net.weight, 0.5)
        >>> weight_histograms(net, bins=2)[0].counts
        (0, 4)
    """
    if bins is not None and bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins!r}.")
    if weights is None:
        adapter = adapter or adapter_for(model, reset_state=reset_state)
        weights = adapter.synaptic_weights(model)
    found = []
    for name, weight in weights.items():
        if weight.numel() == 0:
            continue
        values = weight.detach().to("cpu", torch.float64).flatten()
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"the model holds a weight that is not finite: {name!r}.")
        parts = bins or min(math.ceil(2 * len(values) ** (1 / 3)), _MOST_BINS)
        counts, edges = np.histogram(values.numpy(), parts)
        deviations = values - values.mean()
        variance = float(deviations.square().mean())
        fourth = float(deviations.pow(4).mean())
        found.append(
            LayerHistogram(
                name=name,
                size=weight.numel(),
                mean=float(values.mean()),
                std=math.sqrt(variance),
                kurtosis=fourth / variance**2 - 3 if variance > 0 else math.nan,
                edges=tuple(edges.tolist()),
                counts=tuple(counts.tolist()),
            )
        )
    return tuple(found)
