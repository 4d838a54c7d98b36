"""How accuracy falls as something happens to spikes, on simulated chips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import Generator, nn

from spikewvat.adapters import Adapter, ResetState
from spikewvat.devices import DeviceModel, Ideal
from spikewvat.devices.base import check_at_least_zero
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness.bench import CACHE_BYTES, Bench, ChipLoss, Progress, Scores, sigma_of
from spikewvat.robustness.chips import plan_of, shifted
from spikewvat.robustness.corruptions.base import Corruption
from spikewvat.robustness.results import Degradation
from spikewvat.spiking.losses import class_scores
from spikewvat.weights import Weights


def sweep_spikes(
    model: nn.Module,
    loader: Iterable[Any],
    corruption_at: Callable[[float], Corruption],
    severities: Sequence[float],
    *,
    device: DeviceModel | None = None,
    chips: int = 25,
    target: float | None = None,
    interval_width: float | None = None,
    min_chips: int = 10,
    loss: ChipLoss | None = None,
    scores: Scores = class_scores,
    adapter: Adapter | None = None,
    reset_state: ResetState | None = None,
    weights: Weights | None = None,
    progress: Progress | None = None,
    cache_bytes: int = CACHE_BYTES,
    generator: Generator | None = None,
) -> Degradation:
    """Test a network at several severities of a corruption, on the same chips at each.

    A chip is a seed: it draws the weights as :func:`~spikewvat.robustness.sweep` does, defects
    that are fixed in a chip, and, for each image, noise of its events. Beside accuracy the
    reports hold what the network does: spikes, synaptic operations, firing rates and their shift
    against the network with ideal weights and without corruption; not so for a network whose
    spiking neurons no adapter knows.

    Args:
        model: See :func:`~spikewvat.robustness.simulate_chips`, here and below. Called with its
            input first.
        loader: Batches of images.
        corruption_at: From severity to a corruption, for example ``Deletion`` itself.
        severities: In the corruption's unit, each at least 0.
        device: What chips do to weights besides; by default nothing.
        chips: How many chips at most at each severity.
        target: Accuracy that a chip must reach to work.
        interval_width: Stop at a severity when its interval is narrower.
        min_chips: Chips to simulate before stopping early.
        loss: Also report losses.
        scores: How outputs become class scores.
        adapter: By default the one for the model's framework.
        reset_state: Resets layers that no adapter knows.
        weights: Live weights that the device holds.
        progress: Called after each chip, counted over all severities.
        cache_bytes: Memory that the images may take.
        generator: Source of the seeds.

    Returns:
        Clean accuracy and activity, and a report for each severity.

    Raises:
        ValueError: As :func:`~spikewvat.robustness.simulate_chips`; if there is no severity or
            one is out of range; or if the corruption cannot happen to the input.
        TypeError: If ``corruption_at`` returns no corruption.
        UnsupportedModelError: If the corruption cannot happen to the network.
    """
    if not severities:
        raise ValueError("there are no severities to sweep, expected some, such as [0, 0.1].")
    corruptions = [_checked(corruption_at, severity) for severity in severities]
    device = Ideal() if device is None else device
    plan = plan_of(chips, target, interval_width, min_chips, generator)
    bench = Bench(model, loader, loss, scores, adapter, reset_state, weights, cache_bytes)
    with suppress(UnsupportedModelError):  # events of a network without spiking neurons
        bench.count_activity()
    reports = []
    with bench.evaluating():
        clean, activity = bench.clean()[0], bench.activity
        for index, (severity, happens) in enumerate(zip(severities, corruptions, strict=True)):
            counted = None if progress is None else shifted(progress, index, len(severities), chips)
            report = bench.report(device, sigma_of(device), plan, counted, happens=happens)
            # A composition has no severity of its own but that which it was made for.
            reports.append(replace(report, severity=float(severity)))
    return Degradation(clean, tuple(reports), activity)


def _checked(corruption_at: Callable[[float], Corruption], severity: float) -> Corruption:
    check_at_least_zero("severity", severity)
    found = corruption_at(severity)
    if not isinstance(found, Corruption):
        raise TypeError(
            f"corruption_at({severity!r}) is {found!r}, expected a corruption such as "
            "Deletion(0.1). They are in spikewvat.robustness.corruptions."
        )
    return found
