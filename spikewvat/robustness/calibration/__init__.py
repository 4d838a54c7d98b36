"""What can be done to a chip after programming, without writing its cells again."""

from spikewvat.robustness.calibration.bench import Bench
from spikewvat.robustness.calibration.converted import ConversionTrim
from spikewvat.robustness.calibration.learning import BatchNorm, Distillation, Learned, Learning
from spikewvat.robustness.calibration.measure import (
    Correction,
    LayerMeasure,
    Measure,
    NetworkMeasure,
)
from spikewvat.robustness.calibration.repair import Repair
from spikewvat.robustness.calibration.trims import (
    BiasTrim,
    GainTrim,
    Scale,
    ThresholdTrim,
    Trim,
)

__all__ = [
    "BatchNorm",
    "Bench",
    "BiasTrim",
    "ConversionTrim",
    "Correction",
    "Distillation",
    "GainTrim",
    "LayerMeasure",
    "Learned",
    "Learning",
    "Measure",
    "NetworkMeasure",
    "Repair",
    "Scale",
    "ThresholdTrim",
    "Trim",
]
