"""The loss over a plane through the trained weights, in the units of each filter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator

from spikewvat.devices.base import check_above_zero, draw_dtype
from spikewvat.devices.normal import standard_normal
from spikewvat.robustness.landscape.common import Surroundings, check_shapes, positions, table
from spikewvat.robustness.plan import Progress, draw_seeds
from spikewvat.robustness.run import Run
from spikewvat.serialisation import Fraction, Fractions, Real, Reals
from spikewvat.weights import Weights


@dataclass(frozen=True, eq=False)
class LossSurface:
    """Loss and accuracy over a plane spanned by two filter-normalised random perturbations.

    Args:
        seeds: Seeds of the two perturbations.
        positions: Positions along each perturbation, in filter norms.
        losses: Mean loss over images ``[first, second perturbation]``, float64.
        accuracies: Share of correct answers ``[first, second perturbation]``, float64.
        clean_loss: Loss of the trained weights.
        clean_accuracy: Accuracy of the trained weights.
        images: Number of images classified at each position.
    """

    seeds: tuple[int, int]
    positions: tuple[float, ...]
    losses: Reals
    accuracies: Fractions
    clean_loss: Real
    clean_accuracy: Fraction
    images: int

    def __post_init__(self) -> None:
        """Check the shapes of losses and accuracies."""
        check_shapes(self, len(self.positions), len(self.positions))

    def __str__(self) -> str:
        points, reach = len(self.positions), self.positions[-1]
        return (
            f"{points} x {points} positions up to {reach:g} filter norms away: loss "
            f"{float(self.losses.min()):.3g} .. {float(self.losses.max()):.3g}, "
            f"{self.clean_loss:.3g} in the middle"
        )


def filter_normalised(weights: Weights, *, generator: Generator | None = None) -> Weights:
    r"""Draw a random perturbation whose filters have the norms of the weights' filters.

    .. math:: d_{l,i} \leftarrow \frac{d_{l,i}}{\lVert d_{l,i} \rVert} \lVert w_{l,i} \rVert,
        \qquad d \sim N(0, I)

    Batch norm and ReLU make a network's output independent of the norms of its filters; without
    this normalisation, a network with larger weights would look flatter.

    Args:
        weights: Weights by name; a filter holds the weights of one output (dimension 0). A
            one-dimensional tensor is a single filter.
        generator: Source of randomness; ``None`` uses torch's global one.

    Returns:
        A perturbation with the keys, shapes, dtypes and devices of ``weights``.

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


def plane_of_filters(
    run: Run, *, points: int, reach: float, seed: int, progress: Progress | None
) -> LossSurface:
    """Evaluate a network over a plane, see ``Landscape.surface``."""
    check_above_zero("reach", reach)
    places = tuple(reach * position for position in positions(points))
    first, second = draw_seeds(2, seed)
    found = []
    around = Surroundings(run, points**2, progress)
    one, other = (
        filter_normalised(run.weights, generator=Generator().manual_seed(number))
        for number in (first, second)
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
        clean_loss=around.loss,
        clean_accuracy=around.accuracy,
        images=run.test.images.count,
    )
