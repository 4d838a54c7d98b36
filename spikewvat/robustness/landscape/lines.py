"""The loss along what a device does to the weights: Figure 7 of the WVAT paper."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Generator, nn

from spikewvat.adapters import Adapter, ResetState
from spikewvat.devices.base import DeviceModel
from spikewvat.robustness.bench import (
    CACHE_BYTES,
    Bench,
    ChipLoss,
    Progress,
    Scores,
    check_device,
    draw_seeds,
    sigma_of,
)
from spikewvat.robustness.landscape.common import Surroundings, check_shapes, positions, table
from spikewvat.serialisation import Fraction, Fractions, Real, Reals
from spikewvat.spiking.losses import class_scores, rate_cross_entropy
from spikewvat.weights import Weights


@dataclass(frozen=True, eq=False)
class LossLines:
    """Loss and accuracy along straight lines through the ideal weights.

    Args:
        device: The device model in words.
        sigma: Magnitude of its variation, None where it has none.
        seeds: The chip that each line leads to.
        positions: Places on a line: 0 is the ideal network, 1 the chip, -1 its mirror image.
        losses: Mean loss over images ``[lines, positions]``, float64.
        accuracies: Share of right answers ``[lines, positions]``, float64.
        clean_loss: Loss of the ideal weights.
        clean_accuracy: Accuracy of the ideal weights.
        images: How many images each place has classified.
    """

    device: str
    sigma: float | None
    seeds: tuple[int, ...]
    positions: tuple[float, ...]
    losses: Reals
    accuracies: Fractions
    clean_loss: Real
    clean_accuracy: Fraction
    images: int

    def __post_init__(self) -> None:
        """Refuse figures of other places."""
        check_shapes(self, len(self.seeds), len(self.positions))

    @property
    def magnitudes(self) -> tuple[float, ...]:
        """Variation at each place, with the sign of the direction; places where there is none."""
        scale = 1.0 if self.sigma is None else self.sigma
        return tuple(scale * position for position in self.positions)

    @property
    def increase(self) -> float:
        """Mean over lines and both ends of the loss above that of the ideal weights."""
        return float(self.losses[:, [0, -1]].mean()) - self.clean_loss

    def __str__(self) -> str:
        return (
            f"{len(self.seeds)} lines of {self.device}: loss {self.clean_loss:.3g} at the ideal "
            f"weights, {self.increase:+.3g} at the ends"
        )


def loss_lines(
    model: nn.Module,
    loader: Iterable[Any],
    device: DeviceModel,
    *,
    directions: int = 10,
    points: int = 13,
    loss: ChipLoss = rate_cross_entropy,
    scores: Scores = class_scores,
    adapter: Adapter | None = None,
    reset_state: ResetState | None = None,
    weights: Weights | None = None,
    progress: Progress | None = None,
    cache_bytes: int = CACHE_BYTES,
    generator: Generator | None = None,
) -> LossLines:
    r"""Evaluate a network along directions in which a device displaces its weights.

    .. math:: L(w + t\,(\mathrm{program}(w) - w)), \qquad t \in [-1, 1]

    For Gaussian variation that is :math:`L(w + \gamma R \sigma_v \xi)` with one :math:`\xi` a line
    and :math:`\gamma \sigma_v` from minus sigma to sigma. The seeds are drawn as those of
    :func:`~spikewvat.robustness.simulate_chips`: with an equal generator line i leads to chip i,
    and networks are compared along the same lines. A device whose chips are no straight
    continuation of smaller variations (quantisation, stuck cells) is met at t = 1 only.

    Weights, modes and neuron state are as before afterwards, whatever was raised.

    Args:
        model: See :func:`~spikewvat.robustness.simulate_chips`, here and below.
        loader: Batches of images.
        device: What a chip does to weights, as large as the ends of the lines shall be.
        directions: How many lines, at least 1.
        points: Places on each line, at least 2; an odd number has the ideal weights among them.
        loss: Mean loss of a batch from output and labels.
        scores: How outputs become class scores.
        adapter: By default the one for the model's framework.
        reset_state: Resets layers that no adapter knows.
        weights: Live weights that the device holds.
        progress: Called after each place.
        cache_bytes: Memory that the images may take.
        generator: Source of the seeds; ``None`` uses torch's global one.

    Returns:
        Losses and accuracies of all places.

    Raises:
        ValueError: If a number is out of its range, or as ``simulate_chips``.
        TypeError: If ``device`` is no device model, or a batch is no pair of tensors.
        UnsupportedModelError: If the model has no synaptic weights, or a layer keeps state that
            nothing can reset.

    References:
        Weight-variation-aware training (WVAT), Figure 7.
    """
    check_device(device)
    if directions < 1:
        raise ValueError(f"directions must be at least 1, got {directions!r}.")
    places, seeds = positions(points), draw_seeds(directions, generator)
    bench = Bench(model, loader, loss, scores, adapter, reset_state, weights, cache_bytes)
    found = []
    with bench.evaluating():
        around = Surroundings(bench, directions * points, progress)
        for seed in seeds:
            noise = Generator().manual_seed(seed)
            direction = device.displacement(bench.weights, generator=noise)
            what = f"a place on the line to the chip with seed {seed} of {device!r}"
            found.append([around.at([(place, direction)], what) for place in places])
    both = table([[list(place) for place in line] for line in found])
    return LossLines(
        device=repr(device),
        sigma=sigma_of(device),
        seeds=seeds,
        positions=places,
        losses=both[:, :, 1],
        accuracies=both[:, :, 0],
        clean_loss=around.clean_loss,
        clean_accuracy=around.clean_accuracy,
        images=bench.images,
    )
