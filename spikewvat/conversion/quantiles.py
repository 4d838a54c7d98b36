"""Quantiles of a stream of numbers that is too long to store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_BINS = 4096


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
            merged = torch.zeros_like(self._counts)
            merged[:, : _BINS // 2] = self._counts.view(channels, -1, 2).sum(2)
            self._counts[wide] = merged[wide]
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

    def least_error(self, time_steps: int, initial: float, candidates: int = 128) -> Tensor:
        r"""Return the threshold whose spike counts represent the values with the least error.

        .. math:: \min_\theta \sum_x \left(x - \frac\theta T\,
            \mathrm{clip}\Big(\Big\lfloor \frac{xT}\theta + v_0 \Big\rfloor, 0, T\Big)\right)^2

        Args:
            time_steps: Number of steps T that encode a rate.
            initial: Initial potential :math:`v_0` as a share of the threshold.
            candidates: Number of candidate thresholds, evenly spaced up to the maximum.

        Returns:
            0-dim, or [C] per channel; 0 if no value is positive.

        References:
            A Free Lunch From ANN (Li et al., 2021), section 3, https://arxiv.org/abs/2106.06984
        """
        counts = self._seen().double()
        centres = (torch.arange(_BINS, dtype=torch.float64) + 0.5) / _BINS
        shares = torch.linspace(1 / candidates, 1, candidates, dtype=torch.float64)[:, None]
        best = torch.zeros(len(counts))
        for channel, count in enumerate(counts):
            limit = float(self._limit[channel])
            x, theta = centres * limit, shares * float(self._maximum[channel].clamp(min=1e-12))
            told = (x * time_steps / theta + initial).floor().clamp(0, time_steps)
            error = (x - theta * told / time_steps).square() @ count
            best[channel] = float(theta[int(error.argmin())]) if count.any() else 0.0
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
