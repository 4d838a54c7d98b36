"""Accuracy of a network on simulated chips: how many of them work."""

from spikewvat.robustness.activity import Activity
from spikewvat.robustness.corruptions import corrupt
from spikewvat.robustness.differences import Difference, Differences, paired_differences
from spikewvat.robustness.evaluator import Evaluator
from spikewvat.robustness.hierarchy import (
    Hierarchy,
    hierarchical,
    over_trainings,
)
from spikewvat.robustness.planning import chips_needed, chips_needed_per_training
from spikewvat.robustness.results import ChipReport, Degradation, Yield
from spikewvat.robustness.simulate import simulate_chips
from spikewvat.robustness.split import Split, best_split
from spikewvat.robustness.statistics import (
    Interval,
    holm,
    mean_interval,
    sample_std,
    student_t_p_value,
    student_t_quantile,
    wilson_interval,
)
from spikewvat.robustness.yields import TrainingYield, yield_over_trainings
from spikewvat.spiking.losses import class_scores, population_scores

__all__ = [
    "Activity",
    "ChipReport",
    "Degradation",
    "Difference",
    "Differences",
    "Evaluator",
    "Hierarchy",
    "Interval",
    "Split",
    "TrainingYield",
    "Yield",
    "best_split",
    "chips_needed",
    "chips_needed_per_training",
    "class_scores",
    "corrupt",
    "hierarchical",
    "holm",
    "mean_interval",
    "over_trainings",
    "paired_differences",
    "population_scores",
    "sample_std",
    "simulate_chips",
    "student_t_p_value",
    "student_t_quantile",
    "wilson_interval",
    "yield_over_trainings",
]
