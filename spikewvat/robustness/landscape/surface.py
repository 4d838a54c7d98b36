"""The loss over a plane through the trained weights, in the units of each filter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, nn

from spikewvat.adapters import Adapter, ResetState
from spikewvat.devices.base import check_above_zero, draw_dtype
from spikewvat.devices.normal import standard_normal
from spikewvat.robustness.bench import (
    CACHE_BYTES,
    Bench,
    ChipLoss,
    Progress,
    Scores,
    draw_seeds,
)
from spikewvat.robustness.landscape.common import Surroundings, check_shapes, positions, table
from spikewvat.serialisation import Fraction, Fractions, Real, Reals
from spikewvat.spiking.losses import class_scores, rate_cross_entropy
from spikewvat.weights import Weights


@dataclass(frozen=True, eq=False)
class LossSurface:
    """Loss and accuracy over a plane spanned by two filter-normalised random directions.

    Args:
        seeds: Seeds of the two directions.
        positions: Steps along either direction; 1 is as long as each filter itself.
        losses: Mean loss over images ``[first, second direction]``, float64.
        accuracies: Share of right answers ``[first, second direction]``, float64.
        clean_loss: Loss of the trained weights.
        clean_accuracy: Accuracy of the trained weights.
        images: How many images each place has classified.
    """

    seeds: tuple[int, int]
    positions: tuple[float, ...]
    losses: Reals
    accuracies: Fractions
    clean_loss: Real
    clean_accuracy: Fraction
    images: int

    def __post_init__(self) -> None:
        """Refuse figures of other places."""
        check_shapes(self, len(self.positions), len(self.positions))

    def __str__(self) -> str:
        points, reach = len(self.positions), self.positions[-1]
        return (
            f"{points} x {points} places up to {reach:g} filter norms away: loss "
            f"{float(self.losses.min()):.3g} .. {float(self.losses.max()):.3g}, "
            f"{self.clean_loss:.3g} in the middle"
        )


def filter_normalised(weights: Weights, *, generator: Generator | None = None) -> Weights:
    r"""Draw a random direction in which every filter is as long as that of the weights.

    .. math:: d_{l,i} \leftarrow \frac{d_{l,i}}{\lVert d_{l,i} \rVert} \lVert w_{l,i} \rVert,
        \qquad d \sim N(0, I)

    A network with batch norm or ReLU computes the same with filters of any length; without this
    step, one with larger weights would look flatter.

    Args:
        weights: By name; a filter is what leads to one output, dimension 0. A tensor with a
            single dimension is one filter.
        generator: Source of randomness; ``None`` uses torch's global one.

    Returns:
        A direction with the keys, shapes, dtypes and devices of ``weights``.

    References:
        Visualizing the Loss Landscape of Neural Nets (Li et al., 2018), section 4,
        https://arxiv.org/abs/1712.09913
    """
    direction = {}
    for name, weight in weights.items():
        dtype = draw_dtype(weight)
        noise = standard_normal(weight.shape, dtype=dtype, generator=generator).to(weight.device)
        filters = (-1,) if weight.dim() <= 1 else (len(weight), -1)
        held = weight.detach().to(dtype).reshape(filters)
        drawn = noise.reshape(filters)
        scale = torch.linalg.vector_norm(held, dim=-1, keepdim=True)
        # A zero tensor has no length that could be divided by; it stays where it is.
        scale = scale / torch.linalg.vector_norm(drawn, dim=-1, keepdim=True).clamp_min(1e-30)
        direction[name] = (drawn * scale).reshape(weight.shape).to(weight.dtype)
    return direction


def loss_surface(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    points: int = 21,
    reach: float = 1.0,
    loss: ChipLoss = rate_cross_entropy,
    scores: Scores = class_scores,
    adapter: Adapter | None = None,
    reset_state: ResetState | None = None,
    weights: Weights | None = None,
    progress: Progress | None = None,
    cache_bytes: int = CACHE_BYTES,
    generator: Generator | None = None,
) -> LossSurface:
    """Evaluate a network over a plane of two filter-normalised random directions.

    Weights, modes and neuron state are as before afterwards, whatever was raised.

    Args:
        model: See :func:`~spikewvat.robustness.simulate_chips`, here and below.
        loader: Batches of images.
        points: Places along either direction, at least 2; the square of it is evaluated.
        reach: How far to go, in filter norms, above 0.
        loss: Mean loss of a batch from output and labels.
        scores: How outputs become class scores.
        adapter: By default the one for the model's framework.
        reset_state: Resets layers that no adapter knows.
        weights: Live weights to displace; synaptic ones by default, so biases and batch norm
            stay as they are.
        progress: Called after each place.
        cache_bytes: Memory that the images may take.
        generator: Source of the two directions' seeds; ``None`` uses torch's global one.

    Returns:
        Losses and accuracies of all places.

    Raises:
        ValueError: If a number is out of its range, or as ``simulate_chips``.
        TypeError: If a batch is no pair of tensors.
        UnsupportedModelError: If the model has no synaptic weights, or a layer keeps state that
            nothing can reset.

    References:
        See :func:`filter_normalised`.
    """
    check_above_zero("reach", reach)
    places = tuple(reach * position for position in positions(points))
    first, second = draw_seeds(2, generator)
    bench = Bench(model, loader, loss, scores, adapter, reset_state, weights, cache_bytes)
    found = []
    with bench.evaluating():
        around = Surroundings(bench, points**2, progress)
        one, other = (
            filter_normalised(bench.weights, generator=Generator().manual_seed(seed))
            for seed in (first, second)
        )
        for i in places:
            what = f"a place {i:+.3g} filter norms from the trained weights"
            found.append([list(around.at([(i, one), (j, other)], what)) for j in places])
    both = table(found)
    return LossSurface(
        seeds=(first, second),
        positions=places,
        losses=both[:, :, 1],
        accuracies=both[:, :, 0],
        clean_loss=around.clean_loss,
        clean_accuracy=around.clean_accuracy,
        images=bench.images,
    )
