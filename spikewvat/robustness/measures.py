"""Which measures after programming make enough chips work, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from torch import nn

from spikewvat.devices import DeviceModel, Verified
from spikewvat.devices.aging import changes_with_age
from spikewvat.devices.base import check_probability
from spikewvat.robustness.calibration import BiasTrim, Distillation, GainTrim, Measure, Scale
from spikewvat.robustness.canvas import INK, STYLES, blank
from spikewvat.robustness.cost import Cost
from spikewvat.robustness.evaluator import Evaluator
from spikewvat.robustness.programming import programming_plan
from spikewvat.robustness.results import ChipReport, check_target
from spikewvat.robustness.simulate import EvaluatorOptions
from spikewvat.serialisation import Fraction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Told = Callable[[str], object]
"""Called with the name of what is tried next."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Chips after a set of measures.

    Args:
        name: The measures, in words.
        report: The chips, the same ones for every set.
        cost: What the measures cost for each chip.
    """

    name: str
    report: ChipReport
    cost: Cost

    def works(self, target: float, share: float) -> bool:
        """Return whether enough chips reach an accuracy."""
        return self.report.yield_at(target).share >= share


@dataclass(frozen=True, eq=False)
class Measures:
    """Sets of measures, the cheapest first, and what they achieve.

    Args:
        clean: Accuracy without variation.
        target: Accuracy that a chip must reach to work.
        share: Share of the chips that must work.
        outcomes: What was tried, in the order of cost.
    """

    clean: Fraction
    target: Fraction
    share: Fraction
    outcomes: tuple[Outcome, ...]

    @property
    def cheapest(self) -> Outcome | None:
        """The first set with which enough chips work, None if there is none."""
        return next((o for o in self.outcomes if o.works(self.target, self.share)), None)

    def __str__(self) -> str:
        best, wanted = self.cheapest, f"{100 * self.share:g} % of chips at {100 * self.target:g} %"
        if best is None:
            return f"{wanted}: no set of measures that was tried is enough"
        return f"{wanted}: {best.name} ({best.report.yield_at(self.target)}; {best.cost})"


def find_measures(
    model: nn.Module,
    loader: Iterable[Any],
    calibration: Iterable[Any],
    device: DeviceModel,
    *,
    target: float,
    share: float = 0.9,
    verify: Sequence[float] = (0.05, 0.1, 0.2),
    samples: int = 64,
    fisher_samples: int = 400,
    cells_readable: bool = True,
    chips: int = 25,
    seed: int = 0,
    told: Told | None = None,
    **options: Unpack[EvaluatorOptions],
) -> Measures:
    """Try sets of measures after programming, from nothing to many verified weights.

    The order is that of their cost for a chip: nothing; one factor a layer, if the device ages;
    offsets; gains as well; label-free distillation; then more and more verified weights with
    offsets. Every set is tried on the same chips.

    Args:
        model: The trained network.
        loader: Batches of the test set.
        calibration: Batches of other samples, in random order; their labels only rank the weights
            that are verified, once for all chips.
        device: The device model, at its age.
        target: Accuracy that a chip must reach to work.
        share: Share of the chips that must work.
        verify: Shares of the weights to verify, ascending; empty for none.
        samples: Samples for factors, offsets and gains.
        fisher_samples: Samples for the ranking.
        cells_readable: Whether the cells of a chip can be read.
        chips: Number of chips.
        seed: The seeds of the chips are drawn with it.
        told: Called with the name of each set before it is tried.
        **options: Options of :class:`~spikewvat.Evaluator`.

    Returns:
        All sets with their chips and costs.

    Raises:
        ValueError: If an argument is out of range.
        DataError: If there are too few calibration samples.
    """
    check_target(target)
    check_probability("share", share)
    scale: list[Measure] = []
    if changes_with_age(device):
        scale = [Scale() if cells_readable else Scale(samples=samples)]
    trim: list[Measure] = [*scale, BiasTrim(samples)]
    tried: list[tuple[str, DeviceModel, list[Measure]]] = [("nothing", device, [])]
    tried += [("a factor a layer", device, scale)] if scale else []
    before = "a factor a layer, " if scale else ""
    tried += [
        (f"{before}offsets", device, trim),
        (f"{before}gains, offsets", device, [*scale, GainTrim(samples), BiasTrim(samples)]),
        (f"{before}offsets, distillation", device, [*trim, Distillation(4 * samples)]),
    ]
    if verify:
        plan = programming_plan(
            model,
            calibration,
            device,
            cells_readable=cells_readable,
            trimmed=True,
            samples=fisher_samples,
            seed=seed,
            **options,
        )
        tried += [
            (f"{100 * part:g} % verified, {before}offsets", Verified(device, plan.at(part)), trim)
            for part in verify
        ]
    test = Evaluator(model, loader, **options)
    outcomes = []
    for name, chip, measures in tried:
        if told is not None:
            told(name)
        report = test.chips(
            chip,
            chips=chips,
            target=target,
            seed=seed,
            calibrate=measures,
            calibration=calibration if measures else None,
            before=False,
        )
        cost = Cost() if report.calibrated is None else report.calibrated.cost
        if isinstance(chip, Verified):
            cost += Cost(pulses=chip.pulses, reads=chip.reads)
        outcomes.append(Outcome(name, report, cost))
    return Measures(test.accuracy, target, share, tuple(outcomes))


def draw_measures(found: Measures, *, title: str = "") -> Figure:
    """Draw the accuracies of all chips after each set of measures.

    Args:
        found: What was tried.
        title: Title of the picture.

    Returns:
        A figure with a row of dots for each set, one dot a chip; the cheapest set with which
        enough chips work is drawn in another colour.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    note = f"dot: a chip; dashed: it works at {100 * found.target:g} %"
    figure, (axes,) = blank(1, title, note=note)
    for place, outcome in enumerate(found.outcomes):
        style = STYLES[2 if outcome is found.cheapest else 0]
        accuracies = [100 * a for a in outcome.report.accuracies.tolist()]
        axes.plot(accuracies, [place] * len(accuracies), "o", color=style.colour, alpha=0.4)
        axes.plot([100 * outcome.report.mean], [place], "|", color=INK, markersize=14)
    axes.axvline(100 * found.target, color=INK, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(found.outcomes)), [outcome.name for outcome in found.outcomes])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy (%)")
    return figure
