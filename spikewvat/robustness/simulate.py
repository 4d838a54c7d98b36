"""The one-line way to simulate chips."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, TypedDict, Unpack

import torch
from torch import Generator, nn

from spikewvat.adapters import Adapter, ResetState
from spikewvat.devices import DeviceModel
from spikewvat.robustness.evaluator import Evaluator
from spikewvat.robustness.plan import Progress
from spikewvat.robustness.results import ChipReport
from spikewvat.robustness.stacked import Stacking
from spikewvat.robustness.testset import ChipLoss, Scores
from spikewvat.robustness.timing import Time
from spikewvat.weights import Weights


class EvaluatorOptions(TypedDict, total=False):
    """Options of :class:`Evaluator`, all with defaults."""

    time: Time
    scores: Scores | None
    loss: ChipLoss | None
    weights: Weights | None
    adapter: Adapter | None
    reset_state: ResetState | None
    ignore: Collection[str]
    cache_bytes: int
    stack: Stacking
    autocast: torch.dtype | None
    jobs: int


def simulate_chips(
    model: nn.Module,
    loader: Iterable[Any],
    device: DeviceModel,
    *,
    chips: int = 25,
    target: float | None = None,
    interval_width: float | None = None,
    min_chips: int = 25,
    any_time: bool = False,
    images_per_chip: int | None = None,
    seed: int | None = None,
    generator: Generator | None = None,
    progress: Progress | None = None,
    **options: Unpack[EvaluatorOptions],
) -> ChipReport:
    """Test a network on simulated chips: :meth:`Evaluator.chips` in one line.

    Args:
        model: See :class:`Evaluator`.
        loader: Batches of images.
        device: Device model; for this and the next arguments see :meth:`Evaluator.chips`.
        chips: Largest number of chips.
        target: Accuracy that a chip must reach to work.
        interval_width: Stop when the interval of the mean accuracy is narrower than this.
        min_chips: Chips to simulate before stopping early.
        any_time: Use an interval that holds at all numbers of chips at once.
        images_per_chip: Number of images per chip; ``None`` uses all.
        seed: The seeds of the chips are drawn with it, 0 by default.
        generator: Draws them instead of a generator of that seed, and goes on.
        progress: Called after each chip.
        **options: Options of :class:`Evaluator`.

    Returns:
        Accuracies of the chips in the order of their seeds.
    """
    return Evaluator(model, loader, **options).chips(
        device,
        chips=chips,
        target=target,
        interval_width=interval_width,
        min_chips=min_chips,
        any_time=any_time,
        images_per_chip=images_per_chip,
        seed=seed,
        generator=generator,
        progress=progress,
    )
