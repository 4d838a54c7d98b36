"""The crossbar around the devices."""

from spikewvat.robustness.crossbar.array import Array
from spikewvat.robustness.crossbar.crossbar import Crossbar

__all__ = ["Array", "Crossbar"]
