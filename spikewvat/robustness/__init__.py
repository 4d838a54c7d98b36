"""How many chips work: accuracy of a network on the weights that simulated chips hold."""

from spikewvat.robustness.chips import clean_accuracy, simulate_chips, sweep
from spikewvat.robustness.results import ChipReport, Degradation, Yield
from spikewvat.robustness.statistics import (
    Interval,
    mean_interval,
    sample_std,
    student_t_quantile,
    wilson_interval,
)

__all__ = [
    "ChipReport",
    "Degradation",
    "Interval",
    "Yield",
    "clean_accuracy",
    "mean_interval",
    "sample_std",
    "simulate_chips",
    "student_t_quantile",
    "sweep",
    "wilson_interval",
]
