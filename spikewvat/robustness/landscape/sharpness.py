"""How much loss a device costs: on average, on the worst chip, and along the steepest ascent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Generator, Tensor, nn

from spikewvat.adapters import Adapter, ResetState
from spikewvat.devices.base import DeviceModel
from spikewvat.perturbations import GAV
from spikewvat.robustness.bench import (
    CACHE_BYTES,
    Bench,
    ChipLoss,
    Plan,
    Progress,
    Scores,
    check_device,
    draw_seeds,
    sigma_of,
)
from spikewvat.robustness.landscape.common import Surroundings, table
from spikewvat.robustness.results import ChipReport
from spikewvat.robustness.statistics import Interval, mean_interval, mean_of
from spikewvat.serialisation import Fraction, Fractions, Real, Reals
from spikewvat.spiking.losses import class_scores, rate_cross_entropy
from spikewvat.weights import Weights


@dataclass(frozen=True, eq=False)
class Sharpness:
    """How far the loss rises within a device's reach.

    Args:
        report: Accuracies and losses of the chips.
        clean_loss: Loss of the ideal weights.
        clean_accuracy: Accuracy of the ideal weights.
        ascent_positions: Places on the steepest ascent; 1 is as far as the device goes. Empty
            where no gradient was asked for.
        ascent_losses: Mean loss over images at each of them, float64.
        ascent_accuracies: Share of right answers at each of them, float64.
    """

    report: ChipReport
    clean_loss: Real
    clean_accuracy: Fraction
    ascent_positions: tuple[float, ...]
    ascent_losses: Reals
    ascent_accuracies: Fractions

    @property
    def increases(self) -> Tensor:
        """Loss of each chip above that of the ideal weights ``[chips]``."""
        if self.report.losses is None:
            raise ValueError("report has no losses. Simulate the chips with loss=...")
        return self.report.losses - self.clean_loss

    @property
    def expected(self) -> float:
        """Mean increase of the loss over chips."""
        return mean_of(self.increases)

    @property
    def ci95(self) -> Interval:
        """Student-t 95 % interval of the mean increase over chips; NaN for one chip."""
        return mean_interval(self.increases)

    @property
    def worst(self) -> float:
        """Increase of the loss on the worst of the chips."""
        return float(self.increases.max())

    @property
    def ascent(self) -> float | None:
        """Largest increase along the steepest ascent, None where none was asked for."""
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


def sharpness(
    model: nn.Module,
    loader: Iterable[Any],
    device: DeviceModel,
    *,
    chips: int = 25,
    ascent_points: int = 5,
    loss: ChipLoss = rate_cross_entropy,
    scores: Scores = class_scores,
    adapter: Adapter | None = None,
    reset_state: ResetState | None = None,
    weights: Weights | None = None,
    progress: Progress | None = None,
    cache_bytes: int = CACHE_BYTES,
    generator: Generator | None = None,
) -> Sharpness:
    r"""Measure how far the loss rises where a device takes the weights.

    .. math:: \mathbb E\, L(\mathrm{program}(w)) - L(w), \qquad
        \max_{\text{chips}} L(\mathrm{program}(w)) - L(w), \qquad
        \max_{0 < t \le 1} L(w + t v) - L(w)

    v is gradient-ascent variation with :math:`\alpha = 1`: in each tensor along the gradient of
    the loss over all images, and as long as what the device does to it. One gradient is no search
    for the worst direction; it is taken in evaluation mode through the network's surrogates.

    Weights, gradients, modes and neuron state are as before afterwards, whatever was raised.

    Args:
        model: See :func:`~spikewvat.robustness.simulate_chips`, here and below.
        loader: Batches of images.
        device: What a chip does to weights.
        chips: How many chips, at least 1.
        ascent_points: Places on the ascent; 0 takes no gradient.
        loss: Mean loss of a batch from output and labels.
        scores: How outputs become class scores.
        adapter: By default the one for the model's framework.
        reset_state: Resets layers that no adapter knows.
        weights: Live weights that the device holds.
        progress: Called after each chip.
        cache_bytes: Memory that the images may take.
        generator: Source of the seeds; ``None`` uses torch's global one.

    Returns:
        Losses of chips and ascent.

    Raises:
        ValueError: If a number is out of its range, the loss has no gradient or weights are
            frozen, or as ``simulate_chips``.
        TypeError: If ``device`` is no device model, or a batch is no pair of tensors.
        UnsupportedModelError: If the model has no synaptic weights, or a layer keeps state that
            nothing can reset.
    """
    check_device(device)
    if chips < 1:
        raise ValueError(f"chips must be at least 1, got {chips!r}.")
    if ascent_points < 0:
        raise ValueError(f"ascent_points must be at least 0, got {ascent_points!r}.")
    plan = Plan(draw_seeds(chips, generator), None, None, chips)
    places = tuple((i + 1) / ascent_points for i in range(ascent_points))
    bench = Bench(model, loader, loss, scores, adapter, reset_state, weights, cache_bytes)
    ascent = []
    with bench.evaluating():
        around = Surroundings(bench, ascent_points, None)
        report = bench.report(device, sigma_of(device), plan, progress)
        if places:
            # Where the length has no closed form, it is that of the first chip.
            noise = Generator().manual_seed(plan.seeds[0])
            step = GAV(device, alpha=1.0)(bench.weights, bench.gradient(), generator=noise)
            what = f"a place on the steepest ascent as far as {device!r} goes"
            ascent = [list(around.at([(place, step)], what)) for place in places]
    both = table(ascent).reshape(-1, 2)
    return Sharpness(
        report=report,
        clean_loss=around.clean_loss,
        clean_accuracy=around.clean_accuracy,
        ascent_positions=places,
        ascent_losses=both[:, 1],
        ascent_accuracies=both[:, 0],
    )
