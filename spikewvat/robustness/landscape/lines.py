"""The loss along the variation of a device: Figure 7 of the WVAT paper."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator

from spikewvat.devices.base import DeviceModel, check_device
from spikewvat.robustness.landscape.common import Surroundings, check_shapes, positions, table
from spikewvat.robustness.plan import Progress, draw_seeds, sigma_of
from spikewvat.robustness.run import Run
from spikewvat.serialisation import Fraction, Fractions, Real, Reals


@dataclass(frozen=True, eq=False)
class LossLines:
    """Loss and accuracy along straight lines through the weights without variation.

    Args:
        device: Description of the device model.
        sigma: Size of its variation, or None if it has none.
        seeds: Seed of the chip at the end of each line.
        positions: Positions on a line: 0 is no variation, 1 the chip, -1 its mirror image.
        losses: Mean loss over images ``[lines, positions]``, float64.
        accuracies: Share of correct answers ``[lines, positions]``, float64.
        clean_loss: Loss without variation.
        clean_accuracy: Accuracy without variation.
        images: Number of images classified at each position.
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
        """Check the shapes of losses and accuracies."""
        check_shapes(self, len(self.seeds), len(self.positions))

    @property
    def magnitudes(self) -> tuple[float, ...]:
        """Signed size of variation at each position; the positions if the device has no size."""
        scale = 1.0 if self.sigma is None else self.sigma
        return tuple(scale * position for position in self.positions)

    @property
    def increase(self) -> float:
        """Mean increase of the loss over that without variation, at both ends of all lines."""
        return float(self.losses[:, [0, -1]].mean()) - self.clean_loss

    def __str__(self) -> str:
        return (
            f"{len(self.seeds)} lines of {self.device}: loss {self.clean_loss:.3g} without "
            f"variation, {self.increase:+.3g} at the ends"
        )


def lines_to_chips(
    run: Run,
    device: DeviceModel,
    *,
    lines: int,
    points: int,
    seed: int,
    progress: Progress | None,
) -> LossLines:
    """Evaluate a network along lines to chips, see ``Landscape.lines``."""
    check_device(device)
    if lines < 1:
        raise ValueError(f"lines must be at least 1, got {lines!r}.")
    places, seeds = positions(points), draw_seeds(lines, seed)
    found = []
    around = Surroundings(run, lines * points, progress)
    for chip in seeds:
        noise = Generator().manual_seed(chip)
        errors = device.errors(run.weights, generator=noise)
        what = f"a position on the line to the chip with seed {chip} of {device!r}"
        found.append([list(around.at([(place, errors)], what)) for place in places])
    both = table(found)
    return LossLines(
        device=repr(device),
        sigma=sigma_of(device),
        seeds=seeds,
        positions=places,
        losses=both[:, :, 1],
        accuracies=both[:, :, 0],
        clean_loss=around.loss,
        clean_accuracy=around.accuracy,
        images=run.test.images.count,
    )
