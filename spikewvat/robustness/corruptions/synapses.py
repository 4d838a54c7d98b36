"""Layers of synapses: the numbers of steps and images in their inputs."""

from __future__ import annotations

from torch import Tensor, nn


def steps_of(module: nn.Module, x: Tensor, batch: int) -> tuple[int, int]:
    """Return how many time steps of a batch a linear or convolutional layer sees in one call.

    Args:
        module: The layer.
        x: Its input ``[T, B, ...]``, ``[T B, ...]`` or ``[B, ...]``.
        batch: Images B.

    Returns:
        The number of steps, and the rows of the first axis in each; one step if unknown.
    """
    flat = flat_dims(module)
    if flat is not None and x.dim() == flat + 1 and x.shape[1] == batch:
        return len(x), 1
    if flat is not None and x.dim() == flat and batch and len(x) % batch == 0:
        return len(x) // batch, batch
    return 1, len(x)


def flat_dims(module: nn.Module) -> int | None:
    """Return the number of axes of a batch without time; None for any other kind of layer."""
    if isinstance(module, nn.Linear):
        return 2
    for dims, kinds in enumerate(
        ((nn.Conv1d, nn.ConvTranspose1d), (nn.Conv2d, nn.ConvTranspose2d), (nn.Conv3d,)), start=3
    ):
        if isinstance(module, kinds):
            return dims
    return None
