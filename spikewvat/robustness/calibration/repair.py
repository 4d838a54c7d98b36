"""Apply measures to chips, in order, and undo them."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

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

_Work: TypeAlias = Callable[[Bench], Correction]


class Repair:
    """What is done to every chip of a report; make it while the network holds its ideal weights.

    Args:
        bench: The network and its samples.
        measures: In the order in which they are applied; neighbours that work layer by layer are
            applied together, one layer after the other.
    """

    def __init__(self, bench: Bench, measures: Sequence[Measure]) -> None:
        self._bench, self.measures, self._warned = bench, tuple(measures), False
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
    def calibrated(self, seed: int) -> Iterator[tuple[list[Correction], Cost]]:
        """Calibrate the chip that the network holds now, for a block.

        Args:
            seed: Seed of the chip.

        Yields:
            What was found, in order, and what it cost.
        """
        bench, found = self._bench, []
        bench.generator.manual_seed(derived(seed, "calibration"))
        bench.units.clear()
        if not self._warned:
            self._warn()
        with ExitStack() as stack:
            for work in self._in_order():
                correction = work(bench)
                stack.enter_context(correction.applied())
                found.append(correction)
            yield found, sum((measure.cost(bench) for measure in self.measures), Cost())

    def _in_order(self) -> Iterator[_Work]:
        """Yield the single steps of a calibration."""
        for by_layer, group in itertools.groupby(
            self.measures, lambda measure: isinstance(measure, LayerMeasure)
        ):
            neighbours = list(group)
            if by_layer:
                for layer, measure in itertools.product(self._bench.layers, neighbours):
                    assert isinstance(measure, LayerMeasure)
                    yield functools.partial(measure.fit_layer, layer=layer)
                continue
            for measure in neighbours:
                assert isinstance(measure, NetworkMeasure)
                yield measure.fit

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
