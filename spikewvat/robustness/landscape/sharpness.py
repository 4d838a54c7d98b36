"""Increase of the loss on chips, on average and at worst, and along the steepest ascent."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor

from spikewvat.devices.base import DeviceModel, check_device
from spikewvat.perturbations import GAV
from spikewvat.robustness.chips import Chips
from spikewvat.robustness.intervals import skewed_interval
from spikewvat.robustness.landscape.common import Surroundings, table
from spikewvat.robustness.plan import Plan, Progress, sigma_of
from spikewvat.robustness.results import ChipReport
from spikewvat.robustness.run import Run
from spikewvat.robustness.stacked import Stacking
from spikewvat.robustness.statistics import Interval, mean_of
from spikewvat.serialisation import Fraction, Fractions, Real, Reals


@dataclass(frozen=True, eq=False)
class Sharpness:
    """Increase of the loss under the variation of a device.

    Args:
        report: Accuracies and losses of the chips.
        clean_loss: Loss without variation.
        clean_accuracy: Accuracy without variation.
        ascent_positions: Positions on the steepest ascent; at 1 it is as long as the device's
            variation. Empty if no gradient was requested.
        ascent_losses: Mean loss over images at each position, float64.
        ascent_accuracies: Share of correct answers at each position, float64.
    """

    report: ChipReport
    clean_loss: Real
    clean_accuracy: Fraction
    ascent_positions: tuple[float, ...]
    ascent_losses: Reals
    ascent_accuracies: Fractions

    @property
    def increases(self) -> Tensor:
        """Increase of the loss of each chip over that without variation ``[chips]``."""
        if self.report.losses is None:
            raise ValueError("report has no losses. Simulate the chips with loss=...")
        return self.report.losses - self.clean_loss

    @property
    def expected(self) -> float:
        """Mean increase of the loss over chips."""
        return mean_of(self.increases)

    @property
    def ci95(self) -> Interval:
        """95 % interval of the mean increase over chips; NaN for a single chip.

        See :func:`~spikewvat.robustness.intervals.skewed_interval`.
        """
        return skewed_interval(self.increases)

    @property
    def worst(self) -> float:
        """Increase of the loss on the worst chip."""
        return float(self.increases.max())

    @property
    def ascent(self) -> float | None:
        """Largest increase along the steepest ascent, or None if it was not requested."""
        if not self.ascent_positions:
            return None
        return float(self.ascent_losses.max()) - self.clean_loss

    def __str__(self) -> str:
        parts = [f"loss {self.clean_loss:.3g}", f"{self.expected:+.3g} on an average chip"]
        if self.report.chips > 1:
            low, high = self.ci95
            parts[1] += f" (95 % CI {low:+.3g} .. {high:+.3g})"
            parts.append(f"{self.worst:+.3g} on the worst of {self.report.chips}")
        if self.ascent is not None:
            parts.append(f"{self.ascent:+.3g} along the steepest ascent")
        return ", ".join(parts)


def rise_of_loss(
    run: Run,
    device: DeviceModel,
    *,
    chips: int,
    ascent_points: int,
    seed: int,
    stack: Stacking,
    progress: Progress | None,
) -> Sharpness:
    """Measure the increase of the loss, see ``Landscape.sharpness``."""
    check_device(device)
    if ascent_points < 0:
        raise ValueError(f"ascent_points must be at least 0, got {ascent_points!r}.")
    simulated = Chips(run, Plan(chips, seed), stack)
    places = tuple((i + 1) / ascent_points for i in range(ascent_points))
    ascent = []
    around = Surroundings(run, ascent_points, None)
    report = simulated.report(device, sigma_of(device), progress)
    if places:
        # Where the length has no closed form, it is that of the first chip.
        noise = Generator().manual_seed(report.seeds[0])
        step = GAV(device, alpha=1.0)(run.weights, run.gradient(), generator=noise)
        what = f"a position on the steepest ascent under {device!r}"
        ascent = [list(around.at([(place, step)], what)) for place in places]
    both = table(ascent).reshape(-1, 2)
    return Sharpness(
        report=report,
        clean_loss=around.loss,
        clean_accuracy=around.accuracy,
        ascent_positions=places,
        ascent_losses=both[:, 1],
        ascent_accuracies=both[:, 0],
    )
