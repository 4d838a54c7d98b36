"""Apply measures to chips, in order, and undo them."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

from spikewvat.robustness.calibration.bench import Bench
from spikewvat.robustness.calibration.measure import (
    Correction,
    LayerMeasure,
    Measure,
    NetworkMeasure,
)
from spikewvat.robustness.cost import Cost
from spikewvat.robustness.draws import derived
from spikewvat.robustness.run import Run

_DRIFTED = 0.2
"""Share of a layer's size that may be lost before trims need a scale first."""

_CHECKS = 2  # passes over the samples, before and after


class Repaired(NamedTuple):
    """What was done to one chip.

    Args:
        corrections: What was found, in order.
        cost: What it cost.
    """

    corrections: tuple[Correction, ...]
    cost: Cost

    @property
    def kept(self) -> bool:
        """Whether no check has undone anything."""
        return all(correction.kept for correction in self.corrections)


@dataclass(frozen=True)
class _Group:
    """Measures that are applied and checked together: one of the network, or some layer by layer.

    Args:
        measures: In their order.
    """

    measures: tuple[Measure, ...]

    @property
    def samples(self) -> int:
        """Number of samples that they take, the first ones for all."""
        return max(measure.samples for measure in self.measures)

    @property
    def check(self) -> bool:
        """Whether one of them asks for a check."""
        return any(measure.check for measure in self.measures)

    def cost(self, bench: Bench) -> Cost:
        """Return what they cost for one chip."""
        cost = sum((measure.cost(bench) for measure in self.measures), Cost())
        return cost + Cost(passes=_CHECKS) if self.check else cost

    @contextmanager
    def applied(self, bench: Bench) -> Iterator[list[Correction]]:
        """Calibrate the present chip for a block; yield what was found, if it helps."""
        units = dict(bench.units)
        before = bench.distance(self.samples) if self.check else math.inf
        with ExitStack() as stack:
            found = []
            for step in self._steps(bench):
                found.append(step())
                stack.enter_context(found[-1].applied())
            if self.check and not bench.distance(self.samples) <= before:
                stack.close()
                bench.units = units
                found = [Correction({}, nullcontext, kept=False)]
            yield found

    def _steps(self, bench: Bench) -> Iterator[Callable[[], Correction]]:
        if isinstance(self.measures[0], NetworkMeasure):
            yield functools.partial(self.measures[0].fit, bench)
            return
        for layer, measure in itertools.product(bench.layers, self.measures):
            assert isinstance(measure, LayerMeasure)
            yield functools.partial(measure.fit_layer, bench, layer)


class Repair:
    """What is done to every chip of a report; make it while the network holds its ideal weights.

    Args:
        bench: The network and its samples.
        measures: In the order in which they are applied; neighbours that work layer by layer are
            applied together, one layer after the other, and checked together.
    """

    def __init__(self, bench: Bench, measures: Sequence[Measure]) -> None:
        self._bench, self.measures, self._warned = bench, tuple(measures), False
        self._groups: list[_Group] = []
        for by_layer, found in itertools.groupby(
            self.measures, lambda measure: isinstance(measure, LayerMeasure)
        ):
            neighbours = tuple(found)
            alone = [(measure,) for measure in neighbours]
            self._groups += map(_Group, [neighbours] if by_layer else alone)
        for measure in self.measures:
            bench.look(measure.samples)

    @classmethod
    def of(
        cls, run: Run, measures: Sequence[Measure], loader: Iterable[Any] | None
    ) -> Repair | None:
        """Prepare measures for the chips of a run; None without any.

        Raises:
            ValueError: If there are measures and no samples, or the other way round.
            TypeError: If one is no measure.
        """
        for measure in measures:
            if not isinstance(measure, Measure):
                raise TypeError(
                    f"calibrate must hold measures such as BiasTrim(), got {measure!r}. They are "
                    "in spikewvat.robustness.calibration."
                )
        if bool(measures) != (loader is not None):
            missing = "calibration" if measures else "calibrate"
            raise ValueError(
                f"{missing} is missing. Pass both: calibrate=[Scale(), BiasTrim()] and "
                "calibration=loader, samples that are not those of the test."
            )
        return None if loader is None else cls(Bench(run, loader), measures)

    @contextmanager
    def calibrated(self, seed: int) -> Iterator[Repaired]:
        """Calibrate the chip that the network holds now, for a block.

        Args:
            seed: Seed of the chip.

        Yields:
            What was done to it.
        """
        bench, found = self._bench, list[Correction]()
        bench.generator.manual_seed(derived(seed, "calibration"))
        bench.units.clear()
        if not self._warned:
            self._warn()
        with ExitStack() as stack:
            for group in self._groups:
                found += stack.enter_context(group.applied(bench))
            cost = sum((group.cost(bench) for group in self._groups), Cost())
            yield Repaired(tuple(found), cost)

    def _warn(self) -> None:
        """Warn once where a trim meets weights that have lost their size."""
        trim = next((n for n, measure in enumerate(self.measures) if measure.TRIMS), None)
        scale = next((n for n, measure in enumerate(self.measures) if measure.SCALES), None)
        if trim is None or (scale is not None and scale < trim):
            return
        if scale is not None:
            why = (
                f"{self.measures[trim]!r} comes before {self.measures[scale]!r}: what a trim has "
                "matched is scaled away again. Put the scale first."
            )
        else:
            lost = {n: k for n, k in self._bench.shrinkage().items() if abs(k - 1) > _DRIFTED}
            if not lost:
                return
            name, kept = next(iter(lost.items()))
            why = (
                f"weights {name!r} are {100 * kept:.0f} % of their size on this chip, and "
                f"{self.measures[trim]!r} alone cannot mend that: it may do harm. Put Scale() "
                "first."
            )
        self._warned = True
        warnings.warn(why, stacklevel=2)
