"""Activity of a network: spikes, synaptic operations, firing rates by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeAlias

from spikewvat.serialisation import Fraction, Numbers

Count: TypeAlias = Annotated[float, Numbers(0, missing=False)]
"""A mean number of things."""


@dataclass(frozen=True)
class Activity:
    """Activity of a network per image, averaged over images (and chips).

    Args:
        spikes: Spikes emitted by all neurons.
        operations: Synaptic operations: one for each synapse of a linear or convolutional layer
            that a spike reaches. Layers with analog input are not counted. NaN where other layers
            hold synapses too (recurrent ones of torch, attention, matrices of one's own).
        rates: Spikes per neuron and time step by layer of neurons.
    """

    spikes: Count
    operations: Annotated[float, Numbers(0)]
    rates: Mapping[str, Fraction]

    def shift(self, clean: Activity) -> dict[str, float]:
        """Return the firing rates by layer minus those of the network without variation."""
        _check_layers((clean, self))
        return {name: rate - clean.rates[name] for name, rate in self.rates.items()}

    @classmethod
    def mean(cls, found: Sequence[Activity]) -> Activity:
        """Return the equally weighted mean of several activities.

        Raises:
            ValueError: If they are not of the same layers.
        """
        _check_layers(found)
        count = len(found)
        return cls(
            spikes=sum(one.spikes for one in found) / count,
            operations=sum(one.operations for one in found) / count,
            rates={name: sum(one.rates[name] for one in found) / count for name in found[0].rates},
        )

    def __str__(self) -> str:
        unknown = math.isnan(self.operations)
        operations = "unknown" if unknown else f"{self.operations:.4g}"
        return f"{self.spikes:.4g} spikes, {operations} synaptic operations per image"


def _check_layers(found: Sequence[Activity]) -> None:
    """Raise ValueError unless all are of the same layers of neurons."""
    first = found[0].rates.keys()
    other = next((one for one in found if one.rates.keys() != first), None)
    if other is not None:
        raise ValueError(
            f"firing rates are of the layers {', '.join(first)} and of {', '.join(other.rates)}, "
            "expected the same layers."
        )
