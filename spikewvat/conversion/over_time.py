"""Run single-step networks of other frameworks over time."""

from __future__ import annotations

from torch import Tensor, nn

from spikewvat.conversion.network import check_time_steps


class OverTime(nn.Module):
    """Presents still images to a single-step network for several steps and averages its outputs.

    This lets networks converted by SpikingJelly's ``ann2snn`` be tested on chips, fine-tuned and
    compared like our own. Those functions reset the neurons through the adapter of their framework;
    if you call the network directly, reset them yourself before every pass.

    Args:
        network: Called with images ``[B, ...]`` once per step; returns the output ``[B, classes]``
            of that step.
        time_steps: Number of steps T.

    Raises:
        ValueError: If ``time_steps`` is below 1.
    """

    def __init__(self, network: nn.Module, time_steps: int) -> None:
        super().__init__()
        check_time_steps(time_steps)
        self.network, self.time_steps = network, time_steps

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean output [B, classes]."""
        total: Tensor = self.network(images)
        for _ in range(self.time_steps - 1):
            total = total + self.network(images)
        return total / self.time_steps
