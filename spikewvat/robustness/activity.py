"""Activity of a network: spikes, synaptic operations, firing rates by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Activity:
    """Activity of a network per image, averaged over images (and chips).

    Args:
        spikes: Spikes emitted by all neurons.
        operations: Synaptic operations: one for each synapse of a linear or convolutional layer
            that a spike reaches. Layers with analog input are not counted.
        rates: Spikes per neuron and time step by layer of neurons.
    """

    spikes: float
    operations: float
    rates: Mapping[str, float]

    def shift(self, clean: Activity) -> dict[str, float]:
        """Return the firing rates by layer minus those of the network without variation."""
        return {name: rate - clean.rates[name] for name, rate in self.rates.items()}

    @classmethod
    def mean(cls, found: Sequence[Activity]) -> Activity:
        """Return the equally weighted mean of several activities."""
        count = len(found)
        return cls(
            spikes=sum(one.spikes for one in found) / count,
            operations=sum(one.operations for one in found) / count,
            rates={name: sum(one.rates[name] for one in found) / count for name in found[0].rates},
        )

    def __str__(self) -> str:
        return f"{self.spikes:.4g} spikes, {self.operations:.4g} synaptic operations per image"
