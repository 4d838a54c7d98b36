"""The yield of further trainings: intervals and their assumptions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from spikewvat.robustness.hierarchy import hierarchical
from spikewvat.robustness.intervals import share_interval
from spikewvat.robustness.results import ChipReport, check_target
from spikewvat.robustness.statistics import (
    Interval,
    check_confidence,
    student_t_quantile,
    wilson_interval,
)

_DRAWS, _GAFFKE_DRAWS = 2000, 20_000
_TINY = 1e-12


@dataclass(frozen=True)
class TrainingYield:
    """Working chips of several trainings, and the resulting intervals for further trainings.

    Args:
        target: Accuracy that a chip must reach to work, a fraction.
        working: Number of chips that reach it.
        chips: Number of chips over all trainings.
        trainings: Number of trainings.
        model: Interval of the yield of further trainings, assuming normal differences between
            trainings; of this network's yield if there is a single training.
        free: The same without that assumption; [0, 1] for a single training.
        confidence: Coverage of both.
    """

    target: float
    working: int
    chips: int
    trainings: int
    model: Interval
    free: Interval
    confidence: float = 0.95

    @property
    def share(self) -> float:
        """Share of working chips."""
        return self.working / self.chips

    def __str__(self) -> str:
        named = f"{100 * self.confidence:g} % CI"
        low, high = (100 * bound for bound in self.model)
        count = (
            f"all {self.chips} chips work"
            if self.working == self.chips
            else f"{self.working} of {self.chips} chips work"
        )
        head = f"yield at {100 * self.target:g} %: {count}"
        if self.trainings == 1:
            return f"{head} ({named} {low:.1f} .. {high:.1f} %; says nothing of other trainings)"
        free_low, free_high = (100 * bound for bound in self.free)
        return (
            f"{head}. If trainings differ like normal noise, {low:.0f} .. {high:.0f} % of the "
            f"chips of further trainings work ({named}); without that assumption "
            f"{self.trainings} trainings show only {free_low:.0f} .. {free_high:.0f} %"
        )


def yield_over_trainings(
    reports: Sequence[ChipReport], target: float, *, confidence: float = 0.95
) -> TrainingYield:
    """Estimate the share of chips of further trainings that reach an accuracy.

    Args:
        reports: One per training, of the same device and images. Equal seeds are the same chips. In
            reports of cross-validation, the network of each fold is a training.
        target: Accuracy that a chip must reach to work, a fraction.
        confidence: Coverage, between 0 and 1.

    Raises:
        ValueError: If there is no report, a number is out of range, or chips have classified
            samples of the images.
    """
    check_target(target)
    if not reports:
        raise ValueError("there are no reports, expected one for each training.")
    for report in reports:
        report.yield_at(target)  # raises where a yield has no meaning
    networks = [network for report in reports for network in report.networks]
    return training_yield(
        [network.accuracies for network in networks],
        target,
        images=networks[0].images,
        same_chips=len({report.seeds for report in reports}) == 1,
        confidence=confidence,
    )


def training_yield(
    accuracies: Sequence[Tensor],
    target: float,
    *,
    images: int,
    same_chips: bool,
    confidence: float = 0.95,
) -> TrainingYield:
    """Estimate the share of chips of further trainings that reach an accuracy.

    Computes two intervals, see :func:`model_interval` and :func:`free_interval`; for a single
    training, the interval of its own yield. Their Monte-Carlo draws are always the same, so that
    equal accuracies give equal intervals.

    Args:
        accuracies: Accuracies of the chips of each training ``[chips]``, fractions.
        target: Accuracy that a chip must reach to work, a fraction.
        images: Number of images that each chip has classified.
        same_chips: Whether chip j is the same chip for all trainings.
        confidence: Coverage, between 0 and 1.

    Raises:
        ValueError: If there are no accuracies or a number is out of range.
    """
    check_confidence(confidence)
    works = [(values >= target).double() for values in accuracies]
    working, chips = sum(int(w.sum()) for w in works), sum(len(w) for w in works)
    if len(works) == 1:
        own = share_interval(working, chips, confidence=confidence)
        return TrainingYield(target, working, chips, 1, own, Interval(0.0, 1.0), confidence)
    pooled = wilson_interval(working, chips, confidence=confidence)
    model = model_interval(
        accuracies, target - 0.5 / images, same_chips=same_chips, confidence=confidence
    )
    free = free_interval(works, same_chips=same_chips, confidence=confidence)
    return TrainingYield(
        target, working, chips, len(works), _hull(model, pooled), _hull(free, pooled), confidence
    )


def model_interval(
    accuracies: Sequence[Tensor],
    target: float,
    *,
    same_chips: bool,
    confidence: float,
) -> Interval:
    r"""Return the interval of the yield, assuming normal shifts between trainings.

    The variance of the shifts is a generalised pivot, :math:`V = s_L^2 (a - 1) / \chi^2_{a - 1}`,
    where L are the medians of the trainings. The distribution of chips is not assumed: it is a
    Bayesian bootstrap over them, with one extra chip that may or may not work.

    Args:
        accuracies: Accuracies of the chips of each training, at least two trainings.
        target: Accuracy that a chip must exceed, reduced by half an image.
        same_chips: Whether chip j is the same chip for all trainings.
        confidence: Coverage.

    References:
        Generalized confidence intervals (Weerahandi, 1993),
        https://doi.org/10.1080/01621459.1993.10476355; The Bayesian bootstrap (Rubin, 1981),
        https://doi.org/10.1214/aos/1176345338
    """
    groups = [values.double() for values in accuracies]
    a = len(groups)
    level = torch.stack([values.quantile(0.5) for values in groups])
    rest = [values - own for values, own in zip(groups, level, strict=True)]
    own = rest
    if same_chips:
        common = torch.stack(rest).quantile(0.5, dim=0)
        own = [values - common for values in rest]
    n = a / sum(1 / len(values) for values in groups)
    noise = 1.57 * _iqr_std(torch.cat(own)) ** 2 * (a / (a - 1) if same_chips else 1) / n
    between = float(level.var(correction=1))
    draws = _draws(a, len(groups[0]) if same_chips else sum(len(values) for values in groups))
    variance = between * (a - 1) / draws.chi2.clamp_min(_TINY)
    centre = level.mean() - draws.normal * (variance / a).sqrt()
    smooth = _iqr_std(torch.cat(rest)) / 2 * n**-0.2
    spread = ((variance - noise).clamp_min(0) + smooth**2).sqrt().clamp_min(_TINY)
    # Per draw and chip, the sum over trainings of Phi, as erf: ``torch.special.ndtr`` is also exact
    # in the far tail, which takes six times as long.
    scale = 1 / (spread * math.sqrt(2))
    start = (centre - target) * scale
    parts = rest if same_chips else [torch.cat(rest)]
    erf = torch.zeros(_DRAWS, len(parts[0]), dtype=torch.float64)
    for part in parts:
        erf += torch.addcmul(start[:, None], scale[:, None], part[None]).erf_()
    found = (draws.weights[:, :-1] * (1 + erf / len(parts)) / 2).sum(1)
    tail = (1 - confidence) / 2
    low = float(found.quantile(tail))
    high = float((found + draws.weights[:, -1]).quantile(1 - tail))
    return Interval(max(low, 0.0), min(high, 1.0))


def free_interval(works: Sequence[Tensor], *, same_chips: bool, confidence: float) -> Interval:
    r"""Return the interval of the yield for any distribution of trainings.

    This is Gaffke's bound for the mean of the trainings' shares. For shares of 0 and 1 it equals
    Clopper and Pearson's; it is conjectured to be valid for all shares. The effect of common chips
    is added in quadrature. If all chips of :math:`a` trainings work, the lower bound is :math:`((1
    - c) / 2)^{1/a}`, whatever the number of chips.

    Args:
        works: For each training ``[chips]``, 1 for each working chip, else 0.
        same_chips: Whether chip j is the same chip for all trainings.
        confidence: Coverage c.

    References:
        A New Confidence Bound for the Mean of a Bounded Random Variable (Learned-Miller and
        Thomas, 2019), https://arxiv.org/abs/1905.06208
    """
    shares = torch.stack([work.mean() for work in works])
    mean = float(shares.mean())
    uniform = _sorted_uniforms(len(shares))
    tail = (1 - confidence) / 2

    def lower(values: Tensor) -> float:
        gaps = torch.cat([(1 - values).sort().values, values.new_ones(1)]).diff()
        return float((uniform @ gaps).kthvalue(max(1, round(tail * _GAFFKE_DRAWS))).values)

    low, high = lower(shares), 1 - lower(1 - shares)
    found = hierarchical(works, same_chips=same_chips)
    chips = len(works[0])
    common = 0.0
    if same_chips and chips > 1 and found.common_std:
        common = student_t_quantile(1 - tail, chips - 1) * found.common_std / math.sqrt(chips)
    return Interval(
        max(mean - math.hypot(mean - low, common), 0.0),
        min(mean + math.hypot(high - mean, common), 1.0),
    )


def _hull(one: Interval, other: Interval) -> Interval:
    return Interval(min(one.low, other.low), max(one.high, other.high))


def _iqr_std(values: Tensor) -> float:
    """Return the standard deviation of the normal distribution with the same quartiles."""
    low, high = values.quantile(torch.tensor([0.25, 0.75], dtype=values.dtype)).tolist()
    return float(high - low) / 1.349


class _Draws(NamedTuple):
    """Monte-Carlo draws.

    Args:
        chi2: Chi-square with (trainings - 1) degrees of freedom.
        normal: Standard normal.
        weights: Dirichlet(1) over the chips and one more ``[draws, chips + 1]``.
    """

    chi2: Tensor
    normal: Tensor
    weights: Tensor


@lru_cache(maxsize=4)
def _draws(trainings: int, chips: int) -> _Draws:
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(_DRAWS, trainings, generator=generator, dtype=torch.float64)
    weights = -torch.rand(_DRAWS, chips + 1, generator=generator, dtype=torch.float64).log()
    weights /= weights.sum(1, keepdim=True)
    return _Draws(normal[:, 1:].square().sum(1), normal[:, 0], weights)


@lru_cache(maxsize=4)
def _sorted_uniforms(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    uniforms = torch.rand(_GAFFKE_DRAWS, count, generator=generator, dtype=torch.float64)
    return uniforms.sort(dim=1).values
