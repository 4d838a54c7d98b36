"""Negative feedback: outputs under more noise are subtracted from those that are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spikewvat.devices.base import DeviceModel, check_at_least_zero
from spikewvat.errors import UnsupportedModelError
from spikewvat.perturbations import HSV
from spikewvat.training import Backward, Closure, PerturbedGradient
from spikewvat.weights import Weights, perturbed

Outputs = list[Tensor]
"""Output of the model in each of its calls within a pass."""


class NegativeFeedback(PerturbedGradient):
    r"""Oriented variational forward: the loss of noisy outputs minus a share of noisier ones.

    .. math:: L\left(\frac{1}{n + 1} \left(f(w + w_v) - \beta \sum_{i=0}^{n-1}
              10^{-i} f(w + w_i)\right)\right)

    :math:`w_v` is a draw of the device, and :math:`w_i` another one, wider by a factor. Gradients
    flow through all outputs. n + 1 gradients and n forward passes a step; running statistics of
    batch norm change in the pass at :math:`w_v`.

    Args:
        model: The model that the closure calls; its output is one tensor.
        device: The device model.
        gamma: Scale of the noise (dimensionless), at least 0.
        beta: Strength :math:`\beta` of the feedback, at least 0.
        wider: Width of the noise of each feedback, as a factor of that of the output.
        **options: ``p``, ``weights``, ``generator`` and others of
            :class:`spikewvat.training.GradientMethod`.

    Raises:
        ValueError: If a parameter is out of range.
        UnsupportedModelError: If the model has no synaptic weights or unknown state; in a step, if
            its output is not one tensor.

    References:
        Negative Feedback Training (Qin et al., 2023), https://arxiv.org/abs/2305.14561. The loss
        and the order of the widths (0.45, 0.4 and 0.35 for a noise of 0.3) are those of the
        authors' code, https://github.com/YifanQin-ND/NF_Training, ``src/loss_fn.py`` and
        ``src/train_fn.py``; the noise is the device's.
    """

    def __init__(
        self,
        model: nn.Module,
        device: DeviceModel,
        *,
        gamma: float = 1.0,
        beta: float = 0.01,
        wider: Sequence[float] = (0.45 / 0.3, 0.4 / 0.3, 0.35 / 0.3),
        **options: Any,
    ) -> None:
        check_at_least_zero("beta", beta)
        for factor in wider:
            check_at_least_zero("wider", factor)
        super().__init__(model, HSV(device, gamma), **options)
        self.shares = [beta * 10.0**-place for place in range(len(wider))]
        self._feedback = [HSV(device, gamma * factor) for factor in wider]

    def _step(self, closure: Closure, backward: Backward) -> Tensor:
        noise = [one(self.weights, generator=self._noise) for one in self._feedback]
        with self._on_the_side(), torch.no_grad():
            subtracted = [self._outputs(closure, change) for change in noise]
        count, place = 1 + len(noise), 0
        slopes: dict[int, Tensor] = {}

        def mixed(output: Tensor) -> Tensor:
            nonlocal place
            call, place = place, place + 1
            for share, outputs in zip(self.shares, subtracted, strict=True):
                output = output - share * outputs[call]
            output = output / count
            if output.requires_grad:
                output.register_hook(  # type: ignore[no-untyped-call]
                    lambda slope: slopes.__setitem__(call, slope.detach())
                )
            return output

        with self._exchanged(mixed):
            plan = self.perturbation.plan(self.weights, generator=self._noise)
            loss = self._pass(closure, backward, plan)
        for share, change in zip(self.shares, noise, strict=True):
            self._add_through(closure, change, -share / count, slopes)
        return loss

    def _add_through(
        self, closure: Closure, change: Weights, factor: float, slopes: dict[int, Tensor]
    ) -> None:
        """Add the gradient that flows through the outputs at changed weights."""
        with self._on_the_side() as parameters:
            with perturbed(self.weights, change, buffers=self._buffers):
                outputs = self._called(closure)
                parts = [(factor * outputs[call] * slope).sum() for call, slope in slopes.items()]
                sum(parts, torch.zeros(())).backward()  # type: ignore[no-untyped-call]
            kept = self._kept(parameters)
        self._add(parameters, kept)

    def _outputs(self, closure: Closure, change: Weights) -> Outputs:
        with perturbed(self.weights, change, buffers=self._buffers):
            return self._called(closure)

    def _called(self, closure: Closure) -> Outputs:
        """Run the closure; return what the model made in each call."""
        outputs: Outputs = []

        def note(output: Tensor) -> Tensor:
            outputs.append(output)
            return output

        with self._exchanged(note):
            self._run(closure)
        return outputs

    @contextmanager
    def _exchanged(self, exchange: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Let every output of the model pass through a function within a block."""

        def hook(module: nn.Module, args: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise UnsupportedModelError(
                    f"{type(module).__name__} returns {type(output).__name__}, expected one "
                    "tensor: negative feedback mixes outputs. Wrap the model."
                )
            return exchange(output)

        handle = self.model.register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()
