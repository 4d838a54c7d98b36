"""A network set up for chips to be put in, and everything put back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Generator, Tensor, nn

from spikewvat.adapters import Adapter, ResetState, adapter_for
from spikewvat.devices.base import DeviceModel
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness.activity import Activity
from spikewvat.robustness.corruptions.base import Corruption
from spikewvat.robustness.corruptions.context import corrupted
from spikewvat.robustness.observer import Observer
from spikewvat.robustness.results import ChipReport
from spikewvat.robustness.stacked import (
    STACK_BYTES,
    NotStackableError,
    Stack,
    Stacking,
    group_size,
    measured,
    pays,
)
from spikewvat.robustness.statistics import mean_interval
from spikewvat.robustness.testset import TestSet
from spikewvat.weights import Weights, replaced

Scores: TypeAlias = Callable[[Any], Tensor]
"""From a network's output to the score of every class, ``[B, classes]``."""

ChipLoss: TypeAlias = Callable[[Any, Tensor], Tensor]
"""From a network's output and labels to the mean loss over the batch, a 0-dim tensor."""

Progress: TypeAlias = Callable[[int, int, float], object]
"""Called after each chip with chips done, chips at most in all, and that chip's accuracy."""


CACHE_BYTES = 2**30
_SEEDS = 2**32  # torch's CPU generator keeps 32 bits of a seed


@dataclass(frozen=True)
class Plan:
    """Which chips to simulate and when to stop."""

    seeds: tuple[int, ...]
    target: float | None
    interval_width: float | None
    min_chips: int
    images: int | None = None  # for each chip, drawn anew; None for all

    def is_done(self, accuracies: list[float]) -> bool:
        """Return whether the interval asked for is reached."""
        if self.interval_width is None or len(accuracies) < self.min_chips:
            return False
        return mean_interval(accuracies).width < self.interval_width


class Bench:
    """A network and its test set, ready to have chips put in."""

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        loss: ChipLoss | None,
        scores: Scores,
        adapter: Adapter | None,
        reset_state: ResetState | None,
        weights: Weights | None,
        cache_bytes: int,
        *,
        stack: Stacking = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        self._model = model
        self._adapter = adapter or adapter_for(model, reset_state=reset_state)
        self._live = self._adapter.synaptic_weights(model) if weights is None else dict(weights)
        if not self._live:
            raise ValueError("weights is empty, expected live parameters by name. Leave it out.")
        self._test = TestSet(
            model,
            loader,
            device=next(iter(self._live.values())).device,
            reset=self._adapter.reset_state,
            scores=scores,
            loss=loss,
            cache_bytes=cache_bytes,
            autocast=autocast,
        )
        self._insist = stack is True
        self._stacking = autocast is None and (pays(self._live) if stack == "auto" else stack)
        self._stack: Stack | None = None
        self._activations = 0  # bytes in one pass of one chip, once they are measured
        self._with_loss = loss is not None
        # The last weights evaluated and what they gave: equal chips need no second evaluation.
        self._last: tuple[Weights, tuple[float, float | None]] | None = None
        self._observer: Observer | None = None
        self._activity: Activity | None = None  # of the last evaluation, if it was counted

    @property
    def weights(self) -> Weights:
        """The ideal weights, detached; not to be written to."""
        return {name: weight.detach() for name, weight in self._live.items()}

    @property
    def images(self) -> int:
        """How many images the test set has; 0 before the first evaluation."""
        return self._test.images

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put every module into evaluation mode for a while, and leave no neuron state behind."""
        modes = [(module, module.training) for module in self._model.modules()]
        try:
            self._model.eval()
            # Not inference mode: state that it leaves in neurons could not be reset in place.
            with torch.no_grad():
                yield
        finally:
            for module, training in modes:
                module.training = training
            self._adapter.reset_state(self._model)

    def count_activity(self) -> None:
        """Count spikes and synaptic operations in all evaluations from now on.

        Raises:
            UnsupportedModelError: If no layer of spiking neurons is known.
        """
        self._observer = Observer(self._model, self._adapter, self._live)
        self._last = None

    @property
    def activity(self) -> Activity | None:
        """What was counted in the last evaluation, None if nothing is counted."""
        return self._activity

    def _evaluate(
        self,
        what: str,
        happens: Corruption | None = None,
        seed: int = 0,
        chosen: Tensor | None = None,
    ) -> tuple[float, float | None]:
        """Test the weights that the network holds."""
        with ExitStack() as stack:
            if happens is not None:
                chip = corrupted(
                    self._model, happens, seed, adapter=self._adapter, weights=self._live
                )
                stack.enter_context(chip)
            if self._observer is None:
                return self._test.evaluate(what, chosen)
            self._observer.forget()
            stack.enter_context(self._observer.watching())
            found = self._test.evaluate(what, chosen)
            self._activity = self._observer.found()
            return found

    def clean(self) -> tuple[float, float | None]:
        """Return accuracy and loss of the ideal weights."""
        _check_finite(self._live, "the model holds a weight that is not finite", "Train it anew.")
        found = self._evaluate("the ideal weights")
        self._last = ({name: weight.clone() for name, weight in self._live.items()}, found)
        return found

    def holding(
        self, values: Weights, what: str, *, happens: Corruption | None = None, seed: int = 0
    ) -> tuple[float, float | None]:
        """Return accuracy and loss with other values in the weights.

        Args:
            values: Equal names and shapes.
            what: What they are, for messages.
            happens: What happens to spikes.
            seed: Of the chip on which it happens.
        """
        same = happens is None or not happens.active
        if same and self._last is not None and _equal(self._last[0], values):
            return self._last[1]
        self._check_chip(values, what)
        with replaced(self._live, values):
            found = self._evaluate(what, happens, seed)
        self._last = (values, found) if same else None
        return found

    def gradient(self) -> Weights:
        """Return the gradient of the mean loss at the ideal weights."""
        if not self._with_loss:
            raise ValueError("loss is None, expected a loss to take the gradient of.")
        return self._test.gradient(self._live)

    def report(
        self,
        device: DeviceModel,
        sigma: float | None,
        plan: Plan,
        progress: Progress | None,
        *,
        happens: Corruption | None = None,
    ) -> ChipReport:
        """Simulate the chips of a plan, and on each of them what happens to spikes."""
        check_device(device)
        _check_finite(self._live, "the model holds a weight that is not finite", "Train it anew.")
        accuracies: list[float] = []
        losses: list[float] = []
        activities: list[Activity] = []
        for accuracy, loss in self._found(device, plan, happens):
            if self._activity is not None:
                activities.append(self._activity)
            accuracies.append(accuracy)
            if loss is not None:
                losses.append(loss)
            if progress is not None:
                progress(len(accuracies), len(plan.seeds), accuracy)
            if plan.is_done(accuracies):
                break
        return ChipReport(
            device=repr(device),
            sigma=sigma,
            accuracies=torch.tensor(accuracies, dtype=torch.float64),
            seeds=plan.seeds[: len(accuracies)],
            images=self._test.images if plan.images is None else plan.images,
            losses=torch.tensor(losses, dtype=torch.float64) if losses else None,
            target=plan.target,
            corruption=None if happens is None else happens.name,
            severity=None if happens is None else happens.severity,
            unit="" if happens is None else happens.unit,
            activity=Activity.mean(activities) if activities else None,
            sampled_from=None if plan.images is None else self._test.images,
        )

    def _found(
        self, device: DeviceModel, plan: Plan, happens: Corruption | None
    ) -> Iterator[tuple[float, float | None]]:
        """Yield accuracy and loss of one chip after the other, in groups or one by one."""
        if plan.images is not None:
            self._test.load(plan.images)
            for seed in plan.seeds:
                yield self._sampled(device, seed, plan.images)
            return
        # What happens to spikes, and who counts them, know a single chip.
        alone = not self._stacking or happens is not None or self._observer is not None
        # Chips that stopping early throws away cost time: no more than are needed anyway.
        most = len(plan.seeds) if plan.interval_width is None else plan.min_chips
        done = 0
        while done < len(plan.seeds):
            size = 1 if alone else min(self._group(), most)
            group = plan.seeds[done : done + size]
            done += len(group)
            chips = [self._chip(device, seed, happens) for seed in group]
            if len(chips) > 1:
                yield from self._together(chips)
            elif alone or self._activations:
                yield self.holding(*chips[0], happens=happens, seed=group[0])
            else:
                with measured(self._model) as activations:
                    found = self.holding(*chips[0])
                self._activations = activations()
                yield found

    def _sampled(self, device: DeviceModel, seed: int, images: int) -> tuple[float, float | None]:
        """Return accuracy and loss of a chip on images of its own."""
        generator = Generator().manual_seed(seed)
        chip = device.program(self.weights, generator=generator)
        # The next numbers of the same generator: independent of the chip, and the chip's own.
        chosen = torch.randperm(self._test.images, generator=generator)[:images]
        what = f"the chip with seed {seed} of {device!r}"
        self._check_chip(chip, what)
        self._last = None
        with replaced(self._live, chip):
            return self._evaluate(what, chosen=chosen)

    def _group(self) -> int:
        """Return how many chips to evaluate at once; the first one alone says what they take."""
        if not (self._stacking and self._activations):
            return 1
        return group_size(self._live, self._activations, STACK_BYTES)

    def _chip(
        self, device: DeviceModel, seed: int, happens: Corruption | None
    ) -> tuple[Weights, str]:
        """Return a chip, and its name for messages."""
        chip = device.program(self.weights, generator=Generator().manual_seed(seed))
        what = f"the chip with seed {seed} of {device!r}"
        return chip, what if happens is None else f"{what} with {happens!r}"

    def _together(self, chips: list[tuple[Weights, str]]) -> list[tuple[float, float | None]]:
        """Return accuracy and loss of each chip of a group, equal neighbours evaluated once."""
        before = [None if self._last is None else self._last[0], *(values for values, _ in chips)]
        new = [
            last is None or not _equal(last, values)
            for last, (values, _) in zip(before, chips, strict=False)
        ]
        different = [chip for chip, is_new in zip(chips, new, strict=True) if is_new]
        try:
            found = iter(self._stacked([v for v, _ in different], [what for _, what in different]))
        except NotStackableError as error:
            if self._insist:
                raise UnsupportedModelError(
                    f"the network cannot hold several chips at once: {error}. "
                    'Pass stack="auto" or False.'
                ) from error
            self._stacking = False
            return [self.holding(values, what) for values, what in chips]
        results, held = [], self._last
        for (values, _), is_new in zip(chips, new, strict=True):
            held = (values, next(found)) if is_new or held is None else held
            results.append(held[1])
        self._last = held
        return results

    def _stacked(self, chips: list[Weights], whats: list[str]) -> list[tuple[float, float | None]]:
        if not chips:
            return []
        for values, what in zip(chips, whats, strict=True):
            self._check_chip(values, what)
        if self._stack is None:
            self._stack = Stack(self._model, self._live, self._adapter.reset_state)
        return self._test.evaluate_stacked(self._stack, chips, whats)

    def _check_chip(self, values: Weights, what: str) -> None:
        """Raise if a chip's weight is not finite."""
        if all(bool(torch.isfinite(value.sum())) for value in values.values()):
            return  # a sum of finite numbers may overflow, never the other way round
        largest = max(float(w.abs().max()) for w in self._live.values() if w.numel())
        remedy = f"Check the device model, and the network: its largest weight is {largest:.3g}."
        _check_finite(values, f"{what} holds a weight that is not finite", remedy)


def check_device(device: object) -> None:
    """Raise TypeError unless ``device`` is a device model."""
    if not isinstance(device, DeviceModel):
        raise TypeError(
            f"device must be a device model such as Gaussian(sigma=0.1), got {device!r}."
        )


def draw_seeds(count: int, generator: Generator | None) -> tuple[int, ...]:
    """Draw the seeds of chips; number i does not depend on how many there are."""
    device = torch.device("cpu") if generator is None else generator.device
    # One call for each: a vectorised draw may depend on how many there are.
    return tuple(
        int(torch.randint(_SEEDS, (), generator=generator, device=device)) for _ in range(count)
    )


def sigma_of(device: DeviceModel) -> float | None:
    """Return the magnitude of a device's variation, None where it has none."""
    sigma = getattr(device, "sigma", None)
    return float(sigma) if isinstance(sigma, int | float) else None


def _check_finite(weights: Weights, problem: str, remedy: str) -> None:
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{problem}: {name!r}. {remedy}")


def _equal(one: Weights, other: Weights) -> bool:
    def equal(a: Tensor, b: Tensor) -> bool:
        return (a.dtype, a.device) == (b.dtype, b.device) and torch.equal(a, b)

    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
