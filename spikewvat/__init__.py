"""Weight-variation-aware training and chip simulation for spiking neural networks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from spikewvat.adapters import Adapter as Adapter
    from spikewvat.adapters import adapter_for as adapter_for
    from spikewvat.comparison import Comparison as Comparison
    from spikewvat.comparison import Method as Method
    from spikewvat.comparison import compare as compare
    from spikewvat.devices import AbsMax as AbsMax
    from spikewvat.devices import DeviceModel as DeviceModel
    from spikewvat.devices import Gaussian as Gaussian
    from spikewvat.devices import HalfWidth as HalfWidth
    from spikewvat.devices import MinMax as MinMax
    from spikewvat.devices import SixSigma as SixSigma
    from spikewvat.devices import Verified as Verified
    from spikewvat.perturbations import ASAM as ASAM
    from spikewvat.perturbations import AWP as AWP
    from spikewvat.perturbations import GAV as GAV
    from spikewvat.perturbations import HSV as HSV
    from spikewvat.perturbations import SAM as SAM
    from spikewvat.perturbations import Gradient as Gradient
    from spikewvat.perturbations import Mixture as Mixture
    from spikewvat.perturbations import Momentum as Momentum
    from spikewvat.perturbations import Past as Past
    from spikewvat.perturbations import Perturbation as Perturbation
    from spikewvat.robustness import Evaluator as Evaluator
    from spikewvat.robustness.calibrated import calibrated as calibrated
    from spikewvat.robustness.calibration import BiasTrim as BiasTrim
    from spikewvat.robustness.calibration import Distillation as Distillation
    from spikewvat.robustness.calibration import Scale as Scale
    from spikewvat.robustness.chip import Chip as Chip
    from spikewvat.robustness.crossbar import Crossbar as Crossbar
    from spikewvat.robustness.measures import find_measures as find_measures
    from spikewvat.robustness.programming import programming_plan as programming_plan
    from spikewvat.training import WVAT as WVAT
    from spikewvat.training import PerturbedGradient as PerturbedGradient
    from spikewvat.training import Plain as Plain
    from spikewvat.training.averaging import SWA as SWA
    from spikewvat.training.averaging import refresh_batch_norm as refresh_batch_norm
    from spikewvat.training.neurons import NeuronVariation as NeuronVariation
    from spikewvat.weights import Weights as Weights
    from spikewvat.weights import perturbed as perturbed

_HOMES = {
    "adapters": ("Adapter", "adapter_for"),
    "comparison": ("Comparison", "Method", "compare"),
    "devices": ("AbsMax", "DeviceModel", "Gaussian", "HalfWidth", "MinMax", "SixSigma", "Verified"),
    "perturbations": (
        *("ASAM", "AWP", "GAV", "HSV", "SAM", "Mixture", "Perturbation"),
        *("Gradient", "Momentum", "Past"),
    ),
    "robustness": ("Evaluator",),
    "robustness.calibrated": ("calibrated",),
    "robustness.calibration": ("BiasTrim", "Distillation", "Scale"),
    "robustness.chip": ("Chip",),
    "robustness.crossbar": ("Crossbar",),
    "robustness.measures": ("find_measures",),
    "robustness.programming": ("programming_plan",),
    "training": ("WVAT", "PerturbedGradient", "Plain"),
    "training.averaging": ("SWA", "refresh_batch_norm"),
    "training.neurons": ("NeuronVariation",),
    "weights": ("Weights", "perturbed"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)
_PARTS = (*_HOMES, "conversion", "data", "lab", "spiking")


def __getattr__(name: str) -> object:
    """Import public names and parts lazily, so that ``import spikewvat`` does not load torch."""
    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
