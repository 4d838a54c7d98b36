"""Results of an evaluation on simulated chips: one report, or one per size of variation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Real

import torch

from spikewvat.devices import Ideal
from spikewvat.formatting import interval
from spikewvat.robustness.activity import Activity
from spikewvat.robustness.axis import Axis, Setting
from spikewvat.robustness.cost import Calibrated
from spikewvat.robustness.intervals import (
    chip_interval,
    over_images,
    running_interval,
    share_interval,
    unseen_share,
)
from spikewvat.robustness.statistics import Interval, mean_of, sample_std
from spikewvat.serialisation import Counts, Fraction, Fractions, Reals


@dataclass(frozen=True)
class Yield:
    """Number of chips that reach an accuracy.

    Args:
        target: Accuracy that a chip must reach to work, a fraction.
        working: Number of chips that reach it.
        chips: Number of chips simulated.
    """

    target: float
    working: int
    chips: int

    @property
    def share(self) -> float:
        """Share of working chips."""
        return self.working / self.chips

    @property
    def ci95(self) -> Interval:
        """Clopper and Pearson's 95 % interval of the share among all chips of this network."""
        return share_interval(self.working, self.chips)

    def __str__(self) -> str:
        low, high = (100 * bound for bound in self.ci95)
        return (
            f"yield at {100 * self.target:g} %: {self.working} of {self.chips} chips "
            f"(95 % CI {interval(low, high, '.1f')} %)"
        )


@dataclass(frozen=True, eq=False)
class ChipReport:
    """Accuracy of one network on many simulated chips.

    The 95 % interval is over chips, for this network on these images; a second one covers new
    images as well. Neither says anything about other trainings. If each chip has classified its own
    sample of the images, spread and interval are over chips and images, and the accuracy of a
    single chip means little.

    Args:
        device: The device model, its ``repr``.
        sigma: Size of the variation, or None if the device has none.
        accuracies: Share of correct answers of each chip ``[chips]``, float64 on the CPU.
        seeds: The seed of each chip; ``device.program(weights, generator=torch.Generator()
            .manual_seed(seed))`` reproduces that chip.
        images: Number of images that each chip has classified.
        losses: Mean loss of each chip ``[chips]``, or None if no loss was requested.
        target: Accuracy that a chip must reach to work, a fraction, or None.
        corruption: Name of the corruption, or None.
        severity: Severity of the corruption.
        unit: Meaning of the severity.
        activity: Spikes, operations and rates, averaged over chips, or None if not counted.
        sampled_from: Number of images from which each chip's sample was drawn; None if every chip
            has classified all images.
        setting: Place in a sweep over age or another setting, or None.
        calibrated: What was done to the chips after programming, and how good they were before;
            None if nothing was done.
        hits: Number of chips that have classified each image correctly ``[images]``, int64; None if
            not known.
        planned: Largest number of chips of a run that could be stopped at any time, whose interval
            is then :func:`~spikewvat.robustness.intervals.running_interval`; None for other runs.
        by_fold: Accuracies ``[folds, chips]`` on each fold of the images, equally many to a fold up
            to one, each of a network of its own: the report is of cross-validation. None for one
            network.
    """

    device: str
    sigma: float | None
    accuracies: Fractions
    seeds: tuple[int, ...]
    images: int
    losses: Reals | None = None
    target: Fraction | None = None
    corruption: str | None = None
    severity: float | None = None
    unit: str = ""
    activity: Activity | None = None
    sampled_from: int | None = None
    setting: Setting | None = None
    calibrated: Calibrated | None = None
    hits: Counts | None = None
    planned: int | None = None
    by_fold: Fractions | None = None

    def __post_init__(self) -> None:
        """Check that all figures are for the same chips and images."""
        for name, values in (("accuracies", self.accuracies), ("losses", self.losses)):
            if values is not None and values.shape != (len(self.seeds),):
                raise ValueError(
                    f"{name} have the shape {tuple(values.shape)}, expected one figure for each of "
                    f"{len(self.seeds)} chips. Give as many seeds as figures."
                )
        if not self.seeds or self.images < 1:
            raise ValueError(
                f"a report of {len(self.seeds)} chips and {self.images} images, expected at least "
                "one each."
            )
        if self.hits is not None:
            right = round(float(self.accuracies.sum()) * self.images)
            if self.hits.shape != (self.images,) or int(self.hits.sum()) != right:
                raise ValueError(
                    f"hits are {int(self.hits.sum())} on {len(self.hits)} images, expected {right} "
                    f"on {self.images}: the correct answers of all chips."
                )
            if int(self.hits.min()) < 0 or int(self.hits.max()) > self.chips:
                raise ValueError(f"hits must lie between 0 and the number of chips, {self.chips}.")
        if self.by_fold is not None and self.by_fold.shape[1:] != self.accuracies.shape:
            raise ValueError(
                f"accuracies by fold have the shape {tuple(self.by_fold.shape)}, expected one "
                f"figure for each fold and each of {self.chips} chips."
            )

    @property
    def size(self) -> float:
        """Position of the report in a sweep: its setting, severity, sigma, or else 0."""
        if self.setting is not None:
            return self.setting.value
        return (self.sigma if self.corruption is None else self.severity) or 0.0

    @property
    def ideal(self) -> bool:
        """Whether there is neither variation nor corruption."""
        if self.setting is not None:
            return False
        if self.corruption is None:
            return self.sigma == 0
        return self.severity == 0 and self.device == repr(Ideal())

    @property
    def chips(self) -> int:
        """How many chips were simulated."""
        return len(self.accuracies)

    @property
    def networks(self) -> tuple[ChipReport, ...]:
        """A report for each network: in cross-validation, that of each fold on its own.

        Chip j of this report averages over chip j of all folds, so it varies less than a real one.
        """
        if self.by_fold is None:
            return (self,)
        images = self.images // len(self.by_fold)
        return tuple(
            replace(self, accuracies=fold, images=images, hits=None, by_fold=None)
            for fold in self.by_fold
        )

    @property
    def mean(self) -> float:
        """Mean accuracy over chips, a fraction."""
        return mean_of(self.accuracies)

    @property
    def std(self) -> float:
        """Sample standard deviation over chips; NaN for a single chip."""
        return sample_std(self.accuracies)

    @property
    def ci95(self) -> Interval:
        """95 % interval of the mean over chips on these images; NaN for a single chip.

        See :func:`~spikewvat.robustness.intervals.chip_interval`.
        """
        if self.planned is not None:
            return running_interval(self.accuracies, self.planned)
        return chip_interval(self.accuracies)

    @property
    def ci95_new_images(self) -> Interval:
        """95 % interval of the mean over chips for new images as well; NaN for a single chip.

        See :func:`~spikewvat.robustness.intervals.over_images`.
        """
        images = self.sampled_from or self.images
        shares = None if self.hits is None else self.hits / self.chips
        return over_images(self.ci95, self.mean, images, hits=shares)

    @property
    def unseen(self) -> float:
        """Upper 95 % confidence bound of the share of chips worse than the worst one here."""
        return unseen_share(self.chips)

    @property
    def worst(self) -> float:
        """Accuracy of the worst chip."""
        return float(self.accuracies.min())

    def yield_at(self, target: float) -> Yield:
        """Count the chips that reach an accuracy.

        Args:
            target: Accuracy as a fraction, between 0 and 1.

        Returns:
            The number of working chips with its interval.

        Raises:
            ValueError: If ``target`` is not a fraction, or chips have classified samples of the
                images.
        """
        check_target(target)
        if self.sampled_from is not None:
            raise ValueError(
                f"each chip has classified {self.images} of {self.sampled_from} images, which does "
                "not show whether it works. Leave out images_per_chip to compute a yield."
            )
        return Yield(target, int((self.accuracies >= target).sum()), self.chips)

    def yield_curve(self, targets: Sequence[float] | None = None) -> tuple[Yield, ...]:
        """Count the chips that reach each of several accuracies.

        Args:
            targets: Accuracies as fractions; by default the accuracies of the chips, where the
                share drops. It is constant in between.

        Returns:
            One count with its interval per target.

        Raises:
            ValueError: If a target is not a fraction.
        """
        chosen = sorted(set(self.accuracies.tolist())) if targets is None else targets
        return tuple(self.yield_at(target) for target in chosen)

    def __str__(self) -> str:
        parts = [f"{100 * self.mean:.1f} % (1 chip)"]
        if self.chips > 1:
            low, high = (100 * bound for bound in self.ci95)
            lowest, highest = (100 * bound for bound in self.ci95_new_images)
            parts = [
                f"{100 * self.mean:.1f} % ± {100 * self.std:.1f} (95 % CI {low:.1f} .. {high:.1f}; "
                f"for new images as well {lowest:.1f} .. {highest:.1f})",
                f"worst chip {100 * self.worst:.1f} % (up to {100 * self.unseen:.0f} % of chips "
                "may be worse)",
            ]
        if self.sampled_from is not None:
            parts[1:] = [f"{self.chips} chips x {self.images} of {self.sampled_from} images"]
        if self.target is not None:
            parts.append(str(self.yield_at(self.target)))
        if self.calibrated is not None:
            parts.append(str(self.calibrated))
        return ", ".join(parts)


@dataclass(frozen=True, eq=False)
class Degradation:
    """Accuracy against the size of a variation or corruption, on the same chips at every size.

    Args:
        clean: Accuracy without variation, a fraction.
        reports: One report per size, in the requested order.
        activity: Activity of the network without variation and corruption, or None if not counted.
    """

    clean: Fraction
    reports: tuple[ChipReport, ...]
    activity: Activity | None = None

    @property
    def axis(self) -> Axis:
        """The quantity that is swept."""
        first = self.reports[0] if self.reports else None
        if first is not None and first.setting is not None:
            return first.setting.axis
        if first is None or first.corruption is None:
            return Axis()
        return Axis(first.corruption, first.unit)

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Sizes of the variation, or severities of a corruption."""
        return tuple(report.size for report in self.reports)

    @property
    def rate_shifts(self) -> tuple[dict[str, float], ...]:
        """Firing rate by layer minus that without variation and corruption, at each size."""
        if self.activity is None:
            return tuple({} for _ in self.reports)
        clean = self.activity
        return tuple(r.activity.shift(clean) if r.activity else {} for r in self.reports)

    @property
    def means(self) -> tuple[float, ...]:
        """Mean accuracy over chips at each size."""
        return tuple(report.mean for report in self.reports)

    @property
    def reference(self) -> float:
        """Baseline of the drops: accuracy at size 0 if swept, else that without variation.

        The two differ if the device changes weights at any size, for example by quantising them.
        """
        for report in self.reports:
            swept = report.sigma is not None or report.corruption is not None
            if report.setting is None and swept and report.size == 0:
                return report.mean
        return self.clean

    @property
    def drops(self) -> tuple[float, ...]:
        """:attr:`reference` minus mean accuracy over chips at each size, as fractions."""
        return tuple(self.reference - mean for mean in self.means)

    def at(self, sigma: float) -> ChipReport:
        """Return the report for a size.

        Raises:
            KeyError: If the size was not swept.
        """
        for report in self.reports:
            swept = any(x is not None for x in (report.sigma, report.corruption, report.setting))
            if swept and math.isclose(report.size, sigma, abs_tol=1e-12):
                return report
        known = ", ".join(f"{known:g}" for known in self.sigmas)
        name = self.axis.name or "sigma"
        raise KeyError(f"{name} {sigma:g} was not swept (swept: {known}).")

    @classmethod
    def pooled(cls, curves: Sequence[Degradation]) -> Degradation:
        """Pool the chips of all networks, for pictures and yields.

        Intervals of the result treat all chips as independent, but chips of one training are not.
        To compare trainings, use the means of their own curves.

        Args:
            curves: Curves over the same sizes, one per training.

        Raises:
            ValueError: If there are no curves, or their sizes differ.
        """
        if not curves or len({(curve.axis, curve.sigmas) for curve in curves}) > 1:
            got = [(curve.axis.name or "sigma", curve.sigmas) for curve in curves]
            raise ValueError(f"expected curves of the same sigmas, got {got}.")
        networks = [
            [one for report in reports for one in report.networks]
            for reports in zip(*curves, strict=True)
        ]
        reports = tuple(
            replace(
                rows[0],
                accuracies=torch.cat([row.accuracies for row in rows]),
                seeds=tuple(seed for row in rows for seed in row.seeds),
                losses=None,
                activity=_mean([row.activity for row in rows]),
                hits=_sum([row.hits for row in rows]),
                planned=None,
            )
            for rows in networks
        )
        clean = sum(curve.clean for curve in curves) / len(curves)
        return cls(clean, reports, _mean([curve.activity for curve in curves]))

    def without_hits(self) -> Degradation:
        """Return a copy that does not know which images were classified correctly."""
        return replace(self, reports=tuple(replace(report, hits=None) for report in self))

    def heading(self, index: int) -> str:
        """Return a size with its name, such as ``"σ = 5 %"``; ``"on chips"`` without a size."""
        report = self.reports[index]
        sized = report.sigma is not None or report.corruption is not None
        return self.axis.heading(report.size) if sized else "on chips"

    def __iter__(self) -> Iterator[ChipReport]:
        return iter(self.reports)

    def __len__(self) -> int:
        return len(self.reports)

    def __getitem__(self, index: int) -> ChipReport:
        return self.reports[index]

    def __str__(self) -> str:
        if self.axis.name is not None:
            rows = [f"{self.axis.heading(r.size)}: {r}" for r in self]
            return "\n".join([f"no variation: {100 * self.clean:.1f} %", *rows])
        rows = [f"sigma {100 * r.sigma:5.1f} %: {r}" for r in self if r.sigma is not None]
        return "\n".join([f"no variation : {100 * self.clean:.1f} %", *rows])


def check_target(target: float) -> None:
    """Raise ValueError unless a target accuracy is a fraction."""
    if not (isinstance(target, Real) and 0 <= target <= 1):
        raise ValueError(
            f"target must be a fraction between 0 and 1, got {target!r}. Write 0.95 for 95 %."
        )


def _sum(found: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    """Return the sum of equally many hits if all are known."""
    known = [one for one in found if one is not None]
    alike = len(known) == len(found) and len({len(one) for one in known}) == 1
    return torch.stack(known).sum(0) if alike else None


def _mean(found: Sequence[Activity | None]) -> Activity | None:
    """Return the mean activity if all were counted."""
    counted = [one for one in found if one is not None]
    return Activity.mean(counted) if len(counted) == len(found) else None
