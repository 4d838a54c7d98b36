"""The loss around trained weights: along lines to chips, over a plane, and its sharpness."""

from spikewvat.robustness.landscape.histograms import LayerHistogram, weight_histograms
from spikewvat.robustness.landscape.landscape import Landscape
from spikewvat.robustness.landscape.lines import LossLines
from spikewvat.robustness.landscape.sharpness import Sharpness
from spikewvat.robustness.landscape.surface import LossSurface, filter_normalised

__all__ = [
    "Landscape",
    "LayerHistogram",
    "LossLines",
    "LossSurface",
    "Sharpness",
    "filter_normalised",
    "weight_histograms",
]
