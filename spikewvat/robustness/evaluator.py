"""The evaluator: answers questions about a network and its test set."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Generator, nn

from spikewvat.adapters import Adapter, ResetState, check_model
from spikewvat.devices import DeviceModel, Ideal
from spikewvat.devices.base import check_at_least_zero
from spikewvat.robustness.axis import Axis, Setting
from spikewvat.robustness.calibration import Bench, Measure, Repair
from spikewvat.robustness.chips import Chips
from spikewvat.robustness.corruptions.base import Corruption
from spikewvat.robustness.images import CACHE_BYTES, Images
from spikewvat.robustness.landscape.landscape import Landscape
from spikewvat.robustness.plan import Plan, Progress, shifted, sigma_of, source_of_seeds
from spikewvat.robustness.results import ChipReport, Degradation
from spikewvat.robustness.stacked import Stacking
from spikewvat.robustness.subject import Subject
from spikewvat.robustness.testset import ChipLoss, Scores
from spikewvat.robustness.timing import Time, check_time
from spikewvat.spiking.losses import rate_cross_entropy
from spikewvat.weights import Weights

_SHARED = "stacked chips share their images"


class Evaluator:
    """A network and its test set, tested on simulated chips.

    The network runs in evaluation mode without gradients, and neuron state is reset before every
    forward pass. Each method restores weights, gradients, modes and state, whatever was raised.

    A chip is a seed. Every method draws the seeds of its chips from ``seed``, 0 by default, one
    after the other: the seed of chip i is the same in all methods and for all networks and devices,
    and does not depend on the number of chips. A chip is programmed once from the present weights
    and keeps its weights for all images and time steps. Random numbers that the network draws in a
    forward pass from the global generators of torch, numpy or Python are seeded by the chip too (0
    without variation); the generators are restored afterwards. Consecutive chips with equal weights
    (a device without randomness, or no variation) are evaluated once and each is counted, unless
    the network draws random numbers.

    The accuracy without variation is measured once, and again after a parameter, buffer, module or
    hook of the network has changed. Other changes, such as to a plain attribute, go unnoticed: make
    a new evaluator after them.

    Args:
        model: Network that maps spikes ``[T, B, ...]`` to output spikes ``[T, B, classes]``, scores
            ``[B, classes]``, or a tuple that starts with either; or one that computes a single time
            step, see ``time``. Inputs are moved to the device of its weights.
        loader: Yields ``(inputs, labels)`` batches with the same images in every pass. Iterated
            once if the images fit into ``cache_bytes``, otherwise once per chip.
        time: ``"network"`` if the network runs over time itself and is called once per batch.
            ``"steps"`` if it computes one step: it is called once for each step of inputs ``[T, B,
            ...]``, and its outputs are stacked. A number if it takes the same input ``[B, ...]`` in
            that many steps. By default this is inferred from the first batch; it is an error if
            that is not possible.
        scores: Function from outputs to class scores; the default sums over time. For several
            outputs per class, pass :func:`~spikewvat.robustness.population_scores`.
        loss: Function from output and labels to the mean loss of a batch. Chip reports then include
            losses; the landscape uses the cross-entropy of firing rates by default.
        weights: Live weights that chips hold; by default all synaptic ones. Biases and batch norm
            are not varied.
        adapter: Defaults to the adapter for the network's framework.
        reset_state: Resets layers that no adapter knows.
        ignore: Parameters or modules that are not on the device, such as a digital output layer.
        cache_bytes: Memory for the images; 0 disables caching.
        stack: Whether several chips share a forward pass. ``"auto"`` does so if it is faster
            (networks of dense layers on a GPU) and all layers support it; ``True`` requires it.
        autocast: ``torch.bfloat16`` or ``torch.float16`` runs the forward passes in that
            precision, as ``torch.autocast`` does; accuracies then differ a little, and chips
            are not stacked.
        jobs: Number of processes that share the chips of :meth:`chips`, :meth:`sweep` and
            :meth:`corrupt`, on a CPU with several cores; the landscape is evaluated in this one.
            Torch's threads are divided among them. Results are the same, bit for bit where this
            process has one thread.

    Raises:
        ValueError: If an option is invalid, or ``weights`` is empty. Every method raises it if the
            loader yields no images, or different ones in a later pass, outputs have an unexpected
            shape or are NaN, labels are out of range, weights are not finite, or the time axis
            cannot be determined.
        TypeError: From every method, if a batch is not a pair of tensors or a device not a device
            model.
        UnsupportedModelError: If the model has no synaptic weights, a layer keeps state that
            nothing can reset, or the network cannot be sent to other processes.
        MissingExtraError: If ``jobs`` is above 1 and joblib is not installed.

    References:
        Test-time variation as in the WVAT paper, with one draw for each evaluation of the test
        set: it models the programming of a chip.

    Example:
        >>> from spikewvat import Gaussian
        >>> network = nn.Linear(2, 2, bias=False)
        >>> _ = nn.init.eye_(network.weight)
        >>> test = Evaluator(network, [(torch.eye(2), torch.arange(2))])
        >>> test.accuracy
        1.0
        >>> print(test.chips(Gaussian(0.01), chips=3, target=0.9).yield_at(0.9))
        yield at 90 %: 3 of 3 chips
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        *,
        time: Time = None,
        scores: Scores | None = None,
        loss: ChipLoss | None = None,
        weights: Weights | None = None,
        adapter: Adapter | None = None,
        reset_state: ResetState | None = None,
        ignore: Collection[str] = (),
        cache_bytes: int = CACHE_BYTES,
        stack: Stacking = "auto",
        autocast: torch.dtype | None = None,
        jobs: int = 1,
    ) -> None:
        check_model(model, type(self).__name__)
        _check_loader(loader)
        _check_speed(stack, autocast, jobs)
        check_time(time)
        self._subject = Subject(
            model=model,
            images=Images(loader, cache_bytes),
            scores=scores,
            given=None if weights is None else dict(weights),
            own_adapter=adapter,
            reset_state=reset_state,
            autocast=autocast,
            ignore=ignore,
            time=time,
        )
        self._loss = loss
        self._stack: Stacking = stack if autocast is None and jobs == 1 else False
        self._jobs = jobs

    @property
    def accuracy(self) -> float:
        """Share of correct answers without variation."""
        with self._subject.running(self._loss) as run:
            return run.no_variation().accuracy

    @property
    def images(self) -> int:
        """Number of images."""
        images = self._subject.images
        if images.count == 0:
            for _ in images.batches(torch.device("cpu")):
                pass
        return images.count

    @property
    def landscape(self) -> Landscape:
        """The loss around the weights: along lines to chips, over a plane, and its sharpness."""
        return Landscape(self._subject, self._loss or rate_cross_entropy, self._stack)

    def chips(
        self,
        device: DeviceModel,
        *,
        chips: int = 25,
        target: float | None = None,
        interval_width: float | None = None,
        min_chips: int = 25,
        any_time: bool = False,
        images_per_chip: int | None = None,
        calibrate: Sequence[Measure] = (),
        calibration: Iterable[Any] | None = None,
        before: bool = True,
        seed: int | None = None,
        generator: Generator | None = None,
        progress: Progress | None = None,
    ) -> ChipReport:
        """Program the network onto many simulated chips and test each one on all images.

        Args:
            device: The device model.
            chips: Largest number of chips, at least 1.
            target: Accuracy that a chip must reach to work, a fraction; the report then includes
                the yield.
            interval_width: Stop as soon as the full 95 % interval of the mean accuracy over chips
                is narrower than this fraction, but not before ``min_chips``. The rule uses the
                cautious interval of :func:`~spikewvat.robustness.intervals.chip_interval`, which is
                wider than the printed one; it does not cover failures too rare to occur in the run.
            min_chips: Chips to simulate before stopping early, at least 2.
            any_time: Use an interval that holds at all numbers of chips at once, whatever the
                reason to stop; it needs 2.5 to 2.9 times as many chips. See
                :func:`~spikewvat.robustness.intervals.running_interval`.
            images_per_chip: Number of images per chip, redrawn for each: estimates the mean
                accuracy at a fraction of the cost, see :func:`~spikewvat.robustness.best_split`.
                ``None`` uses all images.
            calibrate: What is done to each chip after programming, in order, such as
                ``[Scale(), BiasTrim(samples=64)]``; the report then holds the same chips before
                it, and what it cost.
            calibration: Batches for it, from which the first samples are taken: not those of the
                test.
            before: Whether to test the chips before it, too; without, it takes half the time.
            seed: The seeds of the chips are drawn with it, 0 by default.
            generator: Draws them instead of a generator of that seed, and goes on.
            progress: Called after each chip.

        Returns:
            Accuracies of the chips in the order of their seeds.

        Raises:
            ValueError: If a number is out of range.
            UnsupportedModelError: If a layer cannot be stacked and ``stack`` is True.
        """
        plan = Plan(
            chips,
            source_of_seeds(seed, generator),
            target,
            interval_width,
            min_chips,
            images_per_chip,
            any_time,
            before,
        )
        self._check_alone(images_per_chip is not None, "images_per_chip", _SHARED)
        self._check_alone(bool(calibrate), "calibrate", "a chip is calibrated by itself")
        with self._subject.running(self._loss) as run:
            repair = Repair.of(run, calibrate, calibration)
            put = Chips(run, plan, self._stack, repair)
            with put.shared(self._jobs):
                return put.report(device, sigma_of(device), progress)

    def sweep(
        self,
        device_at: Callable[[float], DeviceModel],
        sigmas: Sequence[float],
        *,
        axis: Axis | None = None,
        chips: int = 25,
        target: float | None = None,
        interval_width: float | None = None,
        min_chips: int = 25,
        any_time: bool = False,
        images_per_chip: int | None = None,
        calibrate: Sequence[Measure] = (),
        calibration: Iterable[Any] | None = None,
        before: bool = True,
        seed: int | None = None,
        generator: Generator | None = None,
        progress: Progress | None = None,
    ) -> Degradation:
        """Simulate chips at several sizes of variation, with the same seeds at each.

        Common seeds make the curve smooth: between two sigmas, the deviations of chip i are only
        scaled. Without variation all chips are equal and are evaluated once.

        Args:
            device_at: Function from sigma to a device model, for example ``Gaussian``.
            sigmas: Sizes of variation as fractions of a layer's range, each at least 0; or values
                of what ``axis`` says.
            axis: Something else that is swept: :data:`~spikewvat.robustness.axis.AGE`, in seconds,
                looks at the same chips older.
            chips: Largest number of chips at each sigma; for this and the next arguments see
                :meth:`chips`.
            target: Accuracy that a chip must reach to work.
            interval_width: Stop at a sigma when its interval is narrower than this.
            min_chips: Chips to simulate before stopping early.
            any_time: Use an interval that holds at all numbers of chips at once.
            images_per_chip: Number of images per chip; without variation all images are used.
            calibrate: What is done to each chip after programming.
            calibration: Batches for it.
            before: Whether to test the chips before it, too.
            seed: The seeds of the chips are drawn with it, 0 by default.
            generator: Draws them instead of a generator of that seed, and goes on.
            progress: Called after each chip, counted over all sigmas.

        Returns:
            Accuracy without variation, and one report per sigma.

        Raises:
            ValueError: As :meth:`chips`, or if there is no sigma or one is negative.
        """
        _check_sweep("device_at", device_at, "Gaussian", "sigmas", sigmas)
        for sigma in sigmas:
            check_at_least_zero("sigma", sigma)
        plan = Plan(
            chips,
            source_of_seeds(seed, generator),
            target,
            interval_width,
            min_chips,
            images_per_chip,
            any_time,
            before,
        )
        self._check_alone(bool(calibrate), "calibrate", "a chip is calibrated by itself")
        self._check_alone(images_per_chip is not None, "images_per_chip", _SHARED)
        with self._subject.running(self._loss) as run:
            none, repair = run.no_variation(), Repair.of(run, calibrate, calibration)
            put = Chips(run, plan, self._stack, repair)
            with put.shared(self._jobs):
                reports = tuple(
                    put.report(device_at(s), float(s), shifted(progress, i, len(sigmas), chips))
                    for i, s in enumerate(sigmas)
                )
        if axis is not None:
            placed = zip(reports, sigmas, strict=True)
            reports = tuple(
                replace(report, sigma=None, setting=Setting(axis, float(at)))
                for report, at in placed
            )
        return Degradation(none.accuracy, reports)

    def corrupt(
        self,
        corruption_at: Callable[[float], Corruption],
        severities: Sequence[float],
        *,
        device: DeviceModel | None = None,
        chips: int = 25,
        target: float | None = None,
        interval_width: float | None = None,
        min_chips: int = 25,
        any_time: bool = False,
        seed: int | None = None,
        generator: Generator | None = None,
        progress: Progress | None = None,
    ) -> Degradation:
        """Test the network at several severities of a corruption, on the same chips at each.

        Each chip draws its weights as in :meth:`sweep`, the defects that stay fixed on a chip, and
        event noise for every image. Besides accuracy, the reports hold spikes, synaptic operations,
        firing rates and their shift relative to the network without variation and corruption. These
        are missing if no adapter knows the network's spiking neurons.

        Args:
            corruption_at: Function from severity to a corruption, for example ``Deletion``.
            severities: Severities in the corruption's unit, each at least 0.
            device: Device model for the weights; no variation by default.
            chips: Largest number of chips at each severity; for this and the next arguments see
                :meth:`chips`.
            target: Accuracy that a chip must reach to work.
            interval_width: Stop at a severity when its interval is narrower than this.
            min_chips: Chips to simulate before stopping early.
            any_time: Use an interval that holds at all numbers of chips at once.
            seed: The seeds of the chips are drawn with it, 0 by default.
            generator: Draws them instead of a generator of that seed, and goes on.
            progress: Called after each chip, counted over all severities.

        Returns:
            Accuracy and activity without variation, and one report per severity.

        Raises:
            ValueError: As :meth:`chips`; if there is no severity or one is out of range; or if the
                corruption does not apply to the input.
            TypeError: If ``corruption_at`` does not return a corruption.
            UnsupportedModelError: If the corruption does not apply to the network.
        """
        _check_sweep("corruption_at", corruption_at, "Deletion", "severities", severities)
        corruptions = [_checked(corruption_at, severity) for severity in severities]
        device = Ideal() if device is None else device
        source = source_of_seeds(seed, generator)
        plan = Plan(chips, source, target, interval_width, min_chips, any_time=any_time)
        self._check_alone(True, "corruptions", "corruptions act on one chip at a time")
        reports = []
        with self._subject.running(self._loss, counting=True) as run:
            none, put = run.no_variation(), Chips(run, plan, stack=False)
            with put.shared(self._jobs):
                for index, happens in enumerate(corruptions):
                    counted = shifted(progress, index, len(severities), chips)
                    report = put.report(device, sigma_of(device), counted, happens=happens)
                    # A composition has no severity of its own but that which it was made for.
                    reports.append(replace(report, severity=float(severities[index])))
        return Degradation(none.accuracy, tuple(reports), none.activity)

    @contextmanager
    def bench(self, calibration: Iterable[Any]) -> Iterator[Bench]:
        """Put the network on a tester's bench for a block, in evaluation mode.

        Args:
            calibration: Batches of calibration samples.
        """
        with self._subject.running(self._loss) as run:
            yield Bench(run, calibration)

    def on(self, model: nn.Module, *, weights: Weights | None = None) -> Evaluator:
        """Return an evaluator for another network on the same images, which are read only once.

        Args:
            model: The other network; all options except ``weights`` are kept.
            weights: Its live weights that chips hold; by default all synaptic ones.

        Raises:
            ValueError: If ``weights`` is empty.
            UnsupportedModelError: If the model has no synaptic weights, or a layer keeps state
                that nothing can reset.
        """
        other = copy.copy(self)
        other._subject = replace(self._subject, model=model, given=weights)
        return other

    def _check_alone(self, wanted: bool, what: str, why: str) -> None:
        """Raise ValueError if chips are required to share forward passes but cannot."""
        if wanted and self._stack is True:
            raise ValueError(
                f"stack=True cannot be combined with {what}: {why}. Leave out one of the two."
            )

    def __str__(self) -> str:
        subject = self._subject
        images = f"{subject.images.count} images" if subject.images.count else "images not yet read"
        return f"{type(subject.model).__name__}, {images}: {subject.account()}"


def _checked(corruption_at: Callable[[float], Corruption], severity: float) -> Corruption:
    check_at_least_zero("severity", severity)
    found = corruption_at(severity)
    if not isinstance(found, Corruption):
        raise TypeError(
            f"corruption_at({severity!r}) is {found!r}, expected a corruption such as "
            "Deletion(0.1). They are in spikewvat.robustness.corruptions."
        )
    return found


def _check_speed(stack: Stacking, autocast: torch.dtype | None, jobs: int) -> None:
    if stack not in ("auto", True, False):
        raise ValueError(f'stack must be "auto", True or False, got {stack!r}.')
    if autocast not in (None, torch.bfloat16, torch.float16):
        raise ValueError(
            f"autocast must be torch.bfloat16, torch.float16 or None, got {autocast!r}."
        )
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ValueError(f"jobs must be a whole number of at least 1, got {jobs!r}.")
    if stack is True and jobs > 1:
        raise ValueError(
            f"stack=True cannot be combined with jobs={jobs}: processes test one chip at a time. "
            "Leave out one of the two."
        )
    if stack is True and autocast is not None:
        raise ValueError(
            "stack=True cannot be combined with autocast: torch.func ignores autocast. "
            "Leave out one of the two."
        )


def _check_loader(loader: object) -> None:
    """Raise TypeError for what is surely no loader."""
    if isinstance(loader, nn.Module | DeviceModel) or not isinstance(loader, Iterable):
        raise TypeError(
            f"loader must yield batches (inputs, labels), got {type(loader).__name__}. The model "
            "comes first, then the loader, then what else there is."
        )


def _check_sweep(name: str, make: object, example: str, plural: str, values: object) -> None:
    """Raise unless there are magnitudes, and something that is made of them."""
    if not callable(make) or isinstance(make, DeviceModel | Corruption):
        raise TypeError(
            f"{name} makes something of each of the {plural}, got {make!r}. "
            f"Pass {example} itself, or a function."
        )
    if not isinstance(values, Sequence | torch.Tensor | np.ndarray):
        raise TypeError(f"{plural} must be a list such as [0, 0.1], got {values!r}.")
    if not len(values):
        raise ValueError(f"there are no {plural} to sweep, expected some, such as [0, 0.1].")
