"""The numbers for one real chip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Unpack

from torch import Tensor, nn

from spikewvat.robustness.calibration.measure import Correction, Measure
from spikewvat.robustness.calibration.repair import Repair
from spikewvat.robustness.calibration.trims import BiasTrim, Scale
from spikewvat.robustness.cost import Cost
from spikewvat.robustness.evaluator import Evaluator
from spikewvat.robustness.simulate import EvaluatorOptions
from spikewvat.weights import Weights, check_matching, replaced

DEFAULT: tuple[Measure, ...] = (Scale(), BiasTrim())


@dataclass(frozen=True, eq=False)
class Calibration:
    """What one chip needs.

    Args:
        numbers: What is stored for it, by layer and kind: ``"conv1.offset"``, ``"fc.scale"``.
        cost: What it took.
        kept: False if a check has undone something, which then has no numbers.
    """

    numbers: dict[str, Tensor]
    cost: Cost
    kept: bool
    _live: Weights = field(repr=False)
    _chip: Weights = field(repr=False)
    _corrections: tuple[Correction, ...] = field(repr=False)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network be the calibrated chip within a block; then it is as before."""
        with ExitStack() as stack:
            stack.enter_context(replaced(self._live, self._chip))
            for correction in self._corrections:
                stack.enter_context(correction.applied())
            yield


def calibrated(
    model: nn.Module,
    chip_weights: Weights,
    calibration: Iterable[Any],
    measures: Sequence[Measure] = DEFAULT,
    *,
    seed: int = 0,
    **options: Unpack[EvaluatorOptions],
) -> Calibration:
    """Return the numbers that make one real chip as good as they can.

    Args:
        model: The network that was programmed, with the weights that were aimed at; unchanged.
        chip_weights: The weights as they were read from the chip, by name.
        calibration: Batches of samples.
        measures: What may be done, in order; one factor a layer and a bias trim by default.
        seed: Of what measures draw, such as the noise of a reading.
        **options: Options of :class:`~spikewvat.Evaluator`.

    Returns:
        The numbers to store for this chip, and a context that shows what they do.

    Raises:
        ValueError: If names or shapes of the weights differ from the network's.
        DataError: If there are too few samples.
        UnsupportedModelError: If a measure does not apply to the network.

    Example:
        >>> import torch
        >>> net = nn.Linear(2, 2)
        >>> chip = {"weight": net.weight.detach() * 0.5}
        >>> found = calibrated(net, chip, [(torch.rand(4, 2), torch.zeros(4).long())], [Scale()])
        >>> found.numbers["weight.scale"].tolist()
        [2.0]
    """
    test = Evaluator(model, calibration, **options)
    with test.bench(calibration) as bench:
        check_matching(bench.live, chip_weights, what="chip_weights")
        repair = Repair(bench, measures)
        chip = {name: weight.detach().clone() for name, weight in chip_weights.items()}
        with replaced(bench.live, chip), repair.calibrated(seed) as done:
            numbers = {name: n for one in done.corrections for name, n in one.numbers.items()}
        return Calibration(numbers, done.cost, done.kept, bench.live, chip, done.corrections)
