"""Layers of leaky integrate-and-fire neurons."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.spiking.layers import Linear
from spikewvat.spiking.lif.dynamics import LIF, neurons
from spikewvat.spiking.lif.recurrent import State, check_alpha, recurrent, stepwise


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


class Recurrent(nn.Module):
    """Neurons that also receive each other's spikes of the step before: [T, B, N] to the same.

    Keeps no state between passes.

    Args:
        features: Number of neurons N.
        constants: Decay, threshold, reset and surrogate.
        alpha: Share of a synaptic current that a step leaves, in [0, 1]; 0 for currents of one
            step.
        learn_beta: Learn one decay for the layer, from ``constants.beta`` on.

    Attributes:
        recurrent: The synapses between the neurons, N x N, without bias; perturbed like all others.
        beta: The decays where they are learned or differ between neurons, as on a chip; else None.

    Raises:
        ValueError: If ``alpha`` is out of range, or the input does not have so many neurons.

    Example:
        >>> net = nn.Sequential(Linear(700, 64), Recurrent(64))
        >>> net(torch.zeros(5, 2, 700)).shape
        torch.Size([5, 2, 64])
    """

    beta: nn.Parameter | None

    def __init__(
        self,
        features: int,
        constants: LIF = LIF(),  # noqa: B008 -- frozen
        *,
        alpha: float = 0.0,
        learn_beta: bool = False,
    ) -> None:
        super().__init__()
        check_alpha(alpha)
        self.constants, self.alpha = constants, alpha
        self.recurrent = Linear(features, features)
        start = nn.Parameter(torch.tensor(constants.beta)) if learn_beta else None
        self.register_parameter("beta", start)

    def forward(self, currents: Tensor) -> Tensor:
        """Return the spikes of neurons that start at rest."""
        return self.steps(currents)[0]

    def steps(self, currents: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Run some of the steps.

        Args:
            currents: Of these steps [t, B, N].
            state: What the steps before left; None at the first.

        Returns:
            Spikes, same shape, and what is left for the next step.
        """
        synapses, constants = self.recurrent, self.constants
        about: dict[str, Any] = {"alpha": self.alpha, "beta": self.beta, "state": state}
        # Whoever watches or replaces calls of the synapses, as calibration does, gets to see them.
        hooks = synapses._forward_hooks or synapses._forward_pre_hooks or synapses._backward_hooks
        if hooks or "forward" in vars(synapses):
            return stepwise(currents, synapses, constants, **about)
        return recurrent(currents, synapses.weight, constants, **about)

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"{self.constants}, alpha={self.alpha}, learn_beta={self.beta is not None}"
