"""Evaluate a network with other weights, and restore its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from spikewvat.adapters import Adapter
from spikewvat.robustness.activity import Activity
from spikewvat.robustness.corruptions.base import Corruption
from spikewvat.robustness.corruptions.context import corrupt
from spikewvat.robustness.crossbar import Crossbar
from spikewvat.robustness.observer import Observer
from spikewvat.robustness.stacked import Stack
from spikewvat.robustness.testset import TestSet
from spikewvat.weights import Weights, replaced

_Done = TypeVar("_Done")


class Found(NamedTuple):
    """Result of an evaluation: accuracy, loss (NaN without one), images right, any activity."""

    accuracy: float
    loss: float
    right: Tensor
    activity: Activity | None = None


@dataclass
class Run:
    """A network in evaluation mode, ready to hold other weights.

    Args:
        model: The network.
        adapter: Adapter for its framework.
        live: The weights that chips hold.
        test: The network with its images.
        image_axis: Axis of the images in its inputs, or None if unknown.
        observer: Counts spikes and operations in every evaluation; None counts nothing.
        known: Result without variation, if already known.

    Attributes:
        crossbar: What stands around the devices of a chip; not without variation.
    """

    model: nn.Module
    adapter: Adapter
    live: Weights
    test: TestSet
    image_axis: int | None = None
    observer: Observer | None = None
    known: Found | None = None
    crossbar: Crossbar | None = field(default=None, init=False)
    # The last weights evaluated and what they gave: equal chips need no second evaluation.
    _last: tuple[Weights, Found] | None = field(default=None, init=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs."""
        return {**vars(self), "_last": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.known is not None:
            self.no_variation()  # chips without variation need no evaluation here either

    @property
    def weights(self) -> Weights:
        """The weights without variation, detached; do not write to them."""
        return {name: weight.detach() for name, weight in self.live.items()}

    def no_variation(self) -> Found:
        """Evaluate the network without variation; the result is cached."""
        if self.known is None:
            self.check_weights()
            self.known = self._evaluate("the network without variation")
        if self.crossbar is None:
            self._last = ({name: weight.clone() for name, weight in self.live.items()}, self.known)
        return self.known

    def stand_in(self, crossbar: Crossbar | None) -> None:
        """Put another crossbar, or none, around the chips that follow."""
        if crossbar != self.crossbar:
            self.crossbar, self._last = crossbar, None

    def holding(
        self, values: Weights, what: str, *, happens: Corruption | None = None, seed: int = 0
    ) -> Found:
        """Evaluate the network with other weights.

        Args:
            values: Weights with equal names and shapes.
            what: Description of the weights, for messages.
            happens: The corruption of spikes.
            seed: Seed of the chip.
        """
        same = happens is None or not happens.active
        same = same and (self.crossbar is None or not self.crossbar.draws)
        if same and self._last is not None and self._gives_equal(self._last[0], values):
            return self._last[1]
        with self._chip(values, what):
            found = self._evaluate(what, happens, seed)
        self._last = (values, found) if same else None
        return found

    def holding_calibrated(
        self,
        values: Weights,
        what: str,
        calibrated: Callable[[int], AbstractContextManager[_Done]],
        *,
        happens: Corruption | None = None,
        seed: int = 0,
    ) -> tuple[Found, _Done]:
        """Evaluate the network with other weights, after a calibration; return what it did too.

        Args:
            values: Weights with equal names and shapes.
            what: Description of the weights, for messages.
            calibrated: From the chip's seed to a context in which it is calibrated.
            happens: The corruption of spikes.
            seed: Seed of the chip.
        """
        self._last = None
        with self._chip(values, what), calibrated(seed) as done:
            return self._evaluate(what, happens, seed), done

    def holding_on(
        self,
        values: Weights,
        what: str,
        chosen: Tensor,
        seed: int,
        happens: Corruption | None = None,
    ) -> Found:
        """Evaluate the network with other weights on some of the images."""
        self._last = None
        with self._chip(values, what):
            return self._evaluate(what, happens, seed, chosen)

    def holding_each(self, stack: Stack, chips: list[tuple[Weights, str]]) -> list[Found]:
        """Evaluate several chips together; consecutive equal chips are evaluated once.

        Args:
            stack: Stack for the same network.
            chips: Weights and description of each chip.

        Raises:
            NotStackableError: If a layer does not support stacked weights.
        """
        before = [None if self._last is None else self._last[0], *(values for values, _ in chips)]
        new = [
            last is None or not _equal(last, values)
            for last, (values, _) in zip(before, chips, strict=False)
        ]
        different = [chip for chip, is_new in zip(chips, new, strict=True) if is_new]
        for values, what in different:
            self.check_chip(values, what)
        weights, whats = [values for values, _ in different], [what for _, what in different]
        found = iter(self.test.evaluate_stacked(stack, weights, whats) if different else ())
        results, held = [], self._last
        for (chip, _), is_new in zip(chips, new, strict=True):
            held = (chip, Found(*next(found))) if is_new or held is None else held
            results.append(held[1])
        self._last = held
        return results

    def gradient(self) -> Weights:
        """Return the gradient of the mean loss at the weights without variation."""
        return self.test.gradient(self.live)

    @contextmanager
    def _chip(self, values: Weights, what: str) -> Iterator[None]:
        """Let the network be a chip within a block, the crossbar around it."""
        self.check_chip(values, what)
        if self.crossbar is None:
            with replaced(self.live, values):
                yield
            return
        largest = {n: float(w.abs().max()) if w.numel() else 0.0 for n, w in self.weights.items()}
        draws, seen = self.test.draws, self.test.draws.seen
        try:
            with (
                replaced(self.live, values),
                self.crossbar.around(
                    self.model, weights=self.live, adapter=self.adapter, largest=largest
                ),
            ):
                yield
        finally:
            draws.seen = seen  # the network itself draws no more than before

    def _evaluate(
        self,
        what: str,
        happens: Corruption | None = None,
        seed: int = 0,
        chosen: Tensor | None = None,
    ) -> Found:
        """Test the network with the weights it holds now."""
        with ExitStack() as stack:
            if happens is not None:
                chip = corrupt(
                    self.model,
                    happens,
                    seed=seed,
                    adapter=self.adapter,
                    weights=self.live,
                    image_axis=self.image_axis,
                )
                stack.enter_context(chip)
            if self.observer is None:
                return Found(*self.test.evaluate(what, chosen, seed))
            self.observer.forget()
            stack.enter_context(self.observer.watching())
            return Found(*self.test.evaluate(what, chosen, seed), self.observer.found())

    def _gives_equal(self, one: Weights, other: Weights) -> bool:
        """Return whether two chips must give equal results: equal weights, and no random draws."""
        return not self.test.draws.seen and _equal(one, other)

    def check_weights(self) -> None:
        """Raise ValueError if the network holds a weight that is not finite."""
        _check_finite(self.live, "the model holds a weight that is not finite", "Train it anew.")

    def check_chip(self, values: Weights, what: str) -> None:
        """Raise ValueError if a chip holds a weight that is not finite."""
        if all(bool(torch.isfinite(value.sum())) for value in values.values()):
            return  # a sum of finite numbers may overflow, never the other way round
        largest = max(float(w.abs().max()) for w in self.live.values() if w.numel())
        remedy = f"Check the device model, and the network: its largest weight is {largest:.3g}."
        _check_finite(values, f"{what} holds a weight that is not finite", remedy)


def _check_finite(weights: Weights, problem: str, remedy: str) -> None:
    for name, weight in weights.items():
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"{problem}: {name!r}. {remedy}")


def _equal(one: Weights, other: Weights) -> bool:
    def equal(a: Tensor, b: Tensor) -> bool:
        return (a.dtype, a.device) == (b.dtype, b.device) and torch.equal(a, b)

    return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
