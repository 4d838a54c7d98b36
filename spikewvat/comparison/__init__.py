"""Compare training methods on your own network, across devices and corruptions."""

from spikewvat.comparison.methods import METHODS, Method, Steps, Train
from spikewvat.comparison.results import Comparison, Failure, Row
from spikewvat.comparison.run import CORRUPTIONS, DEVICES, SIGMAS, compare

__all__ = [
    "CORRUPTIONS",
    "DEVICES",
    "METHODS",
    "SIGMAS",
    "Comparison",
    "Failure",
    "Method",
    "Row",
    "Steps",
    "Train",
    "compare",
]
