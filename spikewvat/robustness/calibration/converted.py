"""Calibrate the neurons of a converted network on the chip, by what its ANN does."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from spikewvat.adapters.neurons import Entry, exchanged_entries
from spikewvat.conversion import (
    SpikingNetwork,
    bias_targets,
    calibrate_biases,
    calibrate_starts,
    calibrate_thresholds,
)
from spikewvat.errors import UnsupportedModelError
from spikewvat.robustness.calibration.bench import Bench
from spikewvat.robustness.calibration.measure import Correction, NetworkMeasure
from spikewvat.robustness.calibration.trims import check_samples
from spikewvat.robustness.cost import Cost
from spikewvat.weights import replaced

_CALIBRATE = {
    "biases": calibrate_biases,
    "starts": calibrate_starts,
    "thresholds": calibrate_thresholds,
}
_TENSORS = {"biases": "bias", "starts": "start", "thresholds": "threshold"}
_CHECKS = 2  # passes over the samples that decide whether a calibration is kept


@dataclass(frozen=True)
class ConversionTrim(NetworkMeasure):
    """Match a converted network's neurons with the activations of its ANN, if that helps.

    One sample of four is held out: where its class probabilities do not come closer to the ANN's,
    nothing is changed and nothing stored. The targets are the ANN's, so that what few time steps
    lose is corrected as well as what the chip does. The same measure again starts from what the
    first one left. The read-out has no neurons: put :class:`BiasTrim` behind it for its offsets.

    Args:
        what: ``"biases"``, one offset of the current for each channel
            (:func:`~spikewvat.conversion.calibrate_biases`); ``"starts"``, the same charge before
            the first step (:func:`~spikewvat.conversion.calibrate_starts`); ``"thresholds"``,
            those with the least error for the chip's weights
            (:func:`~spikewvat.conversion.calibrate_thresholds`).
        samples: Number of unlabelled calibration samples.

    Raises:
        ValueError: If an argument is out of range.
    """

    what: Literal["biases", "starts", "thresholds"] = "biases"
    samples: int = 256
    TRIMS: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_samples(self.samples)
        if self.what not in _CALIBRATE:
            raise ValueError(f"what must be one of {', '.join(_CALIBRATE)}, got {self.what!r}.")

    def fit(self, bench: Bench) -> Correction:
        """Return the constants of the present chip's neurons (see :meth:`NetworkMeasure.fit`)."""
        snn = _converted(bench)
        images = [inputs for inputs, _ in bench.batches(self.samples)]
        with replaced(bench.live, bench.ideal_weights):
            targets = bias_targets(snn, images)
        tables: dict[tuple[str, str], dict[str, Any]] = {
            (layer, kind): vars(neurons)[kind]
            for layer, neurons in snn.neurons().items()
            for kind in ("_parameters", "_buffers")
        }
        before = {place: dict(table) for place, table in tables.items()}
        kept = _CALIBRATE[self.what](snn, images, targets)
        changed: list[Entry] = []
        numbers: dict[str, Tensor] = {}
        for (layer, kind), table in tables.items():
            old = before[layer, kind]
            new = {key: value for key, value in table.items() if value is not old[key]}
            changed += [(table, key, value) for key, value in new.items()]
            if (found := new.get(_TENSORS[self.what])) is not None:
                numbers[f"{layer}.{_TENSORS[self.what]}"] = found.detach().clone()
            table.update(old)
        return Correction(numbers, functools.partial(exchanged_entries, *changed), kept)

    def cost(self, bench: Bench) -> Cost:
        """Return what it costs (see :meth:`Measure.cost`)."""
        snn = _converted(bench)
        passes = 1 if self.what == "thresholds" else len(snn.neurons())
        numbers = sum(len(rates) for rates in bench.ideal_rates(self.samples).values())
        return Cost(samples=self.samples, passes=_CHECKS + passes, numbers=numbers)


def _converted(bench: Bench) -> SpikingNetwork:
    if isinstance(bench.model, SpikingNetwork):
        return bench.model
    raise UnsupportedModelError(
        f"ConversionTrim calibrates networks made by spikewvat.conversion.convert, but the model "
        f"is a {type(bench.model).__name__}. Use BiasTrim() or ThresholdTrim()."
    )
