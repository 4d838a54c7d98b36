"""Random variation of the weights: zero-mean additive noise, and lognormal spread.

Additive noise changes a weight by ``sigma * R * xi``, where R is the size of the layer's range
and xi has mean 0 and standard deviation 1 whatever its distribution, so that devices of equal
``sigma`` are equally noisy.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, final

import torch
from torch import Generator, Tensor

from spikewvat.devices.base import (
    AdditiveErrors,
    EachWeight,
    check_above_zero,
    check_at_least_zero,
    check_sigma,
    draw_dtype,
    generator_device,
    is_block,
    norm_of,
    normal,
    uniform,
)
from spikewvat.devices.ranges import RangeRule, SixSigma, check_range, size_of, sizes_kept
from spikewvat.pieces import InPieces, in_memory_order
from spikewvat.weights import Perturb, Weights, adding

Pieces: TypeAlias = Callable[..., Iterator[tuple[slice, Tensor]]]
"""From a count and a generator on the CPU to float32 numbers, piece by piece: their places and they
themselves, in memory that is used again."""


@dataclass(frozen=True)
class FusedNoise:
    """Standard numbers that can be added to weights as they are drawn, and are never held.

    Args:
        draw: From a shape, a dtype, a generator and an optional factor to numbers.
        pieces: The same numbers piece by piece.
    """

    draw: Callable[..., Tensor]
    pieces: Pieces

    def __call__(
        self, shape: torch.Size, *, dtype: torch.dtype, generator: Generator | None = None
    ) -> Tensor:
        """Draw (see :meth:`AdditiveNoise.standard_noise`)."""
        return self.draw(shape, dtype=dtype, generator=generator)


@dataclass(frozen=True)
class AdditiveNoise(AdditiveErrors):
    r"""Noise added to each weight, drawn independently: the base of the distributions below.

    .. math:: w' = w + \sigma R \, \xi, \qquad E[\xi] = 0, \; E[\xi^2] = 1

    Float16 and bfloat16 weights get noise drawn in float32, float64 weights in float64.

    Args:
        sigma: Standard deviation as a fraction of the range (dimensionless), from 0 to 1, or any
            number with a range rule of your own.
        range: Size R of each layer's range.

    Raises:
        ValueError: If ``sigma`` is no such number, or ``range`` is no range rule.

    References:
        Weight-variation-aware training (WVAT), section 3.3 (the default range) and A.5.
    """

    sigma: float
    range: RangeRule = field(default_factory=SixSigma)

    def __post_init__(self) -> None:
        check_range(self.range)
        most = math.inf if type(self.range).__module__ != RangeRule.__module__ else 1.0
        check_sigma(
            self.sigma,
            most=most,
            more="More than a whole range needs a wider one: Fixed(low, high).",
        )

    @abstractmethod
    def standard_noise(
        self, shape: torch.Size, *, dtype: torch.dtype, generator: Generator | None = None
    ) -> Tensor:
        """Draw independent numbers of mean 0 and standard deviation 1.

        Args:
            shape: Shape of the result.
            dtype: float32 or float64.
            generator: Source of randomness; ``None`` uses torch's global one.

        Returns:
            A new contiguous tensor on the generator's device; it will be written to.
        """

    @final
    def errors(self, weights: Weights, *, generator: Generator | None = None) -> Weights:
        """Return the noise itself (see :meth:`DeviceModel.errors`)."""
        return self._noise(weights, self.standard_noise, generator)

    @final
    def plan(
        self, weights: Weights, *, scale: float = 1.0, generator: Generator | None = None
    ) -> Perturb:
        """Return a function that adds training noise (see :meth:`DeviceModel.plan`).

        Where it can, it adds numbers as they are found, in the order of memory: where a layout is
        not contiguous (channels last), those of a draw go to other weights. A GPU, which would
        have to wait for the ranges, holds the noise instead, as do weights that are no dense
        blocks of float32.
        """
        noise, on_cpu = self._training_noise, generator_device(generator).type == "cpu"
        with sizes_kept():
            if isinstance(noise, FusedNoise) and on_cpu and all(map(is_block, weights.values())):
                sizes = {name: size_of(self.range, weight) for name, weight in weights.items()}
                if all(size.numel() == 1 for size in sizes.values()):
                    factors = {n: scale * self.sigma * float(size) for n, size in sizes.items()}
                    return _Adding(noise.pieces, factors, generator)
            return adding(self._noise(weights, noise, generator), scale=scale)

    @property
    def _training_noise(self) -> Callable[..., Tensor]:
        """What :meth:`plan` takes its numbers from."""
        return self.standard_noise

    def expected_norms(self, weights: Weights) -> dict[str, Tensor]:
        """Return sigma * R * sqrt(n) for each weight (see :meth:`DeviceModel.expected_norms`)."""
        norms = {}
        for name, weight in weights.items():
            size = size_of(self.range, weight)  # one number for the tensor, or one for each channel
            share = math.sqrt(weight.numel() / max(1, size.numel()))
            norms[name] = torch.linalg.vector_norm(size).mul_(self.sigma * share)
        return norms

    def moments(self, weights: Weights) -> dict[str, tuple[Tensor, Tensor]]:
        """Return w and (sigma * R)^2 (see :meth:`DeviceModel.moments`)."""
        return {name: (weight, self._variance(weight)) for name, weight in weights.items()}

    def _variance(self, weight: Tensor) -> Tensor:
        variance = (self.range.size(weight) * self.sigma).square().to(weight.device, weight.dtype)
        return variance.expand(weight.shape)

    def _noise(
        self, weights: Weights, draw: Callable[..., Tensor], generator: Generator | None
    ) -> Weights:
        noise = {}
        for name, weight in weights.items():
            scale = size_of(self.range, weight) * self.sigma
            options: dict[str, Any] = {"dtype": draw_dtype(weight), "generator": generator}
            if isinstance(draw, FusedNoise) and scale.numel() == 1:
                numbers = draw.draw(weight.shape, scale=scale, **options).to(weight.device)
            else:
                numbers = draw(weight.shape, **options).to(weight.device).mul_(scale)
            noise[name] = numbers.to(weight.dtype)
        return noise


class _Adding(InPieces):
    """Adds noise as it is drawn or looked up."""

    draws = True

    def __init__(
        self, pieces: Pieces, factors: Mapping[str, float], generator: Generator | None
    ) -> None:
        self._pieces, self._factors, self._generator = pieces, factors, generator

    def fits(self, name: str, weight: Tensor) -> bool:
        return is_block(weight)

    def writing(self, name: str, weight: Tensor, target: Tensor) -> Iterator[int]:
        into, out, factor = in_memory_order(target), in_memory_order(weight), self._factors[name]
        for piece, numbers in self._pieces(weight.numel(), generator=self._generator):
            torch.add(out[piece], numbers, alpha=factor, out=into[piece])
            yield piece.stop

    def times(self, factor: float) -> _Adding:
        factors = {name: factor * own for name, own in self._factors.items()}
        return _Adding(self._pieces, factors, self._generator)


@dataclass(frozen=True)
class Uniform(AdditiveNoise):
    r"""Uniform variation, :math:`\xi \sim U(-\sqrt{3}, \sqrt{3})`.

    Args:
        sigma: Standard deviation as a fraction of the range (dimensionless), from 0 to 1.
        range: Size R of each layer's range.

    Raises:
        ValueError: If ``sigma`` is out of range.

    References:
        Weight-variation-aware training (WVAT), appendix A.5.
    """

    def standard_noise(
        self, shape: torch.Size, *, dtype: torch.dtype, generator: Generator | None = None
    ) -> Tensor:
        """Draw (see :meth:`AdditiveNoise.standard_noise`)."""
        bound = math.sqrt(3)
        noise = torch.empty(shape, dtype=dtype, device=generator_device(generator))
        return noise.uniform_(-bound, bound, generator=generator)


@dataclass(frozen=True)
class Weibull(AdditiveNoise):
    r"""Weibull variation, moved to mean 0 and scaled to standard deviation 1; right-skewed.

    .. math:: \xi = \lambda E^{1/k} - \lambda \Gamma(1 + 1/k), \qquad
              \lambda^{-2} = \Gamma(1 + 2/k) - \Gamma(1 + 1/k)^2, \quad E \sim \mathrm{Exp}(1)

    Args:
        sigma: Standard deviation as a fraction of the range (dimensionless), from 0 to 1.
        range: Size R of each layer's range.
        k: Shape (dimensionless), above 0; the smaller, the longer the tail.

    Raises:
        ValueError: If ``sigma`` is out of range, or ``k`` is not above 0.

    References:
        Weight-variation-aware training (WVAT), appendix A.5 (k is our choice).
    """

    k: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_above_zero("k", self.k)
        if self.k < 0.05:  # gamma(1 + 2/k) no longer fits a float
            raise ValueError(f"k must be at least 0.05, got {self.k!r}.")

    @property
    def scale(self) -> float:
        """Lambda, which makes the standard deviation 1."""
        return 1 / math.sqrt(math.gamma(1 + 2 / self.k) - math.gamma(1 + 1 / self.k) ** 2)

    @property
    def mean(self) -> float:
        """What is subtracted to make the mean 0."""
        return self.scale * math.gamma(1 + 1 / self.k)

    def standard_noise(
        self, shape: torch.Size, *, dtype: torch.dtype, generator: Generator | None = None
    ) -> Tensor:
        """Draw (see :meth:`AdditiveNoise.standard_noise`)."""
        # By inversion: torch's exponential_ is six times slower on a CPU.
        exponential = uniform(shape, dtype, generator).neg_().log1p_().neg_()
        return exponential.pow_(1 / self.k).mul_(self.scale).sub_(self.mean)


@dataclass(frozen=True)
class SkewNormal(AdditiveNoise):
    r"""Skew-normal variation, as of repeated reads of one ferroelectric tunnel junction.

    .. math:: \xi = \omega \left(\delta |Z_0| + \sqrt{1 - \delta^2} \, Z_1
              - \delta \sqrt{2 / \pi} \right), \qquad
              \delta = a / \sqrt{1 + a^2}, \quad \omega^{-2} = 1 - 2 \delta^2 / \pi

    Args:
        sigma: Standard deviation as a fraction of the range (dimensionless), from 0 to 1.
        range: Size R of each layer's range.
        a: Shape (dimensionless): 0 is Gaussian, positive is skewed to the right.

    Raises:
        ValueError: If ``sigma`` is out of range, or ``a`` is not finite.

    References:
        Weight-variation-aware training (WVAT), section 4.5 (sigma 0.0383; a is our choice).
    """

    a: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.a):
            raise ValueError(f"a must be a finite number, got {self.a!r}.")

    @property
    def delta(self) -> float:
        """Correlation of the result with its skewed part."""
        return self.a / math.hypot(1, self.a)

    @property
    def omega(self) -> float:
        """Scale that makes the standard deviation 1."""
        return 1 / math.sqrt(1 - 2 * self.delta**2 / math.pi)

    @property
    def xi(self) -> float:
        """Location that makes the mean 0."""
        return -self.omega * self.delta * math.sqrt(2 / math.pi)

    def standard_noise(
        self, shape: torch.Size, *, dtype: torch.dtype, generator: Generator | None = None
    ) -> Tensor:
        """Draw (see :meth:`AdditiveNoise.standard_noise`)."""
        skewed = normal(shape, dtype, generator).abs_()
        straight = normal(shape, dtype, generator)
        rest = self.omega / math.hypot(1, self.a)  # omega sqrt(1 - delta^2)
        return skewed.mul_(self.omega * self.delta).add_(straight, alpha=rest).add_(self.xi)


@dataclass(frozen=True)
class MixtureNoise(AdditiveNoise):
    r"""A mixture of Gaussians, standardised: several kinds of device on one chip.

    .. math:: \xi = (m_j + s Z - \bar m) / \sqrt{s^2 + \textstyle\sum_i p_i (m_i - \bar m)^2},
              \qquad P(j) = p_j, \quad \bar m = \textstyle\sum_i p_i m_i

    Args:
        sigma: Standard deviation as a fraction of the range (dimensionless), from 0 to 1.
        range: Size R of each layer's range.
        weights: Probability p of each kind; they add up to 1.
        means: Mean m of each kind, in any unit.
        std: Standard deviation s of each kind, in the unit of ``means``, at least 0.

    Raises:
        ValueError: If the numbers are impossible, or describe no variation at all.

    References:
        Weight-variation-aware training (WVAT), section 4.5: 100 ferroelectric tunnel junctions
        show several modes (the default numbers are our choice).
    """

    weights: tuple[float, ...] = (0.5, 0.3, 0.2)
    means: tuple[float, ...] = (-1.0, 0.5, 2.0)
    std: float = 0.35

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "weights", tuple(self.weights))
        object.__setattr__(self, "means", tuple(self.means))
        if len(self.weights) != len(self.means) or not self.means:
            raise ValueError(
                f"weights and means must be of one length, got {len(self.weights)} weights "
                f"and {len(self.means)} means."
            )
        for weight in self.weights:
            check_at_least_zero("weights", weight)
        if not math.isclose(sum(self.weights), 1, abs_tol=1e-6):
            raise ValueError(f"weights must add up to 1, got {self.weights} = {sum(self.weights)}.")
        if not all(math.isfinite(mean) for mean in self.means):
            raise ValueError(f"means must be finite numbers, got {self.means}.")
        check_at_least_zero("std", self.std)
        if self.scale == 0:
            raise ValueError("MixtureNoise needs std above 0, or means that differ.")

    @property
    def mean(self) -> float:
        """Mean of the mixture before it is standardised, in the unit of ``means``."""
        return math.fsum(p * m for p, m in zip(self.weights, self.means, strict=True))

    @property
    def scale(self) -> float:
        """Standard deviation of the mixture before it is standardised."""
        mean = self.mean
        between = (p * (m - mean) ** 2 for p, m in zip(self.weights, self.means, strict=True))
        return math.sqrt(self.std**2 + math.fsum(between))

    def standard_noise(
        self, shape: torch.Size, *, dtype: torch.dtype, generator: Generator | None = None
    ) -> Tensor:
        """Draw (see :meth:`AdditiveNoise.standard_noise`)."""
        share = uniform(shape, dtype, generator)
        noise = normal(shape, dtype, generator)
        noise.mul_(self.std).add_(self.means[0] - self.mean)
        edge = 0.0
        for p, low, high in zip(self.weights, self.means, self.means[1:], strict=False):
            # A comparison and an addition for each kind: a third of the time of a look-up.
            edge += p
            noise.add_((share >= edge).to(dtype), alpha=high - low)
        return noise.div_(self.scale)


@dataclass(frozen=True)
class Lognormal(EachWeight):
    r"""Lognormal spread: every weight is multiplied, so zero weights stay zero.

    .. math:: w' = w \, e^{\theta}, \qquad \theta \sim N(0, \sigma^2)

    Args:
        sigma: Standard deviation of the logarithm (dimensionless), from 0 to 3.
        keep_mean: Divide by :math:`e^{\sigma^2 / 2}`, so that the mean of w' is w; otherwise its
            median is.

    Raises:
        ValueError: If ``sigma`` is out of range.

    References:
        Vortex: variation-aware training for memristor X-bar (Liu et al., 2015),
        https://doi.org/10.1145/2744769.2744930
    """

    sigma: float
    keep_mean: bool = False

    def __post_init__(self) -> None:
        check_sigma(self.sigma, most=3.0, more="A sigma of 3 spreads weights twentyfold already.")

    def expected_norms(self, weights: Weights) -> dict[str, Tensor]:
        """Return the norms in closed form (see :meth:`DeviceModel.expected_norms`)."""
        variance = self.sigma**2
        if self.keep_mean:
            mean_square = math.expm1(variance)
        else:
            mean_square = math.expm1(2 * variance) - 2 * math.expm1(variance / 2)
        return {name: norm_of(weight) * math.sqrt(mean_square) for name, weight in weights.items()}

    def moments(self, weights: Weights) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the moments of the lognormal law (see :meth:`DeviceModel.moments`)."""
        mean = 1.0 if self.keep_mean else math.exp(self.sigma**2 / 2)
        relative = math.expm1(self.sigma**2) * mean**2
        return {
            name: (mean * weight, relative * weight.square()) for name, weight in weights.items()
        }

    def _program(self, weight: Tensor, generator: Generator | None) -> Tensor:
        theta = normal(weight.shape, draw_dtype(weight), generator).mul_(self.sigma)
        if self.keep_mean:
            theta.sub_(self.sigma**2 / 2)
        return theta.exp_().to(weight.device).mul_(weight.detach()).to(weight.dtype)
