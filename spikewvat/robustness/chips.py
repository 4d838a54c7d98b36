"""How many chips work: the whole test set on weights as many simulated chips hold them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Generator, nn

from spikewvat.adapters import Adapter, ResetState
from spikewvat.devices.base import DeviceModel, check_at_least_zero
from spikewvat.robustness.bench import (
    CACHE_BYTES,
    Bench,
    ChipLoss,
    Plan,
    Progress,
    Scores,
    draw_seeds,
    sigma_of,
)
from spikewvat.robustness.results import ChipReport, Degradation, check_target
from spikewvat.robustness.stacked import Stacking
from spikewvat.spiking.losses import class_scores
from spikewvat.weights import Weights


def simulate_chips(
    model: nn.Module,
    loader: Iterable[Any],
    device: DeviceModel,
    *,
    chips: int = 25,
    target: float | None = None,
    interval_width: float | None = None,
    min_chips: int = 10,
    images_per_chip: int | None = None,
    loss: ChipLoss | None = None,
    scores: Scores = class_scores,
    adapter: Adapter | None = None,
    reset_state: ResetState | None = None,
    weights: Weights | None = None,
    progress: Progress | None = None,
    cache_bytes: int = CACHE_BYTES,
    stack: Stacking = "auto",
    autocast: torch.dtype | None = None,
    generator: Generator | None = None,
) -> ChipReport:
    """Program a network onto many simulated chips and test each of them on all images.

    A chip is a seed. The seeds are drawn from ``generator`` first, one after the other, so chip
    number i does not depend on how many chips or batches there are. Each chip is programmed once
    from the clean weights and holds what it has for the whole test set and all time steps. The
    network is evaluated in evaluation mode without gradients, neuron state is reset before every
    forward pass; afterwards weights, modes and state are as before, whatever was raised.

    Consecutive chips that hold equal weights (a device without randomness, or no variation) are
    evaluated once and count each.

    Args:
        model: Network from spikes ``[T, B, ...]`` to output spikes ``[T, B, classes]``, scores
            ``[B, classes]``, or a tuple with either first. Inputs are moved to its weights.
        loader: Yields ``(inputs, labels)`` batches, the same images at every pass. Iterated once
            where the images fit into ``cache_bytes``, else once for every chip.
        device: What a chip does to weights.
        chips: How many chips at most, at least 1.
        target: Accuracy that a chip must reach to work, a fraction; the report then has a yield.
        interval_width: Stop as soon as the full 95 % interval of the mean accuracy over chips is
            narrower than this fraction, but not before ``min_chips``. Looking after every chip
            makes the interval of a run that stopped cover a little less than 95 %.
        min_chips: Chips to simulate before stopping early, at least 2.
        images_per_chip: Images that each chip classifies, drawn anew for it: a mean accuracy at a
            fraction of the cost, see :func:`~spikewvat.robustness.best_split`. ``None`` takes all.
        loss: Also report the mean loss of each chip, averaged over images.
        scores: How outputs become class scores; the default sums over time.
        adapter: By default the one for the model's framework.
        reset_state: Resets layers that no adapter knows.
        weights: Live weights that the device holds; by default all synaptic ones.
        progress: Called after each chip.
        cache_bytes: Memory that the images may take; 0 keeps none.
        stack: Whether several chips share a forward pass. ``"auto"`` does where that is faster,
            for networks of dense layers on a GPU, and where all layers can; ``True`` insists.
        autocast: ``torch.bfloat16`` or ``torch.float16`` runs the forward passes in that
            precision, as ``torch.autocast`` does; accuracies then differ a little, and chips
            are not stacked.
        generator: Source of the seeds; ``None`` uses torch's global one.

    Returns:
        Accuracies of the chips in the order of their seeds.

    Raises:
        ValueError: If a number is out of its range, the loader yields no images or other images
            at a later pass, outputs have an unexpected shape or are NaN, labels are out of
            range, or weights are not finite.
        TypeError: If ``device`` is no device model, or a batch is no pair of tensors.
        UnsupportedModelError: If the model has no synaptic weights, or a layer keeps state that
            nothing can reset, or a layer cannot be stacked and ``stack`` is True.

    References:
        Test-time variation as in the WVAT paper, with one draw for each evaluation of the test
        set: it models the programming of a chip.
    """
    plan = plan_of(chips, target, interval_width, min_chips, generator, images_per_chip)
    _check_speed(stack, autocast, images_per_chip)
    bench = Bench(
        model,
        loader,
        loss,
        scores,
        adapter,
        reset_state,
        weights,
        cache_bytes,
        stack=stack,
        autocast=autocast,
    )
    with bench.evaluating():
        return bench.report(device, sigma_of(device), plan, progress)


def sweep(
    model: nn.Module,
    loader: Iterable[Any],
    device_at: Callable[[float], DeviceModel],
    sigmas: Sequence[float],
    *,
    chips: int = 25,
    target: float | None = None,
    interval_width: float | None = None,
    min_chips: int = 10,
    images_per_chip: int | None = None,
    loss: ChipLoss | None = None,
    scores: Scores = class_scores,
    adapter: Adapter | None = None,
    reset_state: ResetState | None = None,
    weights: Weights | None = None,
    progress: Progress | None = None,
    cache_bytes: int = CACHE_BYTES,
    stack: Stacking = "auto",
    autocast: torch.dtype | None = None,
    generator: Generator | None = None,
) -> Degradation:
    """Simulate chips at several magnitudes of variation, with the same seeds at each.

    Common seeds make the curve smooth: chip i at one sigma is chip i at another with its
    deviations scaled. Without variation all chips are one and are evaluated once.

    Args:
        model: See :func:`simulate_chips`, here and below.
        loader: Batches of images.
        device_at: From sigma to a device model, for example ``Gaussian`` itself.
        sigmas: Magnitudes, fractions of a layer's range, each at least 0.
        chips: How many chips at most at each sigma.
        target: Accuracy that a chip must reach to work.
        interval_width: Stop at a sigma when its interval is narrower.
        min_chips: Chips to simulate before stopping early.
        images_per_chip: Images that each chip classifies, drawn anew for it; the ideal weights
            classify all.
        loss: Also report losses.
        scores: How outputs become class scores.
        adapter: By default the one for the model's framework.
        reset_state: Resets layers that no adapter knows.
        weights: Live weights that the device holds.
        progress: Called after each chip, counted over all sigmas.
        cache_bytes: Memory that the images may take.
        stack: Whether several chips share a forward pass.
        autocast: Lower precision of the forward passes.
        generator: Source of the seeds.

    Returns:
        Clean accuracy, and a report for each sigma.

    Raises:
        ValueError: As :func:`simulate_chips`, or if there is no sigma or one is negative.
    """
    if not sigmas:
        raise ValueError("there are no sigmas to sweep, expected at least one, such as [0, 0.1].")
    for sigma in sigmas:
        check_at_least_zero("sigma", sigma)
    plan = plan_of(chips, target, interval_width, min_chips, generator, images_per_chip)
    _check_speed(stack, autocast, images_per_chip)
    bench = Bench(
        model,
        loader,
        loss,
        scores,
        adapter,
        reset_state,
        weights,
        cache_bytes,
        stack=stack,
        autocast=autocast,
    )
    reports = []
    with bench.evaluating():
        clean = bench.clean()[0]
        for index, sigma in enumerate(sigmas):
            counted = None if progress is None else shifted(progress, index, len(sigmas), chips)
            reports.append(bench.report(device_at(sigma), float(sigma), plan, counted))
    return Degradation(clean, tuple(reports))


def clean_accuracy(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    scores: Scores = class_scores,
    adapter: Adapter | None = None,
    reset_state: ResetState | None = None,
    weights: Weights | None = None,
) -> float:
    """Return the accuracy of the ideal weights, as a fraction.

    Evaluated like a chip: evaluation mode, no gradients, neuron state reset before every batch.

    Args:
        model: See :func:`simulate_chips`.
        loader: Batches of images, iterated once.
        scores: How outputs become class scores.
        adapter: By default the one for the model's framework.
        reset_state: Resets layers that no adapter knows.
        weights: Names the weights of a model without synaptic ones that an adapter finds.

    Returns:
        Share of right answers.

    Raises:
        ValueError: As :func:`simulate_chips`.
    """
    bench = Bench(model, loader, None, scores, adapter, reset_state, weights, cache_bytes=0)
    with bench.evaluating():
        return bench.clean()[0]


def plan_of(
    chips: int,
    target: float | None,
    interval_width: float | None,
    min_chips: int,
    generator: Generator | None,
    images: int | None = None,
) -> Plan:
    """Check what was asked for and draw the seeds of the chips.

    Raises:
        ValueError: If a number is out of its range.
    """
    if chips < 1:
        raise ValueError(f"chips must be at least 1, got {chips!r}.")
    if min_chips < 2:
        raise ValueError(f"min_chips must be at least 2, got {min_chips!r}.")
    if target is not None:
        check_target(target)
    if interval_width is not None and not (math.isfinite(interval_width) and interval_width > 0):
        raise ValueError(
            f"interval_width must be above 0, got {interval_width!r}. "
            "Write 0.01 for an interval of one percentage point."
        )
    if images is not None and target is not None:
        raise ValueError(
            f"target is {target!r} and images_per_chip {images!r}: a part of the images does not "
            "tell whether a chip works. Leave out one of the two."
        )
    return Plan(draw_seeds(chips, generator), target, interval_width, min_chips, images)


def _check_speed(stack: Stacking, autocast: torch.dtype | None, images: int | None) -> None:
    if stack not in ("auto", True, False):
        raise ValueError(f'stack must be "auto", True or False, got {stack!r}.')
    if autocast not in (None, torch.bfloat16, torch.float16):
        raise ValueError(
            f"autocast must be torch.bfloat16, torch.float16 or None, got {autocast!r}."
        )
    if stack is True and autocast is not None:
        raise ValueError(
            "stack=True and autocast do not go together: torch.func ignores autocast. "
            "Leave out one of the two."
        )
    if stack is True and images is not None:
        raise ValueError(
            "stack=True and images_per_chip do not go together: stacked chips share their images. "
            "Leave out one of the two."
        )


def shifted(progress: Progress, index: int, sigmas: int, chips: int) -> Progress:
    """Count chips over all sigmas."""
    return lambda done, total, accuracy: progress(index * chips + done, sigmas * chips, accuracy)
