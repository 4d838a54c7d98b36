"""Quantiles of a stream of numbers that is too long to store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_BINS = 4096
_AT_ONCE = 2**22  # numbers in memory while thresholds are searched


class Quantiles:
    """A histogram that widens as larger values arrive; the maximum is exact.

    Bins divide [0, limit) evenly, separately for each channel. A larger value doubles the limit and
    merges pairs of bins, so quantiles are off by at most 1/2048 of the maximum. Values of 0 and
    below are counted but not distinguished.

    Args:
        per_channel: Keep one histogram per channel (axis 2 of the values).
    """

    def __init__(self, *, per_channel: bool = False) -> None:
        self.per_channel = per_channel
        self.total = 0
        self._counts: Tensor | None = None
        self._limit = self._maximum = torch.zeros(())

    @torch.no_grad()
    def add(self, values: Tensor) -> None:
        """Add values [T, B, C, ...]."""
        channels = values.shape[2] if self.per_channel else 1
        values = values.movedim(2, 0) if self.per_channel else values
        values = values.detach().reshape(channels, -1).float().cpu()
        largest = values.amax(1)
        if self._counts is None:
            self._counts = torch.zeros(channels, _BINS, dtype=torch.int64)
            self._limit = largest.clamp(min=1e-12)
            self._maximum = largest
        self._maximum = torch.maximum(self._maximum, largest)
        while bool((wide := self._maximum > self._limit).any()):
            pairs = self._counts[wide].view(-1, _BINS // 2, 2).sum(2)
            self._counts[wide] = functional.pad(pairs, (0, _BINS // 2))
            self._limit[wide] *= 2
        self.total += values.shape[1]
        bins = (values * (_BINS / self._limit)[:, None]).long()  # rounds towards 0
        bins.clamp_(max=_BINS - 1).add_(torch.arange(channels)[:, None] * _BINS)
        found = torch.bincount(bins[values > 0], minlength=channels * _BINS)
        self._counts += found.view(channels, _BINS)

    def percentile(self, percentile: float) -> Tensor:
        """Return a percentile of the values.

        Args:
            percentile: In [0, 100]; 100 is the maximum.

        Returns:
            0-dim, or [C] per channel; 0 if the quantile is not positive.

        Raises:
            ValueError: If nothing has been added.
        """
        counts, maximum = self._seen(), self._maximum.clamp(min=0)
        if percentile < 100:
            above = counts.flip(1).cumsum(1).flip(1)  # values in a bin or higher
            allowed = self.total * (1 - percentile / 100)
            highest = (above > allowed).sum(1)  # bins up to the one that holds the quantile
            maximum = torch.minimum(self._limit * highest / _BINS, maximum)
        return maximum if self.per_channel else maximum[0]

    def least_error(
        self, time_steps: int, initial: float | Tensor, *, burst: int = 1, candidates: int = 128
    ) -> Tensor:
        r"""Return the threshold whose spike counts represent the values with the least error.

        .. math:: \min_\theta \sum_x \left(x - \frac\theta T\,
            \mathrm{clip}\Big(\Big\lfloor \frac{xT}\theta + v_0 \Big\rfloor, 0, \Gamma T\Big)
            \right)^2

        Args:
            time_steps: Number of steps T that encode a rate.
            initial: Initial potential :math:`v_0` as a share of the threshold, or one for each
                channel.
            burst: Most spikes :math:`\Gamma` of a step.
            candidates: Number of candidate thresholds, evenly spaced up to the maximum.

        Returns:
            0-dim, or [C] per channel; 0 if no value is positive.

        References:
            A Free Lunch From ANN (Li et al., 2021), section 3, https://arxiv.org/abs/2106.06984
        """
        counts = self._seen().double()
        # In units of bins. With q_k = k theta / T, the error is the sum over all values of x^2 and,
        # for each k that a value reaches, of (x - q_k)^2 - (x - q_(k-1))^2: suffix sums suffice.
        centres = torch.arange(_BINS, dtype=torch.float64) + 0.5
        largest = (self._maximum / self._limit).double() * _BINS
        shares = torch.linspace(1 / candidates, 1, candidates, dtype=torch.float64)
        above, total = _suffix_sums(counts), _suffix_sums(counts * centres)
        best = torch.zeros(len(counts), dtype=torch.float64)
        k = torch.arange(1, burst * time_steps + 1, dtype=torch.float64)
        start = torch.as_tensor(initial, dtype=torch.float64).cpu().expand(len(counts))
        at_once = max(1, _AT_ONCE // (candidates * len(k)))
        for channel in range(0, len(counts), at_once):
            part = slice(channel, channel + at_once)
            unit = shares * largest[part, None] / time_steps  # [channels, candidates]
            first = (
                ((k - start[part, None, None]) * unit[..., None] - 0.5)
                .ceil_()
                .clamp_(0, _BINS)
                .long()
            )
            first = first.flatten(1)
            n = above[part].gather(1, first).view(*unit.shape, -1)
            x = total[part].gather(1, first).view(*unit.shape, -1)
            error = unit * (unit * (n @ (2 * k - 1)) - 2 * x.sum(2))
            best[part] = shares[error.argmin(1)]
        best = torch.where(counts.sum(1) > 0, best * self._maximum.double(), 0.0).float()
        return best if self.per_channel else best[0]

    def state_dict(self) -> dict[str, Any]:
        """Return counts, limits and totals."""
        return {
            "total": self.total,
            "counts": None if self._counts is None else self._counts.clone(),
            "limit": self._limit.clone(),
            "maximum": self._maximum.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a :meth:`state_dict`."""
        self.total = int(state["total"])
        self._counts = None if state["counts"] is None else state["counts"].clone()
        self._limit, self._maximum = state["limit"].clone(), state["maximum"].clone()

    def _seen(self) -> Tensor:
        if self._counts is None:
            raise ValueError("no values have been added, expected at least one. Call add first.")
        return self._counts


def _suffix_sums(values: Tensor) -> Tensor:
    """Return the sums from each bin on, and 0 behind the last one: [C, bins + 1]."""
    sums = values.flip(1).cumsum(1).flip(1)
    return torch.cat([sums, sums.new_zeros(len(sums), 1)], 1)
