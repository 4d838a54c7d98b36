"""Plain training, as a method like all others."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from spikewvat.adapters import Adapter, ResetState
from spikewvat.training.base import Backward, Closure, GradientMethod


class Plain(GradientMethod):
    """The gradient at the weights as they are, from fresh neuron state.

    It draws nothing and needs no synaptic weights.

    Args:
        model: The model that the closure calls, or what it wraps.
        adapter: Defaults to the adapter for the model's framework.
        reset_state: Resets layers that no adapter knows (see :func:`adapter_for`).

    Raises:
        UnsupportedModelError: If the model has unknown state.

    Example:
        >>> import torch
        >>> model = nn.Linear(3, 2)
        >>> loss = Plain(model).backward(lambda: model(torch.ones(4, 3)).square().mean())
        >>> model.weight.grad.shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        adapter: Adapter | None = None,
        reset_state: ResetState | None = None,
    ) -> None:
        super().__init__(
            model,
            weights={},
            adapter=adapter,
            reset_state=reset_state,
            generator=Generator(),  # so that no global one is drawn from
            warn_after=None,
        )

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        return self._pass(closure, backward)
