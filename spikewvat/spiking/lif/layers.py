"""A layer of leaky integrate-and-fire neurons."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikewvat.spiking.lif.dynamics import LIF, neurons


class Neurons(nn.Module):
    """Neurons over time: weighted spikes [T, B, ...] to output spikes, same shape.

    Keeps no state between passes.

    Args:
        constants: Decay, threshold, reset and surrogate.
        learn_beta: Learn one decay for the layer, from ``constants.beta`` on.

    Attributes:
        beta: The decays where they are learned or differ between neurons, as on a chip; else None.
    """

    beta: nn.Parameter | None

    def __init__(self, constants: LIF = LIF(), *, learn_beta: bool = False) -> None:  # noqa: B008 -- frozen
        super().__init__()
        self.constants = constants
        start = nn.Parameter(torch.tensor(constants.beta)) if learn_beta else None
        self.register_parameter("beta", start)

    def forward(self, currents: Tensor) -> Tensor:
        """Return the spikes of neurons that start at rest."""
        return self.steps(currents)[0]

    def steps(self, currents: Tensor, carry: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run some of the steps.

        Args:
            currents: Of these steps [t, B, ...].
            carry: What the steps before left; None at the first.

        Returns:
            Spikes, same shape, and what is left for the next step [B, ...].
        """
        return neurons(currents, self.constants, beta=self.beta, carry=carry)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.constants}, learn_beta={self.beta is not None}"
