"""Networks of other makers that take one step at a time."""

from __future__ import annotations

from torch import Tensor, nn

from spikewvat.conversion.network import check_time_steps


class OverTime(nn.Module):
    """Show still images to a step-by-step network for some time and average its outputs.

    A network that SpikingJelly's ``ann2snn`` converted can then be tested on chips, fine-tuned and
    compared by the calls that take our own. Neurons are reset by those, through their framework's
    adapter; reset them yourself before a pass of your own.

    Args:
        network: Takes images ``[B, ...]`` once for each step and returns that step's output
            ``[B, classes]``.
        time_steps: Steps T.

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
